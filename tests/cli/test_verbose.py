"""-v: a line for each repository, and nothing without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.cli.test_same_mistakes import Ends, ends  # noqa: F401 - a fixture
from tests.jobs.layouts import lay_out

JOBS = {
    "gc": ["gc", "--root", "s"],
    "scrub": ["scrub", "--root", "s"],
    "dedupe": ["dedupe", "--root", "s"],
    "undo": ["dedupe", "--undo", "--root", "s"],
    "verify": ["verify", "--root", "s"],
    "usage": ["verify", "--root", "s", "--usage"],
    "import": ["import-layout", "s", "--root", "t"],
    "export": ["import-layout", "s", "--to", "a.tar"],
}


@pytest.mark.parametrize("job", JOBS)
def test_each_repository_is_named_when_its_turn_comes(tmp_path: Path, job: str, ends: Ends) -> None:  # noqa: F811
    for name in ("a", "team/b"):
        lay_out(tmp_path / "s", name, images.image(name), "1")
    (tmp_path / "t").mkdir()
    code, _, told = ends(*JOBS[job], "-v")
    assert code == 0
    lines = [line for line in told.splitlines() if "begun after" in line]
    assert sorted(line.partition(":")[0] for line in lines) == ["a", "team/b"], told
    code, _, told = ends(*JOBS[job], *(["--overwrite"] if job == "export" else []))
    assert code == 0 and "begun" not in told


def test_as_lines_of_json(tmp_path: Path, ends: Ends) -> None:  # noqa: F811
    lay_out(tmp_path / "s", "a", images.image(), "1")
    for words, named in (([], []), (["-v"], ["a"])):
        _, out, _ = ends("verify", "--root", "s", "--output", "jsonl", *words)
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["repository"] for row in rows if row["type"] == "repository"] == named


def test_verbose_and_quiet_exclude_each_other(ends: Ends) -> None:  # noqa: F811
    code, _, told = ends("gc", "--root", "s", "-v", "-q")
    assert code == 2 and "--verbose and --quiet" in told
