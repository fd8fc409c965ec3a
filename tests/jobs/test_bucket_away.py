"""A bucket that is lost in the middle of a job: one line, exit 14, and no advice to delete anything."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.doubles.objects import MemoryObjects
from tests.object_faults import AWAY, LOST, PIECES, READS, FaultyObjects, StillClock
from tests.stores import bucket_store, probed, push_blob, push_image
from zotctl.errors import Unavailable
from zotctl.jobs.check.hashing import Hasher, Inspector
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report, hints
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.retry import Retrying


class Switch:
    """No connection, from the request of this number on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, method: str, _: str) -> str:
        self.left -= 1
        return AWAY if self.left < 0 else ""


def filled(label: str = "s3://memory/test", *, dedupe: bool = False) -> MemoryObjects:
    memory = MemoryObjects(label=label)
    probed(memory)
    for number in range(5):
        for tag in range(3):
            push_image(bucket_store(memory, dedupe=dedupe), f"app{number}", f"v{tag}", seed=f"{number} {tag}")
    return memory


def lost(memory: MemoryObjects, after: int) -> Store:
    clock = StillClock()
    return bucket_store(Retrying(FaultyObjects(memory, Switch(after)), clock), clock)


def collect(store: Store) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: collected(run))


@pytest.mark.parametrize("after", range(1, 120, 7))
def test_gc_during_an_outage(after: int) -> None:
    memory = filled()
    report = collect(lost(memory, after))
    if report.exit_code == 0:
        assert after > 60, "it was done before"
        return
    assert report.exit_code == 14
    assert report.findings == []
    assert len(report.errors) == 1, report.errors
    assert "no connection" in report.errors[0]["reason"]
    assert not list(hints(report))


def test_an_outage_that_begins_with_a_manifest() -> None:
    """All manifests are unreadable then, which is no fault of theirs."""
    memory, clock, begun = filled(), StillClock(), list[str]()

    def choose(method: str, key: str) -> str:
        if begun or (method == "open" and "/blobs/" in key):
            begun.append(key)
        return AWAY if begun else ""

    report = collect(bucket_store(Retrying(FaultyObjects(memory, choose), clock), clock))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1)


def test_one_object_that_can_not_be_read_is_no_outage() -> None:
    memory = filled()
    clock = StillClock()
    unread = FaultyObjects(memory, lambda method, key: AWAY if method == "open" and key.startswith("app2/") else "")
    report = collect(bucket_store(Retrying(unread, clock), clock))
    assert {finding.repository for finding in report.findings} == {"app2"}
    assert report.exit_code == 5
    assert report.summary["repositories"] == 4


def test_a_short_outage_is_nothing() -> None:
    memory, clock = filled(), StillClock()
    faults = iter([""] * 20 + [AWAY, LOST, AWAY] + [""] * 10_000)
    assert collect(bucket_store(Retrying(FaultyObjects(memory, lambda *_: next(faults)), clock), clock)).exit_code == 0


def scrubbed(run: Run) -> None:
    scrub(run, ScrubOptions(workers=1))


def checked(run: Run) -> None:
    verify(run, VerifyOptions(deep=True, workers=1))


def deduped(run: Run) -> None:
    dedupe(run)


def undone(run: Run) -> None:
    dedupe(run, DedupeOptions(undo=True))


def collected(run: Run) -> None:
    gc(run, lambda _: GcOptions(delay=0.0))


JOBS = (scrubbed, checked, deduped, undone)


@pytest.mark.parametrize("work", JOBS)
@pytest.mark.parametrize("after", (1, 4, 9, 20, 40, 75, 110))
def test_every_job_during_an_outage(work: Callable[[Run], None], after: int) -> None:
    memory = filled()
    before = marks_of(memory)
    run = Run("job", lost(memory, after))
    report = run.finish(lambda: work(run))
    assert marks_of(memory) == before
    if report.exit_code == 0:
        assert after > 60, "it was done before"
        return
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), report.errors
    assert "no connection" in report.errors[0]["reason"]
    assert not list(hints(report))
    for key in [found.key for found in memory.list(keys.LEASES)]:
        memory.delete(key)  # it lapses by itself, in time
    again = Run("job", bucket_store(memory, StillClock()))
    assert again.finish(lambda: work(again)).exit_code == 0


