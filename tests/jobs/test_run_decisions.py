"""What a run decides by itself: its exit code, when it is over, by which settings it collects, what it leaves alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.faults import Recorder
from tests.jobs.collecting import Place
from tests.jobs.layouts import run_scrub
from tests.stores import bucket_store, push_blob, push_image, store_over
from zotctl.config import RootConfig
from zotctl.errors import Unavailable
from zotctl.jobs import gc as collecting
from zotctl.jobs.bucket.eligibility import ROUNDING_S
from zotctl.jobs.bucket.gc import BucketCollector
from zotctl.jobs.check import scrub as scrubbing
from zotctl.jobs.check import scrub_state
from zotctl.jobs.check.outcome import Outcome
from zotctl.jobs.check.repair import Repair, _Registry
from zotctl.jobs.check.scrub import ScrubOptions
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.finding import Finding
from zotctl.jobs.gc import GcOptions, gc_settings, note_purged
from zotctl.jobs.report import Report, Sink, error_fields
from zotctl.jobs.retention import Drop
from zotctl.jobs.run import Run, Stopped
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.locks import lock_byte


@pytest.fixture
def clock() -> Hand:
    return Hand()


# -- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 16], 16), ([5, 16], 5), ([4, 5, 16], 4), ([4, 1], 1), ([4, 3], 3), ([10, 5], 10), ([1, 130], 130)],
)
def test_the_gravest_of_its_codes_counts(codes: list[int], code: int) -> None:
    assert Report("scrub", "1", codes=codes).exit_code == Report("scrub", "1", codes=codes[::-1]).exit_code == code


@pytest.mark.parametrize(
    ("job", "kind", "failed", "code"),
    [
        ("scrub", "missing_blob", False, 4),
        ("scrub", "missing_blob", True, 4),
        ("scrub", "orphan", False, 0),
        ("scrub", "orphan", True, 5),
        ("gc", "missing_blob", False, 0),
        ("gc", "missing_blob", True, 5),
    ],
)
def test_damage_and_errors_have_their_codes(job: str, kind: Any, failed: bool, code: int) -> None:
    errors = [error_fields("a", Unavailable("away"))] * failed
    assert Report(job, "1", findings=[Finding("a", None, kind, "x")], errors=errors).exit_code == code


def test_a_run_is_over_when_its_time_is(clock: Hand) -> None:
    run = Run("gc", store_over(MemoryDriver(), clock=clock), max_duration=10)
    clock.at += 9.5
    assert not run.is_over
    clock.at += 0.5
    assert run.is_over


def test_to_a_reader_who_has_gone_nothing_more_is_told(clock: Hand) -> None:
    told = list[object]()

    class Told(Sink):
        def summary(self, fields: dict[str, Any]) -> None:
            told.append(fields)

    def work() -> None:
        raise BrokenPipeError(32, "gone")

    run = Run("gc", store_over(MemoryDriver(), clock=clock), sink=Told())
    with pytest.raises(BrokenPipeError):
        run.finish(work)
    assert (told, run.report.codes) == ([], [])


# -- by what it collects --------------------------------------------------------------------------


def test_an_explicit_delay_of_zero_overrides_the_trash(clock: Hand) -> None:
    root = store_over(MemoryDriver(), clock=clock).roots[0]
    root.config = RootConfig(path="x", gc_delay=60.0, trash=3600.0)
    chosen = {delay: gc_settings(delay=delay)(root) for delay in (None, 0, 120.0)}
    assert {delay: options and options.kept for delay, options in chosen.items()} == {None: 3600, 0: 0, 120.0: 3600}


@pytest.mark.parametrize(
    ("which", "untagged", "foreign"), [("all", True, True), ("pushed", True, False), ("none", False, False)]
)
def test_what_was_not_pushed_here_goes_with_all_alone(which: str, untagged: bool, foreign: bool, clock: Hand) -> None:
    root = store_over(MemoryDriver(), clock=clock).roots[0]
    root.config = RootConfig(path="x", gc_untagged=which)
    for options in (gc_settings()(root), gc_settings(untagged=which)(root)):
        assert options is not None and options.compares_clock
        assert (options.rules.untagged, options.rules.foreign) == (untagged, foreign)


def test_only_manifests_have_a_history_of_their_end(clock: Hand) -> None:
    store = store_over(MemoryDriver(), clock=clock)
    manifest, blob = push_image(store, "a", "v1"), push_blob(store.repository_for_push("a"), b"stray")
    note_purged(store.roots[0], "a", [manifest, blob])
    events = store.roots[0].history.events("a")
    assert [event["d"] for event in events if event["a"] == "purge"] == [manifest]


# -- how it stops ---------------------------------------------------------------------------------


class Waiting:
    """A collector whose threads end when they are told to."""

    parallel = 4

    def __init__(self) -> None:
        self.begun, self.halted, self.told = threading.Event(), threading.Event(), list[bool]()

    def order(self, names: Iterator[str]) -> Iterator[str]:
        return names

    def collect(self, name: str) -> None:
        self.begun.set()
        self.told.append(self.halted.wait(10))


def test_what_is_under_way_is_told_that_the_run_was_stopped(clock: Hand) -> None:
    store, left, collector = store_over(MemoryDriver(), clock=clock), [3], Waiting()
    for name in "abcdef":
        push_image(store, name, "v1")

    def pause() -> None:
        left[0] -= 1
        if not left[0]:
            assert collector.begun.wait(60)
            raise Stopped(15)

    run: Any = Run("gc", store, pause=pause)
    with pytest.raises(Stopped):
        collecting._collect_root(run, store.roots[0], collector)  # type: ignore[arg-type]
    assert collector.told and all(collector.told)


class OnBucket:
    def __init__(self, clock: Hand) -> None:
        self.clock, self.memory = clock, MemoryObjects(clock.now)
        self.store = bucket_store(self.memory, clock)

    def note(self, after: str) -> None:
        self.memory.put(keys.checkpoint(), json.dumps({"after": after}).encode())

    def collector(self, *repos: str) -> BucketCollector:
        return BucketCollector(Run("gc", self.store, repos=repos), self.store.roots[0], GcOptions())

    @property
    def noted(self) -> str:
        found = self.memory.stored.get(keys.checkpoint())
        return json.loads(found.body)["after"] if found else ""


def test_a_run_goes_on_behind_the_last_by_components(clock: Hand) -> None:
    """The order of the catalog, in which `a/b` comes before `a-b`."""
    bucket = OnBucket(clock)
    bucket.note("a/b")
    assert list(bucket.collector().order(iter(["a", "a/b", "a-b", "c"]))) == ["a-b", "c", "a", "a/b"]


def test_how_far_a_run_on_some_repositories_came_says_nothing_of_all(clock: Hand) -> None:
    bucket = OnBucket(clock)
    bucket.note("m")
    bucket.collector("a*")._note("a")
    assert bucket.noted == "m"
    bucket.collector("a*")._note("")
    assert bucket.noted == "m"
    bucket.collector()._note("n")
    assert bucket.noted == "n"
    bucket.collector()._note("")
    assert bucket.noted == ""


def test_what_was_pushed_anew_waits_for_the_history_of_its_server(clock: Hand) -> None:
    """A server writes its history once in a window: what lies there for longer than that has another push."""
    bucket = OnBucket(clock)
    digest = push_image(bucket.store, "a", "v1")
    collector, row = bucket.collector(), Drop(digest, None, "untagged")
    window = collector._eligibility.window + ROUNDING_S
    for ago, anew in ((window, False), (window + 1, True)):
        past: Any = SimpleNamespace(pushed={digest: clock.at - ago}, entered={})
        assert collector._is_pushed_anew("a", row, past) == anew
    past = SimpleNamespace(pushed={}, entered={"v1": clock.at - window - 1})
    assert collector._is_pushed_anew("a", Drop(digest, "v1", "old"), past)


# -- scrub ----------------------------------------------------------------------------------------


def test_a_rehearsal_writes_nothing_however_long_it_takes(clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_state, "SAVE_EVERY_S", -1.0)
    driver = MemoryDriver()
    store = store_over(driver, clock=clock)
    push_image(store, "a", "v1")
    before = set(driver.names)
    run_scrub(store, resume=True, dry_run=True, workers=1)
    assert set(driver.names) == before
    run_scrub(store, resume=True, workers=1)
    assert keys.SCRUB_STATE in driver.names


def test_a_slice_ends_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the other jobs of the server wait for the end of a pass."""
    steps = [0.0]

    class Slow(Hand):
        def elapsed(self) -> float:
            self.at += steps[0]
            return self.at

    clock = Slow()
    store = store_over(MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9)), clock=clock)
    for number in range(5):
        push_image(store, f"r{number}", "v1", seed=str(number))
    steps[0] = scrubbing.SLICE_S / 10
    counts = [run_scrub(store, interval=86400.0).summary.get("checked_blobs", 0) for _ in range(6)]
    assert max(counts) < 20 and sum(counts) > max(counts), counts


