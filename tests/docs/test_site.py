"""The site of the documentation is complete: `mkdocs build --strict` finds each page and each link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.machine import HERE
from tests.tools import need
from zotctl.cli.docs import subcommands


def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    need("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in subcommands():
        page = (tmp_path / "site" / "reference" / f"zotctl-{name}" / "index.html").read_text()
        assert f'<h1 id="zotctl-{name}">' in page and "<dt><code>--root DIR</code></dt>" in page
    sources = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    assert not [found for text in sources for found in re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css))"', text)]
