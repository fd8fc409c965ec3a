"""Reading the body of a request in bounded batches of the pieces that arrived, which are never joined."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp.web_protocol import RequestPayloadError

from zotctl.errors import BlobUploadInvalid, ZotctlError

if TYPE_CHECKING:
    from zotctl.http.request import Request

BATCH = 1 << 20
"""Bytes handed to a thread at once: a hop costs as much as hashing 100 KiB."""
SMALL = 65536
"""A body up to this many bytes is taken whole, and stored in a single hop."""

_MOST_PIECES = 4096
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientGone(ConnectionError):
    """The client went away, or its connection was cut, so there is no one to answer."""


class Body:
    """The body of one request, for one reader.

    `fail` interrupts the reader. Deadlines call it, and threads that could not store bytes.
    """

    __slots__ = ("_failure", "_payload", "_reader", "_request", "idle_since", "received", "seen", "started")

    def __init__(self, request: Request) -> None:
        self._request, self._payload = request, request.payload
        self._failure: BaseException | None = None
        self._reader: asyncio.Task[object] | None = None
        self.started = False
        self.received = 0
        self.seen = -1
        self.idle_since = 0.0

    @property
    def ended(self) -> bool:
        """Whether every byte was read."""
        return self._payload.at_eof()

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived, read or not."""
        return self._payload.is_eof()

    @property
    def arrived(self) -> int:
        """Bytes that have arrived, read or not."""
        return self._payload.total_bytes

    @property
    def waiting(self) -> bool:
        """Whether the reader waits for the client."""
        return self._reader is not None

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the reader, now or at its next read."""
        self._failure = self._failure or error
        if self._reader is not None:
            self._reader.cancel()

    async def batch(self, size: int) -> list[bytes]:
        """At least `size` bytes, or what is left; empty at the end.

        When the client breaks off or the server stops, what came before is returned first, and the next call
        raises: ClientGone, BodyTimeout, SizeInvalid, BlobUploadInvalid for a malformed body, CancelledError.
        """
        pieces: list[bytes] = []
        end = self.received + size
        try:
            while self.received < end and len(pieces) < _MOST_PIECES and not self.ended:
                if piece := await self._next():
                    pieces.append(piece)
                    self.received += len(piece)
        except (ConnectionError, ZotctlError, asyncio.CancelledError) as error:
            if not pieces:
                raise
            self._failure = error
        return pieces

    async def _next(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._request.connection.transport is None and not self.complete:
            # Lost before this request became the current one, which is all that aiohttp tells of it.
            raise ClientGone("the client is gone")
        self._begin()
        self._reader = asyncio.current_task()
        try:
            return (await self._payload.readchunk())[0]
        except asyncio.CancelledError:
            if self._failure is None or self._reader is None:
                raise
            self._reader.uncancel()
            raise self._failure from None
        except RequestPayloadError as error:
            raise BlobUploadInvalid(f"the body is malformed: {error}") from error
        except (ConnectionError, RuntimeError) as error:
            raise ClientGone(str(error)) from error
        finally:
            self._reader = None

    def _begin(self) -> None:
        if self.started:
            return
        if self._request.waits_for_continue and not self.arrived:
            self._request.write(_CONTINUE)
        self.started = True
        self._request.connection.body = self
