"""Uploads of blobs: end-4, end-5, end-6, end-11, end-13 and end-14."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from zotctl.errors import (
    AccessDenied,
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Busy,
    DigestInvalid,
    NameUnknown,
    OciError,
    RangeInvalid,
    SizeInvalid,
    ZotctlError,
)
from zotctl.http.answer import Answer
from zotctl.http.body import BATCH_BYTES, SMALL_BODY_BYTES, Body
from zotctl.http.conditions import parse_content_range
from zotctl.http.errors import Refused
from zotctl.http.gate import own_upload
from zotctl.http.request import Request
from zotctl.http.uploadlimit import UploadHold
from zotctl.oci.digest import CANONICAL, Digest, new_hash, parse_digest
from zotctl.oci.reference import parse_name
from zotctl.storage import Repository, UploadSession, WouldBlock
from zotctl.storage.driver import Buffer

if TYPE_CHECKING:
    from zotctl.http.service import Service

T = TypeVar("T")

MEMORY_TIMEOUT_S = 60.0
"""For which an upload waits for memory."""
MEMORY_POLL_S = 0.02


# -- end-4 and end-11: begin ---------------------------------------------------------------------


def open_session(service: Service, request: Request, wait: bool) -> Answer:
    """POST without parameters: open a session. Raises WouldBlock for any other."""
    _refuse_other_sites(service, request)
    if request.raw_query:
        raise WouldBlock
    name, owner = parse_name(request.name), request.identity.user.name
    with service.uploads.hold(request) as hold:
        upload_id = hold.waiting = _start(service, name, CANONICAL, owner, wait)
    return Answer(202, _where(service, name, upload_id, 0))


async def start(service: Service, request: Request) -> Answer:
    """POST: mount a blob, take it as a whole, or open a session for it."""
    _refuse_other_sites(service, request)
    name, algorithm = parse_name(request.name), request.param("digest-algorithm") or CANONICAL
    if (mount := request.param("mount")) and (wanted := _valid(parse_digest, mount)):
        # I7: without `from` it would be access by digest alone.
        source = _valid(parse_name, request.param("from") or "")
        may_read = source is not None and request.identity.allows("read", source)
        if may_read and await service.move_bytes(_try_mount, service, name, wanted, source):
            return _created(service, name, wanted)
        algorithm = wanted.algorithm
    if digest := request.param("digest"):
        wanted = parse_digest(digest)
        with service.uploads.hold(request) as hold:
            return await _push_whole(service, request, name, wanted, hold)
    new_hash(algorithm)
    _expect_no_body(request)
    owner = request.identity.user.name
    with service.uploads.hold(request) as hold:
        upload_id = await service.look(lambda wait: _start(service, name, algorithm, owner, wait))
        hold.waiting = upload_id
    return Answer(202, _where(service, name, upload_id, 0))


def _refuse_other_sites(service: Service, request: Request) -> None:
    """A browser sends the login that the page was given with a form of any other site, too, and a form can POST. What
    else changes something no form can send (https://www.w3.org/TR/fetch-metadata/, "Sec-Fetch-Site")."""
    if request.headers.get("sec-fetch-site") == "cross-site" and service.config.allow_origin is None:
        raise AccessDenied("a page of another site sent this; http.allow_origin names a site that may")


def _valid(parse: Callable[[str], T], text: str) -> T | None:
    """None: it is none. "if a registry [...] is unable to mount the requested blob, it SHOULD return a 202"."""
    try:
        return parse(text)
    except OciError:
        return None


def _try_mount(service: Service, name: str, digest: Digest, source: str) -> bool:
    try:
        other = service.store.repository(source)
    except NameUnknown:
        return False
    return _repository(service, name).mount_blob(other, digest)


def _expect_no_body(request: Request) -> None:
    if request.length != 0:
        raise BlobUploadInvalid("a POST with a body needs the parameter digest; send the blob with PATCH or PUT")


def _start(service: Service, name: str, algorithm: str, owner: str, wait: bool) -> str:
    return _repository(service, name, wait=wait).start_upload(algorithm, owner)


def _repository(service: Service, name: str, *, wait: bool = True) -> Repository:
    """The repository for a blob, or a new one if there may be another."""
    service.quotas.check_name(name, wait=wait)
    return service.store.repository_for_push(name, wait=wait)


# -- end-4b: everything in one request -----------------------------------------------------------


async def _push_whole(service: Service, request: Request, name: str, digest: Digest, hold: UploadHold) -> Answer:
    body = request.body
    pieces = await body.batch(SMALL_BODY_BYTES)
    if body.ended:
        begin = partial(_begin, service, name, digest.algorithm)
        await _store_small(service, body, pieces, begin, digest, None, _abandon)
    else:
        upload = await service.move_bytes(_begin, service, name, digest.algorithm)
        await _stream_whole(service, body, pieces, upload, digest, hold)
    return _created(service, name, digest)


def _begin(service: Service, name: str, algorithm: str, wait: bool = True) -> UploadSession:
    return _repository(service, name, wait=wait).begin_upload(algorithm)


async def _stream_whole(
    service: Service, body: Body, pieces: list[Buffer], upload: UploadSession, digest: Digest, hold: UploadHold
) -> None:
    try:
        upload.expect(digest, body.length)
        await _pump(service, body, pieces, upload, None, hold)
        await _settle(service.move_bytes(upload.finish, digest))
    except BaseException:
        # The client never learns the session's id, so it could not continue it.
        await _settle(service.move_bytes(_abandon, upload))
        raise
    await service.move_bytes(upload.close)


def _abandon(upload: UploadSession) -> None:
    with suppress(ZotctlError):
        upload.cancel()
    upload.close()


# -- end-5 and end-6: chunks ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Where a body belongs: `start` and `length` in bytes, None where Content-Range is absent."""

    name: str
    upload_id: str
    start: int | None
    length: int | None


async def append(service: Service, request: Request) -> Answer:
    """PATCH: one chunk, or a stream of unknown length."""
    chunk = _chunk(request)
    with service.uploads.hold(request, chunk.upload_id) as hold:
        offset = await _receive(service, request, chunk, None, hold)
    return Answer(202, _where(service, chunk.name, chunk.upload_id, offset))


async def finish(service: Service, request: Request) -> Answer:
    """PUT: the last chunk, if any, and the digest of it all."""
    chunk, digest = _chunk(request), _closing_digest(request)
    try:
        with service.uploads.hold(request, chunk.upload_id) as hold:
            await _receive(service, request, chunk, digest, hold)
            hold.waiting = None
    except BlobUploadUnknown:
        # The answer to the first end may have been lost: a repetition is told that the blob is here, if it is.
        try:
            await service.look(lambda wait: service.store.repository(chunk.name, wait=wait).blob(digest))
        except (BlobUnknown, NameUnknown):
            pass
        else:
            return _created(service, chunk.name, digest)
        raise
    return _created(service, chunk.name, digest)


def _closing_digest(request: Request) -> Digest:
    # "The closing PUT request MUST include the <digest> of the whole blob (not the final chunk)"
    digest = request.param("digest")
    if digest is None:
        raise DigestInvalid("the parameter digest is missing: PUT closes an upload with the digest of the blob")
    return parse_digest(digest)


def _chunk(request: Request) -> _Chunk:
    name, upload_id = parse_name(request.name), own_upload(request.identity, request.decoded_reference())
    header = request.headers.get("content-range")
    if header is None:
        return _Chunk(name, upload_id, None, None)
    first, last = parse_content_range(header)
    length, announced = last - first + 1, request.length
    if announced is not None and announced != length:
        raise SizeInvalid(f"Content-Range: {header} is {length} bytes, but Content-Length is {announced}")
    return _Chunk(name, upload_id, first, length)


async def _receive(service: Service, request: Request, chunk: _Chunk, digest: Digest | None, hold: UploadHold) -> int:
    """Append the body, and finish the upload if there is a digest; the offset after it."""
    body = request.body
    if request.waits_for_continue:
        await service.move_bytes(_check_start, service, chunk)
    pieces = await body.batch(SMALL_BODY_BYTES)
    if not body.ended:
        return await _receive_stream(service, request, pieces, chunk, digest, hold)
    if chunk.length is not None and body.received != chunk.length:
        raise _wrong_length(body, chunk.length)
    resume = partial(_resume, service, chunk)
    return await _store_small(service, body, pieces, resume, digest, chunk.start, lambda upload: upload.close())


async def _receive_stream(
    service: Service,
    request: Request,
    pieces: list[Buffer],
    chunk: _Chunk,
    digest: Digest | None,
    hold: UploadHold,
) -> int:
    upload = await service.move_bytes(_resume, service, chunk)
    try:
        length = request.length
        upload.expect(digest, None if length is None else upload.offset + length, chunk.start)
        await _pump(service, request.body, pieces, upload, chunk.length, hold)
        await _settle(service.move_bytes(_complete, upload, digest))
        return upload.offset
    finally:
        await _settle(service.move_bytes(upload.close))


def _resume(service: Service, chunk: _Chunk, wait: bool = True) -> UploadSession:
    if chunk.start is not None:
        # Checked first, since resuming a session of another worker may mean reading it again.
        _check_start(service, chunk, wait)
    upload = _repository(service, chunk.name, wait=wait).resume_upload(chunk.upload_id)
    if chunk.start is not None and chunk.start != upload.offset:
        upload.close()
        raise _out_of_order(service, chunk, upload.offset)
    return upload


def _check_start(service: Service, chunk: _Chunk, wait: bool = True) -> None:
    # "If a chunk is uploaded out of order, the registry MUST respond with a 416"
    offset = service.store.repository_for_push(chunk.name, wait=wait).upload_offset(chunk.upload_id)
    if chunk.start is not None and chunk.start != offset:
        raise _out_of_order(service, chunk, offset)


def _out_of_order(service: Service, chunk: _Chunk, offset: int) -> Refused:
    error = RangeInvalid(f"the chunk starts at {chunk.start}, but the upload has {offset} bytes", {"offset": offset})
    return Refused(error, _where(service, chunk.name, chunk.upload_id, offset))


# -- bytes into a session ------------------------------------------------------------------------


async def _store_small(
    service: Service,
    body: Body,
    pieces: list[Buffer],
    begin: Callable[[bool], UploadSession],
    digest: Digest | None,
    start: int | None,
    give_up: Callable[[UploadSession], None],
) -> int:
    """Store a body that is here as a whole, end the request, and return the offset: at once where that takes no wait,
    for a hop costs more; else in a thread, which goes on where the event loop stopped."""
    upload: UploadSession | None = None

    def store(wait: bool) -> int:
        nonlocal upload
        try:
            if upload is None:
                upload = begin(wait)
                upload.expect(digest, start=start)
                if pieces:
                    upload.write(pieces)
            _complete(upload, digest, wait)
        except WouldBlock:
            raise
        except BaseException:
            if upload is not None:
                give_up(upload)
            raise
        upload.close()
        return upload.offset

    if body.received > SMALL_BODY_BYTES:
        return await service.move_bytes(store, True)
    return await service.look(store)


def _complete(upload: UploadSession, digest: Digest | None, wait: bool = True) -> None:
    """End the request; with a digest, end the upload too."""
    if digest is None:
        upload.save()
    else:
        upload.finish(digest, wait=wait)


async def _pump(
    service: Service, body: Body, pieces: list[Buffer], upload: UploadSession, length: int | None, hold: UploadHold
) -> None:
    """Write `pieces` and the rest of the body; the next batch is read while a thread stores the last.

    Whatever happens, no thread uses `upload` any more afterwards, and what was read is in it.
    """
    writing: asyncio.Future[None] | None = None
    received = 0
    try:
        while pieces:
            if body.length is None:
                hold.add_bytes(body.received - received)
            received = body.received
            if length is not None and received > length:
                raise _wrong_length(body, length)
            if writing is not None:
                await _settle(writing)
            await _memory(upload, sum(map(len, pieces)))
            writing = service.move_bytes(upload.write, pieces)
            writing.add_done_callback(lambda done: _interrupt(body, done))
            size = BATCH_BYTES
            if not upload.may_read_ahead:
                size = BATCH_BYTES // 4
                await _settle(writing)
                await _memory(upload, size)
            pieces = await body.batch(size)
    finally:
        if writing is not None:
            await asyncio.wait([writing])
    if writing is not None:
        writing.result()
    if length is not None and received != length:
        raise _wrong_length(body, length)


async def _memory(upload: UploadSession, count: int) -> None:
    """Wait without a thread, since uploads that have memory need one. The client is not read meanwhile."""
    until = asyncio.get_running_loop().time() + MEMORY_TIMEOUT_S
    while not upload.ready(count):
        if asyncio.get_running_loop().time() > until:
            raise Busy("the memory for uploads is in use by others; try again")
        await asyncio.sleep(MEMORY_POLL_S)


def _interrupt(body: Body, done: asyncio.Future[None]) -> None:
    """A batch that cannot be stored ends the reading, so that the client is told at once."""
    if not done.cancelled() and (error := done.exception()) is not None:
        body.fail(error)


async def _settle(job: asyncio.Future[None]) -> None:
    """Wait for the work of a thread, also if the task is cancelled: a session is for one thread at a time."""
    try:
        await asyncio.wait([job])
    except asyncio.CancelledError:
        await asyncio.wait([job])
        job.exception()  # nobody is told
        raise
    job.result()


def _wrong_length(body: Body, length: int) -> SizeInvalid:
    return SizeInvalid(f"the body has {body.received} bytes so far, and Content-Range announced {length}")


# -- end-13 and end-14 ---------------------------------------------------------------------------


async def status(service: Service, request: Request) -> Answer:
    """GET: the offset of an upload."""
    name, upload_id = parse_name(request.name), own_upload(request.identity, request.decoded_reference())
    offset = await service.move_bytes(lambda: service.store.repository_for_push(name).upload_offset(upload_id))
    return Answer(204, _where(service, name, upload_id, offset))


async def cancel(service: Service, request: Request) -> Answer:
    """DELETE: cancel an upload."""
    name, upload_id = parse_name(request.name), own_upload(request.identity, request.decoded_reference())
    await service.move_bytes(_cancel, service, name, upload_id)
    service.uploads.ended(request, upload_id)
    return Answer(204)


def _cancel(service: Service, name: str, upload_id: str) -> None:
    with service.store.repository_for_push(name).resume_upload(upload_id) as upload:
        upload.cancel()


# -- headers -------------------------------------------------------------------------------------


def _where(service: Service, name: str, upload_id: str, offset: int) -> list[tuple[str, str]]:
    """Where an upload continues. Without a byte it is `0-0`, as in other registries: no range is empty."""
    return [
        ("Location", service.location(f"/v2/{name}/blobs/uploads/{upload_id}")),
        ("Range", f"0-{max(offset - 1, 0)}"),
        ("Docker-Upload-UUID", upload_id),
    ]


def _created(service: Service, name: str, digest: Digest) -> Answer:
    location = service.location(f"/v2/{name}/blobs/{digest}")
    return Answer(201, [("Location", location), ("Docker-Content-Digest", digest)])
