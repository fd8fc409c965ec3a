"""Jobs of somebody who may not look into everything: each place is named, once, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import Counting, lay_out
from tests.stores import store_over
from zotctl.errors import PermissionRefused
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import gc, gc_settings
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.storage.driver import Entry

SETTINGS = gc_settings()
JOBS: dict[str, Callable[[Run], None]] = {
    "gc": lambda run: gc(run, SETTINGS),
    "scrub": lambda run: scrub(run, ScrubOptions()),
    "dedupe": lambda run: dedupe(run, DedupeOptions()),
    "undo": lambda run: dedupe(run, DedupeOptions(undo=True)),
    "verify": lambda run: verify(run, VerifyOptions()),
}


class Closed(Counting):
    """Some directories are not for us; so it is for root, too, who could run the tests."""

    closed: tuple[str, ...] = ()

    def scan(self, key: str) -> Sequence[Entry]:
        if key in self.closed:
            raise PermissionRefused(f"{self.label}/{key}: Permission denied")
        return super().scan(key)


@pytest.fixture
def driver(tmp_path: Path) -> Closed:
    for name in ("closed", "open", "team/inner"):
        lay_out(tmp_path, name, images.image(name), "v1")
    return Closed(str(tmp_path))


def run(driver: Closed, work: Callable[[Run], None], *repos: str) -> Report:
    made = Run("job", store_over(driver), repos=repos)
    return made.finish(lambda: work(made))


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("closed", ["closed", "closed/blobs", "team"])
def test_it_is_named_once_and_the_rest_goes_on(driver: Closed, job: str, closed: str) -> None:
    driver.closed = (closed,)
    report = run(driver, JOBS[job])
    assert [error["repository"] for error in report.errors] == [closed.removesuffix("/blobs")]
    assert report.exit_code == 5
    assert report.summary["repositories"] >= 2


@pytest.mark.parametrize(
    ("globs", "told"),
    [
        (["open"], False),
        (["open/**"], False),
        (["team/**"], True),
        (["team/inner"], True),
        (["*/inner"], True),
        (["**/inner"], True),
        (["{team,open}/inner"], True),
        (["open", "t*/*"], True),
    ],
)
def test_with_repo_only_what_could_be_meant_is_named(driver: Closed, globs: list[str], told: bool) -> None:
    driver.closed = ("team",)
    report = run(driver, JOBS["gc"], *globs)
    assert [error["repository"] for error in report.errors] == (["team"] if told else [])


def test_explain_does_not_deny_what_lies_there(driver: Closed) -> None:
    driver.closed = ("team",)
    report = run(driver, lambda run: explain(run, "team/inner:v1", SETTINGS))
    assert (report.exit_code, [error["repository"] for error in report.errors]) == (5, ["team"])


def test_a_file_system_has_a_place_for_what_is_lost(driver: Closed, tmp_path: Path) -> None:
    """Only root may look into it."""
    (tmp_path / "lost+found").mkdir()
    driver.closed = ("lost+found",)
    for job, work in JOBS.items():
        assert run(driver, work).exit_code == 0, job
