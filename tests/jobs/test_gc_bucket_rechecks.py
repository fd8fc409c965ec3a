"""What a collector of a bucket looks at again between plan and deletes, and what it waits for
(docs/design/bucket.md#collection). Each of these safeguards has a mutant in `tests/mutants`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import images
from tests.jobs.test_gc import Hand, collect
from tests.jobs.test_gc_bucket import DELAY, WINDOW, Meanwhile, World, ripe, with_two_copies
from tests.stores import push_blob, push_image
from zotctl.errors import DoneUnanswered, OutcomeUnknown, Unavailable
from zotctl.jobs.ages import JUST_BEGUN_S, UPLOAD_SPARED_S
from zotctl.jobs.bucket.deletion import Batches, Candidate
from zotctl.jobs.bucket.eligibility import (
    ROUNDING_S,
    ActiveBucketUploads,
    Ahead,
    Eligibility,
    FirstUnreachable,
    Reached,
)
from zotctl.jobs.bucket.pool import Shared
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import keys
from zotctl.storage.bucket import index
from zotctl.storage.bucket.context import Halted
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.bucket.protocol import bucket_of

IMAGE = images.image("late", layers=1)
STRAY = digest_of(b"stray")


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


def tool_writes(world: World, name: str = "a", **fields: Any) -> None:
    """A row that another tool adds, with no reservation: of an image of which the stray blob is the config."""
    config = {"mediaType": images.CONFIG, "digest": str(STRAY), "size": 5}
    body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config, "layers": []}).encode()
    digest = digest_of(body)
    world.memory.put(keys.blob(name, digest), body)
    document = json.loads(world.memory.stored[f"{name}/index.json"].body)
    row = {"mediaType": images.OCI_MANIFEST, "digest": str(digest), "size": len(body)} | fields
    document["manifests"].append(row)
    world.memory.put(f"{name}/index.json", json.dumps(document).encode())


# -- the order of a batch -------------------------------------------------------------------------


def test_the_steps_of_a_batch_are_in_their_order(world: World) -> None:
    """C3 intent, C4 fence, C5 looks, C6 reservations and then blobs, C7 withdraw."""
    ripe(world)
    executed: list[tuple[str, ...]] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            executed.append(args[0].keys)

    world.objects.before, world.objects.requests = before, []
    collect(world.store)
    said = [f"{method} {key}" for method, key in world.objects.requests]
    at = next(at for at, line in enumerate(said) if line.startswith(f"put {keys.INTENTS}"))
    said = said[at:]
    fence = said.index("put a/index.json")
    look = next(
        at for at, line in enumerate(said[1:], 1)
        if line
        in (
            f"head {keys.reservation(STRAY, 'a')}",
            f"list {keys.reservations(STRAY)}",
            f"head {world.place('a', STRAY)}",
        )
    )  # fmt: skip
    act = next(at for at, line in enumerate(said) if line.startswith("execute"))
    withdraw = next(at for at, line in enumerate(said) if line.startswith(f"delete {keys.INTENTS}"))
    assert 0 < fence < look < act < withdraw
    assert executed == [(keys.reservation(STRAY, "a"),), (world.place("a", STRAY),)]


def test_c3_an_intent_names_the_bytes_and_each_right_to_them(world: World) -> None:
    ripe(world)
    said: list[str] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0].startswith(keys.INTENTS):
            said.extend(json.loads(args[1]))

    world.objects.before = before
    collect(world.store)
    assert set(said) == {world.place("a", STRAY), keys.blob("a", STRAY)}


def test_c2_deletes_are_dated_before_the_intent(world: World) -> None:
    """A collector that is slow between the two, and once more before it deletes, is too late in all."""
    ripe(world)
    waits = [("put", keys.INTENTS), ("execute", "")]

    def slow(method: str, args: tuple[Any, ...]) -> None:
        if waits and method == waits[0][0] and str(args[0]).startswith(waits[0][1]):
            waits.pop(0)
            world.clock.at += DELETES_SIGNED_FOR_S * 0.6

    world.objects.before = slow
    assert collect(world.store).summary["purged"] == 0
    assert not waits and world.has("a", STRAY)


def test_c2_nothing_goes_by_ages_from_before_the_clock_was_put_back(world: World) -> None:
    """Its reservation, which is old, counts as young from then on, so that nobody writes it anew."""
    ripe(world)

    def put_back(method: str, args: tuple[Any, ...]) -> None:
        if method == "get" and args[0] == keys.CAPABILITIES:  # what goes is known
            world.memory.clock = lambda: world.clock.at - 2 * DELAY

    world.objects.before = put_back
    report = collect(world.store)
    assert [error["error"] for error in report.errors] == ["ClockDoubtful"]
    assert world.has("a", STRAY)
    assert not world.keys_of(keys.INTENTS)


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "frozen"])
def test_c6_nothing_is_deleted_by_a_clock_that_was_put_back(world: World, heard: bool) -> None:
    """The server would still carry it out in an hour."""
    ripe(world)

    def put_back(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == "a/index.json":
            world.memory.clock = lambda: world.clock.at - 3600
            if not heard:
                said = world.memory.date() + 3600 + DELETES_SIGNED_FOR_S + 1
                world.memory.date = lambda: said  # type: ignore[method-assign]

    world.objects.before = put_back
    assert collect(world.store).summary["purged"] == 0
    assert world.has("a", STRAY)


# -- C4: what index.json says by then -------------------------------------------------------------


def test_c4_what_a_tool_has_referenced_meanwhile_is_spared(world: World) -> None:
    """It has made no reservation, so nothing else would tell. Of the pool its right and the bytes stay."""
    ripe(world)
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: tool_writes(world))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)
    assert keys.reservation(STRAY, "a") in world.memory.stored


def test_c4_what_another_repository_has_come_to_need_is_spared_for_it_only() -> None:
    world = World(dedupe=True)
    for name in "ab":
        push_image(world.store, name, "v1")
        world.stray(name=name)
    world.later()
    collect(world.store)
    world.later()
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: tool_writes(world, "b"))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and keys.shared(STRAY) in world.memory.stored
    assert keys.reservation(STRAY, "b") in world.memory.stored, "and its right"


def test_c4_the_bytes_stay_for_the_one_that_needs_them_after_all() -> None:
    reservations = {key: made_at(0, 0) for key in (keys.reservation(STRAY, "a"), keys.reservation(STRAY, "b"))}
    rest = Candidate(STRAY, "", reservations, made_at(0, 0)).without("b")
    assert rest is not None and rest.blob is None and rest.reservations.keys() == {keys.reservation(STRAY, "a")}
    assert rest.without("a") is None


def _breaks(world: World) -> None:
    world.memory.put("a/index.json", b"{")


def _unknown(world: World) -> None:
    tool_writes(world, mediaType="application/vnd.thing.v1+json")


def _loses(world: World) -> None:
    world.memory.delete(keys.blob("a", images.image().digest))
    index = world.memory.stored["a/index.json"].body
    world.memory.put("a/index.json", index + b"\n")


def _dangles(world: World) -> None:
    tool_writes(world, digest=str(digest_of(b"nowhere")))


@pytest.mark.parametrize("harm", [_breaks, _unknown, _dangles])
def test_i5_what_can_not_be_known_any_more_spares(world: World, harm: Callable[[World], None]) -> None:
    ripe(world)
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: harm(world))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)


def test_c4_a_fence_without_an_answer_that_was_not_done_spares(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMIT_TIMEOUT_S", 1.0)  # else the deletes would have died meanwhile
    ripe(world)
    fenced: list[bool] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0].startswith(keys.INTENTS):
            fenced.append(False)
        if fenced and method == "put" and args[0] == "a/index.json":
            world.clock.at += 1
            raise OutcomeUnknown("no answer")

    world.objects.before = before
    assert collect(world.store).summary["purged"] == 0
    assert fenced and world.has("a", STRAY)


# -- C5: what the objects are by then -------------------------------------------------------------


def test_c5_a_reservation_of_another_repository_spares() -> None:
    """It was reserved there since the list was made; whoever did that has looked at the intents before."""
    world = World(dedupe=True)
    ripe(world)
    push_image(world.store, "b", "v1", seed="b")
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: world.memory.put(keys.reservation(STRAY, "b"), b"reserved"))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)


def test_c5_a_reservation_that_was_written_again_within_the_second_spares(world: World) -> None:
    """Its time says nothing, its bytes do."""
    push_image(world.store, "a", "v1")
    world.clock.at = float(int(world.clock.at) + 5)
    world.stray()
    at, reserved_at = world.clock.at, keys.reservation(STRAY, "a")

    def renew() -> None:
        world.clock.at = at
        world.memory.stored[reserved_at] = world.memory.stored[reserved_at]._replace(etag='"another"')

    moment = Meanwhile(world, "put", keys.INTENTS, renew)
    world.clock.at += 2
    assert collect(world.store, 0.0).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)


def test_c5_bytes_that_were_written_again_spare(world: World) -> None:
    """The same ones, by who heals: an object store tells them from the old ones by their time only."""
    ripe(world)
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: world.memory.put(world.place("a", STRAY), b"stray"))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)


@pytest.mark.parametrize("how", ["gone", "empty", "marked"])
def test_c5_the_pools_copy_stays_when_that_of_the_repository_is_none_any_more(how: str) -> None:
    world, blobs = with_two_copies()
    plain = world.another(dedupe=False)
    world.rounds(1, plain)
    world.later()

    def lose() -> None:
        for digest in blobs:
            own = keys.blob("a", digest)
            if how == "gone":
                world.memory.delete(own)
            elif how == "empty":
                world.memory.put(own, b"")
            else:
                bucket_of(world.another().roots[0]).damaged.mark(digest, world.memory.head(own))

    moment = Meanwhile(world, "put", keys.INTENTS, lose)
    collect(plain)
    assert moment.done
    assert all(keys.shared(digest) in world.memory.stored for digest in blobs)


def test_c5_what_was_noted_by_key_only_is_compared_whole(world: World) -> None:
    """A reservation goes and comes back: its key is there, and it is another reservation."""
    ripe(world)
    reserved_at = keys.reservation(STRAY, "a")
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: world.memory.put(reserved_at, b"anew"))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", STRAY)


# -- C6 and C7: deletes without an answer ---------------------------------------------------------


@pytest.mark.parametrize("which", [1, 2])
def test_c7_while_a_delete_may_be_done_once_more_the_intent_stays(world: World, which: int) -> None:
    """It was done, says a second attempt; the first one is under way for all that is known."""
    ripe(world)
    count: list[int] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            count.append(1)
            if len(count) == which:
                world.memory.execute(args[0])
                raise DoneUnanswered("done, and then again")

    world.objects.before = before
    assert collect(world.store).summary["purged"] == 1
    assert len(count) == 2
    assert len(world.keys_of(keys.INTENTS)) == 1


def test_c7_a_refused_delete_leaves_no_intent(world: World) -> None:
    ripe(world)

    def refuse() -> None:
        raise Unavailable("no")

    moment = Meanwhile(world, "execute", "", refuse)
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and not world.keys_of(keys.INTENTS)


def test_c7_a_refused_delete_does_not_end_another_one_that_may_be_done_yet(world: World) -> None:
    """When the first attempt at the reservations is over is unknown; the blobs were refused."""
    ripe(world)
    executed: list[int] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            executed.append(1)
            if len(executed) == 1:
                world.memory.execute(args[0])
                raise DoneUnanswered("done, and then again")
            raise Unavailable("no")

    world.objects.before = before
    assert collect(world.store).summary["purged"] == 0
    assert len(executed) == 2 and len(world.keys_of(keys.INTENTS)) == 1


# -- how large a batch is -------------------------------------------------------------------------


def test_after_a_batch_that_was_too_late_the_next_one_is_half_as_large(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batches, "MOST_DELETES", 8)
    for number in range(20):
        world.stray(str(number).encode())
    world.later()
    collect(world.store)
    world.later()
    sizes: list[int] = []

    def late(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            sizes.append(len(args[0].keys))
            world.clock.at += DELETES_SIGNED_FOR_S + 1

    world.objects.before = late
    assert collect(world.store).summary["purged"] == 0
    assert sizes == [8, 4, 2, *[1] * 6]


def test_a_batch_fences_no_more_repositories_than_it_has_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batches, "MOST_FENCES", 2)
    world = World(dedupe=True)
    for name in ("a", "b", "c", "d", "e"):
        push_image(world.store, name, "v1", seed=name)
        world.stray(name.encode(), name)
    world.later()
    collect(world.store)
    world.later()
    batches: list[set[str]] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0].startswith(keys.INTENTS):
            batches.append(set())
        elif method == "put" and args[0].endswith("/index.json"):
            batches[-1].add(args[0])

    world.objects.before = before
    assert collect(world.store).summary["purged"] == 5
    assert [len(fenced) for fenced in batches] == [2, 2, 1]


def test_between_two_batches_a_run_may_stop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is up, or it was told to."""
    monkeypatch.setattr(Batches, "MOST_DELETES", 2)
    for number in range(4):
        world.stray(str(number).encode())
    world.later()
    collect(world.store)
    world.later()
    executed: list[str] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            executed.extend(args[0].keys)
            bucket_of(world.store.roots[0]).context.halted.set()

    world.objects.before = before
    with pytest.raises(Halted):
        collect(world.store)
    assert len(executed) == 4, "the reservations and the blobs of one batch"


