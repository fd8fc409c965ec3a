"""Jobs that cron runs as a user who may not write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.test_roots import lay_out
from tests.http.serving import serving
from tests.tools import missing, need


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that every user may read. `tmp_path` is none: each run of pytest that starts closes the directory
    above it again."""
    with TemporaryDirectory(prefix="zotctl-users-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("job", ["gc", "dedupe"])
def test_job_of_another_user_ends_with_12(readable: Path, job: str) -> None:
    with serving(readable / "home") as server:
        lay_out(server.root, "app")
    need("setpriv")
    other = ["setpriv", "--reuid", "4321", "--regid", "4321", "--clear-groups"]
    if subprocess.run([*other, sys.executable, "-c", "import zotctl.cli"], capture_output=True).returncode != 0:
        missing("a checkout that other users can read")
    command = [*other, sys.executable, "-m", "zotctl.cli", job, "--root", str(server.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 12, done.stderr
    assert "can't be written" in done.stderr
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
