"""A tool writes index.json in place twice within one tick of the kernel's clock (I4): the file has the same inode, size
and times in both states. Linux has finer times for some file systems, since 6.13. Others keep whole seconds only, such
as ext3, and ext4 with inodes of 128 bytes."""

from __future__ import annotations

import json
from itertools import count

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import NotYetReadable
from zotctl.storage import Store, keys
from zotctl.storage.driver import Entry, Writer
from zotctl.storage.local.protocol import local_of

ONE, OTHER = images.image("1"), images.image("2")
SECOND_NS = 10**9


class Fine(Hand):
    """No two looks are in the same nanosecond."""

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.looks = count(2)

    def now_ns(self) -> int:
        return int(self.at * SECOND_NS) + next(self.looks)


class Place:
    """A store in a storage whose clock moves in ticks, as does the host's, but only when somebody sleeps."""

    def __init__(self, tick_s: float) -> None:
        self.clock, self.tick_s = Fine(1_800_000_000.2), tick_s
        grain = SECOND_NS if tick_s == 1 else 1
        ticks = lambda: int(self.clock.at / tick_s) * int(tick_s * SECOND_NS) + 1  # noqa: E731
        self.driver = MemoryDriver(clock=lambda: ticks() // grain * grain, grain_ns=grain)
        push_image(self.opened(), "a", "v1", seed="1")
        push_image(self.opened(), "a", "v2", seed="2")
        self.clock.at += 10
        self.write(ONE)

    def opened(self) -> Store:
        return store_over(self.driver, clock=self.clock)

    def write(self, made: images.Image) -> None:
        """As skopeo and oras do, with rows of the same length each time."""
        rows = [images.row(made, "v1"), images.row(ONE), images.row(OTHER)]
        with self.driver.append(keys.index("a")) as file:
            file.truncate(0)
            file.write([json.dumps({"schemaVersion": 2, "manifests": rows}).encode()])

    def tagged(self, store: Store) -> str:
        row = store.repository("a").index().find("v1")
        return str(row.digest) if row is not None else ""


@pytest.fixture(params=[0.004, 1.0])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


@pytest.fixture
def of_seconds() -> Place:
    return Place(1.0)


def test_i4_the_second_of_two_writes_is_read(place: Place) -> None:
    store = place.opened()
    before = store.repository("a").generation()
    assert place.tagged(store) == ONE.digest
    place.write(OTHER)
    assert store.repository("a").generation() != before, "a list that was rendered of the first would be served"
    assert place.tagged(store) == OTHER.digest
    place.clock.at += 10
    assert place.tagged(store) == OTHER.digest


def test_i4_a_push_loses_no_write_that_came_after_a_read(place: Place) -> None:
    store = place.opened()
    for _ in range(2):
        assert place.tagged(store) == ONE.digest
        place.clock.at += 0.3 * place.tick_s
    place.write(OTHER)
    place.clock.at += 10
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == OTHER.digest


def test_i4_a_push_loses_no_write_that_comes_in_its_commit(place: Place) -> None:
    """It reads what was written just now only when the next write has another time."""
    store, waiting = place.opened(), [OTHER]
    place.clock.on_sleep = lambda: place.write(waiting.pop()) if waiting else None
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == OTHER.digest and waiting == []


def test_i4_nor_one_that_comes_after_what_it_goes_on_from(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, waiting = place.opened(), [OTHER]

    def created(key: str) -> Writer:
        if key.startswith(f"a/{keys.INDEX_TEMP_PREFIX}") and waiting:
            place.write(waiting.pop())
        return MemoryDriver.create(place.driver, key)

    monkeypatch.setattr(place.driver, "create", created)
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == OTHER.digest and waiting == []


def test_i4_nor_one_that_comes_after_a_write_in_its_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, slept, waiting = place.opened(), list[float](), [ONE]

    def sleeps() -> None:
        if not slept:
            place.write(OTHER)
        slept.append(place.clock.at)

    def created(key: str) -> Writer:
        if key.startswith(f"a/{keys.INDEX_TEMP_PREFIX}") and waiting:
            place.write(waiting.pop())
        return MemoryDriver.create(place.driver, key)

    place.clock.on_sleep = sleeps
    monkeypatch.setattr(place.driver, "create", created)
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == ONE.digest and waiting == []


def test_a_push_waits_once_though_the_cache_forgets(place: Place) -> None:
    """As it does while others read larger repositories."""
    store, slept = place.opened(), list[float]()

    def forget() -> None:
        slept.append(place.clock.at)
        local_of(store.roots[0]).indexes._cache.drop("a")

    place.clock.on_sleep = forget
    push_image(store, "a", "ours", seed="ours")
    assert len(slept) == 1


def test_i4_while_a_tool_writes_all_the_while_no_push_is_taken(place: Place) -> None:
    store, writes = place.opened(), count()

    def sleeps() -> None:
        turn = next(writes)
        assert turn < 200
        place.write(ONE if turn % 2 else OTHER)

    place.clock.on_sleep = sleeps
    with pytest.raises(NotYetReadable, match="another program is writing it"):
        push_image(store, "a", "ours", seed="ours")


def test_what_stays_as_it_is_gets_read_no_more_and_ours_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, opened = place.opened(), list[str]()
    for _ in range(2):
        store.repository("a").tags()
        place.clock.at += 3
    monkeypatch.setattr(place.driver, "open", lambda key: opened.append(key) or MemoryDriver.open(place.driver, key))
    store.repository("a").tags()
    assert opened == []
    push_image(place.opened(), "a", "ours", seed="ours")
    opened.clear()
    for _ in range(2):
        store.repository("a").tags()
    assert opened.count(keys.index("a")) == 1


def test_ours_of_whole_seconds_have_stamps_of_their_own_and_are_not_waited_for(of_seconds: Place) -> None:
    """Or each push would wait for the one before it: the stamp of now is that of another one, and of another tool."""
    store, slept, stamps = of_seconds.opened(), list[float](), list[int]()
    store.repository("a").tags()
    of_seconds.clock.at += 3
    of_seconds.clock.on_sleep = lambda: slept.append(of_seconds.clock.at)
    for number in range(4):
        name = "a" if number else "fresh"
        push_image(store if number < 2 else of_seconds.opened(), name, f"of-{number}", seed=str(number))
        info = of_seconds.driver.stat(keys.index(name))
        stamps.append(info.mtime_ns)
        assert info.mtime_ns < info.ctime_ns
        of_seconds.clock.at += 0.1
    assert len(set(stamps[1:])) == 3 and slept == []


def test_a_mark_of_damage_of_the_same_second_is_known(of_seconds: Place) -> None:
    store = of_seconds.opened()
    digest = push_blob(store.repository_for_push("a"), b"content")
    local = local_of(store.roots[0])
    local.context.make_dirs(keys.DAMAGED)
    info = of_seconds.driver.stat(keys.blob("a", digest))
    for _ in range(2):
        assert not local.damaged.has(digest, info)
        of_seconds.clock.at += 0.3
    local.context.link_into(keys.blob("a", digest), f"{keys.damaged_links(digest)}/1")
    assert local.damaged.has(digest, of_seconds.driver.stat(keys.blob("a", digest)))


def test_a_mark_of_damage_that_comes_while_they_are_listed_is_known(
    of_seconds: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list takes longer than the second in which the folder changed last."""
    store = of_seconds.opened()
    digest = push_blob(store.repository_for_push("a"), b"content")
    local, marks = local_of(store.roots[0]), [f"{keys.damaged_links(digest)}/1"]
    local.context.make_dirs(keys.DAMAGED)
    info = of_seconds.driver.stat(keys.blob("a", digest))
    assert not local.damaged.has(digest, info)

    def listed(key: str) -> list[Entry]:
        found = MemoryDriver.scan(of_seconds.driver, key)
        if key == keys.DAMAGED and marks:
            local.context.link_into(keys.blob("a", digest), marks.pop())
            of_seconds.clock.at += 10
        return found

    monkeypatch.setattr(of_seconds.driver, "scan", listed)
    assert not local.damaged.has(digest, info)
    assert local.damaged.has(digest, of_seconds.driver.stat(keys.blob("a", digest)))
