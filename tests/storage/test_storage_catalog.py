"""The list of repositories: by pages, in the order of components, and never older than the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.stores import push_blob, push_image, store_over
from zotctl.storage import Store
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Entry
from zotctl.storage.local.catalog import LocalCatalog
from zotctl.storage.local.context import SETTLED_S
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.wrappers import WrappedDriver

COMPONENTS = ["a", "b", "a-b", "a.b", "a0", "blobs", "z"]
NAMES = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=3).map("/".join)


class Counting(WrappedDriver):
    scans = stats = 0

    def scan(self, key: str) -> Sequence[Entry]:
        self.scans += 1
        return self.inner.scan(key)


def bare(directory: Path) -> None:
    """The least that is a layout."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')


def settle(root: Path) -> None:
    """Nothing has been touched for a while, and all has one old time stamp, as rsync and tar leave it."""
    for path, _, _ in os.walk(root):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    time.sleep(1.5 * SETTLED_S)


def make_dirs(driver: Driver, key: str) -> None:
    parts = key.split("/")
    for depth in range(1, len(parts) + 1):
        if "/".join(parts[:depth]) not in driver.names:  # type: ignore[attr-defined]
            driver.mkdir("/".join(parts[:depth]))


def put(driver: Driver, key: str, body: bytes) -> None:
    with driver.create(key) as writer:
        writer.write([body])


def in_memory(names: set[str]) -> MemoryDriver:
    driver = MemoryDriver()
    for name in names:
        make_dirs(driver, name)
        put(driver, f"{name}/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put(driver, f"{name}/index.json", b'{"schemaVersion":2,"manifests":[]}')
    return driver


def pages(store: Store, n: int) -> list[str]:
    """All of it, as a client that follows pages sees it."""
    found: list[str] = []
    while page := store.repositories(n, found[-1] if found else None):
        assert len(page) <= n
        found += page
    return found


def valid(name: str) -> bool:
    return "blobs" not in name.split("/")[1:]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(NAMES, max_size=8), min_size=1, max_size=3), st.integers(1, 4), NAMES)
def test_pages_over_several_roots(roots: list[set[str]], n: int, last: str) -> None:
    store = store_over(*(in_memory(names) for names in roots))
    expected = sorted({name for names in roots for name in names if valid(name)}, key=lambda name: name.split("/"))
    assert store.repositories() == expected
    assert pages(store, n) == expected
    after = [name for name in expected if name.split("/") > last.split("/")]
    assert store.repositories(None, last) == after, "`last` need not exist"
    assert store.repositories(n, last) == after[:n]
    assert store.repositories(0) == []


def test_the_order_is_by_components(tmp_path: Path) -> None:
    names = ["a", "a/b", "a/b/c", "a-b", "a-b/c", "a.b", "a0", "a_b", "ab"]
    for name in names:
        bare(tmp_path / name)
    store = store_over(LocalDriver(str(tmp_path)))
    assert store.repositories() == names == sorted(names, key=lambda name: name.split("/"))
    assert names != sorted(names)
    for n in range(1, 10):
        assert pages(store, n) == names


