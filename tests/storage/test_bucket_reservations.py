"""Reservations by their steps P1 to P3 (docs/design/bucket.md#reservations): what a process relies on while others
collect, and while it is frozen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.storage.test_bucket_core import IMAGE, LAYER, MANIFEST, World
from zotctl.errors import BlobUnknown, Busy, DoneUnanswered, OutcomeUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.reservations import BELIEVED_FOR_S

X = digest_of(b"x")
RESERVED = keys.reservation(X, "a")


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


def once(world: World, method: str, key: str, deed: Callable[[], object]) -> None:
    """Before the first such request."""
    wanted = [True]

    def before(called: str, args: tuple[Any, ...]) -> None:
        if wanted and called == method and args[0] == key:
            wanted.clear()
            deed()

    world.objects.before = before


def test_p2_an_intent_that_is_withdrawn_before_it_was_read_makes_p1_begin_again(world: World) -> None:
    """What it announced is not known any more: the reservation may have been deleted under it."""
    world.push("a", "v1")
    intent, reserved_at = world.protocol().intents.announce(["other"]), keys.reservation(LAYER, "a")
    protocol = world.protocol(world.another())
    protocol.indexes.read("a")
    once(world, "get", intent, lambda: (world.memory.delete(intent), world.memory.delete(reserved_at)))
    protocol.reservations.reserve("a", LAYER)
    assert reserved_at in world.memory.stored


def test_p2_a_push_begins_again_after_an_intent_that_it_could_not_read(world: World) -> None:
    world.push_blob("a", b"first")
    intent = world.protocol().intents.announce(["other"])
    once(world, "get", intent, lambda: (world.memory.delete(intent), world.memory.delete(RESERVED)))
    world.push_blob("a", b"x")
    assert RESERVED in world.memory.stored


def test_p2_what_a_manifest_names_is_reserved_again_after_an_intent(world: World) -> None:
    world.push("a", "v1")
    protocol = world.protocol(world.another())
    intent, reserved_at = protocol.intents.announce([world.place("a", LAYER)]), keys.reservation(LAYER, "a")
    world.time.on_sleep = lambda: (world.memory.delete(intent), world.memory.delete(reserved_at))
    assert LAYER in protocol.reservations.reserve_all("a", [LAYER])
    assert intent not in world.memory.stored
    world.time.on_sleep = lambda: None
    assert reserved_at in world.memory.stored


def test_a_reservation_of_a_process_that_was_frozen_before_p3_is_made_again(world: World) -> None:
    world.push("a", "v1")
    reserved_at, window = keys.reservation(LAYER, "a"), world.protocol().context.window
    other = world.another()
    world.protocol(other).indexes.read("a")
    once(world, "head", world.place("a", LAYER), lambda: (world.later(window + 1), world.memory.delete(reserved_at)))
    world.protocol(other).reservations.reserve("a", LAYER)
    assert reserved_at in world.memory.stored


def test_a_push_that_was_frozen_while_it_put_its_blob_puts_what_was_collected_again(world: World) -> None:
    window, places = world.protocol().context.window, list[Any]()

    def make() -> Object:
        etag = world.memory.put(place, b"x")
        places.append(place)
        if len(places) == 1:
            world.later(window + 1)
            world.memory.delete(place)
            world.memory.delete(RESERVED)
        return Object(place, 1, etag, 0.0, 0.0)

    place = world.place("a", X)
    world.protocol().reservations.publish("a", X, place, make)
    assert {RESERVED, place} <= world.memory.stored.keys()


def test_a_push_that_was_frozen_before_p2_reserves_again_before_it_puts_its_blob(world: World) -> None:
    world.push_blob("a", b"first")
    window, frozen, reserved = world.protocol().context.window, list[Any](), list[Any]()

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and not frozen:
            frozen.append(True)
            world.later(window + 1)
            world.memory.delete(RESERVED)
        if method == "put" and args[0] == world.place("a", X):
            reserved.append(RESERVED in world.memory.stored)

    world.objects.before = before
    world.push_blob("a", b"x")
    assert reserved == [True]


def test_each_reservation_has_other_bytes_so_that_a_collector_sees_it(world: World) -> None:
    """Written anew within the same second, a reservation of the same bytes would look as it did."""
    world.push_blob("a", b"x")
    before = world.memory.stored[RESERVED]
    world.protocol().reservations.renew("a", X)
    after = world.memory.stored[RESERVED]
    assert before.modified == after.modified and before.etag != after.etag


def test_nor_does_the_reservation_of_what_was_asked_for_before_look_like_an_earlier_one(world: World) -> None:
    seen = set()
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            world.repository("a").blob(X)
        world.push_blob("a", b"x")
        seen.add(world.memory.stored[RESERVED].etag)
        world.memory.delete(RESERVED)
        world.memory.delete(world.place("a", X))
        world.protocol().context.deletions.change()
    assert len(seen) == 2


def test_a_push_onto_a_reservation_counts_from_that_one(world: World) -> None:
    world.push_blob("a", b"x")
    window, other = world.protocol().context.window, world.another()
    world.later(window - 2)
    world.push_blob("a", b"x", other)
    assert world.protocol(other).reservations.since("a", X) is not None
    world.later(3)
    assert world.protocol(other).reservations.since("a", X) is None


def test_a_reservation_that_went_under_an_intent_that_was_withdrawn_before_p2_is_written_again() -> None:
    """A collector had looked at it before it was written anew; of its intent nothing is seen any more."""
    world = World(dedupe=True)
    world.push_blob("a", b"x")
    other = world.another()
    world.protocol(other).indexes.read("a")
    world.later(world.protocol().context.window + 1)
    lists: list[None] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and not lists:
            lists.append(None)
            world.memory.delete(RESERVED)

    world.objects.before = before
    world.push_blob("a", b"x", other)
    assert RESERVED in world.memory.stored


def test_a_push_waits_for_an_intent_about_its_own_name_and_that_of_the_pool(world: World) -> None:
    """A reservation is announced under the name of its repository, wherever the bytes are."""
    world.push_blob("a", b"first")
    for place in world.protocol().context.places("a", X):
        intent = world.protocol().intents.announce([place])
        with pytest.raises(Busy):
            world.push_blob("a", b"x")
        world.protocol().intents.withdraw(intent)


def test_what_is_announced_under_the_name_of_a_repository_is_not_there(world: World) -> None:
    world.push_blob("a", b"x")
    world.protocol().intents.announce([keys.blob("a", X)])
    with pytest.raises(BlobUnknown):
        world.another().repository("a").blob(X)


def test_what_was_seen_is_believed_from_when_the_look_began(world: World) -> None:
    """An answer that took its time tells of what was there before."""
    world.push_blob("a", b"x")
    reservations = world.protocol(world.another()).reservations
    once(world, "head", world.place("a", X), lambda: None)
    head = world.memory.head

    def slow(key: str) -> Object:
        found = head(key)
        if key == world.place("a", X):
            world.later(BELIEVED_FOR_S - 1)
        return found

    world.memory.head = slow  # type: ignore[method-assign]
    reservations.reserve("a", X)
    world.later(2)
    assert reservations.confirmed("a", X) is None and reservations.since("a", X) is not None


def test_the_epoch_of_a_reservation_is_that_before_it_was_asked_for(world: World) -> None:
    """What was deleted while it was written may have been seen without it."""
    world.push_blob("a", b"first")
    reservations = world.protocol().reservations
    once(world, "put", RESERVED, lambda: reservations.note_epoch("a", "another"))
    before = reservations.now("a").epoch
    assert reservations.ensure("a", X).epoch == before


def test_an_intent_counts_until_its_deletes_are_void(world: World) -> None:
    world.push_blob("a", b"x")
    world.protocol().intents.announce([world.place("a", X)])
    world.later(INTENT_LIFETIME_S - 1)
    assert world.protocol(world.another()).intents.look().announced == {world.place("a", X)}
    world.later(1)
    assert not world.protocol(world.another()).intents.look().announced


def test_an_intent_that_is_dated_ahead_counts_from_when_it_is_seen(world: World) -> None:
    """The server's clock was put back: that of its deletes, too, which some servers carry out before their time."""
    world.later(86400)
    world.protocol().intents.announce([world.place("a", X)])
    world.later(-86400)
    intents = world.protocol(world.another()).intents
    assert intents.look().announced == {world.place("a", X)}
    world.later(INTENT_LIFETIME_S - 1)
    assert intents.look().announced
    world.later(1)
    assert not intents.look().announced