# -- what is left behind --------------------------------------------------------------------------


@pytest.mark.parametrize("key", [keys.intent("token"), f"{keys.TMP}/trial"])
def test_an_intent_that_counts_is_nothing_left_behind(world: World, key: str) -> None:
    """Another collector is in the middle of it; dead for as long again, it goes."""
    world.memory.put(key, b"[]")
    there = []
    for seconds in (1, INTENT_LIFETIME_S, INTENT_LIFETIME_S):
        world.clock.at += seconds
        collect(world.store)
        there.append(key in world.memory.stored)
    assert there == [True, True, False]


# -- when something is old, due and unasked -------------------------------------------------------


def eligibility(world: World, delay: float = DELAY) -> Eligibility:
    return Eligibility(Run("gc", world.store), bucket_of(world.store.roots[0]).context, delay)


def made_at(modified: float, now: float) -> Object:
    return Object("key", 1, "e", modified, now - modified)


def test_what_was_reserved_from_memory_until_a_window_ago_is_asked_for(world: World) -> None:
    """A server answers for a window from memory, and times have whole seconds."""
    it, seen = eligibility(world), FirstUnreachable(bucket_of(world.store.roots[0]).context, "a")
    since = seen.note("key", it.now - 10)
    late = since - it.window - ROUNDING_S
    assert it.is_unasked(seen, "key", [made_at(late, it.now)])
    for modified in (late + 1, since - it.window, since):
        asked, again = FirstUnreachable(bucket_of(world.store.roots[0]).context, "a"), eligibility(world)
        asked.note("key", it.now - 10)
        assert not again.is_unasked(asked, "key", [made_at(late, it.now), made_at(modified, it.now)])
        assert asked.note("key", it.now) == again.now, "and its delay begins anew"


