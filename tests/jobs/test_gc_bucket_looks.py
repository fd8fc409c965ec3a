"""What a collector looks at costs lists, however many blobs there are (docs/design/bucket.md#c5)."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from tests.jobs.test_gc import collect
from tests.jobs.test_gc_bucket import World
from tests.stores import push_image
from zotctl.jobs.bucket import looks
from zotctl.jobs.bucket.looks import look_at
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.protocol import bucket_of

MANY = 1200


def strays(world: World, count: int) -> list[Digest]:
    """Blobs that nothing reaches, each with its reservation."""
    push_image(world.store, "a", "v1")
    digests = []
    for number in range(count):
        body = b"stray %d" % number
        digests.append(digest_of(body))
        world.memory.put(keys.blob("a", digests[-1]), body)
        world.memory.put(keys.reservation(digests[-1], "a"), b"token")
    return digests


def test_a_collection_is_bounded_by_its_lists() -> None:
    world = World(dedupe=False)
    digests = strays(world, MANY)
    world.later()
    collect(world.store)
    assert all(world.has("a", digest) for digest in digests)
    world.later()
    world.objects.taken()
    collect(world.store)
    assert not any(world.has("a", digest) for digest in digests)
    asked = Counter(world.objects.taken())
    assert asked["head"] < 50 and sum(asked.values()) < MANY / 3, asked


def test_c5_what_was_reserved_meanwhile_is_seen_in_a_list() -> None:
    world = World(dedupe=False)
    digests = strays(world, 64)
    world.later()
    collect(world.store)
    assert all(world.has("a", digest) for digest in digests)
    world.later()
    reserved, gone, other = digests[:3]

    def between(method: str, args: tuple[object, ...]) -> None:
        if method == "put" and str(args[0]).startswith(keys.below(keys.INTENTS)):
            world.objects.before = None
            world.memory.put(keys.reservation(reserved, "a"), b"another")
            world.memory.delete(keys.reservation(gone, "a"))
            world.memory.put(keys.blob("a", other), b"others")

    world.objects.before = between
    collect(world.store)
    assert [digest for digest in digests if world.has("a", digest)] == [reserved, gone, other]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 40, 300])
def test_a_list_tells_what_heads_do(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Also of a store whose lists lack what is beyond the first page: there one may miss what moves between two."""
    monkeypatch.setattr(looks, "PAGE_KEYS", 15)
    world = World(dedupe=False)
    digests = strays(world, count)
    missing = [digest_of(b"%d" % number) for number in range(count)]
    wanted = [(keys.blob("a", digest), digest) for digest in (*digests, *missing)]
    context = bucket_of(world.store.roots[0]).context
    there = {key: context.head(key) for key, digest in wanted if digest in digests}
    world.objects.taken()
    whole = world.memory.list
    monkeypatch.setattr(world.memory, "list", lambda prefix: islice(whole(prefix), 15))
    assert look_at(context, wanted) == there
    assert len(world.objects.taken()) <= 2 * count + 16
