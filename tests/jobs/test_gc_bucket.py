"""Collection on a bucket: what goes, what stays, what a run that is disturbed leaves behind
(docs/design/bucket.md#collection)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests import images
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.jobs.test_gc import Hand, collect
from tests.stores import bucket_store, probed, push_blob, push_image, push_index
from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.errors import BlobUnknown, HeldElsewhere, ManifestUnknown, OutcomeUnknown
from zotctl.jobs.bucket.deletion import Batches, Candidate, split
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions, Planner, gc
from zotctl.jobs.restore import list_trash, restore
from zotctl.jobs.retention import Drop, Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.bucket.history import MAX_HISTORY_OBJECTS
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import bucket_of

DELAY = 100.0
WINDOW = DELAY / 4


class World:
    """One bucket, and servers on it."""

    def __init__(self, *, dedupe: bool) -> None:
        self.clock, self.dedupe = Hand(), dedupe
        self.memory = MemoryObjects(self.clock.now)
        self.objects = Counted(self.memory)
        probed(self.memory)
        self.store = self.another()

    def another(self, *, dedupe: bool | None = None) -> Store:
        wanted = self.dedupe if dedupe is None else dedupe
        return bucket_store(self.objects, self.clock, dedupe=wanted, delay=DELAY)

    def later(self, delays: float = 1.5) -> None:
        self.clock.at += delays * DELAY

    def place(self, name: str, digest: Digest) -> str:
        return keys.shared(digest) if self.dedupe else keys.blob(name, digest)

    def has(self, name: str, digest: Digest) -> bool:
        return self.place(name, digest) in self.memory.stored

    def rounds(self, count: int = 3, store: Store | None = None) -> None:
        """Collections, each a while after the last one."""
        for _ in range(count):
            self.later()
            report = collect(store or self.store)
            assert (report.errors, report.findings) == ([], [])

    def stray(self, body: bytes = b"stray", name: str = "a") -> Digest:
        return push_blob(self.store.repository_for_push(name), body)

    def keys_of(self, prefix: str) -> list[str]:
        return [key for key in self.memory.stored if key.startswith(prefix)]


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


def test_what_nothing_reaches_goes_when_it_was_seen_for_the_delay(world: World) -> None:
    push_image(world.store, "a", "v1")
    stray = world.stray()
    world.later()
    first = collect(world.store)
    assert (first.summary["unreachable"], first.summary["unreachable_bytes"], first.summary["purged"]) == (1, 5, 0)
    world.later(0.5)
    assert collect(world.store).summary["purged"] == 0
    world.later(0.6)
    last = collect(world.store)
    assert (last.summary["unreachable"], last.summary["purged"], last.summary["purged_bytes"]) == (0, 1, 5)
    assert not world.has("a", stray) and keys.reservation(stray, "a") not in world.memory.stored
    with pytest.raises(BlobUnknown):
        world.store.repository("a").blob(stray)
    assert world.store.repository("a").manifest("v1").digest == images.image().digest


def test_fresh_blobs_are_left_alone(world: World) -> None:
    world.stray()
    assert collect(world.store).summary["unreachable"] == 0


def test_everything_reachable_stays(world: World) -> None:
    children = [push_image(world.store, "a", seed=str(n)) for n in range(2)]
    push_index(world.store, "a", "multi", children=children)
    push_image(world.store, "a", "sbom", seed="sbom", subject=children[0])
    push_image(world.store, "b", "v1")
    before = {
        key for key in world.memory.stored if "/blobs/" in key or key.startswith((keys.SHARED, keys.RESERVATIONS))
    }
    world.rounds(4)
    assert before <= world.memory.stored.keys()


def test_deleted_content_is_freed(world: World) -> None:
    digest = push_image(world.store, "a", "v1")
    push_image(world.store, "a", "v2", seed="other")
    world.store.repository_for_push("a").delete_manifest(digest)
    world.rounds()
    other = images.image("other")
    wanted = {keys.blob("a", other.digest), *(world.place("a", digest_of(blob)) for blob in other.blobs)}
    assert {key for key in world.memory.stored if "blobs/" in key} == wanted
    assert len(world.keys_of(keys.RESERVATIONS)) == len(other.blobs)
    assert not world.keys_of(keys.INTENTS)


def test_what_two_repositories_share_goes_with_the_last_one(world: World) -> None:
    digest = push_image(world.store, "a", "v1")
    push_image(world.store, "b", "v1")
    world.store.repository_for_push("a").delete_manifest(digest)
    world.rounds()
    layer = digest_of(images.image().blobs[0])
    assert world.store.repository("b").blob(layer)
    assert keys.reservation(layer, "a") not in world.memory.stored, "the right is gone as a name would be"
    with pytest.raises(BlobUnknown):
        world.another().repository("a").open_blob(layer)
    world.store.repository_for_push("b").delete_manifest(digest)
    world.rounds()
    assert not world.has("b", layer) and not world.keys_of(keys.RESERVATIONS)


def test_delay_zero_purges_at_once(world: World) -> None:
    digest, stray = push_image(world.store, "a", "v1"), world.stray()
    world.store.repository_for_push("a").delete_manifest(digest)
    world.clock.at += 1
    report = collect(world.store, 0.0)
    assert report.summary["purged"] == len(images.image().blobs) + 1
    assert not world.keys_of(keys.SHARED) and not [key for key in world.memory.stored if "/blobs/" in key]
    with pytest.raises(BlobUnknown):
        world.store.repository("a").blob(stray)


def test_a_pull_that_has_begun_comes_to_its_end(world: World) -> None:
    """A tag that is deleted leaves what it named for the delay, however old that is."""
    digest = push_image(world.store, "a", "v1")
    layer = digest_of(images.image().blobs[0])
    world.later(10)
    world.store.repository_for_push("a").delete_manifest(digest)
    collect(world.store)
    world.later(0.9)
    collect(world.store)
    assert world.has("a", layer)


def test_i6_a_reservation_holds_across_collections(world: World) -> None:
    """HEAD on an old blob that was seen to be unreachable long ago, then the manifest that uses it."""
    made = images.image()
    for blob in made.blobs:
        world.stray(blob)
    world.later()
    collect(world.store)
    world.later(0.9)
    other = world.another()
    for blob in made.blobs:
        assert other.repository("a").blob(digest_of(blob))
    world.later(WINDOW / DELAY * 0.9)
    for blob in made.blobs:
        assert other.repository("a").blob(digest_of(blob)), "from memory"
    for _ in range(3):
        world.later(0.3)
        collect(world.store)
    other.repository_for_push("a").put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"])
    world.rounds(store=other)
    assert world.store.repository("a").blob(digest_of(made.blobs[0]))


def test_i6_a_reservation_holds_behind_what_nobody_holds() -> None:
    """What lies before it in the pool has no reservation, and goes."""
    world = World(dedupe=True)
    first, held = sorted((world.stray(b"0"), world.stray(b"1")))
    world.memory.delete(keys.reservation(first, "a"))
    for _ in range(6):
        world.later(0.6)
        assert world.another().repository("a").blob(held)
        assert collect(world.store).summary["unreachable"] <= 1, "the held one is taken for unreachable"
    assert (world.has("a", first), world.has("a", held)) == (False, True)
    assert world.another().repository("a").blob(held)


def test_i6_a_moving_upload_keeps_what_its_push_has_sent(world: World) -> None:
    repository = world.store.repository_for_push("a")
    slow = repository.start_upload()
    early = push_blob(repository, b"early layer")
    for _ in range(5):
        world.clock.at += DELAY - 1
        with repository.resume_upload(slow) as upload:
            upload.write([b"x"])
        collect(world.store)
    assert world.has("a", early)
    world.rounds(4)
    assert not world.has("a", early)


def test_dead_uploads_are_purged(world: World) -> None:
    upload_id = world.store.repository_for_push("a").start_upload()
    world.clock.at += DELAY + 1
    assert collect(world.store).summary["uploads"] == 1
    assert keys.session(upload_id) not in world.memory.stored


@pytest.mark.parametrize("what", ["missing manifest", "unknown type", "damaged", "missing child", "no index"])
def test_i5_nothing_goes_where_something_is_unknown(world: World, what: str) -> None:
    digest, stray = push_image(world.store, "a", "v1"), world.stray()
    push_image(world.store, "b", "v1", seed="b")
    other = world.stray(b"elsewhere", "b")
    manifest = keys.blob("a", digest)
    if what == "missing child":
        child = push_image(world.store, "a", seed="child")
        push_index(world.store, "a", "multi", children=[child])
        world.memory.delete(keys.blob("a", child))
    elif what == "unknown type":
        index = json.loads(world.memory.stored["a/index.json"].body)
        index["manifests"][0]["mediaType"] = "application/x.thing"
        world.memory.put("a/index.json", json.dumps(index).encode())
    elif what == "no index":
        world.memory.put("a/index.json", b"rubbish")
    else:
        world.memory.delete(manifest)
        if what == "damaged":
            world.memory.put(manifest, b"rubbish")
    world.clock.at -= 1
    world.memory.put(keys.VERSION, b"")
    for key in world.keys_of(keys.SHARED):
        world.memory.put(key, world.memory.stored[key].body)
    world.clock.at += 1
    fresh = world.another()
    for _ in range(3):
        world.later()
        report = collect(fresh)
        assert report.exit_code in (4, 5)
        assert "a" in [f.repository for f in report.findings] + [error["repository"] for error in report.errors]
    assert world.has("a", stray), "what it needs is not known, so it keeps all that it has"
    assert not world.has("b", other), "others are collected all the same"


def test_i5_without_reservations_the_pool_is_left_as_it_is_while_something_is_unknown(world: World) -> None:
    digest, stray = push_image(world.store, "a", "v1"), world.stray()
    world.memory.delete(keys.blob("a", digest))
    for key in world.keys_of(keys.RESERVATIONS):
        world.memory.delete(key)
    fresh = world.another()
    for _ in range(3):
        world.later()
        collect(fresh)
    assert world.has("a", stray)


def test_i5_what_is_older_than_the_hidden_directory_may_have_lost_its_reservations(world: World) -> None:
    """`.zotctl` was wiped, and only `b` has asked for its content since."""
    digest = push_image(world.store, "a", "v1")
    layer = digest_of(images.image().blobs[0])
    assert world.store.repository_for_push("b").mount_blob(world.store.repository("a"), layer)
    world.clock.at += 5
    for key in world.keys_of(keys.HIDDEN):
        world.memory.delete(key)
    world.memory.put(keys.VERSION, b"")
    world.memory.put(keys.reservation(layer, "b"), b"")
    world.memory.delete(keys.blob("a", digest))
    fresh = world.another()
    for _ in range(3):
        world.later()
        collect(fresh)
    assert world.has("a", layer), "a can't say whether it needs it"
    world.memory.put(keys.blob("a", digest), images.image().manifest)
    world.later()
    assert collect(world.another()).exit_code == 0
    assert world.another().repository("a").blob(layer)


def test_dry_run_changes_nothing_and_names_all(world: World) -> None:
    stray = world.stray()
    world.later()
    world.store.repositories()  # the first look of all makes the list of names
    before = dict(world.memory.stored)
    report = collect(world.store, dry_run=True)
    assert [(i["digest"], i["size_bytes"]) for i in report.items] == [(str(stray), 5)]
    assert world.memory.stored == before


def test_an_untagged_manifest_goes_after_the_delay(world: World) -> None:
    digest = push_image(world.store, "a")
    push_image(world.store, "a", "v1", seed="tagged")
    world.later(0.9)
    collect(world.store)
    assert world.store.repository("a").manifest(digest)
    world.later(0.2)
    collect(world.store)
    assert world.store.repository("a").manifest(digest), "who knows since when it has no tag"
    world.later(1.0)
    collect(world.store)
    with pytest.raises(ManifestUnknown):
        world.store.repository("a").manifest(digest)


def test_a_second_collector_sees_the_first(world: World) -> None:
    run = Run("gc", world.store)
    with run.leases():
        report = collect(world.store)
    assert report.exit_code == HeldElsewhere.exit_code
    assert "process" in report.errors[0]["reason"]


# -- what happens in between --------------------------------------------------------------------------------


class Meanwhile:
    """Just before a request of the collector somebody else does something, once."""

    def __init__(self, world: World, method: str, key: str, act: Any) -> None:
        self._wanted, self._act, self.done = (method, key), act, False
        self._world = world
        world.objects.before = self

    def __call__(self, method: str, args: tuple[Any, ...]) -> None:
        key = args[0].keys[0] if method == "execute" else str(args[0])
        if not self.done and method == self._wanted[0] and key.startswith(self._wanted[1]):
            self.done = True
            self._act()


def ripe(world: World, body: bytes = b"stray") -> Digest:
    """Something that the next run deletes."""
    push_image(world.store, "a", "v1")
    stray = world.stray(body)
    world.later()
    collect(world.store)
    world.later()
    return stray


def test_c4_a_push_between_mark_and_delete_spares(world: World) -> None:
    made = images.image("late", layers=1)
    for blob in made.blobs:
        ripe(world, blob)
    other = world.another()

    def push() -> None:
        repository = other.repository_for_push("a")
        for blob in made.blobs:
            push_blob(repository, blob)
        repository.put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["late"])

    moment = Meanwhile(world, "put", keys.INTENTS, push)
    world.rounds()
    assert moment.done
    assert world.store.repository("a").blob(digest_of(made.blobs[0]))


def test_c4_content_of_a_busy_repository_is_collected(world: World) -> None:
    """Another index.json is no reason to spare what it doesn't need."""
    stray, other = ripe(world), world.another()
    moment = Meanwhile(world, "put", "a/index.json", lambda: push_image(other, "a", "more", seed="more"))
    collect(world.store)
    assert moment.done and not world.has("a", stray)
    assert world.store.repository("a").tags() == ["more", "v1"]


