"""Rows of index.json that get a name, or come from another layout; what a push looks at before it takes one."""

from __future__ import annotations

import json

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, Meanwhile, Recorder
from tests.jobs.collecting import DELAY, Place
from tests.storage.test_storage_index import CONTAINERD, DIGESTS, read, row
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import IoFailed, ManifestBlobUnknown, Unavailable
from zotctl.jobs.local import gc as local_gc
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver
from zotctl.storage.local.protocol import local_of

IMAGE = images.image("x")


def test_i9_a_row_that_answers_to_another_name_keeps_it() -> None:
    index = read(row(DIGESTS[0], annotations={CONTAINERD: "docker.io/x/app:1"}))
    index.put(DIGESTS[0], 7, OCI_MANIFEST, ["v1"])
    assert [index.find(tag) is not None for tag in ("1", "v1")] == [True, True]
    assert len(list(index.rows())) == 2


def test_a_plain_row_beside_one_that_says_more_is_nothing_new() -> None:
    index = read(row(DIGESTS[0], x="y"))
    index.put_row(json.dumps(row(DIGESTS[0])).encode(), None)
    assert len(list(index.rows())) == 1
    index.put_row(json.dumps(row(DIGESTS[0], x="z")).encode(), None)
    index.put_row(json.dumps(row(DIGESTS[0], x="z")).encode(), None)
    assert len(list(index.rows())) == 2
    index.put_row(json.dumps(row(DIGESTS[1])).encode(), None)
    assert len(list(index.rows())) == 3


def test_i4_what_loses_its_tag_to_an_imported_row_keeps_an_untagged_one() -> None:
    index = read(row(DIGESTS[0], "v1"))
    index.put_row(json.dumps(row(DIGESTS[1], "v1")).encode(), "v1")
    assert [(one.digest, one.tag) for one in index.rows()] == [(DIGESTS[0], None), (DIGESTS[1], "v1")]


# -- children of a pushed index --------------------------------------------------------------------


@pytest.fixture
def memory() -> MemoryDriver:
    return MemoryDriver()


def push_index(store: Store) -> None:
    body = images.index([(IMAGE.digest, len(IMAGE.manifest))])
    store.repository_for_push("a").put_manifest(check_manifest(body, OCI_INDEX), body, ["all"])


def test_i5_a_child_that_can_not_be_read_now_is_no_child_that_is_missing(memory: MemoryDriver) -> None:
    """Try again, and not: push it again."""
    push_image(store_over(memory), "a", "v1", seed="x")
    failing: Driver = memory
    for _ in range(4):
        failing = FailOn(failing, "open", 1, IoFailed("broken"), lambda key: key == keys.blob("a", IMAGE.digest))
    with pytest.raises(Unavailable):
        push_index(store_over(failing))
    memory.unlink(keys.blob("a", IMAGE.digest))
    with pytest.raises(ManifestBlobUnknown):
        push_index(store_over(memory))


# -- mounts -------------------------------------------------------------------------------------


def test_i4_a_mount_of_what_is_there_flushes_it() -> None:
    """With commit: it may have come by a push without."""
    memory = MemoryDriver()
    store = store_over(memory)
    for name in "ab":
        push_image(store, name, "v1")
        push_blob(store.repository_for_push(name), b"content")
    recorder = Recorder(memory)
    digest = digest_of(b"content")
    assert local_of(store_over(recorder, commit=True).roots[0]).blobs.mount("a", "b", digest)
    flushed = [call.key for call in recorder.calls if call.method in ("sync_file", "sync_dir")]
    assert flushed.index(keys.blob("b", digest)) < flushed.index(keys.blobs_of("b", "sha256"))


# -- a repository that goes -----------------------------------------------------------------------


def test_i4_an_empty_repository_is_read_under_its_lock() -> None:
    """A push came while it was waited for."""
    place = Place()
    place.stray()
    place.driver.unlink(keys.blob("a", digest_of(b"stray")))
    place.wait(5)
    pushed = Meanwhile(place.driver, "lock", lambda: push_image(place.store, "a", "v1"), lambda key: key == keys.LOCK)
    local_gc.remove_empty(place.open(pushed).roots[0], "a", DELAY, place.ages())
    assert pushed.done
    assert place.store.repository("a").tags() == ["v1"]
