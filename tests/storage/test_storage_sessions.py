"""Sessions of uploads in a directory, and the lock of a repository: what holds a second writer off, what is flushed,
what is left after an error. Each safeguard has a mutant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver, MemoryReader
from tests.faults import FailOn, Meanwhile, NoSpaceAfter, Recorder
from tests.stores import push_blob, push_image, root_over, store_over
from zotctl.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    Busy,
    DigestInvalid,
    IoFailed,
    NoSpace,
    NotFound,
    UploadConflict,
)
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store, WouldBlock, keys
from zotctl.storage.driver import read
from zotctl.storage.file_identity import same_file
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.uploads import SPACE_CHECKED_EVERY_BYTES
from zotctl.storage.locks import RENEW_AFTER_S, Locks, ProcessLocks, lock_byte

BODY = b"the bytes of a blob"
DIGEST = digest_of(BODY)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def driver(clock: Hand) -> MemoryDriver:
    return MemoryDriver()


def begun(driver: MemoryDriver, body: bytes = BODY) -> str:
    """By another process, so that nothing is remembered of its hash."""
    repository = store_over(driver).repository_for_push("a")
    upload_id = repository.start_upload()
    with repository.resume_upload(upload_id) as upload:
        upload.write([body])
    return upload_id


def finished(store: Store, upload_id: str, digest: Digest = DIGEST) -> None:
    with store.repository_for_push("a").resume_upload(upload_id) as upload:
        upload.finish(digest)


def test_another_process_hashes_what_has_arrived(driver: MemoryDriver) -> None:
    finished(store_over(driver), begun(driver))
    assert read(driver, keys.blob("a", DIGEST), 99) == BODY


def test_a_hash_that_is_remembered_is_that_of_so_many_bytes(driver: MemoryDriver) -> None:
    """Another process went on with the session meanwhile."""
    store, other = store_over(driver), store_over(driver)
    upload_id = store.repository_for_push("a").start_upload()
    for one, body in ((store, BODY[:5]), (other, BODY[5:9]), (store, BODY[9:])):
        with one.repository_for_push("a").resume_upload(upload_id) as upload:
            upload.write([body])
    finished(other, upload_id)


def test_chunks_by_several_workers_are_read_once_by_each(driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a client with a connection for each chunk: else its upload costs the square of their number."""
    taken, read_at = list[int](), MemoryReader.read_at

    def counted(reader: MemoryReader, offset: int, count: int) -> bytes:
        taken.append(count)
        return read_at(reader, offset, count)

    workers = [store_over(driver) for _ in range(2)]
    upload_id = workers[0].repository_for_push("a").start_upload()
    body = bytes(range(250))
    monkeypatch.setattr(MemoryReader, "read_at", counted)
    for number in range(50):
        with workers[number % 2].repository_for_push("a").resume_upload(upload_id) as upload:
            upload.write([body[number * 5 : number * 5 + 5]])
    finished(workers[0], upload_id, digest_of(body))
    assert sum(taken) == len(body), "each byte by the one that did not write it"


def test_a_session_that_has_become_shorter_is_hashed_anew(driver: MemoryDriver) -> None:
    """A file system that has lost what it acknowledged, and the server that it was acknowledged to lives on."""
    store = store_over(driver)
    upload_id = store.repository_for_push("a").start_upload()
    with store.repository_for_push("a").resume_upload(upload_id) as upload:
        upload.write([BODY[:9]])
    with driver.append(keys.upload("a", upload_id), create=False) as writer:
        writer.truncate(4)
    with store.repository_for_push("a").resume_upload(upload_id) as upload:
        assert upload.offset == 4
        upload.write([BODY[4:]])
    finished(store, upload_id)


def test_a_request_that_was_lost_leaves_no_hash(driver: MemoryDriver) -> None:
    """Its hash has gone on, and nobody has noted how far."""
    store = store_over(driver)
    upload_id = store.repository_for_push("a").start_upload()
    with store.repository_for_push("a").resume_upload(upload_id) as upload:
        upload.write([BODY[:5]])
    lost = store.repository_for_push("a").resume_upload(upload_id)
    lost.write([BODY[5:9]])
    lost._release()  # type: ignore[attr-defined]
    with store.repository_for_push("a").resume_upload(upload_id) as upload:
        upload.write([BODY[9:]])
    finished(store, upload_id)


