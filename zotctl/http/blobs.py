"""Blobs: end-2 and end-10."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

from zotctl.errors import RangeUnsatisfiable, Unsupported
from zotctl.http.access import tell_change
from zotctl.http.answer import FIELDS_KEPT, JOINED_BYTES, Answer, fields_of
from zotctl.http.conditions import names_etag, parse_ranges
from zotctl.http.errors import Refused
from zotctl.http.request import Request
from zotctl.http.transfer import DISTANT_PIECE_BYTES, OCTETS, BlobAnswer
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.reference import parse_name
from zotctl.storage import Repository
from zotctl.storage.driver import Reader, StreamedReader

if TYPE_CHECKING:
    from zotctl.http.service import Service


def stat(service: Service, request: Request, wait: bool) -> Answer:
    """HEAD of a blob. A Range is ignored (RFC 9110, section 14.2)."""
    name, digest = parse_name(request.name), parse_digest(request.decoded_reference())
    repository = service.store.repository(name, wait=wait)
    size = repository.blob(digest)
    if _unchanged(request, digest):
        return Answer(304, _headers(digest))
    answer = Answer(200, length=size, fields=_fields(digest, size))
    return service.repeats.keep(
        request, answer, lambda: service.store.sighting(repository, digest, size, is_manifest=False)
    )


@lru_cache(FIELDS_KEPT)
def _fields(digest: Digest, size: int) -> bytes:
    return fields_of(_headers(digest), OCTETS, size)


def pull(service: Service, request: Request, wait: bool) -> Answer:
    """GET of a blob or a part of it, or a redirect to its bytes."""
    name, digest = parse_name(request.name), parse_digest(request.decoded_reference())
    repository = service.store.repository(name, wait=wait)
    if _unchanged(request, digest):
        repository.blob(digest)  # which never changes, but a missing one is not "unmodified"
        return Answer(304, _headers(digest))
    wanted = _wanted_range(request, digest)
    # No object store answers several ranges, so that such a request is never redirected.
    several = wanted is not None and "," in wanted
    begin = _leave
    if wanted is None and not service.store.nonblocking:
        begin = _read_first if request.connection.tls is not None else _begin_stream
    source = _source(repository, digest, begin, several)
    if isinstance(source, str):
        return Answer(307, [("Location", source), *_headers(digest)])
    try:
        return _content(source, digest, wanted)
    except BaseException:
        source.reader.close()
        raise


def _unchanged(request: Request, digest: Digest) -> bool:
    condition = request.headers.get("if-none-match")
    return condition is not None and names_etag(condition, f'"{digest}"')


def _wanted_range(request: Request, digest: Digest) -> str | None:
    # RFC 9110, section 13.1.5: "MUST ignore the Range header field" if If-Range does not match, by the
    # strong comparison. A date never matches: blobs have none.
    condition = request.headers.get("if-range")
    if condition and not names_etag(condition, f'"{digest}"', weak=False):
        return None
    return request.headers.get("range")


class _Source(NamedTuple):
    """`first`: bytes from the beginning, read in the thread that opened the blob. `sock`: where the rest comes from."""

    reader: Reader
    first: bytes = b""
    sock: socket | None = None


def _leave(reader: Reader) -> _Source:
    return _Source(reader)


def _read_first(reader: Reader) -> _Source:
    return _Source(reader, reader.read_at(0, min(DISTANT_PIECE_BYTES, reader.size)))


def _begin_stream(reader: Reader) -> _Source:
    if reader.size > JOINED_BYTES and isinstance(reader, StreamedReader) and (stream := reader.stream(0)) is not None:
        return _Source(reader, stream.held, stream.sock)
    return _read_first(reader)


def _source(repository: Repository, digest: Digest, begin: Callable[[Reader], _Source], several: bool) -> _Source | str:
    if not several and (elsewhere := repository.redirect(digest)) is not None:
        return elsewhere
    reader = repository.open_blob(digest)
    try:
        return begin(reader)
    except BaseException:
        reader.close()
        raise


def _content(source: _Source, digest: Digest, wanted: str | None) -> Answer:
    reader, first, sock = source
    size = reader.size
    try:
        parts = parse_ranges(wanted, size) if wanted is not None else None
    except RangeUnsatisfiable as error:
        raise Refused(error, [("Content-Range", f"bytes */{size}")]) from None
    if parts is None:
        return BlobAnswer(200, (), reader, [(0, size)], first, sock, fields=_fields(digest, size))
    headers = _headers(digest)
    if len(parts) == 1:
        offset, count = parts[0]
        headers.append(("Content-Range", f"bytes {offset}-{offset + count - 1}/{size}"))
    return BlobAnswer(206, headers, reader, parts)


def _headers(digest: Digest) -> list[tuple[str, str]]:
    return [
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        # A client may push any bytes; no browser must guess that they are a page.
        ("X-Content-Type-Options", "nosniff"),
    ]


async def delete(service: Service, request: Request) -> Answer:
    """DELETE of a blob that no manifest needs."""
    name, digest = parse_name(request.name), parse_digest(request.decoded_reference())
    check_delete(service)

    def delete_it() -> None:
        service.store.repository(name).delete_blob(digest)
        tell_change(request, "delete", before=digest)

    await service.commit(delete_it)
    return Answer(202)


def check_delete(service: Service) -> None:
    """Raises Unsupported if the configuration has `delete = false`.

    distribution-spec, "Deleting Blobs": "the registry MUST respond with either a 400 Bad Request or a 405"
    """
    if not service.config.delete:
        raise Refused(Unsupported("deleting is disabled in the configuration"), [("Allow", "GET, HEAD, PUT")])
