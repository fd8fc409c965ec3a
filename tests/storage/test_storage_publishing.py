"""What gets a name is on the device first, where that counts, and a push heals what is known to be damaged (I2, I3)."""

from __future__ import annotations

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.faults import Recorder
from tests.stores import push_blob, push_image, store_over
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of

BODY = b"content"
DIGEST = digest_of(BODY)
BLOB = keys.blob("a", DIGEST)
FLUSHES = ("sync", "sync_file")


def prepared(driver: MemoryDriver) -> MemoryDriver:
    push_image(store_over(driver), "a", "v1")
    return driver


def stage(driver: MemoryDriver) -> str:
    staged = keys.tmp("0123456789abcdef")
    with driver.create(staged) as writer:
        writer.write([BODY])
    return staged


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("how", ["a manifest", "under the lock", "with commit", "a blob"])
def test_i3_what_an_index_is_about_to_lead_to_is_flushed(how: str, there: bool) -> None:
    """Also what lay there: it may have come by a push that flushed nothing. A blob is only with `commit`."""
    memory = prepared(MemoryDriver())
    if there:
        push_blob(store_over(memory).repository_for_push("a"), BODY)
        memory.unlink(keys.pool(DIGEST))
    recorder = Recorder(memory)
    local = local_of(store_over(recorder, commit=how == "with commit").roots[0])
    staged = stage(memory)
    if how == "under the lock":
        with local.context.locks.hold("a") as held:
            recorder.calls.clear()
            local.blobs.publish("a", DIGEST, staged, held)
    else:
        recorder.calls.clear()
        local.blobs.publish("a", DIGEST, staged, manifest=how == "a manifest")
    flushed = [call for call in recorder.calls if call.method in FLUSHES and call.key in (BLOB, staged)]
    assert BLOB in memory.names
    if there:
        assert bool(flushed) == (how != "a blob")


@pytest.mark.parametrize("why", ["damaged", "no links"])
def test_i4_what_takes_the_place_of_a_file_is_flushed_before(why: str) -> None:
    memory = prepared(MemoryDriver(links=why != "no links"))
    if why == "damaged":
        push_blob(store_over(memory).repository_for_push("a"), BODY)
        memory.names[BLOB].data[0] ^= 1
    recorder = Recorder(memory)
    local = local_of(store_over(recorder).roots[0])
    staged = stage(memory)
    recorder.calls.clear()
    local.blobs.publish("a", DIGEST, staged)
    steps = [(call.method, call.target or call.key) for call in recorder.calls]
    assert ("rename", BLOB) in steps
    before = recorder.calls[: steps.index(("rename", BLOB))]
    assert [call for call in before if call.method in FLUSHES and call.key == staged]


def test_i6_a_push_of_what_is_marked_makes_it_readable_though_its_bytes_are_right() -> None:
    """The mark may have been one of a moment: what answered 404 until now answers 200."""
    memory = prepared(MemoryDriver())
    store = store_over(memory)
    push_blob(store.repository_for_push("a"), BODY)
    with memory.open(BLOB) as reader:
        assert store.roots[0].maintenance.mark("a", DIGEST, HeldFile(reader))
    push_blob(store.repository_for_push("a"), BODY)
    with store.repository("a").open_blob(DIGEST) as reader:
        assert reader.read_at(0, 99) == BODY
