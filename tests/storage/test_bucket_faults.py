"""One request in ten to the object store fails: whoever pushes, pulls and deletes hears nothing of it.

The faults are real: a proxy before versitygw resets connections, loses answers, cuts bodies and answers 500, 502, 503.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.doubles.objects import MemoryObjects
from tests.object_faults import LOST, NEVER, TWICE, WRITES, FaultyObjects, StillClock, scripted
from tests.object_faults import one_in as in_memory
from tests.object_proxy import Proxy, one_in
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import BlobUnknown, ManifestUnknown
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.storage import Repository
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.index import EPOCH, IndexObjects
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.probe import probe
from zotctl.storage.clock import Clock

IMAGES = 12


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:  # noqa: F811
    made = Proxy(bucket.server.endpoint)
    yield made
    made.close()


def blobs_of(repository: Repository, digest: Digest) -> list[bytes]:
    """Everything that an image's manifest names, read whole and checked."""
    found = []
    manifest = json.loads(repository.manifest(str(digest)).body)
    for row in [manifest["config"], *manifest["layers"]]:
        with repository.open_blob(parse_digest(row["digest"])) as reader:
            found.append(reader.read_at(0, reader.size))
            assert str(digest_of(found[-1])) == row["digest"]
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dedupe", [False, True])
def test_two_servers_push_into_one_repository(bucket: Bucket, proxy: Proxy, seed: int, dedupe: bool) -> None:  # noqa: F811
    stores = [bucket_store(Retrying(bucket.client(endpoint=proxy.endpoint)), dedupe=dedupe) for _ in range(2)]
    proxy.choose = one_in(10, seed)

    def push(number: int) -> Digest:
        return push_image(stores[number % 2], "app", f"v{number}", seed=str(number))

    with ThreadPoolExecutor(4) as pool:
        pushed = list(pool.map(push, range(IMAGES)))
    assert len(proxy.faults) > IMAGES
    repository = stores[0].repository("app")
    for number, digest in enumerate(pushed):
        assert repository.manifest(f"v{number}").digest == digest
        assert len(blobs_of(repository, digest)) == 3
    proxy.choose = lambda _: ""
    assert list(bucket_store(bucket.client(), dedupe=dedupe).repository("app").tags()) == repository.tags()


@pytest.mark.parametrize("seed", range(3))
def test_a_delete_is_done(bucket: Bucket, proxy: Proxy, seed: int) -> None:  # noqa: F811
    store = bucket_store(Retrying(bucket.client(endpoint=proxy.endpoint)))
    proxy.choose = one_in(10, seed)
    for number in range(IMAGES):
        body = f"blob {number}".encode()
        name = f"app{number}"
        push_blob(store.repository_for_push(name), body)
        digest = push_image(store, name, "latest", seed=str(number))
        store.repository(name).delete_blob(digest_of(body))
        store.repository(name).delete_manifest(str(digest))
        with pytest.raises(BlobUnknown):
            store.repository(name).blob(digest_of(body))
        with pytest.raises(ManifestUnknown):
            store.repository(name).manifest("latest")


def index_objects(objects: FaultyObjects) -> IndexObjects:
    context = BucketContext(objects, StillClock())  # type: ignore[arg-type]
    return IndexObjects(context, lambda name, epoch: None)


@pytest.mark.parametrize("faults", [(LOST,), (NEVER,), (NEVER, LOST), (LOST, NEVER, NEVER)])
def test_a_touch_without_an_answer_is_looked_up(faults: tuple[str, ...]) -> None:
    memory = MemoryObjects()
    push_image(bucket_store(memory), "app", "latest")
    left = list(faults)
    objects = FaultyObjects(memory, lambda method, _: left.pop(0) if method == "put" and left else "")
    indexes = index_objects(objects)
    before = indexes.read("app")
    assert indexes.touch("app", before)
    assert not indexes.touch("app", before)
    assert indexes.read("app").index.annotation(EPOCH) != before.index.annotation(EPOCH)
    assert bucket_store(memory).repository("app").tags() == ["latest"]


def test_a_touch_that_lost_is_told() -> None:
    memory = MemoryObjects()
    store = bucket_store(memory)
    push_image(store, "app", "one")
    objects = FaultyObjects(memory, scripted("", NEVER))
    indexes = index_objects(objects)
    before = indexes.read("app")
    push_image(store, "app", "two", seed="y")
    assert not indexes.touch("app", before)


# -- a proxy on the way repeats, and tells the second answer ---------------------------------------


def test_what_was_done_twice_was_done() -> None:
    """Each write, also a conditional one that is refused the second time."""
    memory = MemoryObjects()
    objects = FaultyObjects(memory, lambda method, _: TWICE if method in WRITES else "")
    store = bucket_store(Retrying(objects, StillClock()))
    repository = store.repository_for_push("app")
    body = b"chunk after chunk"
    upload_id = repository.start_upload()
    for chunk in (body[:5], body[5:9]):
        with repository.resume_upload(upload_id) as upload:
            upload.write([chunk])
            upload.save()
    assert bucket_store(memory).repository_for_push("app").upload_offset(upload_id) == 9
    with repository.resume_upload(upload_id) as upload:
        upload.write([body[9:]])
        upload.finish(digest_of(body))
    digest = push_image(store, "app", "v1", "v2")
    repository.delete_manifest("v1")
    assert bucket_store(memory).repository("app").tags() == ["v2"]
    repository.delete_manifest(digest)
    repository.delete_blob(digest_of(body))
    assert not bucket_store(memory).repository("app").tags()


def test_a_store_behind_a_proxy_that_repeats_is_not_refused() -> None:
    for seed in range(10):
        objects = Retrying(FaultyObjects(MemoryObjects(), in_memory(10, seed, (TWICE,))))
        assert not probe(objects, Clock()).missing
