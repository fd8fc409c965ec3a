"""The reader of an object: from beginning to end by one request, or in pieces by ranges.

Opening it sends the request for the whole object, whose answer tells the size. Reading on from the beginning makes no
other request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from socket import socket
from ssl import SSLSocket
from typing import TYPE_CHECKING, Any

from urllib3 import BaseHTTPResponse

from zotctl.errors import Changed, Unavailable
from zotctl.storage.bucket.objects.requests import Reply
from zotctl.storage.bucket.objects.seam import Object, info_of
from zotctl.storage.driver import Info, Stream

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.connection import BucketConnection

_range = re.compile(r"bytes ([0-9]{1,19})-[0-9]+/([0-9]+|\*)").fullmatch

SKIP_BYTES = 256 << 10
"""Up to this many bytes are read and dropped, rather than skipped by a new request."""


class ObjectReader:
    """`Reader` of an object. For one thread at a time. Raises Changed if the object was replaced before a request for
    more of it."""

    def __init__(self, connection: BucketConnection, path: str, found: Object, response: BaseHTTPResponse) -> None:
        """`path`: the quoted key. `response`: all bytes, of which none was read."""
        self._connection, self._path, self._found = connection, path, found
        self._written = found.etag, response.headers.get("last-modified", "")
        """Which write of the object it is, in the words of the store."""
        self._body: _Stream | None = _Stream(response)
        self._at = 0

    @property
    def size(self) -> int:
        """Of the object, in bytes."""
        return self._found.size

    def info(self) -> Info:
        """As in the answer to the first request."""
        return info_of(self._found)

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        """A new request where `offset` is not, or not shortly after, the end of the last piece. Unavailable: the bytes
        ended early."""
        wanted = max(0, min(count, self.size - offset))
        if not wanted:
            return b""
        with self._reading(offset):
            return self._take(wanted)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """As `read_at`, from the socket straight into `buffer`."""
        wanted = max(0, min(len(buffer), self.size - offset))
        if wanted:
            with self._reading(offset):
                self._fill(buffer[:wanted])
        return wanted

    def stream(self, offset: int) -> Stream | None:
        """As `read_at`, for whom the kernel passes bytes on. None under TLS, and where the answer is chunked."""
        if not 0 <= offset < self.size:
            return None
        with self._reading(offset):
            assert self._body is not None
            found = self._body.stream(self.size - offset)
            self._at += len(found.held) if found is not None else 0
        return found

    def passed(self, count: int) -> None:
        """Go on behind them."""
        if self._body is not None:
            self._body.passed(count)
            self._at += count
        if self._at == self.size:
            self._drop()

    @contextmanager
    def _reading(self, offset: int) -> Iterator[None]:
        try:
            with self._connection.translated(self._found.key, "GetObject"):
                self._seek(offset)
                yield
        except BaseException:
            self._drop()
            raise
        if self._at == self.size:
            self._drop()

    def _seek(self, offset: int) -> None:
        ahead = offset - self._at
        if self._body is not None and 0 <= ahead <= SKIP_BYTES:
            if ahead:
                self._fill(memoryview(bytearray(ahead)))
            return
        self._drop()
        condition = {"range": f"bytes={offset}-"} | ({"if-match": self._found.etag} if self._found.etag else {})
        answer = self._connection.ask("GET", self._path, headers=condition, stream=True)
        self._body = _Stream(answer.response)
        self._require_range(answer, offset)
        self._at = offset

    def _require_range(self, answer: Reply, offset: int) -> None:
        """That these are the bytes that were asked for, of the object that was found (I2): not every store knows
        ranges and conditions, and not every proxy between passes them on."""
        if answer.status == 206:
            said = _range(answer.headers.get("content-range", ""))
            if said is None or int(said[1]) != offset or said[2] not in ("*", str(self.size)):
                raise HTTPException(f"bytes from {offset} on were asked for, and the answer has others")
        elif offset or answer.status != 200:
            raise HTTPException(f"a range was asked for, and the answer is one of status {answer.status}")
        now = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
        if any(one and one != was for one, was in zip(now, self._written, strict=True)):
            raise Changed(f"{self._found.key}: it was replaced while it was read")

    def _take(self, count: int) -> bytes:
        """In one piece, so that nothing is copied together."""
        assert self._body is not None
        piece = self._body.read(count)
        self._at += len(piece)
        if len(piece) < count:
            raise self._cut_short()
        return piece

    def _cut_short(self) -> Unavailable:
        return Unavailable(f"{self._found.key}: its bytes ended at {self._at} of {self.size}")

    def _fill(self, buffer: memoryview) -> None:
        assert self._body is not None
        got = 0
        while got < len(buffer):
            count = self._body.read_into(buffer[got:])
            if not count:
                raise self._cut_short()
            got += count
            self._at += count

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def once(self) -> None:
        """Nothing is kept of what was read."""

    def uncache(self) -> None:
        """The same."""

    def labels(self) -> dict[str, bytes]:
        """None: objects have no extended attributes."""
        return {}

    def close(self) -> None:
        """Close the answer. Its connection serves other requests again, if all was read."""
        self._drop()

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Stream:
    """A body, read from the socket straight into a buffer: urllib3 copies each byte once more."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        http = getattr(response, "_fp", None)
        self._http: Any = http if isinstance(http, HTTPResponse) else None

    def read_into(self, buffer: memoryview) -> int:
        return int((self._http or self._response).readinto(buffer))

    def read(self, count: int) -> bytes:
        """So many, but at the end."""
        return bytes((self._http or self._response).read(count))

    def stream(self, left: int) -> Stream | None:
        """The rest of it, `left` bytes, through its socket. None: the kernel can't pass it on."""
        http, sock = self._http, getattr(self._response.connection, "sock", None)
        if http is None or http.length != left or not isinstance(sock, socket) or isinstance(sock, SSLSocket):
            return None
        # What its buffer holds; where that is empty, this waits for the first bytes.
        return Stream(bytes(http.read(min(left, len(http.peek())))), sock)

    def passed(self, count: int) -> None:
        """So many bytes were taken from the socket."""
        self._http.length -= count

    def close(self) -> None:
        """Read to its end, its connection serves the next request; else that would have to wait for the rest."""
        if self._http is not None and (self._http.isclosed() or self._http.length == 0):
            self._http.close()
            self._response.release_conn()
        else:
            self._response.close()
