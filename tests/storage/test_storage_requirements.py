"""What a manifest needs before it gets its row, and what a row says of one that is served: on both stores (I5, I2)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, probed, push_blob, push_image, store_over
from zotctl.errors import ManifestBlobUnknown, ManifestUnknown, Referenced
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import read

IMAGE = images.image("x")


class Place:
    """`another` opens the store anew, as another process does. `rewrite` changes index.json as another tool does."""

    def __init__(self, kind: str) -> None:
        self.clock, self.memory, self.objects = Hand(), MemoryDriver(), MemoryObjects()
        probed(self.objects)
        self.another: Callable[[], Store] = (
            (lambda: store_over(self.memory))
            if kind == "directory"
            else (lambda: bucket_store(self.objects, self.clock))
        )
        self.kind, self.store = kind, self.another()

    def rewrite(self, change: Callable[[str], str]) -> Store:
        self.store.close()
        key = keys.index("a")
        if self.kind == "bucket":
            self.objects.put(key, change(self.objects.stored[key].body.decode()).encode())
        else:
            body = change(read(self.memory, key, 1 << 20).decode())
            self.memory.unlink(key)
            with self.memory.create(key) as writer:
                writer.write([body.encode()])
        return self.another()

    def push(self, body: bytes, media_type: str, *tags: str) -> Digest:
        manifest = check_manifest(body, media_type)
        self.store.repository_for_push("a").put_manifest(manifest, body, tags)
        return manifest.digest


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


@pytest.mark.parametrize("part", ["config", "layers"])
@pytest.mark.parametrize("error", [-1, 1])
def test_i5_content_is_as_long_as_its_descriptor_says(place: Place, part: str, error: int) -> None:
    for blob in IMAGE.blobs:
        push_blob(place.store.repository_for_push("a"), blob)
    document = json.loads(IMAGE.manifest)
    (document[part][0] if part == "layers" else document[part])["size"] += error
    with pytest.raises(ManifestBlobUnknown, match="of its descriptor"):
        place.push(json.dumps(document).encode(), OCI_MANIFEST, "v1")
    place.push(IMAGE.manifest, OCI_MANIFEST, "v1")
    assert place.store.repository("a").tags() == ["v1"]


@pytest.mark.parametrize("error", [-1, 1])
def test_i5_so_is_a_child(place: Place, error: int) -> None:
    child = push_image(place.store, "a")
    with pytest.raises(ManifestBlobUnknown, match="of its descriptor"):
        place.push(images.index([(child, len(IMAGE.manifest) + error)]), OCI_INDEX, "all")
    place.push(images.index([(child, len(IMAGE.manifest))]), OCI_INDEX, "all")


def test_i5_an_index_needs_each_of_its_children(place: Place) -> None:
    child, lost = push_image(place.store, "a"), digest_of(b"a child that is not here")
    with pytest.raises(ManifestBlobUnknown, match=str(lost)):
        place.push(images.index([(child, len(IMAGE.manifest)), (lost, 24)]), OCI_INDEX, "all")
    assert place.store.repository("a").tags() == []


def test_i5_a_child_without_a_row_needs_what_it_names(place: Place) -> None:
    """It came as a blob, or a collector has dropped its row; and so with a child of that."""
    repository = place.store.repository_for_push("a")
    inner = images.index([(IMAGE.digest, len(IMAGE.manifest))])
    for blob in (IMAGE.manifest, inner, IMAGE.blobs[0]):
        push_blob(repository, blob)
    for body in (
        inner,
        images.index([(digest_of(inner), len(inner))]).replace(OCI_MANIFEST.encode(), OCI_INDEX.encode()),
    ):
        with pytest.raises(ManifestBlobUnknown):
            place.push(body, OCI_INDEX, "all")
    for blob in IMAGE.blobs[1:]:
        push_blob(repository, blob)
    place.push(inner, OCI_INDEX, "all")
    assert place.store.repository("a").tags() == ["all"]


def test_i2_a_manifest_that_is_not_as_long_as_its_row_says_is_not_served(place: Place) -> None:
    push_image(place.store, "a", "v1")
    size = f'"size":{len(IMAGE.manifest)}'

    def longer(text: str) -> str:
        assert text.replace(" ", "").count(size) == 1
        return text.replace(" ", "").replace(size, f'"size":{len(IMAGE.manifest) + 1}')

    store = place.rewrite(longer)
    for reference in ("v1", IMAGE.digest):
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest(reference)


@pytest.mark.parametrize("part", ["manifest", "subject"])
def test_i5_what_has_a_row_or_a_referrer_is_not_deleted_as_a_blob(place: Place, part: str) -> None:
    subject = push_image(place.store, "a", "v1")
    if part == "subject":
        push_image(place.store, "a", "sbom", seed="sbom", subject=subject)
    with pytest.raises(Referenced):
        place.store.repository_for_push("a").delete_blob(subject)
    assert place.store.repository("a").manifest("v1").digest == subject