def test_c5_a_reservation_that_was_made_meanwhile_spares(world: World) -> None:
    stray, other = ripe(world), world.another()
    moment = Meanwhile(world, "put", keys.INTENTS, lambda: other.repository("a").blob(stray))
    assert collect(world.store).summary["purged"] == 0
    assert moment.done and world.has("a", stray) and not world.keys_of(keys.INTENTS)


def test_c6_deletes_that_come_too_late_are_refused(world: World) -> None:
    stray = ripe(world)
    Meanwhile(world, "execute", "", lambda: world.later(0.4))
    report = collect(world.store)
    assert (report.exit_code, report.summary["purged"]) == (0, 0)
    assert world.has("a", stray) and not world.keys_of(keys.INTENTS), "withdrawn: it can't be carried out any more"
    world.rounds()
    assert not world.has("a", stray)


def test_c6_without_an_answer_the_intent_stays_until_it_is_dead(world: World) -> None:
    stray = ripe(world)

    def lose() -> None:
        raise OutcomeUnknown("no answer")

    Meanwhile(world, "execute", "", lose)
    report = collect(world.store)
    assert report.exit_code == 5
    assert len(world.keys_of(keys.INTENTS)) == 1
    with pytest.raises(BlobUnknown):
        world.another().repository("a").blob(stray)
    world.clock.at += INTENT_LIFETIME_S
    assert world.another().repository("a").blob(stray) == 5
    world.clock.at += INTENT_LIFETIME_S
    world.rounds()
    assert not world.has("a", stray) and not world.keys_of(keys.INTENTS)


