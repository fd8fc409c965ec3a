"""Many readers of one index.json, which other processes replace meanwhile: a parse of 100,000 rows takes several times
the bytes of the file, and longer than others take to commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.faults import FailOn
from tests.stores import bucket_store, push_image, store_over
from zotctl.errors import IoFailed
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, WouldBlock, keys
from zotctl.storage.bucket import index as index_objects
from zotctl.storage.clock import Clock
from zotctl.storage.index import Index, parse_index
from zotctl.storage.local import index_file
from zotctl.storage.local.driver import LocalDriver, LocalReader
from zotctl.storage.root import Root


class Parses(list[Index | None]):
    """The rows that each parse knew before, if any. `first` happens during the first, `later` during the others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.first: Callable[[], object] = lambda: None
        self.later: Callable[[], object] = lambda: None
        monkeypatch.setattr(index_file, "parse_index", self._parse)
        monkeypatch.setattr(index_objects, "parse_index", self._parse)

    def _parse(self, body: bytes, known: Index | None = None) -> Index:
        self.append(known)
        (self.first if len(self) == 1 else self.later)()
        return parse_index(body, known)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Parses:
    return Parses(monkeypatch)


@pytest.fixture(params=["directory", "bucket"])
def opened(request: pytest.FixtureRequest) -> Callable[[Clock], Store]:
    """Opens one store, as another process does."""
    driver, objects = MemoryDriver(), MemoryObjects()
    is_bucket = request.param == "bucket"
    return lambda clock: bucket_store(objects, clock) if is_bucket else store_over(driver, clock=clock)


def tag(root: Root, name: str) -> None:
    """Commit, without a look at index.json before."""
    root.protocol.commit_index("a", [lambda tx, draft: draft.put(digest_of(b"x"), 7, OCI_MANIFEST, [name])])


def read(root: Root) -> Index:
    return root.protocol.indexes.read("a").index


def test_of_readers_that_come_together_one_parses(parses: Parses, opened: Callable[[Clock], Store]) -> None:
    another_came = threading.Event()

    class Waiting(Clock):
        def sleep(self, seconds: float) -> None:
            another_came.set()
            super().sleep(seconds)

    push_image(opened(Clock()), "a", "v1")
    (root,) = opened(Waiting()).roots
    parses.clear()
    parses.first, parses.later = lambda: another_came.wait(60), another_came.set
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: read(root), range(8)))
    assert len(parses) == 1 and len(set(map(id, found))) == 1


def test_a_reader_waits_for_no_other_for_ever(parses: Parses, opened: Callable[[Clock], Store]) -> None:
    """As where the storage hangs in one of them."""
    clock, found = Hand(), list[Index]()
    push_image(opened(Clock()), "a", "v1")
    (root,) = opened(clock).roots
    end = clock.at + 600

    def slept() -> None:
        assert clock.at < end

    clock.on_sleep = slept
    parses.clear()
    parses.first = lambda: found.append(read(root))
    assert read(root).tags() == ["v1"]
    assert [index.tags() for index in found] == [["v1"]]


def unslept() -> Hand:
    def slept() -> None:
        raise AssertionError("it waits for a turn that nobody has")

    clock = Hand()
    clock.on_sleep = slept
    return clock


def test_a_reader_that_fails_gives_its_turn_to_the_next() -> None:
    driver = MemoryDriver()
    push_image(store_over(driver), "a", "v1")
    failing = FailOn(driver, "open", 1, IoFailed("broken"), lambda key: key == keys.index("a"))
    (root,) = store_over(failing, clock=unslept()).roots
    with pytest.raises(IoFailed):
        read(root)
    assert read(root).tags() == ["v1"]


def test_each_repository_has_its_turn(parses: Parses) -> None:
    """A file that can't be read for half a minute keeps no other from being read."""
    driver, found = MemoryDriver(), list[str]()
    for name in ("a", "b"):
        push_image(store_over(driver), name, name)
    (root,) = store_over(driver, clock=unslept()).roots
    parses.clear()
    parses.first = lambda: found.extend(root.protocol.indexes.read("b").index.tags())
    assert read(root).tags() == ["a"] and found == ["b"]


def test_who_must_not_wait_has_no_turn(parses: Parses) -> None:
    """The event loop, with all its connections. Nor does it look for a file that is missing."""
    driver = MemoryDriver()
    push_image(store_over(driver), "a", "v1")
    (root,) = store_over(driver, clock=unslept()).roots
    parses.clear()
    with pytest.raises(WouldBlock):
        root.protocol.indexes.read("a", wait=False)
    assert parses == []
    read(root)
    assert root.protocol.indexes.read("a", wait=False).index.tags() == ["v1"]
    driver.unlink(keys.index("a"))
    with pytest.raises(WouldBlock):
        root.protocol.indexes.read("a", wait=False)


def test_what_was_read_is_known_though_the_file_was_replaced_during_the_parse(parses: Parses, tmp_path: Path) -> None:
    """Or else readers would parse all rows again and again, while others commit."""
    driver = LocalDriver(str(tmp_path))
    push_image(store_over(driver), "a", "v1")
    (root,), (other,) = store_over(driver).roots, store_over(driver).roots
    read(other)
    parses.clear()
    parses.first = lambda: tag(other, "v2")
    assert read(root).tags() == ["v1"]
    parses.clear()
    parses.first = lambda: None
    assert read(root).tags() == ["v1", "v2"]
    assert len(parses) == 1 and parses[0] is not None


def test_what_was_read_takes_the_place_of_nothing_later(parses: Parses, tmp_path: Path) -> None:
    driver = LocalDriver(str(tmp_path))
    push_image(store_over(driver), "a", "v1")
    (root,) = store_over(driver).roots
    parses.clear()
    parses.first = lambda: tag(root, "v2")
    assert read(root).tags() == ["v1"]
    parses.clear()
    assert read(root).tags() == ["v1", "v2"] and not parses


def test_a_large_file_that_was_replaced_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It stays open for a second, and with pushes one after the other these would be many."""
    uncached = list[int]()
    monkeypatch.setattr(LocalReader, "uncache", lambda reader: uncached.append(reader.size))
    monkeypatch.setattr(index_file, "UNCACHED_BYTES", 500)
    (root,) = store_over(LocalDriver(str(tmp_path))).roots
    sizes = list[int]()
    for number in range(5):
        tag(root, f"v{number}")
        sizes.append((tmp_path / "a/index.json").stat().st_size)
    assert sizes[0] < 500 < sizes[-2] and uncached == [size for size in sizes[:-1] if size >= 500]
