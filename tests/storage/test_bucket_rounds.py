"""How many requests a push makes, and how many of them it waits for one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests import images
from tests.clocks import Hand
from tests.counting import Counted, Rounds
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_root, bucket_store, push_image
from zotctl.errors import BlobUnknown, BlobUploadUnknown, ManifestUnknown
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.bucket.protocol import BucketProtocol, bucket_of
from zotctl.storage.index import Index
from zotctl.storage.protocol import Transaction

IMAGE = images.image("small", layers=1)
MANIFEST = check_manifest(IMAGE.manifest, OCI_MANIFEST)
LAYER = digest_of(IMAGE.blobs[-1])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def protocol_of(store: Store, *, pooled: bool = False) -> BucketProtocol:
    found = bucket_of(store.roots[0])
    found.context.pooled = pooled
    return found


def settle(store: Store) -> None:
    """Until the last answer's work is done."""
    while protocol_of(store).uploads._claims:
        threading.Event().wait(0.001)


def push(store: Store, name: str, tag: str) -> None:
    """As docker and containerd do: HEAD, POST, PATCH and PUT of each blob, HEAD and PUT of the manifest."""
    for body in IMAGE.blobs:
        digest, repository = digest_of(body), store.repository_for_push(name)
        with suppress(BlobUnknown):
            repository.blob(digest)
            continue
        upload_id = repository.start_upload()
        with repository.resume_upload(upload_id) as upload:
            upload.write([body])
        with repository.resume_upload(upload_id) as upload:
            upload.finish(digest)
    with suppress(ManifestUnknown):
        store.repository_for_push(name).manifest(tag)
    store.repository_for_push(name).put_manifest(MANIFEST, IMAGE.manifest, [tag])


def test_a_first_small_push(threads: ThreadPoolExecutor) -> None:
    """Of each blob HEAD 1, POST 1, PATCH 1, PUT 3 (reservation, intents, blob); the first one 2 more for its layout; of
    the manifest 4 (as it is; it and what it names; intents; index.json)."""
    objects = Rounds(MemoryObjects())
    store = bucket_store(objects, threads=threads)
    protocol_of(store)
    push(store, "a", "v1")
    settle(store)
    assert len(objects.taken()) <= 28
    assert objects.rounds() <= 8 + 6 + 4 + 2  # the sessions of the two are removed meanwhile
    push(store, "a", "v2")
    assert len(objects.taken()) <= 6
    assert objects.rounds() <= 3


class Waited(Rounds):
    """No client waits until what is over was removed."""

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if name != "delete":
            return super().request(name, call, *args, **options)
        return self.inner.delete(*args)


def push_body(store: Store, body: bytes) -> None:
    with suppress(BlobUnknown):
        store.repository("new").blob(digest_of(body))
        return
    repository = store.repository_for_push("new")
    upload_id = repository.start_upload()
    with repository.resume_upload(upload_id) as upload:
        upload.write([body])
        upload.save()
    with repository.resume_upload(upload_id) as upload:
        upload.finish(digest_of(body))


def test_an_image_of_ten_layers_takes_twelve_rounds() -> None:
    """Its blobs are pushed side by side, so that one counts for all: HEAD, POST, PATCH, and in its PUT two for the
    layout, reservation, intents, blob. Then the manifest: as it is; it and what it names; intents; index.json."""
    made = images.image("large", layers=10)
    with ThreadPoolExecutor(24) as threads:
        objects = Waited(MemoryObjects())
        store = bucket_store(objects, threads=threads)
        protocol_of(store)
        push_body(store, made.blobs[0])
        blob, objects.lingers = objects.rounds(), False
        for body in made.blobs[1:]:
            push_body(store, body)
        objects.rounds()
        objects.lingers = True
        with suppress(ManifestUnknown):
            store.repository("new").manifest("v1")
        store.repository_for_push("new").put_manifest(
            check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"]
        )
        assert (blob, objects.rounds()) == (8, 4)


def test_a_pull_by_tag_takes_one_round(threads: ThreadPoolExecutor) -> None:
    """Also when it is long ago that this process has seen the manifest."""
    clock, objects = Hand(), Rounds(MemoryObjects())
    store = bucket_store(objects, clock, threads=threads)
    made = push_image(store, "a", "v1")
    settle(store)
    for later, requests in ((0, ["get"]), (60, ["get", "head"]), (1, ["get"])):
        clock.at += later
        store.repository("a").manifest("v1")
        objects.taken(), objects.rounds()
        clock.at += later
        assert store.repository("a").manifest("v1").digest == made
        assert (sorted(objects.taken()), objects.rounds()) == (requests, 1)


def test_of_many_first_pushes_one_makes_the_layout(threads: ThreadPoolExecutor) -> None:
    objects = Rounds(MemoryObjects())
    indexes = protocol_of(bucket_store(objects, threads=threads)).indexes
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: indexes.ensure("a"), range(8)))
    assert sorted(objects.taken()) == ["get", "put", "put", "put"]