def test_a_collector_that_dies_is_succeeded(world: World) -> None:
    stray = ripe(world)

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    for step in ("execute", "put"):
        Meanwhile(world, step, "" if step == "execute" else keys.INTENTS, die)
        with pytest.raises(Killed):
            collect(world.store)
        for key in world.keys_of(keys.LEASES):
            world.memory.delete(key)
    world.clock.at += 3 * INTENT_LIFETIME_S
    world.rounds()
    assert not world.has("a", stray) and not world.keys_of(keys.INTENTS)


# -- both modes, and what lies between ----------------------------------------------------------------------


def test_a_store_that_was_deduplicated_is_collected_both_ways() -> None:
    world = World(dedupe=False)
    old = push_image(world.store, "a", "v1")
    stray = world.stray()
    pooled = world.another(dedupe=True)
    push_image(pooled, "a", "v2", seed="new")
    other = push_blob(pooled.repository_for_push("a"), b"in the pool")
    world.rounds(store=pooled)
    assert not [key for key in world.memory.stored if stray.encoded in key or other.encoded in key]
    assert world.another().repository("a").manifest("v1").digest == old
    for blob in (*images.image().blobs, *images.image("new").blobs):
        assert pooled.repository("a").blob(digest_of(blob))


def test_the_pool_is_garbage_when_each_repository_has_its_own_again() -> None:
    """`dedupe --undo`: copies into the repositories, and nothing else."""
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    push_image(world.store, "b", "v1")
    blobs = [digest_of(blob) for blob in images.image().blobs]
    for digest in blobs:
        world.memory.copy(keys.shared(digest), keys.blob("a", digest))
    plain = world.another(dedupe=False)
    world.rounds(store=plain)
    assert len(world.keys_of(keys.SHARED)) == len(blobs), "b has no copies yet"
    for digest in blobs:
        world.memory.copy(keys.shared(digest), keys.blob("b", digest))
    world.rounds(store=world.another(dedupe=True))
    assert len(world.keys_of(keys.SHARED)) == len(blobs), "in a store with a pool it is the pool that is read"
    world.rounds(store=plain)
    assert world.keys_of(keys.SHARED) == []
    assert all(plain.repository(name).blob(digest) for name in "ab" for digest in blobs)


