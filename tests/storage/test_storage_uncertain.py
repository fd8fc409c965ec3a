"""Content that a power cut may have left short, or in memory only (docs/design/local.md#without-commit)."""

from __future__ import annotations

from typing import Any

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faultproof.powercut import Recorder
from tests.stores import push_blob, store_over
from zotctl.errors import BlobUnknown, ManifestBlobUnknown
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import keys

MADE = images.image("uncertain")
LAYER = MADE.blobs[1]


def put(store: Any, body: bytes = MADE.manifest) -> None:
    store.repository_for_push("a").put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v1"])


def test_a_short_layer_that_no_manifest_names_heals_with_the_next_push() -> None:
    driver = MemoryDriver()
    before = store_over(driver)
    for body in MADE.blobs:
        push_blob(before.repository_for_push("a"), body)
    key = keys.blob("a", digest_of(LAYER))
    with driver.append(key) as writer:
        writer.truncate(len(LAYER) // 2)  # the power was cut: the length never reached the device
    store = store_over(driver)
    with pytest.raises(ManifestBlobUnknown):
        put(store)
    with pytest.raises(BlobUnknown):
        store.repository("a").blob(digest_of(LAYER))
    push_blob(store.repository_for_push("a"), LAYER)
    put(store)
    assert store.repository("a").blob(digest_of(LAYER)) == len(LAYER)


def test_a_manifest_with_a_wrong_size_marks_nothing() -> None:
    store = store_over(MemoryDriver())
    for body in MADE.blobs:
        push_blob(store.repository_for_push("a"), body)
    wrong = MADE.manifest.replace(str(len(LAYER)).encode(), str(len(LAYER) + 1).encode(), 1)
    with pytest.raises(ManifestBlobUnknown):
        put(store, wrong)
    assert store.repository("a").blob(digest_of(LAYER)) == len(LAYER)


def synced(recorder: Recorder, key: str) -> bool:
    """Are the bytes of the file that has this name on the device, by whichever name they were flushed?"""
    file = recorder.world.files[recorder.world.look(key)]
    return file.flushed == file.body


@pytest.mark.parametrize("where", ["a", "b"])
def test_i3_a_manifest_that_came_as_a_blob_first_is_flushed(where: str) -> None:
    driver = Recorder(MemoryDriver())
    store = store_over(driver)
    for body in MADE.blobs:
        push_blob(store.repository_for_push("a"), body)
    push_blob(store.repository_for_push(where), MADE.manifest)
    assert not synced(driver, keys.blob(where, digest_of(MADE.manifest)))
    put(store)
    assert synced(driver, keys.blob("a", digest_of(MADE.manifest)))


def test_i4_commit_flushes_what_another_left_unflushed() -> None:
    driver = Recorder(MemoryDriver())
    push_blob(store_over(driver).repository_for_push("b"), LAYER)
    push_blob(store_over(driver, commit=True).repository_for_push("a"), LAYER)
    assert synced(driver, keys.blob("a", digest_of(LAYER)))
