"""Single decisions of a store that nothing else shows: what is flushed last, what is counted, who is asked twice."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import images
from tests.conformance.media import OnDriver, OnObjects
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.faults import Faults, NoSpaceAfter, Recorder
from tests.stores import bucket_store, push_blob, push_image, store_over
from zotctl.errors import (
    BlobUnknown,
    HeldElsewhere,
    IoFailed,
    LayoutInvalid,
    ManifestBlobUnknown,
    ManifestUnknown,
    NoSpace,
    SizeInvalid,
    Unavailable,
)
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import keys
from zotctl.storage.bucket.blobs import REDIRECT_MIN_BYTES
from zotctl.storage.bucket.lease import WRITER_LEASE_S, refuse_beside_one
from zotctl.storage.bucket.objects import multipart
from zotctl.storage.bucket.objects.multipart import Parts
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.bucket.uploads.buffer import BudgetShare, MemoryBudget
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local import index_file, reserve
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of

# -- a directory ----------------------------------------------------------------------------------


def test_i3_a_commit_is_answered_when_the_name_of_its_index_is_on_the_device() -> None:
    driver = Recorder(MemoryDriver())
    store = store_over(driver, commit=True)
    push_image(store, "a", "v1")
    driver.calls.clear()
    push_image(store, "a", "v2", seed="v2")
    steps = [str(call) for call in driver.calls]
    swapped = max(at for at, step in enumerate(steps) if step.startswith("exchange "))
    assert "sync_dir a" in steps[swapped:]


@pytest.mark.parametrize(("code", "told"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False)])
def test_a_directory_that_could_not_be_flushed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    """But a file system that has nothing to flush for it says EINVAL."""

    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if not told:
        return LocalDriver(str(tmp_path)).sync_dir("")
    with pytest.raises(NoSpace if code == errno.ENOSPC else IoFailed):
        LocalDriver(str(tmp_path)).sync_dir("")
    return None


def test_what_is_reserved_for_root_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace(f_frsize=10, f_blocks=100, f_bfree=30, f_bavail=20, f_files=9, f_ffree=5, f_favail=4)
    monkeypatch.setattr(os, "statvfs", lambda path: said)
    assert LocalDriver(str(tmp_path)).space() == (1000, 200, 4)


def test_a_pull_from_a_root_that_is_only_read_writes_nothing() -> None:
    driver = MemoryDriver()
    store = store_over(driver)
    digest = push_image(store, "a", "v1")
    before = driver.stat(keys.history("a")).size
    store.roots[0].read_only = True
    store.repository("a").note_pull(digest)
    assert driver.stat(keys.history("a")).size == before
    store.roots[0].read_only = False
    store.repository("a").note_pull(digest)
    assert driver.stat(keys.history("a")).size > before


def test_names_of_a_root_that_goes_away_while_it_is_listed_are_not_taken_for_all() -> None:
    store = store_over(MemoryDriver(), MemoryDriver())
    push_image(store, "a", "v1")
    states: list[Unavailable | None] = [None, Unavailable("away")]
    store.roots[1].state = lambda: states.pop(0) if states else None  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        store.repositories()
    assert store.repositories() == ["a"]


def test_a_full_disk_gives_its_reserve_for_a_smaller_index_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push that makes it larger would use up what a deletion needs."""
    monkeypatch.setattr(reserve, "LEAST_RESERVE_BYTES", 5000)
    driver = NoSpaceAfter(MemoryDriver(), 1 << 20)
    store = store_over(driver)
    first = push_image(store, "a", "v1")
    push_image(store, "a", "v2", seed="v2")
    store.maintain()
    kept = driver.stat(keys.RESERVE)
    local_of(store.roots[0]).indexes.close()

    def commit(change: Any) -> Any:
        (outcome,) = store.roots[0].protocol.commit_index("a", [lambda tx, draft: change(draft)])
        return outcome

    driver.left = 0
    with pytest.raises(NoSpace):
        commit(lambda draft: draft.put(first, 1, OCI_MANIFEST, ["another"]))
    assert driver.stat(keys.RESERVE) == kept
    with pytest.raises(NoSpace):  # for it frees nothing on this disk
        commit(lambda draft: draft.untag("v2"))
    assert keys.RESERVE not in driver.inner.names  # type: ignore[attr-defined]


