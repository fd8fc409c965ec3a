"""Swaps of an index.json that others swap, too (docs/design/bucket.md#indexjson)."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests import images
from tests.storage.test_bucket_core import IMAGE, MANIFEST, World
from tests.stores import push_image
from zotctl.errors import Busy, Changed, ManifestUnknown, NotFound, OutcomeUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.index import COMMIT_TIMEOUT_S, GENERATIONS, LONGEST_PAUSE_S
from zotctl.storage.index import Index
from zotctl.storage.protocol import Transaction


def test_c4_an_index_that_was_changed_since_is_not_fenced() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    protocol = world.protocol(world.another())
    before = protocol.indexes.read("a")
    world.push("a", "v2")
    assert not protocol.indexes.touch("a", before)
    assert protocol.indexes.touch("a", protocol.indexes.read("a"))


def test_a_push_that_loses_each_swap_is_told_after_a_while_with_short_pauses() -> None:
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
    assert COMMIT_TIMEOUT_S <= world.time.at - began <= COMMIT_TIMEOUT_S + 2 * LONGEST_PAUSE_S
    assert max(b - a for a, b in pairwise(times)) <= 2 * LONGEST_PAUSE_S


class Lost:
    """The reply to the first swap of a's index.json gets lost; `done`: it was carried out. `then` happens behind it."""

    def __init__(self, world: World, *, done: bool, then: Callable[[], object] = lambda: None) -> None:
        self._put, self._done, self._then = world.memory.put, done, then
        self.bodies: list[bytes] = []
        world.memory.put = self  # type: ignore[method-assign]

    def __call__(self, key: str, body: Any, **options: Any) -> str:
        if key != keys.index("a"):
            return self._put(key, body, **options)
        self.bodies.append(bytes(body))
        if len(self.bodies) > 1:
            return self._put(key, body, **options)
        if self._done:
            self._put(key, body, **options)
        self._then()
        raise OutcomeUnknown("no answer")


def test_another_index_of_equal_length_is_not_ours() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    other = world.another()
    other.repository("a").tags()
    lost = Lost(world, done=False, then=lambda: world.push("a", "v3", store=other))
    world.push("a", "v2")
    assert len(lost.bodies[0]) == len(lost.bodies[1]), "both were built upon the same"
    assert world.repository("a").tags() == ["v1", "v2", "v3"]


def test_a_swap_that_another_one_was_built_upon_was_done() -> None:
    """Made again, it would take the tag back from who came after it."""
    world = World(dedupe=False)
    world.push("a", "v1")
    later = images.image("later", layers=1).digest
    Lost(world, done=True, then=lambda: push_image(world.another(), "a", "v2", seed="later", layers=1))
    world.push("a", "v2")
    assert world.another().repository("a").manifest("v2").digest == later


def test_a_fence_that_came_through_after_its_repetition_had_begun_is_done() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    protocol = world.protocol(world.another())
    before, real, bodies = protocol.indexes.read("a"), world.memory.put, list[bytes]()

    def put(key: str, body: Any, **options: Any) -> str:
        bodies.append(bytes(body))
        if len(bodies) == 1:
            raise OutcomeUnknown("no answer")
        real(key, bodies[0], **options)
        return real(key, body, **options)

    world.memory.put = put  # type: ignore[method-assign]
    assert protocol.indexes.touch("a", before)
    assert world.memory.stored[keys.index("a")].body == bodies[0]


def test_what_is_not_there_is_not_deleted_and_said_to_be() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    for reference in ("v2", str(digest_of(b"nowhere"))):
        with pytest.raises(ManifestUnknown):
            world.repository("a").delete_manifest(reference)


def test_a_delete_whose_reply_was_lost_is_not_refused_for_being_done() -> None:
    """And built upon so often since that its generation is not among those that are kept."""
    world = World(dedupe=False)
    world.push("a", "v1", "v2")

    def forget() -> None:
        body = json.loads(world.memory.stored[keys.index("a")].body)
        body["annotations"][GENERATIONS] = "others"
        world.memory.stored[keys.index("a")] = world.memory.stored[keys.index("a")]._replace(
            body=json.dumps(body).encode(), etag='"others"'
        )

    Lost(world, done=True, then=forget)
    world.repository("a").delete_manifest("v1")
    assert world.another().repository("a").tags() == ["v2"]


def test_a_repository_that_was_removed_has_an_index_before_it_has_bytes_again() -> None:
    world = World(dedupe=False)
    world.push("a", "v1")
    for key in [key for key in world.memory.stored if key.startswith("a/")]:
        world.memory.delete(key)
    with pytest.raises(NotFound):
        world.protocol().indexes.read("a")
    world.push_blob("a", b"new")
    assert keys.index("a") in world.memory.stored and keys.layout("a") in world.memory.stored


def test_m1_that_nothing_is_to_be_done_is_not_said_by_a_glance() -> None:
    """The tag was there, and was deleted since."""
    world = World(dedupe=False)
    world.push("a", "v1", "v2")
    protocol = world.protocol()
    protocol.indexes.glance("a")
    world.repository("a", world.another()).delete_manifest("v2")

    def tag(tx: Transaction, draft: Index) -> None:
        row = draft.find("v1")
        assert row is not None and row.digest is not None
        draft.put(row.digest, row.size, row.media_type, ["v2"])

    assert protocol.commit_index("a", [tag]) == [None]
    assert world.repository("a", world.another()).tags() == ["v1", "v2"]


def test_m1_of_a_group_each_is_answered_by_the_index_that_was_swapped() -> None:
    """One is refused by the glance, and the swap of the other one finds that it is of before."""
    world = World(dedupe=False)
    world.push("a", "v1")
    protocol = world.protocol()
    protocol.indexes.glance("a")
    world.push("a", "v2", store=world.another())

    def drop(tx: Transaction, draft: Index) -> None:
        if draft.find("v2") is None:
            raise ManifestUnknown("no v2")
        draft.untag("v2")

    def tag(tx: Transaction, draft: Index) -> None:
        row = draft.find("v1")
        assert row is not None and row.digest is not None
        draft.put(row.digest, row.size, row.media_type, ["v3"])

    assert protocol.commit_index("a", [drop, tag]) == [None, None]
    assert world.repository("a", world.another()).tags() == ["v1", "v3"]
