"""The protocols of a bucket step by step (docs/design/bucket.md), over an object store in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import images
from tests.clocks import Hand
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store
from zotctl.errors import BlobUnknown, Busy, Changed, ManifestBlobUnknown, OutcomeUnknown, Referenced
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Repository, Store, keys
from zotctl.storage.bucket.index import EPOCH, GENERATIONS
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import BucketProtocol, BucketTransaction

IMAGE = images.image("x", layers=2)
MANIFEST = check_manifest(IMAGE.manifest, OCI_MANIFEST)
LAYER = digest_of(IMAGE.blobs[-1])


class World:
    def __init__(self, *, dedupe: bool) -> None:
        self.time, self.dedupe = Hand(1_000_000.0), dedupe
        self.memory = MemoryObjects(self.time.now)
        self.objects = Counted(self.memory)
        self.store = self.another()

    def another(self) -> Store:
        """The store of another process."""
        return bucket_store(self.objects, self.time, dedupe=self.dedupe)

    def protocol(self, store: Store | None = None) -> BucketProtocol:
        found = (store or self.store).roots[0].protocol
        assert isinstance(found, BucketProtocol)
        found.context.pooled = self.dedupe
        return found

    def push_blob(self, name: str, body: bytes, store: Store | None = None) -> Digest:
        digest = digest_of(body)
        self.protocol(store).blobs.publish(
            name, digest, lambda key: Object(key, len(body), self.objects.put(key, body), 0, 0)
        )
        return digest

    def push(self, name: str, *tags: str, store: Store | None = None) -> None:
        for body in IMAGE.blobs:
            self.push_blob(name, body, store)
        self.repository(name, store).put_manifest(MANIFEST, IMAGE.manifest, tags)

    def repository(self, name: str, store: Store | None = None) -> Repository:
        return (store or self.store).repository_for_push(name)

    def later(self, seconds: float) -> None:
        self.time.at += seconds

    def place(self, name: str, digest: Digest) -> str:
        return keys.shared(digest) if self.dedupe else keys.blob(name, digest)


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


def test_requests_of_each_operation(world: World) -> None:
    """The most that is allowed; the first blob of a repository makes its layout."""
    world.push_blob("a", b"first")
    count = world.objects
    count.taken()

    def took(call: Any, *args: Any) -> int:
        call(*args)
        return len(count.taken())

    for body in IMAGE.blobs:
        assert took(world.push_blob, "a", body) <= 4  # and a session that is begun and ended
    looks = len(IMAGE.blobs)  # a manifest is accepted on what is there; all at once, where there are threads
    assert took(lambda: world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v1"])) <= 4 + looks
    assert took(lambda: world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v2"])) <= 2 + looks
    world.push_blob("b", b"first")
    other = world.another()
    world.protocol(other)
    count.taken()
    assert took(lambda: other.repository("a").manifest("v1")) <= 2
    other.repository("a").referrers(LAYER)  # reads each manifest once a process
    count.taken()
    assert took(lambda: other.repository("a").manifest("v1")) <= 1
    assert took(lambda: other.repository("a").manifest(MANIFEST.digest)) <= 1
    assert took(lambda: other.repository("a").open_blob(LAYER)) <= 2
    assert took(lambda: other.repository("a").blob(LAYER)) <= 3
    assert took(lambda: other.repository("a").blob(LAYER)) == 0
    assert took(lambda: other.repository("a").open_blob(LAYER)) <= 1
    with pytest.raises(BlobUnknown):
        other.repository("a").blob(digest_of(b"none"))
    assert len(count.taken()) <= 2
    other.repository("b").tags()
    count.taken()
    assert took(lambda: other.repository("b").mount_blob(other.repository("a"), LAYER)) <= 4
    assert took(lambda: other.repository("a").tags()) <= 1
    assert took(lambda: other.repository("a").referrers(LAYER)) <= 1
    assert took(lambda: other.repository("a").delete_manifest("v2")) <= 2
    other.repositories()  # the first one of all makes the list
    count.taken()
    assert took(other.repositories) <= 1


def test_p1_a_reservation_is_rewritten_when_it_is_a_window_old(world: World) -> None:
    world.push_blob("a", b"x")
    reserved_at = keys.reservation(digest_of(b"x"), "a")
    before = world.memory.stored[reserved_at]
    world.another().repository("a").blob(digest_of(b"x"))
    assert world.memory.stored[reserved_at] is before
    world.later(world.protocol().context.window)
    world.another().repository("a").blob(digest_of(b"x"))
    assert world.memory.stored[reserved_at].modified > before.modified


def test_a_reservation_is_answered_from_memory_no_longer_than_its_window(world: World) -> None:
    digest = world.push_blob("a", b"x")
    world.repository("a").blob(digest)  # no manifest tells how long it is
    world.objects.taken()
    world.repository("a").blob(digest)
    assert world.objects.taken() == []
    world.later(world.protocol().context.window - 1)
    world.repository("a").blob(digest)
    assert world.objects.taken() == ["head", "get"], "the reservation still counts, and the blob is there"
    world.later(2)
    world.repository("a").blob(digest)
    assert "put" in world.objects.taken()


def test_p2_what_is_being_collected_is_not_there(world: World) -> None:
    digest = world.push_blob("a", b"x")
    other = world.another()
    intent = world.protocol().intents.announce([world.place("a", digest)])
    with pytest.raises(BlobUnknown):
        other.repository("a").blob(digest)
    world.later(INTENT_LIFETIME_S)
    other.repository("a").blob(digest)
    world.protocol().intents.withdraw(intent)


def test_p2_a_push_waits_for_an_intent_and_then_is_told(world: World) -> None:
    digest = digest_of(b"x")
    intent = world.protocol().intents.announce([world.place("a", digest)])
    with pytest.raises(Busy):
        world.push_blob("a", b"x")
    world.objects.before = lambda method, args: world.memory.delete(intent) if method == "list" else None
    world.push_blob("a", b"x")


def test_p3_the_blob_is_looked_at_after_the_intents(world: World) -> None:
    digest = world.push_blob("a", b"x")
    other = world.another()
    world.objects.before = lambda method, args: (
        world.memory.delete(world.place("a", digest)) if method == "list" else None
    )
    with pytest.raises(BlobUnknown):
        other.repository("a").blob(digest)


def test_a_head_gives_no_right(world: World) -> None:
    """I7: to know a digest of another repository is no right to it."""
    digest = world.push_blob("a", b"x")
    with pytest.raises(BlobUnknown):
        world.repository("b").blob(digest)
    with pytest.raises(BlobUnknown):
        world.repository("b").open_blob(digest)
    assert keys.reservation(digest, "b") not in world.memory.stored


@pytest.mark.parametrize("pooled", [False, True])
def test_a_mount_from_where_it_is_not_gives_no_right(world: World, pooled: bool) -> None:
    """I7: nor may a repository that has no such blob be named as its source."""
    digest = world.push_blob("secret", b"x")
    world.push_blob("mine", b"y")
    world.protocol().context.pooled = pooled
    assert not world.repository("b").mount_blob(world.repository("mine"), digest)
    assert keys.reservation(digest, "b") not in world.memory.stored
    assert keys.index("b") not in world.memory.stored
    with pytest.raises(BlobUnknown):
        world.repository("b").open_blob(digest)


def test_holds_that_are_lost_fall_back_to_what_is_reachable(world: World) -> None:
    world.push("a", "v1")
    for key in [key for key in world.memory.stored if key.startswith(keys.RESERVATIONS)]:
        world.memory.delete(key)
    other = world.another()
    assert other.repository("a").blob(LAYER) == len(IMAGE.blobs[-1])
    assert keys.reservation(LAYER, "a") in world.memory.stored


def test_m4_a_change_between_get_and_put_makes_the_push_begin_again(world: World) -> None:
    world.push("a", "v1")
    protocol, other = world.protocol(), world.another()
    wanted = [True]

    def interfere(method: str, args: tuple[Any, ...]) -> None:
        if method == "put" and args[0] == keys.index("a") and wanted:
            wanted.clear()
            other.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["theirs"])

    world.objects.before = interfere
    conflicts: list[None] = []
    world.protocol().context.conflict = lambda: conflicts.append(None)
    world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["ours"])
    assert protocol.indexes.read("a").index.tags() == ["ours", "theirs", "v1"]
    assert len(conflicts) == 1


def test_c4_voids_what_was_reserved_before(world: World) -> None:
    """A blob that was announced and deleted after its reservation is missed by the push, not lost to it."""
    world.push_blob("a", b"first")
    for body in IMAGE.blobs:
        world.push_blob("a", body)
    protocol = world.protocol(other := world.another())
    before = protocol.indexes.read("a")
    assert protocol.indexes.touch("a", before)
    world.memory.delete(world.place("a", LAYER))
    world.memory.delete(keys.reservation(LAYER, "a"))
    with pytest.raises(ManifestBlobUnknown):
        world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v1"])
    assert other.repository("a").tags() == []


@pytest.mark.parametrize("done", [True, False])
def test_an_answer_that_is_lost_is_looked_up(world: World, done: bool) -> None:
    world.push("a", "v1")
    lost = [True]
    real = world.memory.put

    def put(key: str, body: Any, **options: Any) -> str:
        if key == keys.index("a") and lost:
            lost.clear()
            if done:
                real(key, body, **options)
            raise OutcomeUnknown("no answer")
        return real(key, body, **options)

    world.memory.put = put  # type: ignore[method-assign]
    world.repository("a").delete_manifest("v1")
    assert world.repository("a").tags() == []
    assert len(world.protocol().indexes.read("a").index.annotation(GENERATIONS).split()) >= 2


def test_equal_content_never_has_an_equal_etag(world: World) -> None:
    world.push("a", "v1")
    first = world.memory.stored[keys.index("a")].etag
    world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v2"])
    world.repository("a").delete_manifest("v2")
    assert world.memory.stored[keys.index("a")].etag != first
    with pytest.raises(Changed):
        world.memory.put(keys.index("a"), b"{}", match=first)


def test_a_delete_takes_a_right_from_one_repository_only(world: World) -> None:
    digest = world.push_blob("a", b"x")
    world.push_blob("b", b"y")
    assert world.repository("b").mount_blob(world.repository("a"), digest)
    other = world.another()
    other.repository("a").blob(digest)
    world.repository("a").delete_blob(digest)
    for store in (world.store, world.another()):
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(digest)
        assert store.repository("b").blob(digest) == 1
    assert not [key for key in world.memory.stored if key.startswith(keys.INTENTS)]


def test_a_blob_in_use_is_not_deleted(world: World) -> None:
    world.push("a", "v1")
    with pytest.raises(Referenced):
        world.repository("a").delete_blob(LAYER)
    assert world.another().repository("a").blob(LAYER)


def test_a_delete_that_was_frozen_comes_too_late(world: World) -> None:
    """The fence: its request dies on the server's clock before anybody calls the intent dead."""
    digest = world.push_blob("a", b"x")
    if world.dedupe:
        pytest.skip("the bytes in the pool are left to the collection")
    world.objects.before = lambda method, args: world.later(INTENT_LIFETIME_S) if method == "execute" else None
    with pytest.raises(Busy):
        world.repository("a").delete_blob(digest)
    assert keys.blob("a", digest) in world.memory.stored


