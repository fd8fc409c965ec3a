"""A directory that is no store, or not the one that was meant: exit 10 with the question, and nothing is made there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import lay_out

IMAGE = images.image()


def zotctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zotctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


JOBS = [["gc"], ["gc", "--dry-run"], ["gc", "--list-trash"], ["scrub"], ["scrub", "--dry-run"], ["dedupe"],
        ["dedupe", "--dry-run"], ["verify"], ["verify", "--deep"]]  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
@pytest.mark.parametrize("what", ["absent", "empty", "of other things"])
def test_it_ends_with_10_and_asks_whether_it_is_mounted(tmp_path: Path, job: list[str], what: str) -> None:
    root = tmp_path / "root"
    if what != "absent":
        root.mkdir()
    if what == "of other things":
        (root / "photos").mkdir()
        (root / "photos/one.jpg").write_bytes(b"x")
    before = below(tmp_path)
    done = zotctl(*job, "--root", str(root))
    assert done.returncode == 10, done.stdout + done.stderr
    assert "is it mounted?" in done.stdout + done.stderr
    assert below(tmp_path) == before


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe"])
def test_a_dry_run_on_layouts_that_nobody_has_served_makes_nothing(tmp_path: Path, job: str) -> None:
    lay_out(tmp_path, "app", IMAGE, "v1")
    before = below(tmp_path)
    done = zotctl(job, "--dry-run", "--root", str(tmp_path), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["errors"] == []
    assert below(tmp_path) == before


def test_an_empty_store_has_nothing_to_do(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", IMAGE, "v1")
    assert zotctl("gc", "--root", str(tmp_path)).returncode == 0
    assert os.path.isfile(tmp_path / ".zotctl/version")
    (tmp_path / "app").rename(tmp_path.parent / f"{tmp_path.name}-gone")
    for job in ("verify", "gc", "scrub", "dedupe"):
        assert zotctl(job, "--root", str(tmp_path)).returncode == 0


def test_verify_looks_at_layouts_of_bad_names_too(tmp_path: Path) -> None:
    lay_out(tmp_path, "Not A Name", IMAGE, "v1")
    done = zotctl("verify", "--root", str(tmp_path))
    assert (done.returncode, "nothing in it is served" in done.stderr) == (0, True)


def test_a_file_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "images.tar").write_bytes(b"x")
    done = zotctl("gc", "--root", str(tmp_path / "images.tar"))
    assert (done.returncode, "is a file, not a directory" in done.stderr) == (10, True)
