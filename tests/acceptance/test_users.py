"""Jobs that cron runs as somebody who may not write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.test_roots import lay_out
from tests.http.serving import serving
from tests.tools import missing, need


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("job", ["gc", "dedupe"])
def test_job_of_another_user_ends_with_12(tmp_path: Path, job: str) -> None:
    with serving(tmp_path / "home") as server:
        lay_out(server.root, "app")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
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
