"""Copies into the pool and out of repositories step by step (docs/design/bucket.md#the-tree): `dedupe` on a bucket
beside collectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.storage.test_bucket_core import World
from tests.stores import bucket_store
from zotctl.errors import DoneUnanswered, OutcomeUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.blobs import REDIRECT_MIN_BYTES
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.bucket.protocol import bucket_of

AGE = 60.0
X = digest_of(b"x")
OWN, POOL, RESERVED = keys.blob("a", X), keys.shared(X), keys.reservation(X, "a")


@pytest.fixture
def world() -> World:
    """A repository that has a copy of its own, and a reservation, of what lies in the pool."""
    world = World(dedupe=True)
    world.push_blob("a", b"x")
    world.memory.put(OWN, b"x")
    world.later(AGE)
    return world


def once(world: World, method: str, key: str, deed: Callable[[], object]) -> None:
    """Before the first such request."""
    wanted = [True]

    def before(called: str, args: tuple[Any, ...]) -> None:
        if wanted and called == method and args[0] == key:
            wanted.clear()
            deed()

    world.objects.before = before


def droppable(world: World) -> dict[str, float]:
    return {str(digest): wait for digest, wait in world.protocol().conversion.droppable("a", [X], AGE)}


def drop(world: World) -> list[str]:
    return [str(digest) for digest in world.protocol().conversion.drop("a", AGE, [X])]


def test_a_copy_goes_when_the_pool_has_had_it_for_long_enough(world: World) -> None:
    assert droppable(world) == {X: 0.0}
    assert drop(world) == [X]
    assert OWN not in world.memory.stored and {POOL, RESERVED} <= world.memory.stored.keys()


def test_nor_does_it_go_before(world: World) -> None:
    world.later(-1)
    assert droppable(world) == {X: 1.0}
    assert drop(world) == [] and OWN in world.memory.stored


@pytest.mark.parametrize("wrong", ["absent", "empty", "announced", "damaged", "not reserved"])
def test_a_copy_stays_that_may_be_the_only_one(world: World, wrong: str) -> None:
    if wrong == "absent":
        world.memory.delete(POOL)
    elif wrong == "empty":
        world.memory.put(POOL, b"")
        world.later(AGE)
    elif wrong == "announced":
        world.protocol().intents.announce([POOL])
    elif wrong == "damaged":
        there = world.memory.head(POOL)  # by another server's scrub
        world.memory.put(keys.damaged(X, keys.SHARED), f"{int(there.modified)} {there.size}".encode())
    else:
        world.memory.delete(RESERVED)
    assert droppable(world) == {}


def test_a_copy_stays_if_the_pool_is_announced_while_it_is_reserved_anew(world: World) -> None:
    once(world, "put", RESERVED, lambda: world.protocol().intents.announce([POOL]))
    assert drop(world) == [] and OWN in world.memory.stored


def test_a_reservation_is_written_anew_before_a_copy_goes(world: World) -> None:
    """A collector that had looked at it sees that, and spares the pool."""
    before = world.memory.stored[RESERVED].etag
    assert drop(world) == [X]
    assert world.memory.stored[RESERVED].etag != before


def test_a_process_that_was_frozen_deletes_no_copy(world: World) -> None:
    """The deletes are signed before its reservation was written anew."""
    once(world, "list", f"{keys.INTENTS}/", lambda: world.later(DELETES_SIGNED_FOR_S + 1))
    assert drop(world) == []
    assert OWN in world.memory.stored


def test_a_copy_whose_delete_was_done_and_not_answered_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run goes on."""
    execute = world.memory.execute

    def unanswered(presigned: PresignedDelete) -> None:
        execute(presigned)
        raise DoneUnanswered("done, and then again")

    monkeypatch.setattr(world.memory, "execute", unanswered)
    assert drop(world) == [X]
    assert OWN not in world.memory.stored


def test_a_delete_of_which_nothing_is_known_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(presigned: PresignedDelete) -> None:
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(world.memory, "execute", unknown)
    with pytest.raises(OutcomeUnknown):
        drop(world)


# -- beside a server without deduplication, which reads a repository's own blobs first -------------------------------


