"""Swaps of an index.json that others swap, too (docs/design/bucket.md#indexjson)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.storage.test_bucket_core import IMAGE, MANIFEST, World
from zotctl.errors import Busy, Changed
from zotctl.storage import keys
from zotctl.storage.bucket.index import LONGEST_PAUSE, PATIENCE


def test_c4_an_index_that_was_changed_since_is_not_fenced() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    protocol = world.protocol(world.another())
    before = protocol.read_index("a")
    world.push("a", "v2")
    assert not protocol.indexes.touch("a", before)
    assert protocol.indexes.touch("a", protocol.read_index("a"))


def test_who_loses_each_swap_is_told_after_a_while_with_short_pauses() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    put, began, times = world.memory.put, world.time.at, list[float]()

    def lose(key: str, *args: Any, **options: Any) -> str:
        if key == keys.index("a"):
            times.append(world.time.at)
            assert len(times) < 10_000
            raise Changed("others were faster")
        return put(key, *args, **options)

    world.memory.put = lose  # type: ignore[method-assign]
    with pytest.raises(Busy):
        world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v2"])
    assert PATIENCE <= world.time.at - began <= PATIENCE + 2 * LONGEST_PAUSE
    assert max(b - a for a, b in pairwise(times)) <= 2 * LONGEST_PAUSE