def test_a_window_is_that_of_the_servers_or_of_a_shorter_delay(world: World) -> None:
    assert eligibility(world, 10 * DELAY).window == WINDOW == bucket_of(world.store.roots[0]).context.window
    assert eligibility(world, DELAY / 10).window == DELAY / 40


def test_a_time_in_the_future_is_no_delay_without_an_end(world: World) -> None:
    """Noted by a server whose clock was wrong for a while."""
    context = bucket_of(world.store.roots[0]).context
    seen = FirstUnreachable(context, "a")
    seen.note("key", world.clock.at + 1e6)
    seen.save()
    assert FirstUnreachable(context, "a").note("key", world.clock.at) == world.clock.at


def test_of_two_collectors_the_slower_ones_note_is_dropped(world: World) -> None:
    context = bucket_of(world.store.roots[0]).context
    one, other = FirstUnreachable(context, "a"), FirstUnreachable(context, "a")
    one.note("key", 10.0)
    one.save()
    other.note("key", 20.0)
    other.save()
    assert FirstUnreachable(context, "a").at("key") == 10.0
    one, other = FirstUnreachable(context, "a"), FirstUnreachable(context, "a")
    one.note("more", 10.0)
    one.save()
    other.note("key", 20.0)
    other.save()
    assert FirstUnreachable(context, "a").at("more") == 10.0


