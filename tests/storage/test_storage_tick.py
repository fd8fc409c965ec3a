"""A tool writes index.json in place twice within one tick of the kernel's clock (I4): the file has the same inode, size
and times in both states. Linux has finer times for some file systems, since 6.13."""

from __future__ import annotations

import json

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.stores import push_image, store_over
from zotctl.storage import Store, keys

ONE, OTHER = images.image("1"), images.image("2")
TICK_S = 0.004


class Place:
    """A store in a storage whose clock moves in ticks, as does the host's, but only when somebody sleeps."""

    def __init__(self) -> None:
        self.clock = Hand()
        self.driver = MemoryDriver(clock=lambda: int(self.clock.at / TICK_S) * int(TICK_S * 1e9) + 1)
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


@pytest.fixture
def place() -> Place:
    return Place()


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
    assert place.tagged(store) == ONE.digest
    place.write(OTHER)
    place.clock.at += 10
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == OTHER.digest


def test_i4_a_push_loses_no_write_that_comes_in_its_commit(place: Place) -> None:
    """It reads what was written just now only when the next write has another time."""
    store = place.opened()
    place.clock.on_sleep = lambda: place.write(OTHER)
    push_image(store, "a", "ours", seed="ours")
    assert place.tagged(store) == OTHER.digest


def test_what_stays_as_it_is_gets_read_no_more_and_ours_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, opened = place.opened(), list[str]()
    for _ in range(2):
        store.repository("a").tags()
        place.clock.at += 1
    monkeypatch.setattr(place.driver, "open", lambda key: opened.append(key) or MemoryDriver.open(place.driver, key))
    store.repository("a").tags()
    assert opened == []
    push_image(place.opened(), "a", "ours", seed="ours")
    opened.clear()
    for _ in range(2):
        store.repository("a").tags()
    assert opened.count(keys.index("a")) == 1