def with_two_copies() -> tuple[World, list[Digest]]:
    """An image in the pool, each blob of which its repository has a copy of, too."""
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    blobs = [digest_of(blob) for blob in images.image().blobs]
    for digest in blobs:
        world.memory.copy(keys.shared(digest), keys.blob("a", digest))
    return world, blobs


def test_the_pool_keeps_what_a_damaged_copy_can_be_healed_from() -> None:
    """A copy of its own that scrub has marked is none to do without the pool's."""
    world, blobs = with_two_copies()
    damaged = keys.blob("a", blobs[0])
    world.memory.put(damaged, b"rot")
    bucket_of(world.another(dedupe=False).roots[0]).damaged.mark(blobs[0], world.memory.head(damaged))
    world.later()
    foretold = collect(world.another(dedupe=False), dry_run=True)
    assert {item["digest"] for item in foretold.items} == set(map(str, blobs[1:]))  # the last look comes later
    world.rounds(store=world.another(dedupe=False))
    assert world.keys_of(keys.SHARED) == [keys.shared(blobs[0])]


def test_reservations_of_a_repository_that_is_gone_go() -> None:
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    push_image(world.store, "b", "v1", seed="b")
    world.store.close()
    for key in [key for key in world.memory.stored if key.startswith("a/")]:
        world.memory.delete(key)
    world.rounds(store=world.another())
    left = images.image("b")
    assert set(world.keys_of(keys.SHARED)) == {keys.shared(digest_of(blob)) for blob in left.blobs}
    assert keys.listed_name("a") not in world.memory.stored
    assert not world.keys_of(keys.history("a"))
    assert keys.listed_name("b") in world.memory.stored


