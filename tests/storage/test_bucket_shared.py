"""What one worker deletes, or finds lost, none says to be there any more (zotctl.storage.bucket.workers)."""

from __future__ import annotations

import os

import pytest

from tests import images
from tests.clocks import Hand
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import BlobUnknown, ManifestUnknown, NotFound
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.workers import (
    SERVER_DAMAGE,
    SERVER_DELETIONS,
    SERVER_LOSSES,
    DigestMarks,
    Mark,
)

BODY = b"content"


def protocol(store: Store) -> BucketProtocol:
    found = store.roots[0].protocol
    assert isinstance(found, BucketProtocol)
    return found


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_reservation_of_one_worker_is_void_when_another_has_deleted_the_blob(dedupe: bool) -> None:
    objects, mark = MemoryObjects(), Mark()
    one, two = (bucket_store(objects, dedupe=dedupe) for _ in range(2))
    for store in (one, two):
        protocol(store).context.deletions = mark
    digest = digest_of(BODY)
    protocol(one).blobs.publish("a", digest, lambda key: Object(key, len(BODY), objects.put(key, BODY), 0, 0))
    assert two.repository("a").blob(digest) == len(BODY)
    one.repository("a").delete_blob(digest)
    with pytest.raises(BlobUnknown):
        two.repository("a").blob(digest)
    assert keys.reservation(digest, "a") not in objects.stored


def test_the_mark_is_seen_by_forked_processes() -> None:
    before = SERVER_DELETIONS.seen()
    pid = os.fork()
    if pid == 0:
        SERVER_DELETIONS.change()
        os._exit(0)
    os.waitpid(pid, 0)
    assert SERVER_DELETIONS.seen() != before


# -- what one worker has found missing or damaged ----------------------------------------------------------

IMAGE = images.image("x", layers=2)
LAYER = digest_of(IMAGE.blobs[-1])


class Workers:
    """Two of one server, which have both seen an image; a third begins when it is asked for."""

    def __init__(self, dedupe: bool) -> None:
        self.memory, self.clock, self.dedupe = MemoryObjects(), Hand(), dedupe
        self.pages = Mark(), DigestMarks(), DigestMarks()
        self.one, self.two = self.worker(), self.worker()
        push_image(self.one, "a", "v1", seed="x")
        for store in (self.one, self.two):
            store.repository("a").manifest("v1")
            store.repository("a").blob(LAYER)

    def worker(self) -> Store:
        store = bucket_store(self.memory, self.clock, dedupe=self.dedupe)
        context = protocol(store).context
        context.deletions, context.lost, context.marked = self.pages
        return store

    @property
    def layer(self) -> str:
        return keys.shared(LAYER) if self.dedupe else keys.blob("a", LAYER)

    def rot(self, key: str) -> None:
        """Other bytes, which `scrub` in another process of this server finds."""
        self.memory.put(key, bytes(len(self.memory.stored[key].body)))
        scrubbing = protocol(self.worker())
        scrubbing.damaged.mark(parse_digest(f"sha256:{key[-64:]}"), self.memory.head(key))


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def workers(request: pytest.FixtureRequest) -> Workers:
    return Workers(request.param)


def missing(store: Store) -> None:
    with pytest.raises(BlobUnknown):
        store.repository("a").blob(LAYER)


def test_what_one_worker_finds_missing_none_says_to_be_there(workers: Workers) -> None:
    workers.memory.delete(workers.layer)
    with pytest.raises(BlobUnknown):
        workers.one.repository("a").open_blob(LAYER)
    missing(workers.two)
    push_blob(workers.one.repository("a"), IMAGE.blobs[-1])
    assert workers.two.repository("a").blob(LAYER) == len(IMAGE.blobs[-1])


@pytest.mark.parametrize("way", ["for a client", "for a graph"])
def test_a_manifest_that_one_worker_finds_missing_none_says_to_be_there(workers: Workers, way: str) -> None:
    workers.memory.delete(keys.blob("a", IMAGE.digest))
    third = workers.worker()
    with pytest.raises(ManifestUnknown if way == "for a client" else NotFound):
        third.repository("a").manifest("v1") if way == "for a client" else protocol(third).blobs.open_manifest(
            "a", IMAGE.digest
        )
    for store in (workers.two, workers.one, third):
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest("v1")


@pytest.mark.parametrize("fresh", [False, True])
def test_what_one_worker_finds_damaged_none_says_to_be_there(workers: Workers, fresh: bool) -> None:
    workers.rot(workers.layer)
    store = workers.worker() if fresh else workers.two
    missing(store)
    with pytest.raises(BlobUnknown, match="damaged"):
        store.repository("a").open_blob(LAYER)
    push_blob(store.repository("a"), IMAGE.blobs[-1])
    assert not list(workers.memory.list(f"{keys.DAMAGED}/"))
    assert workers.one.repository("a").blob(LAYER) == len(IMAGE.blobs[-1])


def test_a_manifest_that_one_worker_finds_damaged_none_says_to_be_there(workers: Workers) -> None:
    workers.rot(keys.blob("a", IMAGE.digest))
    for store in (workers.one, workers.two):
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest("v1")


def test_a_look_that_began_before_the_loss_is_not_believed_after_it(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.clock.at += 60  # what was remembered is looked at again
    context = protocol(workers.two).context
    head = context.head

    def meanwhile(key: str) -> Object | None:
        found = head(key)
        if key == workers.layer and found is not None:
            workers.memory.delete(key)
            missing(workers.one)
        return found

    monkeypatch.setattr(context, "head", meanwhile)
    workers.two.repository("a").blob(LAYER)
    missing(workers.two)


def test_a_loss_is_seen_by_forked_processes() -> None:
    before = [page.seen(LAYER) for page in (SERVER_LOSSES, SERVER_DAMAGE)]
    pid = os.fork()
    if pid == 0:
        SERVER_LOSSES.change(LAYER)
        SERVER_DAMAGE.change(LAYER)
        os._exit(0)
    os.waitpid(pid, 0)
    assert SERVER_LOSSES.seen(LAYER) != before[0] and SERVER_DAMAGE.seen(LAYER) != before[1]


def test_nothing_is_looked_for_where_nothing_was_marked() -> None:
    workers = Workers(False)
    counted = Counted(workers.memory)
    store = bucket_store(counted, workers.clock)  # type: ignore[arg-type]
    protocol(store).context.marked = workers.pages[2]
    store.repository("a").blob(LAYER)
    counted.taken()
    for marks, asked in ((False, []), (True, ["list"])):
        if marks:
            workers.pages[2].change(LAYER)
        for _ in range(3):
            store.repository("a").blob(LAYER)
        assert counted.taken() == asked


def test_a_mark_is_another_one_after_each_change() -> None:
    """Of all that was deleted, and not of the first only."""
    mark, seen = Mark(), set[bytes]()
    for _ in range(10):
        seen.add(mark.seen())
        mark.change()
    assert len(seen) == 10


def test_content_that_is_known_to_be_damaged_is_counted(workers: Workers) -> None:
    maintenance = workers.one.roots[0].maintenance
    assert maintenance.lasting_damage() == 0
    workers.rot(workers.layer)
    assert maintenance.lasting_damage() == 1
