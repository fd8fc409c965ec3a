"""What gets a name is on the device first, where that counts, and a push heals what is known to be damaged (I2, I3)."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.doubles.nfs import ByTwoRequests
from tests.faults import Crash, FailOn, Meanwhile, Recorder
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import CannotLink, NoSpace, StorageError
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.locks import lock_byte

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


def test_i6_a_marked_copy_in_the_pool_gets_no_name_though_its_bytes_are_right() -> None:
    """The push would be answered 201, and the blob 404."""
    memory = prepared(MemoryDriver())
    store = store_over(memory)
    push_blob(store.repository_for_push("a"), BODY)
    with memory.open(BLOB) as reader:
        assert local_of(store.roots[0]).damaged.mark(DIGEST, BLOB, HeldFile(reader))
    push_blob(store.repository_for_push("b"), BODY)
    assert store.repository("b").blob(DIGEST) == len(BODY)
    assert memory.names[keys.pool(DIGEST)] is memory.names[keys.blob("b", DIGEST)]


@pytest.mark.parametrize(
    "error", [NoSpace("no inode left"), CannotLink("another device")], ids=lambda error: type(error).__name__
)
def test_a_pool_that_takes_no_name_costs_no_push(error: StorageError) -> None:
    """It is a hint: the next push of these bytes has a copy of its own."""
    memory = prepared(MemoryDriver())
    staged = stage(memory)
    full = FailOn(memory, "link", 2, error, lambda key: key == staged)
    local_of(store_over(full).roots[0]).blobs.publish("a", DIGEST, staged)
    assert full.left <= 0 and BLOB in memory.names and keys.pool(DIGEST) not in memory.names


# -- on a network ------------------------------------------------------------------------------------


def damaged_far() -> MemoryDriver:
    far = prepared(MemoryDriver(local=False))
    push_blob(store_over(far).repository_for_push("a"), BODY)
    far.names[BLOB].data[0] ^= 1
    return far


def die(key: str) -> None:
    if key == BLOB:
        raise Crash


def test_i6_a_push_that_was_killed_while_it_healed_takes_away_no_other_one() -> None:
    """Both find the damage, and one has answered. A client of NFS replaces a file that is open on its host by two
    requests."""
    far = damaged_far()

    def other() -> None:
        push_blob(store_over(far).repository("a"), BODY)

    late = Meanwhile(ByTwoRequests(far, die), "sync_file", other, lambda key: key.startswith(keys.TMP))
    with suppress(Crash):
        local_of(store_over(late).roots[0]).blobs.publish("a", DIGEST, stage(far))
    assert late.done
    assert store_over(far).repository("a").blob(DIGEST) == len(BODY)


@pytest.mark.parametrize("under_the_lock", [False, True])
def test_a_push_that_was_killed_while_it_healed_has_healed(under_the_lock: bool) -> None:
    far = damaged_far()
    local = local_of(store_over(ByTwoRequests(far, die)).roots[0])
    with pytest.raises(Crash), local.context.locks.hold("a") if under_the_lock else nullcontext() as held:
        local.blobs.publish("a", DIGEST, stage(far), held)
    assert store_over(far).repository("a").blob(DIGEST) == len(BODY)


def test_a_push_heals_under_the_lock() -> None:
    """As a job does: each that replaces this blob gives what takes its place the same name in the trash."""
    far = damaged_far()

    def others_wait() -> None:
        assert far.lock(keys.LOCK, lock_byte("a")) is None

    seen = Meanwhile(far, "rename", others_wait, lambda key: key.startswith(keys.TRASH))
    local_of(store_over(seen).roots[0]).blobs.publish("a", DIGEST, stage(far))
    assert seen.done
