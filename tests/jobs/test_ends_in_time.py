"""--max-duration ends `scrub` and `verify --deep` within a blob, too, and the next run goes on, until all is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.jobs.layouts import run_scrub, told
from tests.jobs.test_scrub_rounds import Hand
from tests.stores import push_blob, push_image, store_over
from zotctl.jobs.check import hashing
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys

BUDGET = 40.0
SMALL, HUGE = b"s" * 400, b"h" * 1600
"""Of 16 bytes at a time, with two looks at the clock of a second each."""

RunOnce = Callable[[], Report]


@pytest.fixture(autouse=True)
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "READ_BYTES", 16)
    monkeypatch.setattr(hashing, "READS_PER_PAUSE", 1)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def store(clock: Hand) -> Store:
    store = store_over(MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9)), clock=clock)
    for name in ("a", "b", "c"):
        push_image(store, name, "v1", seed=name)
    push_blob(store.repository_for_push("a"), SMALL)
    push_blob(store.repository_for_push("b"), HUGE)
    return store


def verified(store: Store, place: Path, max_duration: float | None = BUDGET) -> Report:
    run = Run("verify", store, dry_run=True, max_duration=max_duration)
    options = VerifyOptions(deep=True, workers=1, place=str(place) if max_duration is not None else None)
    return run.finish(lambda: verify(run, options))


@pytest.fixture(params=["scrub", "verify"])
def once(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> RunOnce:
    if request.param == "scrub":
        return lambda: run_scrub(store, resume=True, workers=1, max_duration=BUDGET)
    return lambda: verified(store, tmp_path / "state")


def rounds(once: RunOnce, clock: Hand) -> list[Report]:
    """Runs, until one comes to the end."""
    reports = list[Report]()
    while not reports or 16 in reports[-1].codes:
        clock.step = 1.0
        began = clock.at
        reports.append(once())
        clock.step = 0.0
        overdue = any("was read to its end" in str(item.get("reason")) for item in reports[-1].items)
        assert overdue or clock.at - began < BUDGET + 30, "it ends in time"
        assert len(reports) < 60, "it comes to no end"
    return reports


def notes(reports: list[Report], reason: str) -> set[str]:
    return {item["digest"] for report in reports for item in report.items if reason in str(item.get("reason"))}


def test_every_blob_is_read_to_its_end_by_some_run(once: RunOnce, clock: Hand) -> None:
    reports = rounds(once, clock)
    assert sum(report.summary.get("checked_blobs", 0) for report in reports) == 14, "each once"
    assert digest_of(HUGE) in notes(reports, "stopped in it at --max-duration; the next run begins with it")
    assert [report.findings for report in reports if report.errors] == []
    assert len(rounds(once, clock)) > 1, "and then from the beginning"


def test_damage_in_a_blob_that_takes_longer_than_a_run_is_told_and_stops_nothing(
    once: RunOnce, store: Store, clock: Hand
) -> None:
    huge = digest_of(HUGE)
    store.roots[0].driver.names[keys.blob("b", huge)].data[3] ^= 1  # type: ignore[attr-defined]
    reports = rounds(once, clock)
    assert ("b", huge, "digest_mismatch") in {one for report in reports for one in told(report)}
    assert all(report.exit_code == 4 for report in reports if told(report) & {("b", huge, "digest_mismatch")})


def test_a_pass_is_not_over_while_its_last_blob_is_not_read(clock: Hand, tmp_path: Path) -> None:
    last = next(body for body in (HUGE + bytes([n, m]) for n in range(256) for m in range(256))
                if digest_of(body).encoded.startswith("ff"))  # fmt: skip
    for job in ("scrub", "verify"):
        alone = store_over(MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9)), clock=clock)
        push_blob(alone.repository_for_push("a"), last)
        scrubbed = partial(run_scrub, alone, resume=True, workers=1, max_duration=BUDGET)
        reports = rounds(scrubbed if job == "scrub" else partial(verified, alone, tmp_path / "state"), clock)
        assert [report.exit_code for report in reports[:-1]] == [16] * (len(reports) - 1)
        assert len(reports) > 1
        assert notes(reports, "stopped in it") == {digest_of(last)}


def test_a_new_pass_is_begun_on_request(store: Store, clock: Hand) -> None:
    def scrubbed(restart: bool = False) -> Report:
        clock.step = 1.0
        report = run_scrub(store, resume=True, workers=1, max_duration=BUDGET, restart=restart)
        clock.step = 0.0
        return report

    assert scrubbed().exit_code == 16
    again = scrubbed(restart=True)
    assert (again.exit_code, again.summary["skipped_blobs"]) == (16, 0)
    rest = run_scrub(store, resume=True, workers=1)
    assert (rest.exit_code, rest.summary["skipped_blobs"] > 0) == (0, True), "the next run goes on with it"


def test_verify_keeps_its_place_outside_of_the_store(store: Store, clock: Hand, tmp_path: Path) -> None:
    state, before = tmp_path / "state", dict(store.roots[0].driver.names)  # type: ignore[attr-defined]
    clock.step = 1.0
    assert verified(store, state).exit_code == 16
    assert [path.stat().st_mode & 0o777 for path in state.iterdir()] == [0o600]
    assert store.roots[0].driver.names == before  # type: ignore[attr-defined]
    clock.step = 0.0
    whole = verified(store, state, None)
    assert (whole.exit_code, whole.summary["checked_blobs"]) == (0, 14), "without --max-duration all is read"
    assert verified(store, state).summary["checked_blobs"] < 14
    assert list(state.iterdir()) == [], "it came to the end"


def test_damage_in_a_repository_that_is_not_gone_through_in_time_is_told(clock: Hand) -> None:
    """By the run that has found it, for the next one may end at the same place."""
    memory = MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9))
    store = store_over(memory, clock=clock)
    bodies = sorted((b"%d" % number * 100 for number in range(9)), key=digest_of)
    for body in bodies:
        push_blob(store.repository_for_push("a"), body)
    first = digest_of(bodies[0])
    memory.names[keys.blob("a", first)].data[3] ^= 1
    clock.step = 1.0
    run = Run("verify", store, dry_run=True, max_duration=BUDGET)
    report = run.finish(lambda: verify(run, VerifyOptions(deep=True, workers=1)))
    assert 16 in report.codes and told(report) == {("a", first, "digest_mismatch")}
    clock.step = 0.0
    run = Run("verify", store, dry_run=True)
    report = run.finish(lambda: verify(run, VerifyOptions(deep=True, workers=1)))
    assert [finding.digest for finding in report.findings if finding.kind == "digest_mismatch"] == [first]


def test_without_a_place_the_next_run_begins_anew(
    store: Store, clock: Hand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    clock.step = 1.0
    assert verified(store, tmp_path / "file/state").exit_code == 16
    assert "the next run begins anew; set XDG_STATE_HOME" in caplog.text