def test_what_is_looked_at_twice_is_told_once() -> None:
    """Holds of repositories in no list: what those need is learnt on the way, and then the pool is looked at again."""
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    push_image(world.store, "b", "v1", seed="b")
    stray = world.stray(name="b")
    world.store.close()
    kept = {digest_of(blob) for blob in images.image().blobs}
    for digest in sorted(kept)[:-1]:
        world.memory.delete(keys.reservation(digest, "a"))
    world.memory.delete("a/oci-layout")
    for dry_run in (True, False):
        world.later()
        report = collect(world.another(), dry_run=dry_run)
        assert [(i["action"], i["digest"], i["size_bytes"]) for i in report.items] == [("unreachable", str(stray), 5)]
        assert (report.summary["unreachable"], report.summary["unreachable_bytes"]) == (1, 5)


def test_a_repository_that_is_in_no_list_keeps_what_it_needs() -> None:
    """It has lost its `oci-layout`, and all of its reservations but the last one."""
    world = World(dedupe=True)
    push_image(world.store, "a", "v1")
    blobs = sorted(digest_of(blob) for blob in images.image().blobs)
    for digest in blobs[:-1]:
        world.memory.delete(keys.reservation(digest, "a"))
    world.memory.delete("a/oci-layout")
    world.rounds(4, world.another())
    assert all(world.has("a", digest) for digest in blobs)


