"""Uploads to a bucket (docs/design/bucket.md#uploads): sizes, ways, processes, faults, leftovers."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.counting import Intercepted
from tests.object_faults import HALF, FaultyObjects, StillClock
from tests.storage.uploading import (
    PART,
    SIZES,
    Crash,
    Dying,
    Failing,
    World,
    finish,
    patch,
    push,
    random_bytes,
    write,
)
from zotctl.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    Busy,
    DigestInvalid,
    IoFailed,
    NoSpace,
    OutcomeUnknown,
    SizeInvalid,
    Unavailable,
    UploadConflict,
)
from zotctl.oci.digest import ALGORITHMS, digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects import multipart
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.uploads.buffer import TRAILER_BYTES, MemoryBudget, UploadBuffer
from zotctl.storage.clock import Clock

MANY = 5 * PART + 77
"""Bytes that need parts."""


@pytest.fixture(params=[False, True], ids=["layouts", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


# -- all sizes, all ways -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [False, True])
def test_a_blob_by_patch(size: int, threads: bool) -> None:
    world, body = World(threads=threads), random_bytes(size)
    push(world.one, body)
    world.check(body)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [False, True])
def test_a_blob_by_put(size: int, threads: bool) -> None:
    """No copy: its parts are those of the blob."""
    world, body = World(threads=threads), random_bytes(size)
    push(world.one, b"", put=body)
    world.check(body)
    assert "copy" not in world.objects.taken()


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_in_one_request(world: World, size: int) -> None:
    body = random_bytes(size)
    upload = world.one.uploads.begin("a", "sha256")
    upload.expect(digest_of(body), size)
    write(upload, body)
    upload.finish(digest_of(body))
    world.check(body)
    assert "copy" not in world.objects.taken()


def test_a_blob_in_many_small_chunks_is_not_sent_many_times() -> None:
    world, body = World(), random_bytes(8 * PART)
    upload_id = world.one.uploads.start("a", "sha256")
    for start in range(0, len(body), PART // 2):
        patch(world.one, upload_id, body[start : start + PART // 2])
    finish(world.one, upload_id, digest_of(body), b"")
    world.check(body)
    assert world.objects.sent < 2 * len(body)


@pytest.mark.parametrize("threads", [False, True])
def test_a_part_that_fails_while_its_session_is_stored(threads: bool) -> None:
    """What the session says then has arrived, and the client can go on."""
    world, body = World(threads=threads), random_bytes(4 * PART)
    failing = Failing(world.objects, lambda name, _: name == "put_part", Unavailable("away"))
    process = world.process(failing)
    upload_id = process.uploads.start("a", "sha256")
    patch(process, upload_id, body[:PART])
    with pytest.raises(Unavailable):
        patch(process, upload_id, body[PART : 2 * PART])
    at = process.uploads.offset("a", upload_id)
    assert at == PART
    patch(process, upload_id, body[at : 3 * PART])
    finish(process, upload_id, digest_of(body), body[3 * PART :])
    world.check(body)


def test_a_session_that_is_renewed_at_the_end_of_its_upload() -> None:
    """Then the last whole part goes with the others, and not once more behind them."""
    world, body = World(), random_bytes(4 * PART)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body[: 3 * PART])
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.expect(digest_of(body))
        write(upload, body[3 * PART :])
        world.time.sleep(world.one.context.window * 0.6)
        upload.finish(digest_of(body))
    world.check(body)


def test_what_a_trailer_covers_comes_back() -> None:
    buffer = UploadBuffer(MemoryBudget(64 * PART, part=PART), PART)
    buffer.load(memoryview(random_bytes(PART)))
    with buffer.with_trailer(100, b"trailer") as body:
        assert body == random_bytes(PART)[:100] + b"trailer"
    assert buffer.content() == random_bytes(PART)
    with buffer.with_trailer(PART, bytes(TRAILER_BYTES + PART)) as body:  # more than there is room for
        assert body == random_bytes(PART) + bytes(TRAILER_BYTES + PART)
    assert buffer.content() == random_bytes(PART)
    buffer.clear()


@pytest.mark.parametrize("step", [1000, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 3 * PART])
@pytest.mark.parametrize("others", [False, True], ids=["here", "turns"])
@pytest.mark.parametrize("last", [0, 10, 3 * PART])
def test_chunks(step: int, others: bool, last: int) -> None:
    """Here, or by two processes in turns."""
    world, body = World(), random_bytes(MANY)
    upload_id = world.one.uploads.start("a", "sha256")
    processes = [world.two, world.one] if others else [world.one]
    for number, start in enumerate(range(0, len(body), step)):
        chunk = body[start : start + step]
        process = processes[number % len(processes)]
        assert patch(process, upload_id, chunk) == start + len(chunk)
        assert process.uploads.offset("a", upload_id) == start + len(chunk)
    end = random_bytes(last, "end")
    finish(processes[-1], upload_id, digest_of(body + end), end)
    world.check(body + end)


@pytest.mark.parametrize("algorithm", [found for found in ALGORITHMS if found != "sha256"])
@pytest.mark.parametrize("size", [0, 100, MANY])
@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("way", ["patch", "put", "post"])
def test_other_algorithms(world: World, algorithm: str, size: int, announced: bool, way: str) -> None:
    body = random_bytes(size)
    digest = digest_of(body, algorithm)
    first = algorithm if announced else "sha256"
    if way == "post":
        upload = world.one.uploads.begin("a", algorithm)
        write(upload, body)
        upload.finish(digest)
    else:
        upload_id = world.one.uploads.start("a", first)
        patch(world.one, upload_id, body if way == "patch" else b"")
        finish(world.one, upload_id, digest, b"" if way == "patch" else body)
    world.check(body, algorithm)


@pytest.mark.parametrize("way", ["patch", "put"])
def test_known_bytes_are_not_read_again(world: World, way: str) -> None:
    body = random_bytes(MANY)
    push(world.one, body if way == "patch" else b"", put=b"" if way == "patch" else body)
    assert "open" not in world.objects.taken()


# -- I2: verified before it has a name ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, MANY])
@pytest.mark.parametrize("way", ["patch", "put", "post", "elsewhere"])
def test_i2_wrong_content_is_never_visible(world: World, size: int, way: str) -> None:
    body, wrong = random_bytes(size), digest_of(b"something else")
    with pytest.raises(DigestInvalid):
        if way == "post":
            upload = world.one.uploads.begin("a", "sha256")
            upload.expect(wrong, size)
            write(upload, body)
            upload.finish(wrong)
        elif way == "elsewhere":
            upload_id = world.one.uploads.start("a", "sha256")
            patch(world.one, upload_id, body)
            finish(world.two, upload_id, wrong)
        else:
            push(world.one, body if way == "patch" else b"", put=b"" if way == "patch" else body, digest=wrong)
    assert world.left() == []
    assert world.blobs() == set()


def test_i2_bytes_of_two_processes_are_read_before_they_have_a_name(world: World) -> None:
    body = random_bytes(MANY)
    for wrong in (True, False):
        upload_id = world.one.uploads.start("a", "sha256")
        patch(world.one, upload_id, body[: 3 * PART])
        patch(world.two, upload_id, body[3 * PART :])
        if wrong:
            with pytest.raises(DigestInvalid):
                finish(world.two, upload_id, digest_of(b"else"))
            assert world.blobs() == set()
        else:
            world.objects.taken()
            finish(world.two, upload_id, digest_of(body))
            assert world.objects.taken().count("open") == 1
    world.check(body)


def test_i2_a_copy_that_came_out_wrong_is_not_left_there(world: World) -> None:
    def spoil(method: str, args: tuple[Any, ...]) -> None:
        if method == "copy":
            stored = world.memory.stored[args[0]]
            world.memory.stored[args[0]] = stored._replace(body=b"X" + stored.body[1:])

    world.objects.before = spoil
    body = random_bytes(MANY)
    with pytest.raises(IoFailed):
        push(world.one, body)
    assert world.content(digest_of(body)) is None


@pytest.mark.parametrize("how", ["other bytes", "short"])
def test_i2_a_copy_that_came_out_wrong_is_written_over(world: World, how: str) -> None:
    """Also where it has replaced a good object that nobody would send again."""
    copy, body = world.memory.copy, random_bytes(MANY)
    push(world.one, body)
    wrong = b"X" + body[1:] if how == "other bytes" else b"short"

    def spoilt(source: str, target: str) -> Object:
        found = copy(source, target)
        sha256 = base64.b64encode(hashlib.sha256(wrong).digest()).decode() if how == "other bytes" else ""
        world.memory.stored[target] = world.memory.stored[target]._replace(body=wrong)
        return found._replace(size=len(wrong), metadata={"sha256": sha256})

    world.memory.copy = spoilt  # type: ignore[method-assign]
    push(world.one, body)
    world.check(body)


def test_i2_a_copy_that_is_short(world: World) -> None:
    """Its size is compared, where the server gives no digest of it."""
    copy = world.memory.copy

    def short(source: str, target: str) -> Object:
        world.memory.stored[source] = world.memory.stored[source]._replace(body=b"short")
        return copy(source, target)._replace(metadata={})

    world.memory.copy = short  # type: ignore[method-assign]
    with pytest.raises(IoFailed):
        push(world.one, random_bytes(MANY))
    assert world.blobs() == set()


def test_i2_another_digest_than_was_announced(world: World) -> None:
    """Parts under the key of one digest can't become that of another."""
    body = random_bytes(MANY)
    upload = world.one.uploads.begin("a", "sha256")
    upload.expect(digest_of(b"announced"))
    write(upload, body)
    with pytest.raises(BlobUploadInvalid):
        upload.finish(digest_of(body))
    upload.close()
    assert (world.left(), world.blobs()) == ([], set())