def test_a_session_has_one_writer(driver: MemoryDriver) -> None:
    upload_id = begun(driver)
    with store_over(driver).repository_for_push("a").resume_upload(upload_id), pytest.raises(UploadConflict):
        store_over(driver).repository_for_push("a").resume_upload(upload_id)


def test_without_locks_a_session_has_one_writer_in_its_process() -> None:
    driver = MemoryDriver(locks=False)
    store = store_over(driver)
    upload_id = store.repository_for_push("a").start_upload()
    with store.repository_for_push("a").resume_upload(upload_id), pytest.raises(UploadConflict):
        store.repository_for_push("a").resume_upload(upload_id)
    store.repository_for_push("a").resume_upload(upload_id).close()


def test_without_locks_a_session_that_could_not_be_read_is_continued_later() -> None:
    memory = MemoryDriver(locks=False)
    upload_id = begun(memory)
    failing = FailOn(memory, "open", 1, IoFailed("no"), lambda key: key == keys.upload("a", upload_id))
    store = store_over(failing)
    with pytest.raises(IoFailed):
        store.repository_for_push("a").resume_upload(upload_id)
    finished(store, upload_id)


def test_i2_a_file_that_has_a_blobs_name_already_is_no_session_any_more(driver: MemoryDriver) -> None:
    """Its process was killed between publishing and forgetting: one more byte would go into the blob."""
    upload_id = begun(driver)
    push_image(store_over(driver), "a", "v1")
    driver.link(keys.upload("a", upload_id), keys.blob("a", DIGEST))
    for _ in range(2):
        with pytest.raises(BlobUploadUnknown):
            store_over(driver).repository_for_push("a").upload_offset(upload_id)
    with pytest.raises(BlobUploadUnknown):
        store_over(driver).repository_for_push("a").resume_upload(upload_id)
    assert read(driver, keys.blob("a", DIGEST), 99) == BODY


def test_after_an_error_the_session_is_as_long_as_what_is_hashed(driver: MemoryDriver) -> None:
    """A part of a write may have arrived."""
    upload_id = begun(driver, BODY[:5])

    class Torn(FailOn):
        def written(self, key, inner, buffers):  # type: ignore[no-untyped-def]
            inner.write([b"".join(buffers)[:3]])
            raise self.error

    store = store_over(Torn(driver, "none", 1, IoFailed("no")))
    with pytest.raises(IoFailed), store.repository_for_push("a").resume_upload(upload_id) as upload:
        upload.write([BODY[5:]])
    assert store_over(driver).repository_for_push("a").upload_offset(upload_id) == 5
    with store_over(driver).repository_for_push("a").resume_upload(upload_id) as upload:
        upload.write([BODY[5:]])
        upload.finish(DIGEST)


def test_an_error_in_the_middle_counts_nothing(driver: MemoryDriver) -> None:
    """Nor is it hashed: the same bytes, sent again, are right."""
    store = store_over(FailOn(driver, "write", 1, IoFailed("no"), lambda key: key.startswith(keys.UPLOADS)))
    repository = store.repository_for_push("a")
    with repository.resume_upload(repository.start_upload()) as upload:
        with pytest.raises(IoFailed):
            upload.write([BODY])
        assert upload.offset == 0
        upload.write([BODY])
        upload.finish(DIGEST)


def test_a_full_disk_frees_the_bytes_of_a_session_at_once(driver: MemoryDriver) -> None:
    full = NoSpaceAfter(driver, 1 << 20)
    store = store_over(full)
    repository = store.repository_for_push("a")
    upload_id = repository.start_upload()
    full.left = 5
    with pytest.raises(NoSpace), repository.resume_upload(upload_id) as upload:
        upload.write([BODY])
    assert driver.scan(keys.UPLOADS) == []


