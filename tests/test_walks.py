"""The measure of the walks runs, and docs/walks.md shows what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
ROW = re.compile(r"^\| (.+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def test_the_walks_are_measured() -> None:
    command = [sys.executable, "-m", "tests.walks"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    measured = [(walk, *map(int, figures)) for walk, *figures in ROW.findall(done.stdout)]
    assert all(0 < files <= functions and 0 < depth <= functions for _, files, functions, depth in measured)
    shown = [walk for walk, *_ in ROW.findall((HERE / "docs" / "walks.md").read_text())]
    assert [walk for walk, *_ in measured] == shown
