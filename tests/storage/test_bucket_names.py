"""The list of repositories of a bucket: a cache of what a walk finds (zotctl.storage.bucket.catalog)."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest

from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store
from zotctl.errors import Unavailable
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.bucket.catalog import BucketCatalog
from zotctl.storage.bucket.protocol import bucket_of


class World:
    def __init__(self, *names: str) -> None:
        """With repositories that came by another tool."""
        self.memory = MemoryObjects()
        self.objects = Counted(self.memory)
        for name in names:
            self.make(name)

    def make(self, name: str) -> None:
        self.memory.put(keys.layout(name), LAYOUT_BYTES)
        self.memory.put(keys.index(name), b'{"schemaVersion":2,"manifests":[]}')

    def catalog(self, *, read_only: bool = False) -> BucketCatalog:
        """That of another process."""
        context = bucket_of(bucket_store(self.objects).roots[0]).context
        context.read_only = read_only
        return BucketCatalog(context)

    def listed(self) -> set[str]:
        prefix = f"{keys.NAMES}/"
        return {keys.name_listed(key) or "made" for key in self.memory.stored if key.startswith(prefix)}

    def walked(self, names: Iterable[str]) -> tuple[list[str], bool]:
        """And whether directories were looked into."""
        self.objects.taken()
        return list(names), "names" in self.objects.taken()


def test_it_is_made_by_a_walk_and_read_from_then_on() -> None:
    world = World("b", "a-b", "a/b")
    assert world.walked(world.catalog().walk()) == (["a/b", "a-b", "b"], True)
    assert world.listed() == {"a/b", "a-b", "b", "made"}
    assert world.walked(world.catalog().walk()) == (["a/b", "a-b", "b"], False)


def test_names_of_pushes_only_are_no_list() -> None:
    """A store that pushed here before the list was made knows of its own repositories only."""
    world = World("a", "b")
    world.memory.put(keys.listed_name("a"), b"")
    assert world.walked(world.catalog().walk()) == (["a", "b"], True)


def test_a_page_goes_on_behind_the_last_one() -> None:
    world = World("a", "a/b", "a-b", "b")
    assert list(world.catalog().walk("a/b")) == ["a-b", "b"]
    assert list(world.catalog().walk("a", lambda name: name != "a-b")) == ["a/b", "b"]


def test_a_page_costs_the_same_however_many_there_are() -> None:
    world = World(*(f"a/{number:04}" for number in range(2500)))
    catalog = world.catalog()
    list(catalog.walk())
    world.objects.taken()
    for last in (None, "a/0005", "a/2400"):
        assert list(islice(catalog.walk(last), 3)) == [
            f"a/{(0 if last is None else int(last[2:]) + 1) + at:04}" for at in range(3)
        ]
        assert world.objects.taken() == ["list"]


@pytest.mark.parametrize("seed", range(3))
def test_the_list_is_in_the_order_of_the_components(seed: int) -> None:
    numbers = random.Random(seed)
    parts = ["a", "0", "az", "a-a", "a.0", "0_b", "z__z"]
    names = {"/".join(numbers.choices(parts, k=numbers.randint(1, 3))) for _ in range(40)}
    listed = sorted(map(keys.listed_name, names))
    assert [keys.name_listed(key) for key in listed] == sorted(names, key=lambda name: name.split("/"))


def test_a_job_adds_what_came_by_other_ways() -> None:
    world = World("a")
    list(world.catalog().walk())
    world.make("b")
    assert world.walked(world.catalog().everything()) == (["a", "b"], True)
    assert world.walked(world.catalog().walk()) == (["a", "b"], False)


def test_a_list_that_was_half_made_is_made_again() -> None:
    """That it is made is written when all names are."""
    world = World("a", "b")

    def away(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == keys.listed_name("b"):
            raise Unavailable("no")

    world.objects.before = away
    assert list(world.catalog().walk()) == ["a", "b"]
    assert "made" not in world.listed()
    world.objects.before = None
    assert world.walked(world.catalog().walk()) == (["a", "b"], True)
    assert world.listed() == {"a", "b", "made"}


def test_a_process_that_only_reads_writes_no_list() -> None:
    world = World("a")
    assert list(world.catalog(read_only=True).walk()) == ["a"]
    assert world.listed() == set()


def test_a_store_below_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World("a", "below", "below/b")
    world.memory.put(f"below/{keys.VERSION}", b"")
    catalog = world.catalog()
    with caplog.at_level(logging.WARNING, "zotctl.storage"):
        for _ in range(2):
            assert list(catalog.everything()) == ["a"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_is_no_name_is_passed_over() -> None:
    world = World("a", "_x", "a/_y", "A")
    world.memory.put(f"{keys.NAMES}/not%a!name", b"")
    assert list(world.catalog().everything()) == ["a"]
    assert list(world.catalog().walk()) == ["a"]