def test_what_repairs_read_counts_for_the_rate(clock: Hand) -> None:
    run, began = Run("scrub", store_over(MemoryDriver(), clock=clock), rate=10), clock.at
    assert list(Repair(run, None)._paced(iter([b"x" * 10] * 5))) == [b"x" * 10] * 5
    assert clock.at >= began + 4


def test_a_login_in_the_url_of_a_source_may_have_any_characters() -> None:
    assert _Registry("http://an%40n:p%2Fw%3A@host/team")._login == ("an@n", "p/w:")


def test_a_blob_that_several_manifests_miss_is_told_once() -> None:
    driver = MemoryDriver()
    store, layer = store_over(driver), digest_of(images.image("1").blobs[1])
    first = push_image(store, "a", "v1", seed="1")
    push_image(store, "a", "v2", seed="1", subject=first)
    driver.unlink(keys.blob("a", layer))
    report = run_scrub(store, workers=1)
    assert [(found.kind, found.digest, found.tags) for found in report.findings] == [
        ("missing_blob", layer, ("v1", "v2"))
    ]
    assert report.summary["findings"] == 1


def test_what_is_found_on_two_ways_is_told_once() -> None:
    """A blob in which the last run was cut off is read first, and then its repository is checked."""
    store = store_over(MemoryDriver())
    root = store.roots[0]
    run: Any = Run("scrub", store)
    outcome = Outcome(run, None, {root.label: FirstSeen(root, store.clock)}, None, quick=True)  # type: ignore[arg-type]
    for path in ("a/x", "a/x", "a/y"):
        outcome._tell(root, Finding("a", None, "digest_mismatch", "wrong", details={"path": path}))
    assert [found.details["path"] for found in run.report.findings] == ["a/x", "a/y"]