def test_an_index_that_is_written_while_it_is_read_is_read_again() -> None:
    """What was read then may be of two states, so it is remembered under neither."""

    class Beside(Faults):
        other: bytes = b""

        def read(self, key: str, offset: int, data: bytes) -> bytes:
            if key == keys.index("a") and self.other:
                with self.inner.append(key, create=False) as writer:
                    writer.truncate(0)
                    writer.write([self.other])
                self.other = b""
            return data

    driver = Beside(MemoryDriver())
    store = store_over(driver)
    push_image(store, "a", "v1")
    store.close()
    reading = store_over(driver)
    driver.other = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert reading.repository("a").tags() == ["v1"]
    assert reading.repository("a").tags() == []


def test_an_index_may_not_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MemoryDriver()
    store = store_over(driver)
    push_image(store, "a", "v1")
    store.close()
    size = driver.stat(keys.index("a")).size
    monkeypatch.setattr(index_file, "LARGEST_INDEX_BYTES", size)
    assert store_over(driver).repository("a").tags() == ["v1"]
    monkeypatch.setattr(index_file, "LARGEST_INDEX_BYTES", size - 1)
    with pytest.raises(LayoutInvalid, match=f"more than {size - 1}"):
        store_over(driver).roots[0].protocol.indexes.read("a")


@pytest.mark.parametrize("refused", [False, True])
def test_a_push_of_a_manifest_leaves_nothing_staged(refused: bool) -> None:
    driver = MemoryDriver()
    store, made = store_over(driver), images.image()
    repository = store.repository_for_push("a")
    for body in made.blobs[refused:]:
        push_blob(repository, body)
    with pytest.raises(ManifestBlobUnknown) if refused else nullcontext():
        repository.put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"])
    assert driver.scan(keys.TMP) == []


# -- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_a_layer_that_must_not_be_distributed_need_not_be_here(kind: str) -> None:
    store = store_over(MemoryDriver()) if kind == "directory" else bucket_store(MemoryObjects())
    made = images.image(layers=1)
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    repository = store.repository_for_push("a")
    for absent, media_type in enumerate((foreign, images.LAYER)):
        layers = [images.descriptor(made.blobs[1], images.LAYER), images.descriptor(b"%d" % absent, media_type)]
        body = json.dumps(json.loads(made.manifest) | {"layers": layers}).encode()
        for blob in made.blobs:
            push_blob(repository, blob)
        if media_type == foreign:
            repository.put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v1"])
        else:
            with pytest.raises(ManifestBlobUnknown):
                repository.put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v2"])
    assert store.repository("a").tags() == ["v1"]


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_i5_what_is_not_served_is_no_child(kind: str) -> None:
    """Whatever else the process has read of it before it rotted."""
    medium = OnDriver(MemoryDriver()) if kind == "directory" else OnObjects(MemoryObjects(), dedupe=False)
    store, made = medium.store(), images.image()
    digest = push_image(store, "a", "v1")
    repository = store.repository("a")
    assert repository.referrers(digest) == []  # the graph knows it now
    medium.overwrite("a", digest, made.manifest[:-2] + b" }")
    store.roots[0].bodies.drop(digest)  # as others push it out
    with pytest.raises(ManifestUnknown):
        repository.manifest(digest)
    listed = images.index([(digest, len(made.manifest))])
    with pytest.raises(ManifestBlobUnknown, match="push it again"):
        repository.put_manifest(check_manifest(listed, OCI_INDEX), listed, ["v2"])


# -- a bucket -------------------------------------------------------------------------------------