def test_the_room_that_is_to_stay_free_is_looked_at_while_a_large_blob_comes(
    driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, checks = store_over(driver), list[int]()
    reserve = local_of(store.roots[0]).reserve
    monkeypatch.setattr(reserve, "check", lambda: checks.append(1))
    repository = store.repository_for_push("a")
    with repository.resume_upload(repository.start_upload()) as upload:
        for _ in range(3):
            upload.write([bytes(SPACE_CHECKED_EVERY_BYTES)])
        assert len(checks) == 1 + 3
        upload.cancel()


def test_i2_what_is_no_such_blob_is_refused_and_nothing_of_it_is_left(driver: MemoryDriver) -> None:
    upload_id = begun(driver)
    with pytest.raises(DigestInvalid):
        finished(store_over(driver), upload_id, digest_of(b"something else"))
    assert driver.scan(keys.UPLOADS) == []


def test_i2_a_digest_by_another_algorithm_is_computed(driver: MemoryDriver) -> None:
    upload_id = begun(driver)
    with pytest.raises(DigestInvalid):
        finished(store_over(driver), upload_id, digest_of(b"something else", "sha512"))
    upload_id = begun(driver)
    finished(store_over(driver), upload_id, digest_of(BODY, "sha512"))
    assert read(driver, keys.blob("a", digest_of(BODY, "sha512")), 99) == BODY


def test_i2_a_file_that_somebody_else_has_written_to_is_refused(driver: MemoryDriver) -> None:
    """Past the lock: by hand, or where locks are lost. What was hashed is not what is there."""
    upload_id = begun(driver)
    upload = store_over(driver).repository_for_push("a").resume_upload(upload_id)
    with driver.append(keys.upload("a", upload_id)) as writer:
        writer.write([b"more"])
    with pytest.raises(BlobUploadInvalid):
        upload.finish(DIGEST)
    with pytest.raises(NotFound):
        driver.stat(keys.blob("a", DIGEST))


def test_with_commit_a_blob_is_flushed_before_it_has_its_name(driver: MemoryDriver) -> None:
    push_image(store_over(driver), "a", "v1")
    recorder = Recorder(driver)
    push_blob(store_over(recorder, commit=True).repository_for_push("a"), BODY)
    lines = [f"{call.method} {call.target or call.key}" for call in recorder.calls]
    named = lines.index(f"link {keys.blob('a', DIGEST)}")
    assert any(line.startswith(f"sync {keys.UPLOADS}") for line in lines[:named])
    assert f"sync_dir {keys.blobs_of('a', 'sha256')}" in lines[named:]


def test_after_a_flush_that_failed_the_session_is_gone(driver: MemoryDriver) -> None:
    """fsync(2): the next one may report success for bytes that never arrived."""
    store = store_over(FailOn(driver, "sync", 1, IoFailed("no"), lambda key: key.startswith(keys.UPLOADS)), commit=True)
    repository = store.repository_for_push("a")
    upload_id = repository.start_upload()
    with repository.resume_upload(upload_id) as upload:
        upload.write([BODY])
    with pytest.raises(IoFailed):
        finished(store, upload_id)
    with pytest.raises(BlobUploadUnknown):
        repository.upload_offset(upload_id)


def test_a_finished_session_is_gone(driver: MemoryDriver) -> None:
    upload_id = begun(driver)
    finished(store_over(driver), upload_id)
    assert driver.scan(keys.UPLOADS) == []


# -- at once: in an event loop, which every client of a worker waits for ---------------------------


def test_a_new_blob_is_published_at_once(driver: MemoryDriver) -> None:
    push_image(store_over(driver), "a", "v1")
    recorder = Recorder(driver)
    store = store_over(recorder)
    store.repository_for_push("a")
    recorder.calls.clear()
    repository = store.repository_for_push("a", wait=False)
    with repository.resume_upload(repository.start_upload()) as upload:
        upload.write([BODY])
        upload.finish(DIGEST, wait=False)
    assert read(driver, keys.blob("a", DIGEST), 99) == read(driver, keys.pool(DIGEST), 99) == BODY
    assert driver.scan(keys.UPLOADS) == []
    assert {call.method for call in recorder.calls}.isdisjoint(("lock", "sync", "sync_dir", "read_at"))


def _here(driver: MemoryDriver) -> None:
    push_blob(store_over(driver, dedupe=False).repository_for_push("a"), BODY)


def _damaged(driver: MemoryDriver) -> None:
    _here(driver)
    with driver.append(keys.blob("a", DIGEST)) as writer:
        writer.write([b"more"])


def _half(driver: MemoryDriver) -> None:
    """Its process died before `oci-layout` was there."""
    local_of(root_over(driver)).context.make_dirs("half/blobs/sha256")


def _in_the_pool(driver: MemoryDriver) -> None:
    push_blob(store_over(driver).repository_for_push("b"), BODY)


@pytest.mark.parametrize(
    ("name", "before", "commit", "digest"),
    [
        ("a", lambda driver: None, True, DIGEST),
        ("a", lambda driver: None, False, digest_of(BODY, "sha512")),
        ("a", _here, False, DIGEST),
        ("a", _damaged, False, DIGEST),
        ("a", _in_the_pool, False, DIGEST),
        ("c", lambda driver: None, False, DIGEST),
        ("half", _half, False, DIGEST),
    ],
    ids=["commit", "another algorithm", "here", "damaged", "in the pool", "no repository", "half a repository"],
)
def test_what_takes_longer_is_left_to_a_thread(
    driver: MemoryDriver, name: str, before: Callable[[MemoryDriver], None], commit: bool, digest: Digest
) -> None:
    """To flush, to read, to compare, to heal, to make a repository under its lock."""
    push_image(store_over(driver), "a", "v1")
    before(driver)
    recorder = Recorder(driver)
    repository = store_over(recorder, commit=commit).repository_for_push(name)
    with repository.resume_upload(repository.start_upload()) as upload:
        upload.write([BODY])
        recorder.calls.clear()
        with pytest.raises(WouldBlock):
            upload.finish(digest, wait=False)
        assert driver.stat(keys.upload(name, upload.id)).nlink == 1, "nothing has happened"
        assert {call.method for call in recorder.calls}.isdisjoint(("lock", "sync", "sync_dir", "read_at"))
        upload.finish(digest)
    assert read(driver, keys.blob(name, digest), 99) == BODY
    assert driver.stat(keys.layout(name)).is_file
    if before is _in_the_pool:
        assert same_file(driver.stat(keys.blob("a", digest)), driver.stat(keys.pool(digest)))
    assert driver.scan(keys.UPLOADS) == []


def test_what_is_no_such_blob_is_refused_at_once(driver: MemoryDriver) -> None:
    push_image(store_over(driver), "a", "v1")
    repository = store_over(driver).repository_for_push("a")
    with repository.resume_upload(repository.start_upload()) as upload:
        upload.write([BODY])
        with pytest.raises(DigestInvalid):
            upload.finish(digest_of(b"something else"), wait=False)
    assert driver.scan(keys.UPLOADS) == []


def test_a_session_that_has_to_be_read_is_not_resumed_at_once(driver: MemoryDriver) -> None:
    push_image(store_over(driver), "a", "v1")
    upload_id, store = begun(driver), store_over(driver)
    store.repository_for_push("a")
    with pytest.raises(WouldBlock):
        store.repository_for_push("a", wait=False).resume_upload(upload_id)
    finished(store, upload_id)


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_on_a_file_that_has_lost_its_name_is_none(driver: MemoryDriver, clock: Hand) -> None:
    """Somebody has removed the hidden directory and made it anew: the others lock another file."""
    root_over(driver)
    driver.append(keys.LOCK).close()

    def replaced() -> None:
        driver.unlink(keys.LOCK)
        driver.append(keys.LOCK).close()

    meanwhile = Meanwhile(driver, "current", replaced)
    with Locks(meanwhile, clock).hold("a"):
        assert meanwhile.done
        assert driver.lock(keys.LOCK, lock_byte("a")) is None


def test_a_lock_that_another_process_holds_for_long_is_busy(driver: MemoryDriver, clock: Hand) -> None:
    root_over(driver)
    held = driver.lock(keys.LOCK, lock_byte("a"))
    assert held is not None

    def not_for_ever() -> None:
        assert clock.at - Hand().at < 4

    clock.on_sleep = not_for_ever
    with pytest.raises(Busy), Locks(driver, clock, 3.0).hold("a"):
        raise AssertionError


def test_each_repository_has_a_lock_of_its_own(driver: MemoryDriver, clock: Hand) -> None:
    root_over(driver)
    names = [f"{letter}/{number}" for letter in "abcdef" for number in range(60)]
    assert len({lock_byte(name) for name in names}) == len(names)
    with Locks(driver, clock, 1.0).hold("a"), Locks(driver, clock, 1.0).hold("b"):
        pass


def test_a_lock_is_free_after_an_error(driver: MemoryDriver, clock: Hand) -> None:
    root_over(driver)
    with pytest.raises(IoFailed), Locks(driver, clock).hold("a"):
        raise IoFailed("no")
    lock = driver.lock(keys.LOCK, lock_byte("a"))
    assert lock is not None


def test_a_lock_that_was_held_for_long_may_have_been_lost(driver: MemoryDriver, clock: Hand) -> None:
    """And one that was taken again is young."""
    root_over(driver)
    locks = Locks(driver, clock)
    with locks.hold("a") as held:
        assert not held.too_long()
        clock.at += RENEW_AFTER_S + 1
        assert held.too_long()
        locks.renew(held)
        assert not held.too_long()
        assert driver.lock(keys.LOCK, lock_byte("a")) is None


def test_a_commit_that_took_too_long_takes_its_lock_again(driver: MemoryDriver, clock: Hand) -> None:
    """Before the rename: a client of a network may have lost it without a sign."""
    push_image(store_over(driver), "a", "v1")

    def late() -> None:
        clock.at += RENEW_AFTER_S + 1

    recorder = Recorder(Meanwhile(driver, "sync", late, lambda key: ".index.json" in key))
    push_image(store_over(recorder, clock=clock), "a", "v2", seed="other")
    calls = [call.method for call in recorder.calls if call.key == keys.LOCK or call.target == keys.index("a")]
    last = len(calls) - 1 - calls[::-1].index("exchange")
    assert calls[:last].count("lock") == 2, "and only one swap"
    assert calls.count("exchange") == 1


def test_within_a_process_a_name_is_claimed_once() -> None:
    process_locks = ProcessLocks()
    claim = process_locks.take("a")
    assert claim is not None and claim.current()
    assert process_locks.take("a") is None
    assert process_locks.take("b") is not None
    claim.release()
    assert process_locks.take("a") is not None


def test_the_id_of_an_upload_tells_whose_it_is() -> None:
    """Another user who learns an id cannot make an id of their own of it: the mark of the owner is part of the name."""
    for owner in ("", "ann", "böse", "\udcff"):
        made = keys.make_upload_id("sha256", 1_800_000_000.0, owner)
        assert keys.parse_upload_id(made).algorithm == "sha256"
        assert keys.is_upload_of(made, owner)
        assert not any(
            keys.is_upload_of(made, other) for other in ("", "ann", "böse", "bob", "\udcff") if other != owner
        )
    assert not keys.is_upload_of("00000000-0000-4000-8000-000000000000", "")
    assert not keys.is_upload_of("../../index.json", "")
    assert len({keys.make_upload_id("sha256", 1_800_000_000.0, "ann") for _ in range(1000)}) == 1000


def test_the_mark_of_one_upload_is_none_of_another() -> None:
    made = [keys.make_upload_id("sha256", 1_800_000_000.0, "ann") for _ in range(4)]
    mixed = [one[:20] + other[20:] for one in made for other in made if one != other]
    assert not any(keys.is_upload_of(text, "ann") for text in mixed)