def test_an_empty_layout_loses_its_marker_first() -> None:
    """As it was made in the other order: what has `oci-layout` has an index.json (I1)."""
    place = Place()
    driver = Recorder(place.driver)
    store = place.open(driver)
    digest = push_image(store, "a", "v1")
    store.repository("a").delete_manifest(digest)
    for _ in range(4):
        place.wait(2)
        place.collect(store)
    gone = [call.key for call in driver.calls if call.method == "unlink" and call.key.startswith("a/")]
    assert gone[-2:] == [keys.layout("a"), keys.index("a")]


def test_a_rolling_scrub_begins_with_what_was_not_looked_at_for_longest(clock: Hand) -> None:
    store = store_over(MemoryDriver(), clock=clock)
    for name in "abc":
        push_image(store, name, "v1")
    root = store.roots[0]
    work = scrubbing._Scrub(Run("scrub", store), ScrubOptions(interval=86400.0))
    work._load_state(root)
    checked = work._checked[root.label]
    checked.begin()
    checked.repositories = {"a": int(checked.began) - 10, "b": int(checked.began) - 20}
    assert [name for _, name in work._due([root])] == ["c", "b", "a"]
    work._workers.close()


def test_a_repair_looks_in_its_own_root_first(clock: Hand) -> None:
    """There a copy costs one link."""
    store = store_over(MemoryDriver(), MemoryDriver(), clock=clock)
    asked = list[str]()
    for number, root in enumerate(store.roots):
        root.label = str(number)
        root.maintenance.copies = lambda digest, label=str(number): asked.append(label) or iter(())  # type: ignore
    found = Repair(Run("scrub", store), None)._sources(store.roots[1], "a", digest_of(b"x"), False, None)
    assert list(found) == [] and asked == ["1", "0"]


def test_a_pass_of_a_rolling_scrub_has_some_of_its_interval_to_spare(clock: Hand) -> None:
    """For what holds it up: half of the bytes are due after 45 % of the interval."""
    store = store_over(MemoryDriver(), clock=clock)
    work = scrubbing._Scrub(Run("scrub", store), ScrubOptions(interval=1000.0))
    checked: Any = SimpleNamespace(began=clock.at - 450, total=1000, done=500)
    assert work._ahead(checked, 1000.0) == 0
    checked.done = 600
    assert work._ahead(checked, 1000.0) == 100
    work._workers.close()


def test_no_lock_is_held_for_more_than_a_batch_of_blobs() -> None:
    def locks(strays: int) -> int:
        place = Place()
        push_image(place.store, "a", "v1")
        for number in range(strays):
            place.stray(b"%d" % number)
        place.wait(2)
        driver = Recorder(place.driver)
        assert place.collect(place.open(driver)).summary["unreachable"] == strays
        return sum(call.method == "lock" and call.target == str(lock_byte("a")) for call in driver.calls)

    assert locks(65) == locks(64) + 1
