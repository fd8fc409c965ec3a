"""Several hosts share a directory, and the clock of one is hours off: what is compared with the time stamps of files is
told by the clock that stamps them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Call, Faults
from tests.jobs.collecting import DELAY, Place
from tests.jobs.layouts import run_scrub, told
from tests.stores import push_blob, push_image, root_over, store_over
from zotctl.errors import NoSpace, StorageError
from zotctl.jobs.layouts import FoundLayout, lasting
from zotctl.jobs.retention import Rules
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, read
from zotctl.storage.history import events_of
from zotctl.storage.keys import parse_upload_id
from zotctl.storage.local.catalog import LocalCatalog
from zotctl.storage.local.context import SETTLED_S
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.storage_clock import ASKED_EVERY_S, QUICK_S, StorageClock
from zotctl.storage.wrappers import ReadOnlyDriver

HOUR = 3600.0
OFF = pytest.mark.parametrize("off", [0.0, 5 * HOUR, -5 * HOUR, 90.0, -90.0])


class Told(Faults):
    """Tells of each call before it is made."""

    def __init__(self, inner: Driver, told: Callable[[Call], object]) -> None:
        super().__init__(inner)
        self._told = told

    def before(self, call: Call) -> None:
        self._told(call)


class Host(Clock):
    """A host whose clock is `off` from the storage's; what it measures passes as fast."""

    def __init__(self, storage: Hand, off: float) -> None:
        self.storage, self.off = storage, off

    def now(self) -> float:
        return self.storage.at + self.off

    def now_ns(self) -> int:
        return int(self.now() * 1e9)

    def elapsed(self) -> float:
        return self.storage.at - 1_700_000_000

    boottime = elapsed

    def sleep(self, seconds: float) -> None:
        self.storage.sleep(seconds)


@pytest.fixture
def place() -> Place:
    return Place(local=False)


def host(place: Place, off: float) -> Store:
    return store_over(place.driver, clock=Host(place.clock, off))


def near(place: Place) -> object:
    return pytest.approx(place.clock.at, abs=0.01)


# -- what it is by the storage's clock --------------------------------------------------------------


@OFF
def test_no_hosts_clock_counts(place: Place, off: float) -> None:
    clock = StorageClock(place.driver, Host(place.clock, off))
    for seconds in (0.0, 1.0, 2 * ASKED_EVERY_S, 5 * HOUR):
        place.clock.at += seconds
        assert clock.now() == near(place)
    assert place.driver.scan(keys.TMP) == [], "the file by which it is asked is gone"


def test_it_is_asked_again_in_case_it_was_put_right(place: Place) -> None:
    up = Hand(5000.0)
    asked: list[Call] = []
    driver = Told(place.driver, lambda call: asked.append(call) if call.method == "create" else None)
    clock = StorageClock(driver, up)
    for _ in range(10):
        clock.now()
    assert len(asked) == 1
    place.clock.at -= HOUR
    up.at += ASKED_EVERY_S + 1
    assert clock.now() == near(place)
    assert len(asked) == 2


def test_an_answer_that_took_long_is_not_relied_on(place: Place) -> None:
    up, slow = Hand(5000.0), 10 * QUICK_S

    def wait(call: Call) -> None:
        if call.method == "unlink":
            place.clock.at += slow
            up.at += slow

    clock = StorageClock(Told(place.driver, wait), up)
    assert clock.now() == pytest.approx(place.clock.at - slow, abs=0.01), "never ahead"
    slow = 0.0
    assert clock.now() == near(place)


def test_a_file_system_of_this_machine_has_its_clock() -> None:
    driver, clock = MemoryDriver(), Hand(1000.0)
    storage = StorageClock(driver, clock)
    assert storage.now() == 1000.0
    clock.at = 5000.0  # it was set
    assert storage.now() == 5000.0 and storage.now_ns()
    assert list(driver.names) == [""], "and nothing is made to ask it"


def test_on_a_full_disk_it_is_asked_by_a_file_that_is_there(place: Place) -> None:
    """Or nothing would get old there, and no room free."""

    def refuse(call: Call) -> None:
        if call.method == "create":
            raise NoSpace("full")

    push_image(place.store, "a", "v1")
    place.clock.at += 5 * HOUR
    before = set(place.driver.names)
    clock = StorageClock(Told(place.driver, refuse), Host(place.clock, -HOUR))
    assert clock.now() == near(place)
    assert set(place.driver.names) == before


def test_it_goes_on_while_this_machine_sleeps(place: Place) -> None:
    class Slept(Host):
        def boottime(self) -> float:
            return super().elapsed() + asleep

    asleep = 0.0
    clock = StorageClock(place.driver, Slept(place.clock, HOUR))
    assert clock.now() == near(place)
    asleep = ASKED_EVERY_S / 2
    assert clock.now() == pytest.approx(place.clock.at + asleep, abs=0.01)
    asleep = 5 * HOUR
    assert clock.now() == near(place), "it is asked again"


def test_where_nothing_may_be_written_the_hosts_has_to_do(place: Place) -> None:
    clock = StorageClock(ReadOnlyDriver(place.driver), Host(place.clock, HOUR))
    assert clock.now() == pytest.approx(place.clock.at + HOUR)


def test_while_it_does_not_answer_it_goes_on_as_before(place: Place) -> None:
    def refuse(call: Call) -> None:
        if fails and call.method == "create":
            raise StorageError("no")

    fails = False
    clock = StorageClock(Told(place.driver, refuse), Host(place.clock, HOUR))
    assert clock.now() == near(place)
    fails = True
    place.clock.at += 2 * ASKED_EVERY_S
    assert clock.now() == near(place)


# -- what is written by it --------------------------------------------------------------------------


