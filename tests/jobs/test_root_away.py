"""A directory that is lost in the middle of a job (EIO, ESTALE, unmounted): one line, exit 14, and no damage found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import Leaving, lay_out
from tests.jobs.test_bucket_away import checked, collected, deduped, scrubbed, undone
from tests.stores import store_over
from zotctl.errors import Unavailable, ZotctlError
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.run import Run
from zotctl.storage.driver import Space
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.root import Root


def store_in(path: Path) -> Path:
    for number in range(5):
        lay_out(path, f"{path.name}/app{number}", images.image(f"{number % 3}"), "v1")
    first = Run("job", store_over(LocalDriver(str(path))))
    assert first.finish(lambda: scrubbed(first)).exit_code == 0
    return path


@pytest.mark.parametrize("empty", [False, True], ids=["stale", "unmounted"])
@pytest.mark.parametrize("at", ["/app2/index.json", "/app2/blobs/sha256", "/app3/oci-layout", "/app3"])
@pytest.mark.parametrize("work", [scrubbed, checked, deduped, undone, collected])
def test_it_is_told_once_and_the_other_is_done(
    tmp_path: Path, work: Callable[[Run], None], at: str, empty: bool
) -> None:
    driver = Leaving(str(store_in(tmp_path / "lost")), "nothing yet", empty=empty)
    there = LocalDriver(str(store_in(tmp_path / "there")))
    run = Run("job", store_over(driver, there))
    driver.at = at
    report = run.finish(lambda: work(run))
    if not driver.gone:
        assert work in (deduped, undone), "which read no index.json"
        return
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), (report.findings, report.errors)
    assert "is away" in report.errors[0]["reason"]
    assert report.summary["repositories"] >= 5
    assert not list((tmp_path / "lost" / ".zotctl").glob("bad/*/*/*"))


@pytest.mark.parametrize("work", [deduped, undone])
def test_it_is_lost_when_a_job_asks_whether_it_may_write(tmp_path: Path, work: Callable[[Run], None]) -> None:
    driver = Leaving(str(store_in(tmp_path / "lost")), "nothing", empty=False)
    run = Run("job", store_over(driver, LocalDriver(str(store_in(tmp_path / "there")))))
    owns = run.roots[0].protocol.owns

    def leaving(name: str) -> bool:
        driver.gone = True
        return owns(name)

    run.roots[0].protocol.owns = leaving  # type: ignore[method-assign]
    report = run.finish(lambda: work(run))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), report.errors
    assert {item.get("repository") for item in report.items} <= {f"there/app{number}" for number in range(5)}


def test_it_is_lost_while_room_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Leaving(str(store_in(tmp_path / "lost")), "nothing", empty=False)
    there = store_over(LocalDriver(str(store_in(tmp_path / "there"))))
    first = Run("job", there)
    assert first.finish(lambda: deduped(first)).exit_code == 0
    run = Run("job", store_over(driver, LocalDriver(str(tmp_path / "there"))))

    def space() -> Space:
        driver.gone = True
        raise Unavailable("Stale file handle")

    monkeypatch.setattr(driver, "space", space)
    report = run.finish(lambda: undone(run))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), report.errors
    assert report.summary["copied"] > 0, "the other root's"


@pytest.mark.parametrize("empty", [False, True], ids=["stale", "unmounted"])
@pytest.mark.parametrize("at", ["lost/app2", "lost/app2/oci-layout", "lost/app4/blobs/sha256/", ".zotctl/tmp"])
def test_a_pass_over_a_root_that_is_lost_midway_is_not_over(tmp_path: Path, at: str, empty: bool) -> None:
    """What was not looked at then is the next run's; what was needs no second look."""
    driver, state = Leaving(str(store_in(tmp_path / "lost")), "nothing yet", empty=empty), tmp_path / "state"
    for place, ends in ((at, (14, True, 0)), ("nothing", (0, False, 4 if "app4" in at else 2 if "app2" in at else 5))):
        run = Run("verify", store_over(driver), dry_run=True)
        driver.at, driver.gone = place, False
        assert verified(run, state) == ends


def test_nor_is_it_over_when_the_root_is_back_at_its_end(tmp_path: Path) -> None:
    driver, state = Leaving(str(store_in(tmp_path / "lost")), "nothing yet", empty=False), tmp_path / "state"
    run = Run("verify", store_over(driver), dry_run=True)
    refuse, driver.at = run.refuse, "lost/app2"

    def come_back(root: Root, error: ZotctlError) -> None:
        driver.at, driver.gone = "nothing", False
        refuse(root, error)

    run.refuse = come_back  # type: ignore[method-assign]
    assert verified(run, state) == (14, True, 0)
    assert verified(Run("verify", store_over(driver), dry_run=True), state) == (0, False, 2)


def verified(run: Run, state: Path) -> tuple[int, bool, int]:
    """The exit code, whether there is an unfinished pass now, and how many repositories needed no second look."""
    options = VerifyOptions(deep=True, workers=1, place=str(state))
    report = run.finish(lambda: verify(run, options))
    return report.exit_code, any(state.glob("*")), report.summary.get("skipped_repositories", 0)