@pytest.fixture
def server(world: World) -> Store:
    store = bucket_store(world.objects, world.time, dedupe=False)
    bucket_of(store.roots[0]).context.pooled = True
    return store


def test_a_blob_is_read_in_the_pool_where_its_copy_goes_just_then(world: World, server: Store) -> None:
    once(world, "open", OWN, lambda: world.memory.delete(OWN))
    with server.repository("a").open_blob(X) as reader:
        assert reader.read_at(0, 10) == b"x"


@pytest.mark.parametrize("method", ["head", "copy"])
def test_a_blob_is_mounted_from_the_pool_where_its_copy_goes_just_then(
    world: World, server: Store, method: str
) -> None:
    once(world, method, OWN, lambda: world.memory.delete(OWN))
    assert bucket_of(server.roots[0]).blobs.mount("a", "b", X)
    assert world.memory.stored[keys.blob("b", X)].body == b"x"


def test_no_stub_is_mounted(world: World, server: Store) -> None:
    world.memory.put(OWN, b"")
    assert bucket_of(server.roots[0]).blobs.mount("a", "b", X)
    assert world.memory.stored[keys.blob("b", X)].body == b"x"
    world.memory.delete(POOL)
    assert not bucket_of(server.roots[0]).blobs.mount("a", "c", X)
    assert keys.blob("c", X) not in world.memory.stored


def test_what_is_damaged_here_is_read_in_the_pool(world: World, server: Store) -> None:
    there = world.memory.head(OWN)
    world.memory.put(keys.damaged(X, "a"), f"{int(there.modified)} {there.size}".encode())
    bucket_of(server.roots[0]).blobs._damaged.refresh(now=True)
    with server.repository("a").open_blob(X) as reader:
        assert reader.read_at(0, 10) == b"x"


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_client_is_not_sent_to_a_copy_that_may_go(world: World, confirmed: bool) -> None:
    body = bytes(REDIRECT_MIN_BYTES)
    digest = world.push_blob("a", body)
    world.memory.put(keys.blob("a", digest), body)
    store = bucket_store(world.objects, world.time, dedupe=False)
    blobs = bucket_of(store.roots[0]).blobs
    blobs.redirect_lifetime_s = 60.0
    bucket_of(store.roots[0]).context.pooled = True
    if confirmed:
        blobs.find("a", digest)
    target = blobs.redirect("a", digest)
    assert target is not None and keys.shared(digest) in target.url


@pytest.mark.parametrize("told", [False, True])
def test_a_copy_that_came_out_wrong_is_gone_again(world: World, told: bool) -> None:
    """Proven by the checksum that the store tells, or by reading it."""
    copy, read = world.memory.copy, list[str]()

    def wrong(source: str, target: str) -> Object:
        found = copy(source, target)
        return found if told else found._replace(metadata={})

    def sound(key: str, digest: str) -> bool:
        read.append(key)
        return False

    world.memory.copy = wrong  # type: ignore[method-assign]
    world.memory.put(OWN, b"?")
    world.memory.delete(POOL)
    assert not world.protocol().conversion.copy(OWN, POOL, X, sound)
    assert POOL not in world.memory.stored
    assert read == ([] if told else [POOL])


def test_from_the_first_copy_on_the_pool_is_looked_into() -> None:
    world = World(dedupe=False)
    world.push_blob("a", b"x")
    protocol = world.protocol()
    assert protocol.conversion.copy(OWN, POOL, X, lambda *_: True)
    assert protocol.context.pooled


def test_a_repository_reserves_what_it_is_about_to_get_after_each_intent(world: World) -> None:
    """P1 once more, for the reservation may have gone under it, and under the next one."""
    protocol = world.protocol()
    intents, left = [protocol.intents.announce([OWN])], [None]

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == RESERVED and left:
            left.clear()
            intents.append(protocol.intents.announce([OWN]))

    def carry_out() -> None:
        while intents:
            world.memory.delete(RESERVED)
            world.memory.delete(intents.pop())

    world.objects.before, world.time.on_sleep = before, carry_out
    protocol.conversion.prepare("a", X)
    assert RESERVED in world.memory.stored and not left
    assert not protocol.intents.look().announced