@OFF
def test_what_hosts_write_down_has_the_storages_time(place: Place, off: float) -> None:
    store = host(place, off)
    upload = store.repository_for_push("a").start_upload()
    assert parse_upload_id(upload).started == pytest.approx(place.clock.at, abs=1.0)
    push_image(store, "a", "v1")
    (event,) = events_of(read(place.driver, keys.history("a"), 1 << 20))
    assert event["t"] == near(place)
    assert place.driver.stat(keys.index("a")).mtime_ns / 1e9 == near(place)


@OFF
def test_what_has_lost_its_tag_goes_after_the_delay(place: Place, off: float) -> None:
    """Whichever host has taken the tag away, and whichever collects."""
    store = host(place, off)
    push_image(store, "a", "v1")
    digest = push_image(store, "a", "v1", seed="other")
    rules = Rules(delay=DELAY, foreign=True, untagged=True)
    place.wait(0.9)
    assert place.collect(host(place, -off), rules=rules).summary["dropped"] == 0
    place.wait(0.2)
    assert place.collect(host(place, -off), rules=rules).summary["dropped"] == 1
    assert place.store.repository("a").manifest("v1").digest == digest


@OFF
def test_what_was_removed_since_a_file_was_there(place: Place, off: float) -> None:
    store, history = host(place, off), local_of(place.store.roots[0]).history
    push_image(store, "a", "v1")
    place.clock.at += 1
    stamp = place.clock.at
    place.clock.at += 1
    store.repository_for_push("a").delete_manifest("v1")
    assert history.removed_since("a", stamp) == {"v1"}
    assert history.removed_since("a", stamp + 2) == set()


# -- what is young by it ----------------------------------------------------------------------------


@OFF
def test_a_layout_that_is_being_made_is_one_everywhere(place: Place, off: float) -> None:
    """Also where nothing may be written."""
    root = root_over(place.driver, Host(place.clock, off))
    place.driver.mkdir("new")
    found = FoundLayout("new", is_link=False, has_marker=False)
    assert list(lasting(root, [found])) == [found]
    place.clock.on_sleep = lambda: place.driver.create("new/oci-layout").close()
    assert list(lasting(root, [found])) == []


@OFF
def test_half_an_index_that_a_tool_is_writing_is_not_damaged(place: Place, off: float) -> None:
    push_image(place.store, "a", "v1")
    whole = place.read(keys.index("a"))
    place.write(keys.index("a"), whole[:100])
    place.clock.on_sleep = partial(place.write, keys.index("a"), whole)
    assert host(place, off).repository("a").manifest("v1")


@OFF
def test_half_a_blob_that_a_tool_is_writing_is_not_damaged(place: Place, off: float) -> None:
    """zot writes manifests where they stay."""
    digest = push_image(place.store, "a", "v1")
    key = keys.blob("a", digest)
    whole = place.read(key)
    place.write(key, whole[:-1] + b"-")
    place.clock.on_sleep = partial(place.write, key, whole)
    assert told(run_scrub(host(place, off))) == set()
    assert host(place, off).repository("a").manifest(digest)


@OFF
def test_leftovers_are_told_when_they_are_old(place: Place, off: float) -> None:
    push_image(place.store, "a", "v1")
    place.driver.create(keys.tmp("dead")).close()
    assert told(run_scrub(host(place, off))) == set()
    place.clock.at += 25 * HOUR
    assert told(run_scrub(host(place, off))) == {("", None, "orphan")}


# -- what is remembered of a directory --------------------------------------------------------------


def one_tick() -> tuple[MemoryDriver, Hand]:
    """All that happens has one time stamp, and the clock of the host is far ahead of it."""
    memory = MemoryDriver(clock=lambda: 1_700_000_000_000_000_000)
    return memory, Hand(1_800_000_000.0)


def listed_by(memory: MemoryDriver, clock: Hand) -> Callable[[], list[str]]:
    catalog = LocalCatalog(memory, clock)
    return lambda: list(catalog.walk())


def test_a_repository_of_the_same_tick_is_listed() -> None:
    memory, clock = one_tick()
    root_over(memory, clock)
    repositories = listed_by(memory, clock)
    for name in ("a", "b"):
        memory.mkdir(name)
        memory.create(keys.layout(name)).close()
        clock.at += SETTLED_S / 4
        assert repositories()[-1] == name
    clock.at += 2 * SETTLED_S
    assert repositories() == ["a", "b"]


def test_a_run_of_the_same_tick_is_looked_into() -> None:
    memory, clock = one_tick()
    store = store_over(memory, clock=clock)
    digest = push_blob(store.repository_for_push("a"), b"content")
    for run in ("one", "two"):
        folder = keys.parent(keys.trashed(run, "a", digest))
        local_of(store.roots[0]).context.make_dirs(folder)
        memory.rename(keys.blob("a", digest), keys.trashed(run, "a", digest))
        clock.at += SETTLED_S / 4
        assert store.repository("a").blob(digest) == len(b"content")
        memory.unlink(keys.trashed(run, "a", digest))


def test_damage_of_the_same_tick_is_known() -> None:
    memory, clock = one_tick()
    store = store_over(memory, clock=clock)
    digest = push_blob(store.repository_for_push("a"), b"content")
    damaged = local_of(store.roots[0]).damaged
    info = memory.stat(keys.blob("a", digest))
    local_of(store.roots[0]).context.make_dirs(keys.DAMAGED)
    assert not damaged.has(digest, info)
    local_of(store.roots[0]).context.link_into(keys.blob("a", digest), f"{keys.damaged_links(digest)}/1")
    assert damaged.has(digest, memory.stat(keys.blob("a", digest)))