@pytest.mark.parametrize("how", ["pushed", "a manifest", "taken"])
def test_the_server_is_told_the_digest(how: str) -> None:
    """It refuses bytes that were changed on their way."""
    world, body = World(), b"content"
    put, maintenance = world.memory.put, world.one.maintenance

    def changed(key: str, body: Any, **options: Any) -> str:
        return put(key, b"X" + bytes(body)[1:] if "/blobs/" in key else body, **options)

    world.memory.put = changed  # type: ignore[method-assign]
    with pytest.raises(IoFailed):
        if how == "pushed":
            push(world.one, body)
        elif how == "taken":
            maintenance.take("a", digest_of(body), iter([body]))
        else:
            maintenance.put_manifest("a", digest_of(body), body)
    assert world.content(digest_of(body)) is None


# -- two processes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_last_request_elsewhere_reads_nothing_again(world: World, size: int) -> None:
    body = random_bytes(size)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body)
    world.objects.taken()
    finish(world.two, upload_id, digest_of(body))
    assert "open" not in world.objects.taken()
    world.check(body)


@pytest.mark.parametrize("size", [10, MANY])
@pytest.mark.parametrize("put", [0, 10, MANY])
def test_what_a_process_remembers_may_be_out_of_date(world: World, size: int, put: int) -> None:
    """POST here, PATCH there, PUT here: no reason to refuse a digest that doesn't match what was remembered."""
    body, end = random_bytes(size), random_bytes(put, "end")
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.two, upload_id, body)
    finish(world.one, upload_id, digest_of(body + end), end)
    world.check(body + end)