def test_a_new_or_removed_repository_is_noticed_at_once(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    expected: set[str] = set()
    for number in range(30):
        name = f"r{number % 7}/s{number % 5}"
        if name in expected:
            shutil.rmtree(tmp_path / name)
            expected.discard(name)
        else:
            bare(tmp_path / name)
            expected.add(name)
        assert store.repositories() == sorted(expected)
        if number % 6 == 5:
            settle(tmp_path)
            assert store.repositories() == sorted(expected)


@pytest.mark.parametrize("settled", [False, True])
def test_a_layout_that_appears_or_goes_in_a_known_directory(tmp_path: Path, settled: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    store = store_over(LocalDriver(str(tmp_path)))

    def check(*names: str) -> None:
        if settled:
            settle(tmp_path)
        for _ in range(2):
            assert store.repositories() == list(names)

    check()
    bare(tmp_path / "a" / "b")
    check("a/b")
    bare(tmp_path / "a")
    check("a", "a/b")
    (tmp_path / "a" / "oci-layout").unlink()
    check("a/b")
    (tmp_path / "a" / "b").rename(tmp_path / "b")
    check("b")
    shutil.rmtree(tmp_path / "b")
    check()


def test_what_did_not_change_is_not_listed_again(tmp_path: Path) -> None:
    for number in range(20):
        bare(tmp_path / f"r{number}" / "s")
    driver = Counting(LocalDriver(str(tmp_path)))
    catalog = LocalCatalog(driver, Clock())
    settle(tmp_path)
    first = list(catalog.walk())
    assert driver.scans == 41
    settle(tmp_path)
    assert list(catalog.walk()) == first
    time.sleep(1.5 * SETTLED_S)
    assert list(catalog.walk()) == first
    driver.scans = 0
    assert list(catalog.walk()) == first
    assert driver.scans == 0
    bare(tmp_path / "r3" / "t")
    assert len(list(catalog.walk())) == 21
    assert driver.scans == 2, "r3 and the new one"


def test_what_changed_just_now_is_listed_again(tmp_path: Path) -> None:
    """Two changes in one tick of the kernel's clock have one time stamp."""
    bare(tmp_path / "a")
    driver = Counting(LocalDriver(str(tmp_path)))
    catalog = LocalCatalog(driver, Hand((tmp_path / "a").stat().st_mtime))
    list(catalog.walk())
    before = driver.scans
    list(catalog.walk())
    assert driver.scans == 2 * before


def test_a_page_costs_a_page(tmp_path: Path) -> None:
    """The work is bounded by the page and not by the store (I12)."""
    for number in range(200):
        bare(tmp_path / f"r{number:03}")
    driver = Counting(LocalDriver(str(tmp_path)))
    store = store_over(driver)
    assert store.repositories(5) == [f"r{number:03}" for number in range(5)]
    assert driver.scans <= 8
    driver.scans = 0
    assert store.repositories(5, "r150") == [f"r{number:03}" for number in range(151, 156)]
    assert driver.scans <= 10


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root / "a", root / "a" / "b", outside, outside / "in"):
        bare(path)
    (root / "self").symlink_to(root)
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "b" / "me").symlink_to(".")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "gone").symlink_to("nowhere")
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "index.json")
    store = store_over(LocalDriver(str(root)))
    listed = store.repositories()
    assert [name for name in listed if name in ("a", "a/b", "link")] == ["a", "a/b", "link"]
    assert not {name for name in listed if name.startswith(("self/", "link/", "a/up/", "one", "two", "gone", "file"))}
    assert pages(store, 2) == listed


def test_what_is_no_repository_is_left_out(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    push_image(store, "app", "v1")
    too_long = "x" * 255 + "/y"
    for name in ("_trivy", ".hidden", "UPPER", "a..b", "app/blobs/x", "app/.sync/y", "app/index.jso_", too_long):
        bare(tmp_path / name)
    (tmp_path / "cache.db").write_text("")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / os.fsdecode(b"\xff\xfe")).mkdir()
    assert store.repositories() == ["app"]


def test_an_upload_and_a_mount_that_fails_list_nothing(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    push_blob(store.repository_for_push("a"), b"x")
    upload_id = store.repository_for_push("new/one").start_upload()
    with store.repository_for_push("new/one").resume_upload(upload_id) as upload:
        upload.write([b"half"])
    assert store.repositories() == ["a"]
    assert not (tmp_path / "new").exists()


def test_two_thousand_repositories(tmp_path: Path) -> None:
    names = [f"team{number % 40:02}/app{number:04}" for number in range(2000)]
    for name in names:
        bare(tmp_path / name)
    settle(tmp_path)
    store = store_over(LocalDriver(str(tmp_path)))
    expected = sorted(names, key=lambda name: name.split("/"))
    assert store.repositories() == expected
    assert pages(store, 300) == expected
    images.lay_out(tmp_path / "team07" / "new", images.image())
    shutil.rmtree(tmp_path / names[11])
    found = store.repositories()
    assert set(found) == {*names, "team07/new"} - {names[11]}
    assert all(one.split("/") < other.split("/") for one, other in pairwise(found))


class Compared(str):
    """Counts how often names are compared."""

    comparisons = 0

    def __lt__(self, other: str) -> bool:
        Compared.comparisons += 1
        return str.__lt__(self, other)

    __hash__ = str.__hash__


class Names(WrappedDriver):
    def scan(self, key: str) -> Sequence[Entry]:
        return [entry._replace(name=Compared(entry.name)) for entry in self.inner.scan(key)]


def test_a_page_in_the_middle_looks_at_no_names_before_it() -> None:
    """Of 100,000 repositories as little as of these."""
    memory = MemoryDriver()
    memory.mkdir("many")
    for number in range(1000):
        make_dirs(memory, f"many/r{number:04}")
        put(memory, f"many/r{number:04}/oci-layout", b"{}")
    clock = Hand()
    catalog = LocalCatalog(Names(memory), clock)
    for _ in range(2):
        assert next(catalog.walk("many/r0000")) == "many/r0001"
        clock.at += 2 * SETTLED_S
    Compared.comparisons = 0
    walk = catalog.walk("many/r0499")
    assert [next(walk) for _ in range(3)] == ["many/r0500", "many/r0501", "many/r0502"]
    assert Compared.comparisons <= 30
