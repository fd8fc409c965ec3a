"""Manifests of a repository on a bucket are read side by side, and each is judged as if it was read in its turn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.clocks import Hand
from tests.counting import Counted, InFlight
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, push_image, push_index
from zotctl.errors import Unavailable
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.facts import Content
from zotctl.storage.graph import READ_AHEAD_MANIFESTS, ManifestGraph
from zotctl.storage.references import Reference

NOBODY = str(digest_of(b"nobody"))
TAGS = 200


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class World:
    def __init__(self, tags: int = TAGS) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        store = self.another(self.memory)
        self.digests = [push_image(store, "a", f"v{at}", seed=str(at), layers=1) for at in range(tags)]

    def another(self, objects: Any, threads: ThreadPoolExecutor | None = None) -> Store:
        store = bucket_store(objects, self.clock, threads=threads)
        bucket_of(store.roots[0]).context.pooled = False
        return store


def test_the_first_list_of_referrers_reads_16_at_once(threads: ThreadPoolExecutor) -> None:
    world = World()
    flight = InFlight(world.memory, lambda method, key: method == "open")
    counted = Counted(flight)  # type: ignore[arg-type]
    assert world.another(counted, threads).repository("a").referrers(NOBODY) == []
    assert flight.most == 16
    opened = [key for method, key in counted.requests if method == "open" and "/blobs/" in key]
    assert sorted(opened) == sorted({keys.blob("a", digest) for digest in world.digests})


def test_children_and_subjects_are_read_side_by_side_too(threads: ThreadPoolExecutor) -> None:
    world = World(tags=0)
    store = world.another(world.memory)
    children = [push_image(store, "a", seed=str(at), layers=1) for at in range(40)]
    push_index(store, "a", "all", children=children)
    flight = InFlight(world.memory, lambda method, key: method == "open")
    assert world.another(flight, threads).repository("a").referrers(NOBODY) == []
    assert flight.most == 16


@pytest.mark.parametrize("what", ["missing", "damaged", "away"])
def test_what_goes_wrong_ahead_is_told_in_its_turn(threads: ThreadPoolExecutor, what: str) -> None:
    """And looked at again when it is asked for again."""
    world = World(tags=20)
    key = keys.blob("a", world.digests[7])
    whole = world.memory.stored[key]
    failing = [what == "away"]

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "open" and args[0] == key and failing[0]:
            raise Unavailable("away")

    if what == "missing":
        world.memory.delete(key)
    elif what == "damaged":
        world.memory.stored[key] = whole._replace(body=whole.body[:-1] + b"x")
    store = world.another(Counted(world.memory, before), threads)
    root = store.roots[0]
    kind = {"missing": "missing_manifest", "damaged": "digest_mismatch", "away": "unreadable"}[what]
    with root.graphs.of("a").at(store.repository("a").index()) as graph:
        assert {digest: fault.kind for digest, fault in graph.faults.items()} == {world.digests[7]: kind}
        assert len(graph.facts) == 19
    world.memory.stored[key], failing[0] = whole._replace(etag=whole.etag + "'"), False
    with root.graphs.of("a").at(store.repository("a").index(), again=True) as graph:
        assert not graph.faults and len(graph.facts) == 20


def test_nothing_that_was_read_ahead_is_left_for_later() -> None:
    """What is told of a digest is as it is when it is asked for, and not as it was before."""
    world = World(tags=4)
    bodies = {str(digest): world.memory.stored[keys.blob("a", digest)].body for digest in world.digests}
    rows = [Reference(digest, len(body), "") for digest, body in bodies.items()]
    gone = rows[2].digest
    asked: list[str] = []

    def read(digest: Digest, whole: bool) -> Content:
        asked.append(digest)
        if digest == gone:
            raise Unavailable("away")
        return Content(len(bodies[digest]), bodies[digest])

    graph = ManifestGraph(read, each=lambda calls: [call() for call in calls])
    graph.add(rows)
    assert sorted(asked) == sorted(bodies) and set(graph.faults) == {gone}
    gone = ""
    graph.again()
    assert not graph.faults


def test_no_more_are_read_ahead_than_are_kept_for_a_moment() -> None:
    held = [0, 0]

    def each(calls: Any) -> None:
        held[0], held[1] = max(held[0], len(calls)), held[1] + len(calls)
        for call in calls:
            call()

    world = World(tags=0)
    body = world.memory.stored[keys.blob("a", push_image(world.another(world.memory), "a", "t"))].body
    made = [body.replace(b"{", b"{" + b" " * at, 1) for at in range(3 * READ_AHEAD_MANIFESTS)]
    bodies = {str(digest_of(one)): one for one in made}
    graph = ManifestGraph(lambda digest, whole: Content(len(bodies[digest]), bodies[digest]), each=each)
    graph.add(Reference(digest, len(one), "") for digest, one in bodies.items())
    assert held == [READ_AHEAD_MANIFESTS, 3 * READ_AHEAD_MANIFESTS]
    assert len(graph.facts) == 3 * READ_AHEAD_MANIFESTS