@pytest.mark.parametrize("first", [10, MANY])
@pytest.mark.parametrize("second", [10, 2 * PART, MANY])
def test_chunks_follow_what_another_process_has_taken(world: World, first: int, second: int) -> None:
    one, two, three = random_bytes(first), random_bytes(second, 2), random_bytes(second, 3)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, one)
    patch(world.two, upload_id, two)
    assert patch(world.one, upload_id, three) == len(one + two + three)
    finish(world.two, upload_id, digest_of(one + two + three))
    world.check(one + two + three)


@pytest.mark.parametrize("size", [10, MANY])
def test_two_requests_at_once_are_a_conflict(world: World, size: int) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, b"begin")
    one = world.one.uploads.resume("a", upload_id)
    one.expect(start=5)
    with pytest.raises(UploadConflict):
        world.one.uploads.resume("a", upload_id)
    two = world.two.uploads.resume("a", upload_id)
    two.write([b"faster"])
    two.close()
    with pytest.raises(UploadConflict):
        one.write([random_bytes(size)])
        one.close()
    one.close()
    assert world.one.uploads.offset("a", upload_id) == 11
    finish(world.one, upload_id, digest_of(b"beginfaster"))
    world.check(b"beginfaster")


def test_bytes_of_who_lost_are_not_in_the_blob(world: World) -> None:
    """Both have sent a part with the same number into the same multipart upload."""
    body = random_bytes(4 * PART)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body[: 3 * PART])
    one, two = (process.uploads.resume("a", upload_id) for process in (world.two, world.process()))
    one.write([body[3 * PART :] + b"one"])
    two.write([random_bytes(PART, "others") + b"two"])
    one.close()
    with pytest.raises(UploadConflict):
        two.close()
    with pytest.raises(BlobUploadUnknown):  # the server compares the ETags of the parts with those that won
        finish(world.two, upload_id, digest_of(body + b"one"))
    assert world.blobs() == set()


def test_a_repeated_put_finds_what_the_first_one_did(world: World) -> None:
    """The balancer lost the answer of one server, and asks another, which had begun before."""
    body = random_bytes(MANY)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body)
    late = world.two.uploads.resume("a", upload_id)
    finish(world.one, upload_id, digest_of(body))
    late.finish(digest_of(body))
    world.check(body)


def test_an_upload_that_is_unknown(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    for name, asked in (("b", upload_id), ("a", "../../x"), ("a", "0198c8f0-0000-8000-8000-000000000000")):
        for process in (world.one, world.two):
            with pytest.raises(BlobUploadUnknown):
                process.uploads.offset(name, asked)
            with pytest.raises(BlobUploadUnknown):
                process.uploads.resume(name, asked)
    finish(world.two, upload_id, digest_of(b""))
    with pytest.raises(BlobUploadUnknown):
        patch(world.one, upload_id, b"x")
    with pytest.raises(BlobUploadUnknown):
        world.one.uploads.resume("a", upload_id)


@pytest.mark.parametrize("size", [10, MANY])
def test_an_upload_that_was_cancelled_elsewhere(world: World, size: int) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, random_bytes(MANY))
    with world.two.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    assert world.left() == []
    with pytest.raises(BlobUploadUnknown):
        patch(world.one, upload_id, random_bytes(size))
    assert world.left() == []


def test_cancel_knows_the_parts_of_others(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.two, upload_id, random_bytes(MANY))
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    assert world.left() == []


def test_parts_of_the_blob_itself_go_on_only_where_their_hash_is(world: World) -> None:
    """A PUT that broke off: here it goes on; elsewhere it begins again, and leaves nothing."""
    body = random_bytes(MANY)
    for process in (world.one, world.two):
        upload_id = world.one.uploads.start("a", "sha256")
        with world.one.uploads.resume("a", upload_id) as upload:
            upload.expect(digest_of(body))
            write(upload, body[: 4 * PART])
        if process is world.two:
            with pytest.raises(BlobUploadUnknown):
                finish(process, upload_id, digest_of(body), body[4 * PART :])
            assert world.left() == []
        else:
            finish(process, upload_id, digest_of(body), body[4 * PART :])
            world.check(body)


