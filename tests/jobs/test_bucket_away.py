"""A bucket that is lost in the middle of a job: one line, exit 14, and no advice to delete anything."""

from __future__ import annotations

import pytest

from tests.object_faults import AWAY, LOST, FaultyObjects, StillClock
from tests.stores import bucket_store, push_image
from zotctl.jobs.gc import gc
from zotctl.jobs.gc_plan import GcOptions
from zotctl.jobs.hints import hints
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.storage import Store
from zotctl.storage.memory_objects import MemoryObjects
from zotctl.storage.s3.retrying import Retrying


class Switch:
    """No connection, from the request of this number on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, method: str, _: str) -> str:
        self.left -= 1
        return AWAY if self.left < 0 else ""


def filled() -> MemoryObjects:
    memory = MemoryObjects()
    for number in range(5):
        for tag in range(3):
            push_image(bucket_store(memory), f"app{number}", f"v{tag}", seed=f"{number} {tag}")
    return memory


def lost(memory: MemoryObjects, after: int) -> Store:
    clock = StillClock()
    return bucket_store(Retrying(FaultyObjects(memory, Switch(after)), clock), clock)


def collect(store: Store) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: gc(run, lambda _: GcOptions(delay=0.0)))


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
