"""A directory that is lost in the middle of a job (EIO, ESTALE, unmounted): one line, exit 14, and no damage found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import Leaving, lay_out
from tests.jobs.test_bucket_away import checked, collected, deduped, scrubbed, undone
from tests.stores import store_over
from zotctl.jobs.run import Run
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