def test_a_session_never_looks_as_it_did(world: World) -> None:
    """Its bytes may be the same again, and with them the ETag that an object store makes of them."""
    upload_id = world.one.uploads.start("a", "sha256")
    one, two = (process.uploads.resume("a", upload_id) for process in (world.process(), world.two))
    one.write([random_bytes(MANY)])
    with pytest.raises(UploadConflict):
        two.write([random_bytes(MANY)])
    two.close()
    one.finish(digest_of(random_bytes(MANY)))
    world.check(random_bytes(MANY))


def test_i2_what_another_request_has_completed_is_hashed(world: World) -> None:
    """The same session, the same size, other bytes at its end: a Complete that is answered by 404 may be theirs."""
    body, end, other = random_bytes(3 * PART), random_bytes(10, 1), random_bytes(10, 2)
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.write([body])
        upload.write([b"x" * 9])  # so that its last full part is sent
    late = world.one.uploads.resume("a", upload_id)
    late.write([end])
    session = late._session
    etags = [f'"{hashlib.md5(part).hexdigest()}"' for part in world.memory.parts[session.multipart][1].values()]
    etags.append(world.memory.put_part(session.target, session.multipart, 4, b"x" * 9 + other))
    world.memory.complete_parts(session.target, session.multipart, etags)
    with pytest.raises(DigestInvalid):
        late.finish(digest_of(body + b"x" * 9 + end))
    assert (world.left(), world.blobs()) == ([], set())


def test_i2_what_another_request_has_completed_has_the_same_size(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    body = random_bytes(MANY)
    patch(world.one, upload_id, body)
    late = world.one.uploads.resume("a", upload_id)
    session = late._session
    world.memory.complete_parts(session.target, session.multipart, session.etags)  # without the tail
    with pytest.raises(BlobUploadUnknown):
        late.finish(digest_of(body))
    assert world.blobs() == set()


def test_a_tail_that_is_larger_than_parts_are_here() -> None:
    """The other process has more memory."""
    world, body = World(), random_bytes(2 * PART - 3)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body)
    poor = BucketProtocol(BucketContext(world.objects, world.time), MemoryBudget(8 * PART, part=PART // 4))
    finish(poor, upload_id, digest_of(body + b"end"), b"end")
    world.check(body + b"end")


# -- what is remembered ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2 * PART, MANY])
def test_a_vanished_client_goes_on(world: World, size: int) -> None:
    body = random_bytes(size + 50)
    upload_id = world.one.uploads.start("a", "sha256")
    upload = world.one.uploads.resume("a", upload_id)
    write(upload, body[:size])
    upload.close()
    assert world.two.uploads.offset("a", upload_id) == size
    finish(world.one, upload_id, digest_of(body), body[size:])
    world.check(body)


@pytest.mark.parametrize("size", [10, 2 * PART, MANY])
def test_a_tail_that_was_dropped_is_read_again_and_not_its_parts(world: World, size: int) -> None:
    body = random_bytes(size + 50)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body[:size])
    world.time.at += 60
    world.one.maintain()
    assert world.one.uploads.budget.held == 0
    finish(world.one, upload_id, digest_of(body), body[size:])
    assert "open" not in world.objects.taken()
    world.check(body)


@pytest.mark.parametrize(("put", "error"), [(False, BlobUploadUnknown), (True, Busy)])
def test_an_upload_of_which_the_store_has_another_part_begins_again(world: World, put: bool, error: type) -> None:
    """As a store that keeps half of a part has it, when its sender is killed and another process sends it again first.
    The client is told to send the blob again, and not that the store takes nothing."""
    body = random_bytes(MANY)
    upload_id = world.one.uploads.start("a", "sha256")
    with pytest.raises(error), world.one.uploads.resume("a", upload_id) as upload:
        upload.expect(digest_of(body) if put else None)
        write(upload, body)
        ((_, parts),) = world.memory.parts.values()
        parts[1] = parts[1][:-1]
        upload.finish(digest_of(body))
    assert world.content(digest_of(body)) is None
    push(world.one, body)
    assert world.content(digest_of(body)) == body


def test_where_a_put_can_not_go_on_it_has_no_offset(world: World) -> None:
    """Its client would send the rest in vain. Where it can, and while it does, nothing is taken away."""
    body = random_bytes(2 * MANY)
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.expect(digest_of(body))
        write(upload, body[:MANY])
        assert world.one.uploads.offset("a", upload_id) == 0  # what is stored by now
    with pytest.raises(BlobUploadUnknown, match="begin it again"):
        world.two.uploads.offset("a", upload_id)
    assert world.one.uploads.offset("a", upload_id) == MANY
    finish(world.one, upload_id, digest_of(body), body[MANY:])
    world.check(body)


def test_memory_is_free_when_an_upload_can_not_go_on(world: World) -> None:
    body = random_bytes(MANY)
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.expect(digest_of(body))
        write(upload, body)
    with pytest.raises(BlobUploadUnknown):
        world.two.uploads.resume("a", upload_id)
    assert world.two.uploads.budget.held == 0


def test_memory_is_free_when_an_upload_ends(world: World) -> None:
    budget = world.one.uploads.budget
    for end in ("finish", "cancel", "fail", "wrong"):
        upload = world.one.uploads.resume("a", world.one.uploads.start("a", "sha256"))
        write(upload, random_bytes(MANY))
        assert budget.held > 0
        if end == "finish":
            upload.finish(digest_of(random_bytes(MANY)))
        elif end == "wrong":
            with pytest.raises(DigestInvalid):
                upload.finish(digest_of(b"else"))
        elif end == "cancel":
            upload.cancel()
        else:
            world.memory.parts.clear()
            with pytest.raises(BlobUploadUnknown):
                upload.write([random_bytes(9 * PART)])
            upload.close()
        assert budget.held == 0, end


# -- many parts --------------------------------------------------------------------------------------------


def test_parts_are_larger_where_the_size_is_known(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(multipart, "MOST_PARTS", 5)
    monkeypatch.setattr("zotctl.storage.bucket.uploads.upload.MOST_PARTS", 5)
    body = random_bytes(30 * PART)
    upload = world.one.uploads.resume("a", world.one.uploads.start("a", "sha256"))
    with pytest.raises(SizeInvalid, match="Content-Length"):
        write(upload, body)
    upload.cancel()
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body[:5000])
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.expect(None, len(body))
        write(upload, body[5000:])
    assert {len(part) for _, sent in world.memory.parts.values() for part in sent.values()} == {8 * PART}
    finish(world.two, upload_id, digest_of(body))
    world.check(body)


def test_a_size_whose_parts_do_not_fit_into_memory_is_refused(world: World) -> None:
    """Up to that size all is well, whatever multiple of the usual part the largest is."""
    usual, largest = world.one.uploads.budget.part, world.one.uploads.budget.largest_part
    assert largest > usual
    most = largest * (multipart.MOST_PARTS - 1)
    with world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) as upload:
        with pytest.raises(SizeInvalid, match=f"{most} are taken at the most; a larger upload_memory"):
            upload.expect(None, most + 1)
        upload.expect(None, most)
        write(upload, random_bytes(largest + 1))
    assert {len(part) for _, sent in world.memory.parts.values() for part in sent.values()} == {largest}