def test_index_json_is_a_layout_for_others(world: World) -> None:
    world.push("a", "v1")
    document = json.loads(world.memory.stored[keys.index("a")].body)
    assert document["schemaVersion"] == 2 and len(document["manifests"]) == 1
    assert json.loads(world.memory.stored[keys.layout("a")].body) == {"imageLayoutVersion": "1.0.0"}
    assert keys.blob("a", MANIFEST.digest) in world.memory.stored


def test_p1_is_repeated_after_waiting_for_an_intent(world: World) -> None:
    """What was written before the collector looked again is spared, what was written after may go: so it is written
    once more when the intent is over."""
    digest, reserved_at = digest_of(b"x"), keys.reservation(digest_of(b"x"), "a")
    world.push_blob("a", b"first")
    intent = world.protocol().intents.announce([world.place("a", digest)])

    def carry_out(method: str, args: tuple[Any, ...]) -> None:
        if method == "list" and reserved_at in world.memory.stored and intent in world.memory.stored:
            world.time.on_sleep = lambda: (world.memory.delete(reserved_at), world.memory.delete(intent))

    world.objects.before = carry_out
    world.push_blob("a", b"x")
    assert reserved_at in world.memory.stored
    assert intent not in world.memory.stored


def test_the_first_state_of_an_index_is_unlike_that_of_any_other(world: World) -> None:
    """No ABA: a repository that went and came again has another ETag, and another epoch."""
    world.push_blob("a", b"x")
    world.push_blob("b", b"x")
    one, two = (world.protocol().indexes.read(name).index for name in "ab")
    assert one.annotation(GENERATIONS) != two.annotation(GENERATIONS)
    assert one.annotation(EPOCH) != two.annotation(EPOCH)
    for key in [key for key in world.memory.stored if key.startswith("a/")]:
        world.memory.delete(key)
    world.push_blob("a", b"y", world.another())
    assert world.memory.stored[keys.index("a")].etag not in ("", world.memory.stored[keys.index("b")].etag)
    assert world.protocol().reservations.confirmed("a", digest_of(b"x")) is not None
    world.protocol().indexes.read("a")
    assert world.protocol().reservations.confirmed("a", digest_of(b"x")) is None