def test_what_was_reachable_in_between_has_its_delay_anew(world: World) -> None:
    context = bucket_of(world.store.roots[0]).context
    for noted in (["one", "other"], ["one"]):
        seen = FirstUnreachable(context, "a")
        for key in noted:
            seen.note(key, 10.0)
        seen.save()
    assert (FirstUnreachable(context, "a").at("one"), FirstUnreachable(context, "a").at("other")) == (10.0, None)


def test_a_note_that_is_none_of_ours_is_no_note(world: World) -> None:
    context = bucket_of(world.store.roots[0]).context
    for body in (b"rubbish", b"[]", b'{"seen": [1]}', b'{"seen": {"key": "never"}}'):
        world.memory.put(keys.first_seen("a"), body)
        assert FirstUnreachable(context, "a").at("key") is None


# -- uploads that move ----------------------------------------------------------------------------


def test_the_oldest_upload_of_a_repository_counts(world: World) -> None:
    context = bucket_of(world.store.roots[0]).context
    began = []
    for _ in range(4):
        repository = world.store.repository_for_push("a")
        began.append(repository.start_upload())
        world.clock.at += 10
    for upload_id in reversed(began):
        with world.store.repository_for_push("a").resume_upload(upload_id) as upload:
            upload.write([b"x"])
    since = ActiveBucketUploads(context, DELAY).since("a")
    assert since <= world.clock.at - 39
    world.later(1.1)
    assert ActiveBucketUploads(context, DELAY).since("a") == float("inf"), "nobody goes on with any of them"