@pytest.mark.parametrize("size", [multipart.MOST_BYTES + 1, (1 << 64) - 1])
def test_a_size_that_no_object_has_is_refused_before_anything_is_kept(size: int) -> None:
    """Its first part would be kept in memory, and that may be as large as the size that a client makes up."""
    world = World(limit=1 << 50)
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id) as upload:
        with pytest.raises(SizeInvalid, match=f"{multipart.MOST_BYTES} are taken at the most$"):
            upload.expect(None, size)
        write(upload, b"abc")
    finish(world.two, upload_id, digest_of(b"abc"))
    world.check(b"abc")


def test_the_names_of_many_parts_are_no_metadata() -> None:
    world, body = World(), random_bytes(200 * PART + 1)
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body)
    (found,) = [stored for key, stored in world.memory.stored.items() if key == keys.session(upload_id)]
    assert sum(len(key) + len(value) for key, value in found.metadata.items()) < 1024
    finish(world.two, upload_id, digest_of(body))
    world.check(body)


# -- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["put_part", "start_parts", "complete_parts", "copy"])
@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("no answer")], ids=["away", "no answer"])
@pytest.mark.parametrize("threads", [False, True])
def test_a_client_tries_again_after_a_failure(method: str, error: Exception, threads: bool) -> None:
    """It asks how far its upload came, and sends the rest."""
    world, body = World(threads=threads), random_bytes(MANY)
    failing = Failing(world.memory, lambda called, _: called == method, error)
    process = world.process(failing)  # type: ignore[arg-type]
    upload_id = process.uploads.start("a", "sha256")
    patch(process, upload_id, body[:100])
    for _ in range(3):
        at = process.uploads.offset("a", upload_id)
        try:
            patch(process, upload_id, body[at:])
            finish(process, upload_id, digest_of(body))
            break
        except Unavailable:
            continue
    world.check(body)
    assert failing.times == 0


@pytest.mark.parametrize("way", ["patch", "put"])
def test_a_lost_answer_of_complete(world: World, way: str) -> None:
    """MinIO says 404 to a Complete that is repeated."""
    body = random_bytes(MANY)
    failing = Failing(world.memory, lambda called, _: called == "complete_parts", OutcomeUnknown("reset"), done=True)
    process = world.process(failing)  # type: ignore[arg-type]
    push(process, body if way == "patch" else b"", put=b"" if way == "patch" else body)
    assert failing.times == 0
    world.check(body)