def test_only_these_repositories(world: World) -> None:
    strays = [world.stray(name=name) for name in ("a", "b")]
    for _ in range(3):
        world.later()
        run = Run("gc", world.store, repos=["a"])
        run.finish(lambda run=run: gc(run, lambda _: GcOptions(DELAY, rules=Rules(delay=DELAY))))  # type: ignore[misc]
    assert world.has("b", strays[1])
    assert world.has("a", strays[0]) is world.dedupe, "what repositories share is judged when all were looked at"


# -- large ones ---------------------------------------------------------------------------------------------


def test_a_run_that_is_cut_short_goes_on(world: World) -> None:
    for number in range(6):
        push_image(world.store, f"r{number}", "v1")
    visited: list[str] = []

    def note(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and str(args[0]).endswith("/blobs/") and str(args[0])[0] == "r":
            visited.append(str(args[0]).partition("/")[0])
            world.clock.at += 10

    world.objects.before = note
    codes = []
    for _ in range(2):
        run = Run("gc", world.store, max_duration=35.0)
        codes.append(run.finish(lambda run=run: gc(run, lambda _: GcOptions(DELAY))).exit_code)  # type: ignore[misc]
    assert codes == [16, 16]
    assert set(visited[:6]) == {f"r{number}" for number in range(6)}
    run = Run("gc", world.store)
    run.finish(lambda: gc(run, lambda _: GcOptions(DELAY)))
    assert keys.checkpoint() not in world.memory.stored


def test_batches_are_no_larger_than_can_be_deleted_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batches, "MOST_DELETES", 8)
    strays = [world.stray(str(number).encode()) for number in range(20)]
    world.later()
    collect(world.store)
    world.later()
    sizes = []

    def slow(method: str, args: tuple[Any, ...]) -> None:
        if method == "execute":
            sizes.append(len(args[0].keys))
            world.clock.at += Batches.SLOW_S

    world.objects.before = slow
    collect(world.store)
    assert sizes[::2] == [8, 4, 2, 1, 1, 1, 1, 1, 1]
    assert not any(world.has("a", stray) for stray in strays)


def test_reservations_of_many_repositories_go_in_parts() -> None:
    digest = digest_of(b"x")
    reservations = {
        keys.reservation(digest, f"r{n}"): Object(keys.reservation(digest, f"r{n}"), 1, "e", 0, 0) for n in range(200)
    }
    blob = Object(keys.shared(digest), 1, "e", 0, 0)
    parts = list(split(Candidate(digest, "", reservations, blob), 1000))
    assert [len(part.reservations) for part in parts] == [64, 64, 64, 8]
    assert [part.blob for part in parts] == [None, None, None, blob]
    assert {key for part in parts for key in part.reservations} == reservations.keys()


# -- what it tells ------------------------------------------------------------------------------------------


def explained(world: World, what: str) -> dict[str, Any]:
    run = Run("gc", world.store)
    run.finish(lambda: explain(run, what, lambda _: GcOptions(DELAY)))
    assert run.report.errors == []
    (item,) = run.report.items
    return item