def test_two_intents_have_two_names(world: World) -> None:
    intents = world.protocol().intents
    one, other = intents.announce(["1"]), intents.announce(["2"])
    intents.withdraw(one)
    assert one != other and intents.look().announced == {"2"}


def test_m3_a_manifest_that_is_announced_is_put_again_after_that(world: World) -> None:
    """It may have been deleted under the intent, and under the next one, too."""
    world.push_blob("a", b"first")
    protocol, place = world.protocol(), keys.blob("a", MANIFEST.digest)
    intents = [protocol.intents.announce([place])]
    puts: list[float] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == place:
            puts.append(world.time.at)
            if len(puts) == 2:
                intents.append(protocol.intents.announce([place]))

    def carry_out() -> None:
        while intents:
            world.memory.delete(place)
            world.memory.delete(intents.pop())

    world.objects.before, world.time.on_sleep = before, carry_out
    protocol.blobs.publish_manifest("a", MANIFEST.digest, IMAGE.manifest)
    assert place in world.memory.stored and len(puts) == 3
    reserved = protocol.reservations.since("a", MANIFEST.digest)
    assert reserved is not None and reserved.at == puts[-1]


# -- deletes of clients -----------------------------------------------------------------------------


def test_what_a_client_deletes_is_announced_meanwhile(world: World) -> None:
    """Else a push that was told of the blob relies on what is about to go."""
    world.push_blob("a", b"x")
    announced: list[set[str]] = []
    other = world.protocol(world.another())

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            announced.append(other.intents.look().announced)

    world.objects.before = before
    world.repository("a").delete_blob(X)
    assert announced == [{keys.blob("a", X)}]
    assert not other.intents.look().announced


@pytest.mark.parametrize("error", [OutcomeUnknown, DoneUnanswered])
def test_a_delete_without_an_answer_leaves_its_intent(world: World, error: type[OutcomeUnknown]) -> None:
    """It may be done, or done once more, for as long as the intent counts."""
    world.push_blob("a", b"x")

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            raise error("no answer")

    world.objects.before = before
    with suppress(OutcomeUnknown):
        world.repository("a").delete_blob(X)
    assert world.protocol(world.another()).intents.look().announced == {keys.blob("a", X)}


def test_a_delete_is_signed_before_its_intent(world: World) -> None:
    """A process that is frozen in between comes too late, however long the intent seems to live."""
    world.push_blob("a", b"x")
    frozen: list[float] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and str(args[0]).startswith(f"{keys.INTENTS}/"):
            frozen.append(world.time.at)
            world.later(DELETES_SIGNED_FOR_S + 1)

    world.objects.before = before
    with pytest.raises(Busy):
        world.repository("a").delete_blob(X)
    assert frozen and world.place("a", X) in world.memory.stored and RESERVED in world.memory.stored