def test_no_thread_sends_a_part_when_the_upload_is_over() -> None:
    """Its memory is another upload's then."""
    world = World(threads=True)
    sending, may_go = threading.Event(), threading.Event()

    def slow(method: str, args: tuple[Any, ...]) -> None:
        if method == "put_part" and args[2] == 1:
            assert sending.wait(10)
            raise Unavailable("away")
        if method == "put_part":
            sending.set()
            assert may_go.wait(10)

    world.objects.before = slow
    upload = world.one.uploads.resume("a", world.one.uploads.start("a", "sha256"))
    with pytest.raises(Unavailable):
        upload.write([random_bytes(2 * PART), b"more"])
    closing = threading.Thread(target=upload.cancel)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive(), "it waits for the part that is under way"
    assert world.one.uploads.budget.held > 0
    may_go.set()
    closing.join(10)
    assert world.one.uploads.budget.held == 0


@pytest.mark.parametrize("done", [False, True])
def test_a_lost_answer_of_a_session(world: World, done: bool) -> None:
    """Our own retry must not take our own success for a conflict."""
    body = random_bytes(MANY)
    for number in range(4):
        failing = Failing(world.memory, Nth(number), OutcomeUnknown("reset"), done=done)
        push(world.process(Retrying(failing, StillClock())), body)  # type: ignore[arg-type]
        world.check(body)