def test_a_blob_has_no_more_parts_than_s3_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MOST_PARTS", 3)
    memory = MemoryObjects()
    parts = Parts(memory, "key", memory.start_parts("key"), (), None)
    for _ in range(2):
        parts.send(0, memoryview(bytes(multipart.SMALLEST_PART_BYTES)))
    with pytest.raises(SizeInvalid, match="Content-Length"):
        parts.send(0, memoryview(b"one too many"))
    done = parts.complete(memoryview(b"the last"), 2 * multipart.SMALLEST_PART_BYTES + 8)
    assert done is not None and memory.head("key").size == done.size


@pytest.mark.parametrize("dedupe", [False, True])
def test_i2_what_is_damaged_is_not_mounted(dedupe: bool) -> None:
    """Found while it is mounted: its mark came after the look before the copy."""
    memory = MemoryObjects()
    store, scrubbing = bucket_store(memory, dedupe=dedupe), bucket_store(memory, dedupe=dedupe)
    digest = push_blob(store.repository_for_push("a"), b"content")
    place = keys.shared(digest) if dedupe else keys.blob("a", digest)
    bucket = bucket_of(scrubbing.roots[0])
    bucket.damaged.mark(digest, memory.head(place))
    bucket_of(store.roots[0]).damaged.refresh(now=True)
    mounted: Any = store.repository_for_push("b").mount_blob(store.repository("a"), digest)
    assert not mounted


def test_i2_a_blob_that_was_cut_is_not_mounted() -> None:
    """Its manifest tells its length, and the other repository has none to tell."""
    memory = MemoryDriver()
    store = store_over(memory)
    push_image(store, "a", "v1")
    layer = digest_of(images.image().blobs[1])
    del memory.names[keys.blob("a", layer)].data[-1:]
    assert not store.repository_for_push("b").mount_blob(store.repository("a"), layer)
    assert keys.blob("b", layer) not in memory.names


@pytest.mark.parametrize("why", ["cut", "marked"])
def test_what_is_not_served_is_closed(tmp_path: Path, why: str) -> None:
    """Or each request for it would take one more file of the process."""
    store = store_over(LocalDriver(str(tmp_path)))
    push_image(store, "a", "v1")
    layer = digest_of(images.image().blobs[1])
    key = keys.blob("a", layer)
    if why == "cut":
        os.truncate(tmp_path / key, 1)
    else:
        with LocalDriver(str(tmp_path)).open(key) as reader:
            assert store.roots[0].maintenance.mark("a", layer, HeldFile(reader))
    with pytest.raises(BlobUnknown):
        store.repository("a").open_blob(layer)
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert os.path.realpath(tmp_path / key) not in opened


def test_whoever_asked_first_for_memory_gets_it_first() -> None:
    budget = MemoryBudget(8 << 20, part=2 << 20)
    first, second, third = BudgetShare(), BudgetShare(), BudgetShare()
    assert budget.ask(first, 6 << 20)
    assert not budget.ask(second, 4 << 20) and not budget.ask(third, 4 << 20)
    budget.release(first)
    assert (second.size, third.size) == (4 << 20, 0)


@pytest.mark.parametrize(("age", "held"), [(0, True), (WRITER_LEASE_S - 1, True), (WRITER_LEASE_S + 1, False)])
def test_a_single_writer_counts_for_a_minute_after_its_last_sign(age: float, held: bool) -> None:
    now = [1_700_000_000.0]
    memory = MemoryObjects(lambda: now[0])
    memory.put(keys.lease("writer"), json.dumps({"host": "another", "pid": 1, "system": "another"}).encode())
    now[0] += age
    with pytest.raises(HeldElsewhere, match="process 1 on another") if held else nullcontext():
        refuse_beside_one(memory)


@pytest.mark.parametrize(("size", "elsewhere"), [(REDIRECT_MIN_BYTES - 1, False), (REDIRECT_MIN_BYTES, True)])
def test_a_small_blob_is_not_worth_a_redirect(size: int, elsewhere: bool) -> None:
    memory = MemoryObjects()
    store = bucket_store(memory)
    digest = push_blob(store.repository_for_push("a"), bytes(size))
    blobs = bucket_of(store.roots[0]).blobs
    blobs.redirect_lifetime_s = 60.0
    assert (blobs.redirect("a", digest) is not None) == elsewhere
