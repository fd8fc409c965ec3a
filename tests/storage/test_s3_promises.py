"""Promises by their steps P1 to P3 (s3.md 5): what a process relies on while others collect, and while it is frozen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.storage.test_s3_core import IMAGE, LAYER, MANIFEST, World
from zotctl.errors import BlobUnknown, Busy, DoneUnanswered, OutcomeUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.objects import Object
from zotctl.storage.s3.promises import BELIEVED
from zotctl.storage.s3.sentences import LIFETIME, SIGNED_FOR

X = digest_of(b"x")
HELD = keys.hold(X, "a")


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


def test_p2_a_sentence_that_is_lifted_before_it_was_read_makes_p1_begin_again(world: World) -> None:
    """What it condemned is not known any more: the hold may have been deleted under it."""
    world.push("a", "v1")
    sentence, held = world.protocol().sentences.pronounce(["other"]), keys.hold(LAYER, "a")
    protocol = world.protocol(world.another())
    protocol.read_index("a")
    once(world, "get", sentence, lambda: (world.memory.delete(sentence), world.memory.delete(held)))
    protocol.promises.promise("a", LAYER)
    assert held in world.memory.stored


def test_p2_a_push_begins_again_after_a_sentence_that_it_could_not_read(world: World) -> None:
    world.push_blob("a", b"first")
    sentence = world.protocol().sentences.pronounce(["other"])
    once(world, "get", sentence, lambda: (world.memory.delete(sentence), world.memory.delete(HELD)))
    world.push_blob("a", b"x")
    assert HELD in world.memory.stored


def test_p2_what_a_manifest_names_is_promised_again_after_a_sentence(world: World) -> None:
    world.push("a", "v1")
    protocol = world.protocol(world.another())
    sentence, held = protocol.sentences.pronounce([world.place("a", LAYER)]), keys.hold(LAYER, "a")
    world.time.on_sleep = lambda: (world.memory.delete(sentence), world.memory.delete(held))
    assert LAYER in protocol.promises.promise_all("a", [LAYER])
    assert sentence not in world.memory.stored
    world.time.on_sleep = lambda: None
    assert held in world.memory.stored


def test_a_promise_of_a_process_that_was_frozen_before_p3_is_made_again(world: World) -> None:
    world.push("a", "v1")
    held, window = keys.hold(LAYER, "a"), world.protocol().site.window
    other = world.another()
    world.protocol(other).read_index("a")
    once(world, "head", world.place("a", LAYER), lambda: (world.later(window + 1), world.memory.delete(held)))
    world.protocol(other).promises.promise("a", LAYER)
    assert held in world.memory.stored


def test_a_push_that_was_frozen_while_it_put_its_blob_puts_what_was_collected_again(world: World) -> None:
    window, places = world.protocol().site.window, []

    def make() -> Object:
        etag = world.memory.put(place, b"x")
        places.append(place)
        if len(places) == 1:
            world.later(window + 1)
            world.memory.delete(place)
            world.memory.delete(HELD)
        return Object(place, 1, etag, 0.0, 0.0)

    place = world.place("a", X)
    world.protocol().promises.publish("a", X, place, make)
    assert {HELD, place} <= world.memory.stored.keys()


def test_a_push_that_was_frozen_before_p2_holds_before_it_puts_its_blob(world: World) -> None:
    world.push_blob("a", b"first")
    window, frozen, held = world.protocol().site.window, [], []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and not frozen:
            frozen.append(True)
            world.later(window + 1)
            world.memory.delete(HELD)
        if method == "put" and args[0] == world.place("a", X):
            held.append(HELD in world.memory.stored)

    world.objects.before = before
    world.push_blob("a", b"x")
    assert held == [True]


def test_each_hold_has_other_bytes_so_that_a_collector_sees_it(world: World) -> None:
    """Written anew within the same second, a hold of the same bytes would look as it did."""
    world.push_blob("a", b"x")
    before = world.memory.stored[HELD]
    world.protocol().promises.renew("a", X)
    after = world.memory.stored[HELD]
    assert before.modified == after.modified and before.etag != after.etag


def test_nor_does_the_hold_of_what_was_asked_for_before_look_like_an_earlier_one(world: World) -> None:
    seen = set()
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            world.repository("a").blob(X)
        world.push_blob("a", b"x")
        seen.add(world.memory.stored[HELD].etag)
        world.memory.delete(HELD)
        world.memory.delete(world.place("a", X))
        world.protocol().site.deletions.change()
    assert len(seen) == 2


def test_a_push_onto_a_hold_promises_no_longer_than_that_is_young(world: World) -> None:
    world.push_blob("a", b"x")
    window, other = world.protocol().site.window, world.another()
    world.later(window - 2)
    world.push_blob("a", b"x", other)
    assert world.protocol(other).promises.since("a", X) is not None
    world.later(3)
    assert world.protocol(other).promises.since("a", X) is None


def test_a_hold_that_went_under_a_sentence_that_was_lifted_before_p2_is_written_again() -> None:
    """A collector had looked at it before it was written anew; of its sentence nothing is seen any more."""
    world = World(dedupe=True)
    world.push_blob("a", b"x")
    other = world.another()
    world.protocol(other).read_index("a")
    world.later(world.protocol().site.window + 1)
    lists: list[None] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and not lists:
            lists.append(None)
            world.memory.delete(HELD)

    world.objects.before = before
    world.push_blob("a", b"x", other)
    assert HELD in world.memory.stored


def test_a_push_waits_for_a_sentence_about_its_own_name_and_that_of_the_pool(world: World) -> None:
    """A hold is condemned under the name of its repository, wherever the bytes are."""
    world.push_blob("a", b"first")
    for place in world.protocol().site.places("a", X):
        sentence = world.protocol().sentences.pronounce([place])
        with pytest.raises(Busy):
            world.push_blob("a", b"x")
        world.protocol().sentences.lift(sentence)


def test_what_is_condemned_under_the_name_of_a_repository_is_not_there(world: World) -> None:
    world.push_blob("a", b"x")
    world.protocol().sentences.pronounce([keys.blob("a", X)])
    with pytest.raises(BlobUnknown):
        world.another().repository("a").blob(X)


def test_what_was_seen_is_believed_from_when_the_look_began(world: World) -> None:
    """An answer that took its time tells of what was there before."""
    world.push_blob("a", b"x")
    promises = world.protocol(world.another()).promises
    once(world, "head", world.place("a", X), lambda: None)
    head = world.memory.head

    def slow(key: str) -> Object:
        found = head(key)
        if key == world.place("a", X):
            world.later(BELIEVED - 1)
        return found

    world.memory.head = slow  # type: ignore[method-assign]
    promises.promise("a", X)
    world.later(2)
    assert promises.confirmed("a", X) is None and promises.since("a", X) is not None


def test_the_epoch_of_a_hold_is_that_before_it_was_asked_for(world: World) -> None:
    """What was deleted while it was written may have been seen without it."""
    world.push_blob("a", b"first")
    promises = world.protocol().promises
    once(world, "put", HELD, lambda: promises.epoch("a", "another"))
    before = promises.now("a").epoch
    assert promises.hold("a", X).epoch == before


def test_a_sentence_counts_until_its_deletes_are_dead(world: World) -> None:
    world.push_blob("a", b"x")
    world.protocol().sentences.pronounce([world.place("a", X)])
    world.later(LIFETIME - 1)
    assert world.protocol(world.another()).sentences.condemned() == {world.place("a", X)}
    world.later(1)
    assert not world.protocol(world.another()).sentences.condemned()


def test_a_sentence_that_is_dated_ahead_is_dead(world: World) -> None:
    world.later(86400)
    world.protocol().sentences.pronounce([world.place("a", X)])
    world.later(-86400)
    assert not world.protocol(world.another()).sentences.condemned()


def test_two_sentences_have_two_names(world: World) -> None:
    sentences = world.protocol().sentences
    one, other = sentences.pronounce(["1"]), sentences.pronounce(["2"])
    sentences.lift(one)
    assert one != other and sentences.condemned() == {"2"}


def test_m3_a_manifest_that_is_condemned_is_put_again_after_that(world: World) -> None:
    """It may have been deleted under the sentence, and under the next one, too."""
    world.push_blob("a", b"first")
    protocol, place = world.protocol(), keys.blob("a", MANIFEST.digest)
    sentences = [protocol.sentences.pronounce([place])]
    puts: list[float] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == place:
            puts.append(world.time.at)
            if len(puts) == 2:
                sentences.append(protocol.sentences.pronounce([place]))

    def carry_out() -> None:
        while sentences:
            world.memory.delete(place)
            world.memory.delete(sentences.pop())

    world.objects.before, world.time.on_sleep = before, carry_out
    protocol.blobs.publish_manifest("a", MANIFEST.digest, IMAGE.manifest)
    assert place in world.memory.stored and len(puts) == 3
    promised = protocol.promises.since("a", MANIFEST.digest)
    assert promised is not None and promised.at == puts[-1]


# -- deletes of clients -----------------------------------------------------------------------------


def test_what_a_client_deletes_is_condemned_meanwhile(world: World) -> None:
    """Else a push that was told of the blob relies on what is about to go."""
    world.push_blob("a", b"x")
    condemned: list[set[str]] = []
    other = world.protocol(world.another())

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            condemned.append(other.sentences.condemned())

    world.objects.before = before
    world.repository("a").delete_blob(X)
    assert condemned == [{keys.blob("a", X)}]
    assert not other.sentences.condemned()


@pytest.mark.parametrize("error", [OutcomeUnknown, DoneUnanswered])
def test_a_delete_without_an_answer_leaves_its_sentence(world: World, error: type[OutcomeUnknown]) -> None:
    """It may be done, or done once more, for as long as the sentence counts."""
    world.push_blob("a", b"x")

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            raise error("no answer")

    world.objects.before = before
    with suppress(OutcomeUnknown):
        world.repository("a").delete_blob(X)
    assert world.protocol(world.another()).sentences.condemned() == {keys.blob("a", X)}


def test_a_delete_is_signed_before_its_sentence(world: World) -> None:
    """A process that is frozen in between comes too late, however long the sentence seems to live."""
    world.push_blob("a", b"x")
    frozen: list[float] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and str(args[0]).startswith(f"{keys.SENTENCES}/"):
            frozen.append(world.time.at)
            world.later(SIGNED_FOR + 1)

    world.objects.before = before
    with pytest.raises(Busy):
        world.repository("a").delete_blob(X)
    assert frozen and world.place("a", X) in world.memory.stored and HELD in world.memory.stored