def test_half_of_a_session_is_not_taken_for_it(world: World) -> None:
    """Some stores keep what has arrived when a connection ends; the tail is in there, and is read by the next one."""
    body = random_bytes(3 * PART + 77)
    for number in range(1, 6):
        nth = Nth(number)
        faulty = FaultyObjects(world.memory, lambda method, key, nth=nth: HALF if nth(method, (key,)) else "")  # type: ignore[misc]
        upload_id = world.one.uploads.start("a", "sha256")
        for at in range(0, len(body), 2 * PART // 3):
            with world.process(Retrying(faulty, StillClock())).uploads.resume("a", upload_id) as upload:  # type: ignore[arg-type]
                upload.write([body[at : at + 2 * PART // 3]])
        with world.two.uploads.resume("a", upload_id) as upload:
            upload.finish(digest_of(body))
        world.check(body)


class Nth:
    """The PUT number `n` of a session."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, method: str, args: Any) -> bool:
        mine = method == "put" and args[0].startswith(keys.UPLOADS)
        self.n -= mine
        return mine and self.n == -1


def test_no_space_frees_what_there_is(world: World) -> None:
    for method in ("put_part", "put"):
        failing = Failing(
            world.memory,
            lambda called, args, m=method: called == m and "session" not in args[0],  # type: ignore[misc]
            NoSpace("full"),
        )
        failing.times = 0
        process = world.process(failing)  # type: ignore[arg-type]
        upload = process.uploads.resume("a", process.uploads.start("a", "sha256"))
        failing.times = 1
        with pytest.raises(NoSpace):
            upload.write([random_bytes(MANY if method == "put_part" else 10)])
            upload.finish(digest_of(random_bytes(10)))
        assert world.left() == []


def crash_points(way: str) -> int:
    world = World()
    run(world.one, way)
    return len(world.objects.taken())


def run(process: BucketProtocol, way: str) -> None:
    body = random_bytes(MANY)
    if way == "post":
        upload = process.uploads.begin("a", "sha256")
        upload.expect(digest_of(body), len(body))
        write(upload, body)
        upload.finish(digest_of(body))
    else:
        push(process, body if way == "patch" else b"", put=b"" if way == "patch" else body)


@pytest.mark.parametrize("way", ["patch", "put", "post"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_at_each_request_leaves_nothing_after_a_purge(way: str, done: bool) -> None:
    body = random_bytes(MANY)
    for at in range(crash_points(way)):
        world = World()
        with pytest.raises(Crash):
            run(world.process(Dying(world.memory, at, done=done)), way)  # type: ignore[arg-type]
        assert world.content(digest_of(body)) in (None, body)
        world.time.at += 100
        list(world.two.uploads.purge(50))
        # Between a Create and the PUT that notes its id nothing knows of it; it has no bytes.
        assert [key for key in world.left() if key not in world.memory.parts] == [], at
        assert not any(sent for _, sent in world.memory.parts.values()), at
        push(world.two, body)
        assert world.content(digest_of(body)) == body


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_where_parts_begin(done: bool) -> None:
    """What was acknowledged is more than a part, and is no part yet."""
    body = random_bytes(9 * PART)
    for at in range(9):
        world = World()
        upload_id = world.one.uploads.start("a", "sha256")
        patch(world.one, upload_id, body[: 3 * PART // 2])
        dying: Any = Dying(world.memory, at, done=done)
        with pytest.raises(Crash):
            patch(world.process(dying), upload_id, body[3 * PART // 2 :])
        offset = world.two.uploads.offset("a", upload_id)
        assert offset >= 3 * PART // 2
        finish(world.two, upload_id, digest_of(body), body[offset:])
        assert world.content(digest_of(body)) == body


@pytest.mark.parametrize("way", ["patch", "put"])
def test_a_crash_at_each_request_and_another_process_goes_on(way: str) -> None:
    """From the offset that it is told, or, if the upload is unknown, from the beginning."""
    body = random_bytes(MANY)
    for at in range(crash_points("patch")):
        world = World()
        upload_id = world.one.uploads.start("a", "sha256")
        dying: Any = Dying(world.memory, at, done=bool(at % 2))
        process = world.process(dying)
        try:
            if way == "patch":
                patch(process, upload_id, body)
            finish(process, upload_id, digest_of(body), b"" if way == "patch" else body)
        except Crash:
            pass
        try:
            finish(world.two, upload_id, digest_of(body), body[world.two.uploads.offset("a", upload_id) :])
        except BlobUploadUnknown:
            if world.content(digest_of(body)) is None:
                push(world.two, body)
        assert world.content(digest_of(body)) == body


# -- leftovers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, MANY])
def test_a_stale_upload_is_purged(world: World, size: int) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, random_bytes(size))
    world.time.at += 99
    assert list(world.two.uploads.purge(100)) == []
    world.time.at += 1
    ((found, name, purged),) = world.two.uploads.purge(100)
    assert (found, name, purged) == (upload_id, "a", size)
    assert world.left() == []
    with pytest.raises(BlobUploadUnknown):
        patch(world.one, upload_id, b"x")
    assert world.left() == []


def test_an_upload_that_is_being_written_is_not_purged(world: World) -> None:
    """However long it takes: it renews its session. One of this process isn't even looked at."""
    body = random_bytes(MANY)
    for process in (world.one, world.two):
        named = process.uploads.resume("a", process.uploads.start("a", "sha256"))
        for upload in (named, process.uploads.begin("a", "sha256")):
            for at in range(0, len(body), 500):
                upload.write([body[at : at + 500]])
                world.time.at += 600
                assert list(world.two.uploads.purge(3600)) == []
            upload.finish(digest_of(body))
            world.check(body)


def test_an_upload_that_goes_on_just_now_is_not_purged(world: World) -> None:
    """After the list was read."""
    body, upload_id = random_bytes(MANY), world.one.uploads.start("a", "sha256")
    world.time.at += 100

    def go_on(method: str, _: Any) -> None:
        if method == "head":
            world.objects.before = None
            patch(world.one, upload_id, body)

    world.objects.before = go_on
    assert list(world.two.uploads.purge(50)) == []
    finish(world.one, upload_id, digest_of(body))
    world.check(body)


def test_an_upload_that_this_process_holds_is_not_purged(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id):
        world.time.at += 100
        assert list(world.one.uploads.purge(50)) == []
    assert [purged.id for purged in world.one.uploads.purge(50)] == [upload_id]


def test_staged_bytes_of_a_session_are_not_purged(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    world.memory.put(keys.staged(upload_id), b"completed, and about to be copied")
    world.time.at += 100
    patch(world.one, upload_id, b"x")
    assert list(world.two.uploads.purge(50)) == []
    assert keys.staged(upload_id) in world.memory.stored


def test_staged_bytes_without_a_session_are_purged(world: World) -> None:
    world.memory.put(keys.staged("0198c8f0-0000-8000-8000-000000000000"), b"left by a crash")
    list(world.one.uploads.purge(10))
    assert len(world.left()) == 1
    world.time.at += 10
    list(world.one.uploads.purge(10))
    assert world.left() == []


# -- requests ------------------------------------------------------------------------------------


def requests(body: bytes, way: str, *, dedupe: bool = False) -> list[str]:
    """The second push into a repository, with parts of the usual size."""
    world = World(dedupe=dedupe)
    process = BucketProtocol(BucketContext(world.objects, world.time, dedupe=dedupe))
    push(process, b"the first one makes the layout")
    world.objects.taken()
    if way == "post":
        upload = process.uploads.begin("a", "sha256")
        upload.expect(digest_of(body), len(body))
        upload.write([body])
        upload.finish(digest_of(body))
    else:
        push(process, body if way == "patch" else b"", put=b"" if way == "patch" else body)
    return world.objects.taken()


PUBLISHED = ["head", "put", "list", "put"]
"""A reservation is looked for and written, intents are read, the blob is put."""


@pytest.mark.parametrize("dedupe", [False, True])
def test_requests_of_a_small_push(dedupe: bool) -> None:
    body = os.urandom(100_000)
    assert requests(body, "patch", dedupe=dedupe) == ["put", "put", *PUBLISHED, "delete"]
    assert requests(body, "put", dedupe=dedupe) == ["put", *PUBLISHED, "delete"]
    assert requests(body, "post", dedupe=dedupe) == PUBLISHED[1:], "which is how an import sends each blob"


def test_requests_of_a_push_of_20_mib() -> None:
    assert len(requests(os.urandom(20 << 20), "patch")) == 7


def test_requests_of_a_large_push() -> None:
    body = os.urandom(100 << 20)
    found = requests(body, "patch")
    assert found.count("put_part") == 7
    assert len(found) - 7 <= 11
    assert len(requests(body, "post")) - 7 <= 7


def test_chunks_that_are_alike_are_sent_once() -> None:
    """But for the first: it may be all there is, and it is kept until parts are begun."""
    world, body, chunk = World(), os.urandom(64 << 20), 8 << 20
    process = BucketProtocol(BucketContext(world.objects, world.time))
    upload_id = process.uploads.start("a", "sha256")
    for start in range(0, len(body), chunk):
        patch(process, upload_id, body[start : start + chunk])
        assert process.uploads.budget.held <= 2 * multipart.PART_BYTES
    (sent,) = ([len(part) for part in parts.values()] for _, parts in world.memory.parts.values())
    assert sent == 8 * [chunk]
    patch(process, upload_id, body[:100])
    finish(process, upload_id, digest_of(body + body[:100]), b"")
    assert world.objects.sent < len(body) + 2 * chunk + 10_000
    world.check(body + body[:100])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_was_hashed_as_it_came_is_not_hashed_to_be_stored(algorithm: str) -> None:
    """Each session is told the SHA-256 of its body, if that is known: which has to be the right one."""
    world, told = World(), list[bool]()

    class Told(Intercepted):
        def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
            if name == "put" and str(args[0]).startswith(keys.UPLOADS):
                told.append(bool(options["sha256"]))
                assert options["sha256"] in ("", hashlib.sha256(args[1]).hexdigest())
            return call(*args, **options)

    process = world.process(cast(Objects, Told(world.memory)))
    upload_id = process.uploads.start("a", algorithm)
    body = random_bytes(4 * PART)
    for start in range(0, len(body), PART):
        patch(process, upload_id, body[start : start + PART])
    finish(process, upload_id, digest_of(body, "sha256"), b"")
    assert world.content(digest_of(body)) == body
    assert told[:3] == [False, algorithm == "sha256", algorithm == "sha256"]


@pytest.mark.parametrize("chunks", [(3, 3), (8, 7), (10, 10, 10, 4), (9, 9, 16, 9), (8, 8, 8, 8, 8), (5, 5, 5, 20)])
def test_chunks_of_any_size_are_one_blob(chunks: tuple[int, ...]) -> None:
    """In MiB; each at the process that has not seen the one before."""
    world, body = World(), os.urandom(sum(chunks) << 20)
    processes = [BucketProtocol(BucketContext(world.objects, world.time)) for _ in range(2)]
    upload_id, start = processes[0].uploads.start("a", "sha256"), 0
    for number, chunk in enumerate(chunks):
        patch(processes[number % 2], upload_id, body[start : start + (chunk << 20)])
        start += chunk << 20
    finish(processes[0], upload_id, digest_of(body), b"")
    world.check(body)


# -- a real server -----------------------------------------------------------------------------------------


def real(made: Bucket) -> BucketProtocol:
    return BucketProtocol(BucketContext(made.client(), Clock()))


@pytest.mark.parametrize("size", [0, 1, 100_000, 16 << 20, 20 << 20, (32 << 20) + 1, 50 << 20])
def test_on_a_server(bucket: Bucket, size: int) -> None:  # noqa: F811
    body, one, two = os.urandom(size), real(bucket), real(bucket)
    push(one, b"", put=b"the layout")
    bucket.counts()
    digest = digest_of(body)
    push(one, body)
    made = bucket.counts()
    if size <= 20 << 20:
        assert made.total() <= 7, made
    with one.blobs.open("a", digest) as reader:
        assert digest_of(reader.read_at(0, size)) == digest
    upload_id = one.uploads.start("a", "sha512")
    patch(one, upload_id, body[: size // 2])
    patch(two, upload_id, body[size // 2 :])
    finish(one, upload_id, digest_of(body, "sha512"))
    assert two.blobs.find("a", digest_of(body, "sha512")).size == size
    push(two, b"", put=body + b"more")
    assert two.blobs.find("a", digest_of(body + b"more")).size == size + 4
    assert list(bucket.client().list(f"{keys.UPLOADS}/")) == list(bucket.client().list(f"{keys.STAGED}/")) == []


def test_a_conflict_on_a_server(bucket: Bucket) -> None:  # noqa: F811
    one, two = real(bucket), real(bucket)
    upload_id = one.uploads.start("a", "sha256")
    first, second = (process.uploads.resume("a", upload_id) for process in (real(bucket), two))
    first.write([b"x"])
    second.write([b"x"])
    first.close()
    with pytest.raises(UploadConflict):
        second.close()
    finish(one, upload_id, digest_of(b"x"))


def test_uploads_that_are_not_finished_are_counted(world: World) -> None:
    begun = [world.one.uploads.start("a", "sha256") for _ in range(2)]
    assert world.one.maintenance.open_uploads() == 2
    world.one.uploads.resume("a", begun[0]).cancel()
    assert world.one.maintenance.open_uploads() == 1


def test_i2_what_lies_there_when_the_parts_of_a_put_were_ended_is_hashed(world: World) -> None:
    """Damaged bytes of this size, from before, are not what was sent."""
    body = random_bytes(MANY)
    digest = digest_of(body)
    with world.one.uploads.begin("a", "sha256") as upload:
        upload.expect(digest, len(body))
        upload.write([body])
        session = upload._session
        world.memory.put(session.target, random_bytes(MANY, 1))
        world.memory.abort_parts(session.target, session.multipart)
        with pytest.raises(Busy):
            upload.finish(digest)