def test_a_host_whose_clock_is_ahead_spares_what_it_has_sent(world: World) -> None:
    """An upload that began in the future, by its id, would spare nothing."""
    ahead = Hand()
    ahead.at = world.clock.at + 3600
    store = world.another()
    bucket_of(store.roots[0]).context.clock = ahead
    store.repository_for_push("a").start_upload()
    assert ActiveBucketUploads(bucket_of(world.store.roots[0]).context, DELAY).since("a") <= world.clock.at + 1


def test_an_upload_that_has_just_begun_is_spared_whatever_the_delay(world: World) -> None:
    """And what its push has sent before."""
    push_image(world.store, "a", "v1")
    upload_id = world.store.repository_for_push("a").start_upload()
    stray = world.stray()
    assert collect(world.store, 0.0).summary["purged"] == 0
    assert world.has("a", stray) and keys.session(upload_id) in world.memory.stored
    world.clock.at += JUST_BEGUN_S + 1
    collect(world.store, 0.0)
    assert not world.has("a", stray) and keys.session(upload_id) not in world.memory.stored


def test_an_upload_without_an_end_spares_nothing(world: World) -> None:
    upload_id = world.store.repository_for_push("a").start_upload()
    context = bucket_of(world.store.roots[0]).context
    for age, spares in ((UPLOAD_SPARED_S - 10, True), (20, False)):
        world.clock.at += age
        with world.store.repository_for_push("a").resume_upload(upload_id) as upload:
            upload.write([b"x"])
        assert (ActiveBucketUploads(context, DELAY).since("a") < float("inf")) is spares


def test_what_is_written_again_with_a_date_ahead_counts_from_then(world: World) -> None:
    context, found = bucket_of(world.store.roots[0]).context, []
    for now, modified in ((1000.0, 5000.0), (2000.0, 5000.0), (3000.0, 6000.0)):
        ahead = Ahead(context, now, no_delay=False)
        found.append(ahead.modified(Object("key", 1, "e", modified, now - modified)))
        ahead.save()
    assert found == [1000.0, 1000.0, 3000.0]


# -- the pool -------------------------------------------------------------------------------------


def shared(world: World, known: Reached, delay: float = DELAY) -> list[str]:
    """The keys of the pool, and the reservations, that would go."""
    found = Shared(world.store.roots[0], eligibility(world, delay), known)
    found.candidates()
    world.later()
    found.seen.save()
    again = Shared(world.store.roots[0], eligibility(world, delay), known).candidates()
    return [key for each in again for key in [*each.reservations, *([each.blob.key] if each.blob else [])]]


def pooled(*names: str) -> World:
    world = World(dedupe=True)
    world.memory.put(keys.VERSION, b"")
    world.later()
    for name in names:
        push_image(world.store, name, "v1")
        world.stray(name=name)
    world.later(3)
    return world


