"""Sending blobs: by sendfile where the kernel can, in pieces where it can't.

A slow client holds a file and a socket, no thread and no buffer beyond the socket's own; where bytes come over a
network, two pieces more.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import IO, TYPE_CHECKING, cast

from zotctl.errors import IoFailed, ZotctlError
from zotctl.http.answer import JOINED, Answer, Headers
from zotctl.http.request import Request
from zotctl.storage.driver import Reader

if TYPE_CHECKING:
    from zotctl.http.service import Service

PIECE = 1 << 19
"""Bytes read and written at once without sendfile. Under TLS, 16 KiB would be a tenth of the speed."""

DISTANT_PIECE = 1 << 20
"""The minimum where each read may wait for a network."""
MOST_DISTANT = 4 << 20
"""The maximum there: each read costs a change of threads."""
ALL_PIECES = 16 << 20
"""Bytes of such reads in one process, as long as few are served."""

AT_ONCE = 4 << 20
"""Bytes that one client gets before the others have their turn."""


class BlobAnswer(Answer):
    """`count` bytes of a blob from `offset`, of which `first` were read already; closes the reader."""

    __slots__ = ("_count", "_first", "_offset", "_reader", "_reading")

    def __init__(
        self, status: int, headers: Headers, reader: Reader, offset: int, count: int, first: bytes = b""
    ) -> None:
        super().__init__(status, headers, length=count, content_type="application/octet-stream")
        self._reader, self._offset, self._count, self._first = reader, offset, count, first
        self._reading: asyncio.Future[bytes] | None = None

    async def send(self, request: Request) -> None:
        """Raises ConnectionError when the client is gone, or the blob turns out to be shorter."""
        service = request.connection.service
        try:
            if self._count <= JOINED and (service.store.nonblocking or len(self._first) == self._count):
                await self._send_small(request)
            else:
                await self._send_large(service, request)
        finally:
            self._close()

    def _close(self) -> None:
        """Waits until no thread uses the reader: the request may have been cut off meanwhile."""
        if self._reading is None:
            self._reader.close()
        elif self._reading.done():
            self._close_after(self._reading)
        else:
            self._reading.add_done_callback(self._close_after)

    def _close_after(self, reading: asyncio.Future[bytes]) -> None:
        if not reading.cancelled():
            reading.exception()  # of no interest any more
        self._reader.close()

    async def _send_small(self, request: Request) -> None:
        self.body = self._first or self._reader.read_at(self._offset, self._count)
        if len(self.body) != self._count:
            self._cut_short(request, len(self.body))
        await super().send(request)

    async def _send_large(self, service: Service, request: Request) -> None:
        self.sent = True
        request.write(self.head(request))
        with request.connection.sending():
            try:
                await (_sendfile if self._by_kernel(service, request) else self._copy)(request, self)
            except asyncio.SendfileNotAvailableError:
                await self._copy(request, self)
            except (ConnectionError, TimeoutError):
                raise
            except (OSError, ZotctlError) as error:
                self._failed(request, str(error))
        if self.bytes_out != self._count:
            self._cut_short(request, self.bytes_out)

    def _by_kernel(self, service: Service, request: Request) -> bool:
        # A page that is not in memory blocks the event loop until it is read, which takes too long over a network.
        plain = request.connection.ssl_context is None
        return plain and service.store.nonblocking and self._reader.fileno() is not None

    async def _copy(self, request: Request, answer: BlobAnswer) -> None:
        """The next piece is read while the client takes the last: two in memory, however large the blob is."""
        service, piece = request.connection.service, self._first
        if not piece:
            self._read_on(service)
            piece = await self._read()
        while piece:
            self.bytes_out += len(piece)
            self._read_on(service)
            await self._write(request, memoryview(piece))
            piece = self._first = b""
            piece = await self._read()

    async def _write(self, request: Request, piece: memoryview) -> None:
        """Writes no more at once than a socket may take: asyncio copies what the socket does not take."""
        for start in range(0, len(piece), DISTANT_PIECE):
            request.write(piece[start : start + DISTANT_PIECE])
            await request.flushed()

    async def _read(self) -> bytes:
        """What was asked for; empty at the end."""
        if self._reading is None:
            return b""
        await asyncio.wait([self._reading])
        return self._reading.result()

    def _read_on(self, service: Service) -> None:
        left = self._count - self.bytes_out
        size = min(PIECE if service.store.nonblocking else _distant_piece(service.in_flight), left)
        at = self._offset + self.bytes_out
        self._reading = service.move_bytes(self._reader.read_at, at, size) if left else None

    def _cut_short(self, request: Request, sent: int) -> None:
        self._failed(request, f"only {sent} of {self._count} bytes are there")

    def _failed(self, request: Request, reason: str) -> None:
        # I2: bytes of the wrong length are never sent as if they were whole.
        request.connection.service.log.error("%s: %s", request.path, reason)
        if self.sent:
            request.connection.drop()
            raise ConnectionAbortedError(reason)
        raise IoFailed(reason)


def _distant_piece(clients: int) -> int:
    return max(DISTANT_PIECE, min(MOST_DISTANT, ALL_PIECES // max(1, clients)))


async def _sendfile(request: Request, answer: BlobAnswer) -> None:
    transport = request.connection.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    answer.bytes_out = _send_at_once(transport, answer)
    left = answer._count - answer.bytes_out
    if left:
        file, at = cast(IO[bytes], answer._reader), answer._offset + answer.bytes_out
        loop = asyncio.get_running_loop()
        answer.bytes_out += await loop.sendfile(transport, file, at, left, fallback=False)


def _send_at_once(transport: asyncio.WriteTransport, answer: BlobAnswer) -> int:
    """As much as the socket takes now; most blobs fit, and asking the loop costs more than the call."""
    sock, source = transport.get_extra_info("socket"), answer._reader.fileno()
    if transport.get_write_buffer_size() or sock is None or source is None:
        return 0
    sent, target, most = 0, sock.fileno(), min(answer._count, AT_ONCE)
    try:
        while sent < most and (count := os.sendfile(target, source, answer._offset + sent, most - sent)):
            sent += count
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise asyncio.SendfileNotAvailableError(str(error)) from error
        raise
    return sent