@pytest.mark.parametrize("work", JOBS)
def test_an_outage_that_begins_with_a_blob(work: Callable[[Run], None]) -> None:
    memory, clock, begun = filled(), StillClock(), list[str]()

    def choose(method: str, key: str) -> str:
        if begun or (method in ("open", "read_into", "read_at") and "/blobs/" in key):
            begun.append(key)
        return AWAY if begun else ""

    run = Run("job", bucket_store(Retrying(FaultyObjects(memory, choose), clock), clock))
    report = run.finish(lambda: work(run))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), report.errors


@pytest.mark.parametrize("work", (scrubbed, checked))
def test_the_other_root_is_still_done(work: Callable[[Run], None]) -> None:
    away, there = lost(filled(), 40), bucket_store(filled("s3://other"), StillClock())
    store = Store([away.roots[0], there.roots[0]], away.clock)
    run = Run("job", store)
    report = run.finish(lambda: work(run))
    assert (report.exit_code, len(report.errors)) == (14, 1), report.errors
    assert {finding.kind for finding in report.findings} <= {"two_roots"}
    assert report.summary["repositories"] >= 5


def marks_of(memory: MemoryObjects) -> list[str]:
    return [found.key for found in memory.list(keys.DAMAGED)]


@pytest.mark.parametrize("work", (scrubbed, deduped, undone, collected))
def test_a_bucket_that_takes_no_writes_any_more(work: Callable[[Run], None]) -> None:
    """One line too, and it is waited for once."""
    memory, clock = filled(dedupe=work is undone), StillClock()
    push_blob(bucket_store(memory).repository("app0"), b"of no image")
    if work is scrubbed:
        for key in sorted(key for key in memory.stored if "/blobs/" in key)[::4]:
            memory.put(key, b"?" * len(memory.stored[key].body))
    refused = list[str]()
    memory.clock = lambda: time.time() + 3600  # what is damaged was not just written

    def choose(method: str, key: str) -> str:
        if method in READS + PIECES or key.startswith(keys.LEASES):
            return ""
        refused.append(f"{method} {key}")
        return AWAY

    run = Run("job", bucket_store(Retrying(FaultyObjects(memory, choose), clock), clock))
    report = run.finish(lambda: work(run))
    assert (14 in report.codes, len(report.errors)) == (True, 1), report.errors
    assert not list(memory.list(keys.DAMAGED))
    assert len(refused) < 100


def test_the_inspector_gives_no_verdict_on_what_a_lost_root_has() -> None:
    memory, clock = filled(), StillClock()
    key = next(key for key in memory.stored if "/blobs/" in key)
    run = Run("job", bucket_store(Retrying(FaultyObjects(memory, lambda *_: AWAY), clock), clock))
    with pytest.raises(Unavailable):
        Inspector(run, Hasher(run)).look(run.roots[0], key, parse_digest(f"sha256:{key.rpartition('/')[2]}"))
    assert run.away == {"s3://memory/test"}


def test_a_root_that_is_lost_between_two_others() -> None:
    """What of them waits for the same worker is still looked at."""
    stores = [bucket_store(filled(f"s3://{name}"), StillClock()) for name in "ac"]
    memory, clock = filled("s3://b"), StillClock()
    started = list[str]()

    def choose(method: str, key: str) -> str:
        if started or (method == "open" and "/blobs/" in key):
            started.append(key)
        return AWAY if started else ""

    away = FaultyObjects(memory, choose)
    middle = bucket_store(Retrying(away, clock), clock)
    run = Run("job", Store([stores[0].roots[0], middle.roots[0], stores[1].roots[0]], clock))
    report = run.finish(lambda: scrubbed(run))
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1)
    assert (report.summary["repositories"], run.away) == (10, {"s3://b"})


@pytest.mark.parametrize("work", (scrubbed, checked))
def test_one_object_that_can_not_be_hashed_is_no_outage(work: Callable[[Run], None]) -> None:
    memory, clock = filled(), StillClock()
    key = next(key for key in memory.stored if key.startswith("app2/blobs/"))
    unread = FaultyObjects(memory, lambda method, asked: AWAY if method == "open" and asked == key else "")
    run = Run("job", bucket_store(Retrying(unread, clock), clock))
    report = run.finish(lambda: work(run))
    assert {(finding.repository, finding.kind) for finding in report.findings} == {("app2", "unreadable")}
    assert (report.errors, run.away, report.summary["repositories"]) == ([], set(), 5)
    assert not list(memory.list(keys.DAMAGED))