def test_explain(world: World) -> None:
    push_image(world.store, "a", "v1")
    stray, layer = world.stray(), digest_of(images.image().blobs[1])
    assert (explained(world, str(layer))["verdict"], explained(world, "a:v1")["verdict"]) == ("kept", "kept")
    fresh = explained(world, str(stray))
    assert fresh["verdict"] == "goes" and "younger than the delay" in fresh["why"] and "first_seen_at" not in fresh
    world.later()
    collect(world.store)
    seen = explained(world, str(stray))
    assert seen["why"] == "no manifest reaches it"
    assert (seen["first_seen_at"], seen["purged_after_at"]) == ("2027-01-15T08:02:30Z", "2027-01-15T08:04:10Z")
    world.later(0.5)
    world.another().repository("a").blob(stray)
    assert "asked for since" in explained(world, str(stray))["why"]


def test_explain_says_that_nothing_goes_where_zot_has_deduplicated() -> None:
    """What lies in one repository may be all that another one has, so gc leaves it: there is no time to tell."""
    world = World(dedupe=False)
    push_image(world.store, "a", "v1")
    stray, layer = world.stray(), digest_of(images.image().blobs[1])
    world.memory.put(keys.blob("b", layer), b"")
    world.memory.put("b/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    world.memory.put("b/index.json", images.index([]))
    world.later()
    collect(world.store)
    world.later()
    assert collect(world.store).summary["purged"] == 0 and world.has("a", stray)
    found = explained(world, f"a@{stray}")
    assert found["verdict"] == "kept" and "zotctl dedupe --undo" in found["why"] and "purged_after_at" not in found


def test_explain_goes_by_the_clock_of_the_object_store(world: World) -> None:
    """A policy, too: this host may be a day ahead, and the manifest is an hour old there."""
    push_image(world.store, "a")
    wrong = Hand()
    wrong.at = world.clock.at + 86400
    store = bucket_store(world.objects, wrong, dedupe=world.dedupe, delay=DELAY)  # type: ignore[arg-type]
    run = Run("gc", store)
    run.finish(lambda: explain(run, f"a@{images.image().digest}", lambda _: GcOptions(DELAY, rules=Rules(delay=DELAY))))
    (item,) = run.report.items
    assert DELAY / 2 < datetime.fromisoformat(item["removed_after_at"]).timestamp() - world.clock.at < 4 * DELAY


def test_there_is_no_trash(world: World) -> None:
    world.stray()
    for work in (list_trash, lambda run: restore(run, "a@sha256:" + "0" * 64)):
        run = Run("gc", world.store)
        report = run.finish(lambda work=work, run=run: work(run))  # type: ignore[misc]
        assert report.exit_code == 1
        assert "no trash on a bucket" in report.errors[0]["reason"]


def test_the_copy_of_its_own_and_that_of_the_pool_do_not_go_at_once() -> None:
    """A collector that takes the pool's because there is one of its own, and `dedupe`, which does the reverse."""
    world, blobs = with_two_copies()
    plain, pooled = world.another(dedupe=False), world.another(dedupe=True)
    world.rounds(1, plain)
    world.later()
    moment = Meanwhile(world, "execute", keys.blob("a", blobs[0]), lambda: collect(plain))
    bucket_of(pooled.roots[0]).conversion.drop("a", 1.0, blobs)
    assert moment.done
    for digest in blobs:
        assert keys.shared(digest) in world.memory.stored or keys.blob("a", digest) in world.memory.stored


# -- retention ----------------------------------------------------------------------------------------------


def test_retention_keeps_the_most_recent_tags(world: World) -> None:
    for number in range(5):
        push_image(world.store, "a", f"v{number}", seed=str(number))
        world.clock.at += 10
    push_image(world.store, "a", "latest", seed="x")
    world.store.close()
    newest = KeepTags(patterns=("^v",), most_recently_pushed_count=2)
    policy = Policy(("**",), keep_tags=(newest, KeepTags(patterns=("latest",))))
    collect(world.another(), rules=Rules(Retention(policies=(policy,)), DELAY))
    assert world.another().repository("a").tags() == ["latest", "v3", "v4"]
    past = bucket_of(world.another().roots[0]).history.timeline("a")
    gone = images.image("0").digest
    assert past.pushed[gone] == int(world.clock.at), "from now on its delay runs, for whoever asks"


def test_a_dry_run_drops_no_tag(world: World) -> None:
    for number in range(5):
        push_image(world.store, "a", f"v{number}", seed=str(number))
        world.clock.at += 10
    world.store.close()
    world.later()
    newest = KeepTags(patterns=("^v",), most_recently_pushed_count=2)
    rules = Rules(Retention(policies=(Policy(("**",), keep_tags=(newest,)),)), DELAY)
    before = {key: one for key, one in world.memory.stored.items() if not key.startswith(keys.NAMES)}
    collect(world.another(), rules=rules, dry_run=True)
    assert {key: one for key, one in world.memory.stored.items() if not key.startswith(keys.NAMES)} == before
    collect(world.another(), rules=rules)
    assert world.another().repository("a").tags() == ["v3", "v4"]


def test_the_history_of_a_push_beside_a_collection_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc makes one object of many when it has looked what is there, and another server writes its events meanwhile."""
    monkeypatch.setattr("zotctl.storage.bucket.history.REMEMBERED_EVENTS", 0)
    for number in range(MAX_HISTORY_OBJECTS + 1):
        push_image(world.store, "a", f"v{number}", seed=str(number))
        bucket_of(world.store.roots[0]).history.flush()
    world.later()

    def meanwhile(planner: Planner, drops: list[Drop]) -> None:
        beside = world.another()
        push_image(beside, "a", "new", seed="new")
        bucket_of(beside.roots[0]).history.flush()

    monkeypatch.setattr(Planner, "drop_rows", meanwhile)
    assert collect(world.store).errors == []
    assert len(world.keys_of(keys.history("a"))) == 1
    assert world.another().roots[0].history.timeline("a").tagged.keys() == {
        "new",
        *(f"v{n}" for n in range(MAX_HISTORY_OBJECTS + 1)),
    }


def test_retention_unknown_times_mean_keep(world: World) -> None:
    push_image(world.store, "a", "v1")
    world.later(10)
    policy = Policy(("**",), keep_tags=(KeepTags(pushed_within=1.0),), keep_untagged=Keep())
    collect(world.another(), rules=Rules(Retention(policies=(policy,)), DELAY))
    assert world.another().repository("a").tags() == ["v1"], "the server has not written its history yet"


def test_retention_sees_a_push_that_the_history_does_not_tell_of_yet(world: World) -> None:
    push_image(world.store, "a", "v1")
    world.store.close()
    world.later(10)
    push_image(world.another(), "a", "v1")
    policy = Policy(("**",), keep_tags=(KeepTags(pushed_within=5 * DELAY),))
    rules = Rules(Retention(policies=(policy,)), DELAY)
    collect(world.another(), rules=rules)
    assert world.another().repository("a").tags() == ["v1"]
    world.later(10)
    collect(world.another(), rules=rules)
    assert world.another().repository("a").tags() == ["v1"], "unknown to the end: that server was killed"


def test_a_manifest_that_has_just_lost_its_tag_is_not_judged_by_its_push(world: World) -> None:
    """Whoever resolved the tag before fetches it by its digest now."""
    digest = push_image(world.store, "a", "v1")
    world.store.close()
    world.later(10)
    server = world.another()
    push_image(server, "a", "v1", seed="new")
    collect(world.another())
    assert world.another().repository("a").manifest(digest)
    server.close()
    world.later(0.5)
    collect(world.another())
    assert world.another().repository("a").manifest(digest), "now it is written since when"
    for _ in range(2):
        world.later(1.0)
        collect(world.another())
    with pytest.raises(ManifestUnknown):
        world.another().repository("a").manifest(digest)


def test_a_dropped_row_is_told(world: World) -> None:
    digest = push_image(world.store, "a")
    push_image(world.store, "a", "v1", seed="tagged")
    world.later()
    collect(world.store)
    world.later()
    report = collect(world.store)
    assert [item["digest"] for item in report.items if item["action"] == "drop"] == [digest]
    assert report.summary["dropped"] == 1