def test_an_index_that_came_since_it_was_looked_for_is_not_replaced() -> None:
    clock, objects = Hand(), Counted(MemoryObjects())
    one, two = (protocol_of(bucket_store(objects, clock)).indexes for _ in range(2))
    for name in ("a", "b"):
        one.foresee(name)
        two.ensure(name)
    objects.taken()
    one.ensure("a")
    assert one.read("a").generation == two.read("a").generation
    clock.at += 60.0
    objects.taken()
    one.ensure("b")
    assert objects.taken() == ["get"]  # what was seen a minute ago says nothing


def test_what_is_asked_for_and_absent_takes_one_round(threads: ThreadPoolExecutor) -> None:
    objects = Rounds(MemoryObjects())
    store = bucket_store(objects, threads=threads)
    push_image(store, "a", "v1", seed="y")
    protocol_of(store)
    settle(store)
    objects.taken(), objects.rounds()
    with pytest.raises(BlobUnknown):
        store.repository_for_push("a").blob(LAYER)
    assert (len(objects.taken()), objects.rounds()) == (2, 1)


class World:
    """A process, and another one, without threads."""

    def __init__(self) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        self.objects = Counted(self.memory)
        self.one, self.two = (bucket_store(self.objects, self.clock) for _ in range(2))
        push_image(self.one, "a", "v1")

    @property
    def protocol(self) -> BucketProtocol:
        return protocol_of(self.one)


def test_m1_nothing_is_refused_by_a_glance() -> None:
    """It may be of before the request that is refused: the tag came meanwhile."""
    world = World()
    world.protocol.indexes.glance("a")
    push_image(world.two, "a", "v2", seed="y")
    world.one.repository("a").delete_manifest("v2")
    assert world.two.repository("a").tags() == ["v1"]


def test_m4_a_commit_by_a_glance_fails_if_there_was_another_one() -> None:
    world = World()
    conflicts: list[None] = []
    world.protocol.context.conflict = lambda: conflicts.append(None)
    world.protocol.indexes.glance("a")
    push_image(world.two, "a", "v2", seed="y")

    def tag(tx: Transaction, draft: Index) -> None:
        row = draft.find("v1")
        assert row is not None and row.digest is not None
        draft.put(row.digest, row.size, row.media_type, ["v3"])

    assert world.protocol.commit_index("a", [tag]) == [None]
    assert world.two.repository("a").tags() == ["v1", "v2", "v3"]
    assert len(conflicts) == 1


def test_m1_a_glance_is_good_for_one_commit_and_not_for_long() -> None:
    world = World()
    world.protocol.indexes.glance("a")
    world.clock.at += 1.0
    world.objects.taken()
    for tag in ("v2", "v3"):
        push_tag(world, tag)
        assert world.objects.taken().count("get") == 1
    world.protocol.indexes.glance("a")
    push_tag(world, "v4")
    assert world.objects.taken() == ["get", "put"]


def push_tag(world: World, tag: str) -> None:
    def change(tx: Transaction, draft: Index) -> None:
        row = draft.find("v1")
        assert row is not None and row.digest is not None
        draft.put(row.digest, row.size, row.media_type, [tag])

    assert world.protocol.commit_index("a", [change]) == [None]


def test_p1_a_reservation_that_came_since_it_was_looked_for_is_not_replaced() -> None:
    world = World()
    with pytest.raises(BlobUnknown):
        world.one.repository("a").blob(LAYER)
    push_layer(world.two)
    before = world.memory.stored[keys.reservation(LAYER, "a")]
    push_layer(world.one)
    assert world.memory.stored[keys.reservation(LAYER, "a")] == before


def push_layer(store: Store) -> Digest:
    with store.repository_for_push("a").begin_upload() as upload:
        upload.write([IMAGE.blobs[-1]])
        upload.finish(LAYER)
    return LAYER


def test_an_upload_that_was_finished_is_unknown_at_once(threads: ThreadPoolExecutor) -> None:
    """Whatever is still to be removed of it: its client has its answer."""
    go_on, removing = threading.Event(), threading.Event()

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "delete":
            removing.set()
            go_on.wait(20)

    memory = MemoryObjects()
    root = bucket_root(Counted(memory, before), threads=threads)
    store = Store([root], root.protocol.clock)
    repository = store.repository_for_push("a")
    upload_id = repository.start_upload()
    with repository.resume_upload(upload_id) as upload:
        upload.write([IMAGE.blobs[-1]])
        upload.finish(LAYER)
    try:
        assert removing.wait(20) and keys.session(upload_id) in memory.stored
        with pytest.raises(BlobUploadUnknown):
            repository.upload_offset(upload_id)
        with pytest.raises(BlobUploadUnknown):
            repository.resume_upload(upload_id)
    finally:
        go_on.set()
    settle(store)
    assert keys.session(upload_id) not in memory.stored
