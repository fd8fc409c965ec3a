"""What the jobs print, and how they end, for whoever runs them from a script or from cron."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.cli.running import python, zotctl
from tests.jobs.layouts import blob, flip, lay_out
from zotctl import __version__

JOBS = ("gc", "scrub", "dedupe", "verify", "import-layout")


def words_of(job: str) -> list[str]:
    return [job, os.curdir] if job == "import-layout" else [job]


def document(*words: str, cwd: Path | None = None, environ: dict[str, str] | None = None) -> tuple[int, Any, str]:
    done = zotctl(*words, "--json", cwd=cwd, environ=environ)
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("job", JOBS)
def test_a_root_that_is_not_there_is_a_document(job: str, tmp_path: Path) -> None:
    code, told, stderr = document(*words_of(job), "--root", str(tmp_path / "none"))
    assert (code, told["exit_code"]) == (10, 10)
    assert (told["schema"], told["command"], told["version"]) == (f"zotctl.{job}/1", job, __version__)
    (error,) = told["errors"]
    assert error["error"] == "NoSuchStore" and "no such directory" in error["reason"]
    assert error["reason"] in stderr
    assert (told["items"], told["findings"]) == ([], [])


@pytest.mark.parametrize("job", JOBS)
def test_a_root_that_is_not_there_is_lines_that_end_with_a_summary(job: str, tmp_path: Path) -> None:
    done = zotctl(*words_of(job), "--root", str(tmp_path / "none"), "--output", "jsonl")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["start", "error", "summary"]
    assert (done.returncode, lines[-1]["exit_code"], lines[0]["schema"]) == (10, 10, f"zotctl.{job}/1")


def test_a_configuration_is_refused_in_the_form_that_the_environment_asks_for(tmp_path: Path) -> None:
    (tmp_path / "zotctl.toml").write_text("[storage]\ngc_dely = '1h'\n[log]\nlevel = 'loud'\n")
    done = zotctl("gc", "--config", "zotctl.toml", cwd=tmp_path, environ={"ZOTCTL_OUTPUT": "json"})
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], len(told["errors"])) == (3, 3, 2)


def test_a_wrong_duration_is_a_document(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    code, told, _ = document("gc", "--root", str(tmp_path), "--delay", "soon")
    assert (code, told["exit_code"], told["errors"][0]["error"]) == (2, 2, "UsageError")


def test_a_bug_is_a_document_too(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image(), "v1")
    script = "import sys, zotctl.jobs.gc as job; job.purge = None; from zotctl.cli import main; main()"
    done = python("-c", script, "gc", "--root", str(tmp_path), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"]) == (70, 70)
    assert told["errors"][0]["reason"].startswith("a bug: TypeError")
    assert done.stderr.startswith("zotctl: a bug")


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe", "verify"])
def test_a_glob_that_matches_nothing_ends_with_10(job: str, tmp_path: Path) -> None:
    lay_out(tmp_path, "team/app", images.image(), "v1")
    code, told, _ = document(job, "--root", str(tmp_path), "--repo", "teem/*")
    assert (code, told["errors"][0]["reason"]) == (10, "no repository matches --repo teem/*")
    for globs in (["--repo", "team/**"], ["--repo", "teem/*", "--repo", "*/app"]):
        assert document(job, "--root", str(tmp_path), *globs)[0] == 0


def test_one_finding_is_not_several(tmp_path: Path) -> None:
    made = images.image()
    lay_out(tmp_path, "app", made, "v1")
    flip(blob(tmp_path, "app", made.blobs[0]))
    done = zotctl("scrub", "--root", str(tmp_path), "--quiet")
    assert done.returncode == 4
    assert ", 1 finding in " in done.stdout