def known(*walked: str, left_alone: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> Reached:
    """As if nothing was reachable in any of them."""
    found = Reached()
    for name in walked:
        found.enter(name, (), {str(STRAY)} if name in own else set(), shared=False)
    found.left_alone |= set(left_alone)
    return found


def test_i5_a_repository_of_which_something_is_unknown_keeps_its_rights_and_the_bytes() -> None:
    world = pooled("a", "b")
    going = shared(world, known("b", left_alone=("a",)))
    assert keys.reservation(STRAY, "b") in going
    assert keys.reservation(STRAY, "a") not in going and keys.shared(STRAY) not in going


def test_a_copy_of_its_own_is_none_while_the_repository_is_left_as_it_is() -> None:
    world = pooled("a")
    one = known("a", own=("a",))
    one.left_alone.add("a")
    assert keys.shared(STRAY) not in shared(world, one)
    assert keys.shared(STRAY) in shared(world, known("a", own=("a",)))


def test_what_one_repository_has_reserved_without_a_copy_of_its_own_stays() -> None:
    world = pooled("a", "b")
    found = Reached()
    found.enter("a", {str(STRAY)}, set(), shared=False)
    found.enter("b", (), set(), shared=False)
    going = shared(world, found)
    assert keys.reservation(STRAY, "b") in going and keys.shared(STRAY) not in going


def test_i5_bytes_without_reservations_stay_while_a_repository_is_left_as_it_is() -> None:
    """It may have lost its reservation."""
    world = pooled("a")
    world.memory.delete(keys.reservation(STRAY, "a"))
    assert keys.shared(STRAY) not in shared(world, known(left_alone=("a",)))
    assert keys.shared(STRAY) in shared(world, known("a"))


def test_i6_bytes_that_were_written_since_a_moving_upload_began_stay() -> None:
    """Its push counts on them, though there was a copy of its own."""
    world = pooled("a")
    slow = world.store.repository_for_push("a").start_upload()
    world.clock.at += 1
    world.memory.put(keys.shared(STRAY), b"stray")
    for _ in range(5):
        world.later(0.9)
        with world.store.repository_for_push("a").resume_upload(slow) as upload:
            upload.write([b"x"])
        it = Shared(world.store.roots[0], eligibility(world), known("a", own=("a",)))
        assert not any(each.blob for each in it.candidates() if each.digest == STRAY)
        it.seen.save()


def test_a_young_reservation_keeps_the_bytes_and_itself() -> None:
    world = pooled("a", "b")
    for seen in (False, True):
        world.memory.put(keys.reservation(STRAY, "b"), b"young")
        it = Shared(world.store.roots[0], eligibility(world), known("a", "b"))
        found = it.candidates()
        assert not any(each.blob for each in found if each.digest == STRAY)
        assert keys.reservation(STRAY, "b") not in {key for each in found for key in each.reservations}, seen
        it.seen.save()
        world.later(1.2)


def test_i6_a_reservation_that_is_younger_than_an_active_upload_stays() -> None:
    """Its push is under way, however long ago the layer was sent."""
    world = pooled("a", "b")
    found = Reached()
    found.enter("a", {str(STRAY)}, set(), shared=False)
    found.enter("b", (), set(), shared=False)
    slow = world.store.repository_for_push("b").start_upload()
    world.clock.at += 1
    world.memory.put(keys.reservation(STRAY, "b"), b"sent")
    for _ in range(5):
        world.later(0.9)
        with world.store.repository_for_push("b").resume_upload(slow) as upload:
            upload.write([b"x"])
        it = Shared(world.store.roots[0], eligibility(world), found)
        assert [each for each in it.candidates() if each.digest == STRAY] == []
        it.seen.save()


def test_i6_a_reservation_since_an_active_upload_began_keeps_a_blob_of_a_repository(world: World) -> None:
    """Its push was told that it is there, and is under way for longer than the delay."""
    ripe(world)
    slow = world.store.repository_for_push("a").start_upload()
    world.clock.at += 1
    world.memory.put(keys.reservation(STRAY, "a"), b"reserved")
    for _ in range(5):
        world.later(0.9)
        with world.store.repository_for_push("a").resume_upload(slow) as upload:
            upload.write([b"x"])
        collect(world.store)
    assert world.has("a", STRAY)


@pytest.mark.parametrize("harm", [_breaks, _loses, "damaged"])
def test_i5_a_repository_in_no_list_that_can_not_be_read_keeps_all(harm: Any) -> None:
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    stray = world.stray()
    world.store.close()
    world.memory.delete("a/oci-layout")
    if harm == "damaged":
        world.memory.put(keys.blob("a", images.image().digest), b"rubbish")
    else:
        harm(world)
    fresh = world.another()
    for _ in range(4):
        world.later()
        collect(fresh)
    assert keys.shared(stray) in world.memory.stored and keys.reservation(stray, "a") in world.memory.stored


@pytest.mark.parametrize("harm", [_breaks, _loses, "damaged", "away"])
def test_i5_a_repository_in_no_list_that_can_not_be_read_is_no_empty_one(harm: Any) -> None:
    """Not even a candidate: the fence is there for what happens since, and not for what was known before."""
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    if harm == "damaged":
        world.memory.put(keys.blob("a", images.image().digest), b"rubbish")
    elif harm != "away":
        harm(world)
    world.store.close()
    world.store = world.another()
    world.later()
    it = Shared(world.store.roots[0], eligibility(world, 0.0), Reached())

    def away(method: str, args: tuple[Any, ...]) -> None:
        if harm == "away" and method == "get" and args[0] == "a/index.json":
            raise Unavailable("no")

    world.objects.before = away
    assert it.candidates() == []


def test_of_a_repository_that_is_gone_nothing_is_needed() -> None:
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    for key in (keys.index("a"), keys.layout("a")):
        world.memory.delete(key)
    world.later()
    found = Shared(world.store.roots[0], eligibility(world, 0.0), Reached()).candidates()
    assert {each.digest for each in found} == {digest_of(blob) for blob in images.image().blobs}


def test_a_reservation_that_was_asked_for_has_its_grace_period_anew() -> None:
    """Asked for since it was first seen, long after the blob was."""
    world = pooled("a", "b")
    found = Reached()
    found.enter("a", {str(STRAY)}, set(), shared=False)
    found.enter("b", (), set(), shared=False)
    it = Shared(world.store.roots[0], eligibility(world), found)
    it.candidates()
    it.seen.save()
    world.later(0.4)
    world.memory.put(keys.reservation(STRAY, "b"), b"asked for")
    world.later(1.05)
    again = Shared(world.store.roots[0], eligibility(world), found).candidates()
    assert [each for each in again if each.digest == STRAY] == []


def test_bytes_that_were_asked_for_by_any_reservation_have_their_grace_period_anew() -> None:
    world = pooled("a", "b")
    it = Shared(world.store.roots[0], eligibility(world), known("a", "b"))
    it.candidates()
    it.seen.save()
    world.later(0.4)
    world.memory.put(keys.reservation(STRAY, "b"), b"asked for")
    world.later(1.05)
    again = Shared(world.store.roots[0], eligibility(world), known("a", "b")).candidates()
    assert not any(each.blob for each in again if each.digest == STRAY)


def test_what_is_no_digest_stops_nothing() -> None:
    """A console has made a "folder"."""
    world = pooled("a")
    for key in (f"{keys.SHARED}/sha256/readme", f"{keys.RESERVATIONS}/sha256/readme/a", f"{keys.SHARED}/md5/00"):
        world.memory.put(key, b"")
    assert keys.shared(STRAY) in shared(world, known("a"))


def test_i6_a_young_reservation_keeps_a_blob_of_a_repository(world: World) -> None:
    """The blob is old, and so is the note; the reservation is not."""
    ripe(world)
    world.memory.put(keys.reservation(STRAY, "a"), b"reserved")
    assert collect(world.store).summary["purged"] == 0
    assert world.has("a", STRAY)


def test_i5_the_pool_is_left_as_it_is_when_not_all_repositories_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(dedupe=True)
    ripe(world)
    catalog = bucket_of(world.store.roots[0]).catalog

    def failing(on_skipped: Any = None) -> Any:
        yield "a"
        raise Unavailable("no")

    monkeypatch.setattr(catalog, "everything", failing)
    collect(world.store)
    assert world.has("a", STRAY)


# -- names ----------------------------------------------------------------------------------------


def test_a_name_goes_when_its_repository_is_gone_and_no_earlier(world: World) -> None:
    push_image(world.store, "a", "v1")
    world.memory.put(keys.listed_name("made"), b"")
    world.memory.put(keys.listed_name("hidden"), b"")
    world.memory.put("hidden/index.json", world.memory.stored["a/index.json"].body)
    world.store.repositories()
    collect(world.store)
    assert keys.listed_name("made") in world.memory.stored, "somebody is making it"
    world.later()
    collect(world.store)
    assert keys.listed_name("made") not in world.memory.stored
    assert keys.listed_name("hidden") in world.memory.stored, "it has an index.json"
    assert keys.NAMES_MADE in world.memory.stored and keys.listed_name("a") in world.memory.stored


def test_a_presigned_delete_is_for_seconds() -> None:
    world = World(dedupe=False)
    presigned = world.memory.sign_deletes(["x"], DELETES_SIGNED_FOR_S)
    assert isinstance(presigned, PresignedDelete) and DELETES_SIGNED_FOR_S <= 60
    assert isinstance(STRAY, Digest)
    push_blob(world.store.repository_for_push("a"), b"x")