def test_m4_makes_nothing_appear_where_nothing_is(world: World) -> None:
    """Who creates an index.json creates an empty one, whatever he believed when he was frozen."""
    put = world.memory.put
    created: list[bytes] = []

    def watch(key: str, body: Any, **options: Any) -> str:
        if options.get("absent") and key == keys.index("a"):
            created.append(bytes(body))
        return put(key, body, **options)

    world.memory.put = watch  # type: ignore[method-assign]
    world.push("a", "v1")
    for key in [key for key in world.memory.stored if key.startswith("a/") and "/blobs/" not in key]:
        world.memory.delete(key)
    world.repository("a").put_manifest(MANIFEST, IMAGE.manifest, ["v2"])
    assert [json.loads(body)["manifests"] for body in created] == [[], []]
    assert world.repository("a").tags() == ["v2"]


def test_a_reservation_that_ends_during_its_push_is_still_good_for_it(world: World) -> None:
    """Its reservation is as old as it may be, and each request takes a while: what was reserved after index.json was
    read is good for its replacement, whatever the clock says by then."""
    digest = world.push_blob("a", b"x")
    protocol = world.protocol(world.another())
    world.later(protocol.context.window - 1.6)
    world.objects.before = lambda method, args: world.later(0.6)
    assert BucketTransaction(protocol, "a").require(digest).size == 1
    assert protocol.reservations.confirmed("a", digest) is None
