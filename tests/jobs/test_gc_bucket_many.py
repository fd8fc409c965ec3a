"""Several repositories of a bucket are collected side by side: as if it were one after the other."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.counting import Counted, InFlight, until_all_wait
from tests.doubles.objects import MemoryObjects
from tests.jobs.test_gc import Hand
from tests.stores import bucket_store, probed, push_blob, push_image
from zotctl.jobs.bucket.eligibility import Reached
from zotctl.jobs.bucket.gc import REPOSITORIES_AT_ONCE, Progress
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run, Stopped
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.digests import Digests

DELAY = 100.0
NAMES = [f"r{at:02}" for at in range(24)]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class World:
    def __init__(self) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        probed(self.memory)
        store = self.store(self.memory)
        for name in NAMES:
            push_image(store, name, "v1", seed=name)
            push_blob(store.repository_for_push(name), b"stray of " + name.encode())

    def store(self, objects: Any, threads: ThreadPoolExecutor | None = None) -> Store:
        return bucket_store(objects, self.clock, delay=DELAY, threads=threads)

    def run(self, objects: Any, threads: ThreadPoolExecutor, **options: Any) -> Report:
        self.clock.at += 1.5 * DELAY
        run = Run("gc", self.store(objects, threads), **options)
        return run.finish(lambda: gc(run, lambda _: GcOptions(delay=DELAY)))

    def left(self) -> int:
        return sum(len(keys_of(self.memory, f"{name}/blobs/")) for name in NAMES)


def keys_of(memory: MemoryObjects, prefix: str) -> list[str]:
    return [key for key in memory.stored if key.startswith(prefix)]


def test_repositories_are_looked_at_side_by_side(threads: ThreadPoolExecutor) -> None:
    world = World()
    indexes = {keys.index(name) for name in NAMES}
    flight = InFlight(world.memory, lambda method, key: method == "get" and key in indexes)
    report = world.run(flight, threads)
    assert (report.exit_code, report.summary["repositories"], report.summary["unreachable"]) == (0, 24, 24)
    assert flight.most == REPOSITORIES_AT_ONCE


def test_batches_are_deleted_one_after_the_other(threads: ThreadPoolExecutor) -> None:
    """Of a batch the reservations and then the blobs go by the clock: what waits for others would come too late."""
    world = World()
    world.run(world.memory, threads)
    before = world.left()
    flight = InFlight(world.memory, lambda method, key: method == "put" and key.startswith(keys.INTENTS))
    report = world.run(flight, threads)
    assert (report.exit_code, report.summary["purged"], world.left()) == (0, 24, before - 24)
    assert flight.most == 1


def test_what_is_unknown_in_one_stops_only_that(threads: ThreadPoolExecutor) -> None:
    world = World()
    broken = keys.index("r07")
    world.memory.put(broken, b"{}x")
    before = world.left()
    for _ in range(3):
        report = world.run(world.memory, threads)
    assert report.exit_code == 5 and [error["repository"] for error in report.errors] == ["r07"]
    assert world.left() == before - 23


def test_progress_is_told_as_far_as_all_is_done() -> None:
    progress = Progress()
    for name in "abcd":
        progress.begin(name)
    seen = []
    for name in "cbad":
        progress.end(name)
        seen.append(progress.last)
    assert seen == ["", "", "c", "d"]


def test_a_run_that_is_stopped_begins_nothing_more_and_goes_on_later(threads: ThreadPoolExecutor) -> None:
    """When it has ended, nothing is under way in its threads; the next one begins behind what was done."""
    world = World()
    left, begun, active, mutex = [10], [0], [0], threading.Lock()
    held = threading.Event()

    def pause() -> None:
        left[0] -= 1
        if not left[0]:
            while keys.first_seen("r00") not in world.memory.stored:
                threading.Event().wait(0.001)
            assert held.wait(10)
            raise Stopped(15)

    class Watched(Counted):
        def __getattr__(self, name: str) -> Any:
            found = super().__getattr__(name)

            def call(*args: Any, **options: Any) -> Any:
                with mutex:
                    begun[0] += 1
                    active[0] += 1
                try:
                    if args[0] == keys.index("r01"):
                        held.set()
                        until_all_wait()  # the run too, for this
                    return found(*args, **options)
                finally:
                    with mutex:
                        active[0] -= 1

            return call if name in ("get", "head", "open", "put", "execute") else found

    objects = Watched(world.memory)
    report = world.run(objects, threads, pause=pause)
    after_end, under_way = begun[0], active[0]
    assert (report.exit_code, under_way) == (143, 0)
    threading.Event().wait(0.05)
    assert begun[0] == after_end
    after = json.loads(world.memory.stored[keys.checkpoint()].body)["after"]
    assert after in NAMES[:10]
    seen = {json.loads(world.memory.stored[key].body)["name"] for key in keys_of(world.memory, keys.FIRST_SEEN)}
    assert set(NAMES[: NAMES.index(after) + 1]) <= seen
    order: list[str] = []
    report = world.run(
        Counted(world.memory, lambda method, args: order.append(args[0]) if method == "get" else None), threads
    )
    first = next(key for key in order if key.endswith("/index.json"))
    assert report.exit_code == 0 and NAMES.index(first.partition("/")[0]) > NAMES.index(after)
    assert keys.checkpoint() not in world.memory.stored


def test_i5_what_many_repositories_reach_is_known_although_they_enter_at_once() -> None:
    """What got lost on the way would be taken for garbage in the pool."""
    known, before = Reached(), sys.getswitchinterval()
    reached = {name: Digests(str(digest_of(f"{name} {at}".encode())) for at in range(300)) for name in NAMES[:8]}
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: known.enter(name, reached[name], set(), shared=False), reached))
    finally:
        sys.setswitchinterval(before)
    assert all(known.reaches(name, one) and known.needs(one) for name, some in reached.items() for one in some)
