"""Several roots, and roots that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http.serving import serving

LAYOUT = '{"imageLayoutVersion":"1.0.0"}'
INDEX = '{"schemaVersion":2,"manifests":[]}'


def lay_out(root: Path, name: str) -> None:
    (root / name / "blobs").mkdir(parents=True)
    (root / name / "oci-layout").write_text(LAYOUT)
    (root / name / "index.json").write_text(INDEX)


def test_name_in_two_roots_is_reported(tmp_path: Path) -> None:
    home, second = tmp_path / "home", tmp_path / "second"
    lay_out(home / "root", "app")
    lay_out(second, "app")
    with serving(home, "--root", str(second)) as server, server.client() as client:
        for _ in range(2):
            assert client.get("/v2/_catalog").json() == {"repositories": ["app"]}
        assert server.log().count("app: it is in more than one root") == 1


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe"])
def test_job_leaves_no_marker_in_an_empty_directory(tmp_path: Path, job: str) -> None:
    """The mount point of a share that is away: our marker there would make `serve` take it for the root."""
    done = subprocess.run(
        [sys.executable, "-m", "zotctl.cli", job, "--root", str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, os.listdir(tmp_path)) == (10, [])
    assert "is it mounted?" in done.stderr


@pytest.mark.parametrize(("option", "value"), [("--repo", "DAMAGED"), ("--tag", "-x")])
def test_import_refuses_a_bad_name_as_wrong_usage(tmp_path: Path, option: str, value: str) -> None:
    lay_out(tmp_path, "source")
    root = tmp_path / "root"
    root.mkdir()
    command = [sys.executable, "-m", "zotctl.cli", "import-layout", str(tmp_path / "source"), "--root", str(root)]
    done = subprocess.run([*command, f"{option}={value}"], capture_output=True, text=True)
    assert (done.returncode, os.listdir(root)) == (2, [])
    assert option in done.stderr and value in done.stderr
