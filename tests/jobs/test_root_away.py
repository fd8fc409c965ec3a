"""A directory that is lost in the middle of a job (EIO, ESTALE, unmounted): one line, exit 14, and no damage found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import Leaving, lay_out
from tests.jobs.test_bucket_away import checked, collected, deduped, scrubbed, undone
from tests.stores import store_over
from zotctl.errors import Unavailable
from zotctl.jobs.run import Run
from zotctl.storage.driver import Space
from zotctl.storage.local.driver import LocalDriver


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
