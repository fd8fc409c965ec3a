"""Sending blobs: by sendfile or splice where the kernel can, in pieces where it can't.

A slow client holds a file and a socket, no thread and no buffer beyond the socket's own; where bytes come over a
network, a pipe more, or two pieces under TLS.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Sequence
from socket import socket
from typing import IO, TYPE_CHECKING, Any, cast

from zotctl.errors import IoFailed, ZotctlError
from zotctl.http.answer import JOINED_BYTES, Answer, Headers
from zotctl.http.request import Request
from zotctl.http.splice import AT_ONCE_BYTES, splice
from zotctl.storage.driver import Reader, StreamedReader

if TYPE_CHECKING:
    from zotctl.http.protocol import Connection
    from zotctl.http.service import Service

PIECE_BYTES = 1 << 19
"""Read and written at once without sendfile. Under TLS, 16 KiB would be a tenth of the speed."""

DISTANT_PIECE_BYTES = 1 << 20
"""The minimum where each read may wait for a network."""
LARGEST_PIECE_BYTES = 4 << 20
"""The maximum there: each read costs a change of threads."""
ALL_PIECES_BYTES = 16 << 20
"""Of such reads in one process, as long as few are served."""

OCTETS = "application/octet-stream"


class BlobAnswer(Answer):
    """Parts of a blob, each an offset and a count in bytes; closes the reader.

    `first`: what was read already of a single part; `sock`: what the rest of it comes through. Several parts are a
    `multipart/byteranges` (RFC 9110, section 14.6), in their order.
    """

    __slots__ = ("_first", "_frames", "_parts", "_reader", "_reading", "_sock", "_tail")

    def __init__(
        self,
        status: int,
        headers: Headers,
        reader: Reader,
        parts: Sequence[tuple[int, int]],
        first: bytes = b"",
        sock: socket | None = None,
    ) -> None:
        self._frames, self._tail, content_type = [b""], b"", OCTETS
        if len(parts) > 1:
            boundary = secrets.token_hex(16)
            content_type = f"multipart/byteranges; boundary={boundary}"
            self._frames = [_frame(boundary, offset, count, reader.size) for offset, count in parts]
            self._frames[0] = self._frames[0].lstrip()
            self._tail = f"\r\n--{boundary}--\r\n".encode()
        length = sum(count for _, count in parts) + sum(map(len, self._frames)) + len(self._tail)
        super().__init__(status, headers, length=length, content_type=content_type)
        self._reader, self._parts, self._first, self._sock = reader, parts, first, sock
        self._reading: asyncio.Future[Any] | None = None

    async def send(self, request: Request) -> None:
        """Raises ConnectionError when the client is gone, or the blob turns out to be shorter."""
        service = request.connection.service
        try:
            if self.length <= JOINED_BYTES and (service.store.nonblocking or len(self._first) == self.length):
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

    def _close_after(self, reading: asyncio.Future[Any]) -> None:
        if not reading.cancelled():
            reading.exception()  # of no interest any more
        self._reader.close()

    async def _send_small(self, request: Request) -> None:
        body = b""
        for frame, (offset, count) in zip(self._frames, self._parts, strict=True):
            body += frame + (self._first or self._reader.read_at(offset, count))
        self.body = body + self._tail
        if len(self.body) != self.length:
            self._failed(request, f"only {len(self.body)} of {self.length} bytes are there")
        await super().send(request)

    async def _send_large(self, service: Service, request: Request) -> None:
        connection = request.connection
        self.sent = True
        connection.write(self.head(service, is_http10=request.is_http10))
        # A page that is not in memory blocks the event loop until it is read, which takes too long over a network.
        local = service.store.nonblocking and self._reader.fileno() is not None
        by_kernel = local and connection.tls is None
        with connection.sending():
            for frame, (offset, count) in zip(self._frames, self._parts, strict=True):
                if frame:
                    connection.write(frame)
                    self.bytes_out += len(frame)
                sent = 0
                try:
                    if by_kernel:
                        try:
                            sent = await _sendfile(connection, self._reader, offset, count)
                        except asyncio.SendfileNotAvailableError:
                            by_kernel = False
                    elif not service.store.nonblocking and connection.tls is None:
                        sent = await self._stream(request, offset, count)
                    if not by_kernel and sent < count:
                        sent += await self._copy(request, offset + sent, count - sent)
                except (ConnectionError, TimeoutError):
                    raise
                except (OSError, ZotctlError) as error:
                    self._failed(request, str(error))
                self.bytes_out += sent
                if sent != count:
                    self._failed(request, f"only {sent} of {count} bytes from {offset} on are there")
            if self._tail:
                connection.write(self._tail)
                self.bytes_out += len(self._tail)

    async def _stream(self, request: Request, offset: int, count: int) -> int:
        """As many of these bytes as the kernel passes on from the store's socket to the client's."""
        service, reader = request.connection.service, self._reader
        if not isinstance(reader, StreamedReader):
            return 0
        if self._sock is None:
            if self._first or count <= JOINED_BYTES:
                return 0
            self._reading = service.move_bytes(reader.stream, offset)
            await asyncio.wait([self._reading])
            if (stream := self._reading.result()) is None:
                return 0
            self._first, self._sock = stream
        first, sock, self._first, self._sock = self._first[:count], self._sock, b"", None
        request.connection.write(first)
        passed = await splice(request.connection, sock, count - len(first)) if len(first) < count else 0
        reader.passed(passed)
        return len(first) + passed

    async def _copy(self, request: Request, offset: int, count: int) -> int:
        """The next piece is read while the client takes the last: two in memory, however large the blob is."""
        connection, end = request.connection, offset + count
        service, at = connection.service, offset

        def read_on() -> asyncio.Future[bytes] | None:
            size = PIECE_BYTES if service.store.nonblocking else _distant_piece(service.in_flight)
            return service.move_bytes(self._reader.read_at, at, min(size, end - at)) if at < end else None

        async def read() -> bytes:
            if self._reading is None:
                return b""
            await asyncio.wait([self._reading])
            return cast(bytes, self._reading.result())

        piece, self._first = self._first, b""
        if not piece:
            self._reading = read_on()
            piece = await read()
        while piece:
            at += len(piece)
            self._reading = read_on()
            # No more at once than a socket may take: asyncio copies what the socket does not take.
            view = memoryview(piece)
            for start in range(0, len(piece), DISTANT_PIECE_BYTES):
                connection.write(view[start : start + DISTANT_PIECE_BYTES])
                await connection.flushed()
            del view
            piece = b""
            piece = await read()
        return at - offset

    def _failed(self, request: Request, reason: str) -> None:
        # I2: bytes of the wrong length are never sent as if they were whole.
        request.connection.service.log.error("%s: %s", request.path, reason)
        if self.sent:
            request.connection.drop()
            raise ConnectionAbortedError(reason)
        raise IoFailed(reason)


def _frame(boundary: str, offset: int, count: int, size: int) -> bytes:
    lines = (f"--{boundary}", f"Content-Type: {OCTETS}", f"Content-Range: bytes {offset}-{offset + count - 1}/{size}")
    return ("\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()


def _distant_piece(clients: int) -> int:
    return max(DISTANT_PIECE_BYTES, min(LARGEST_PIECE_BYTES, ALL_PIECES_BYTES // max(1, clients)))


async def _sendfile(connection: Connection, reader: Reader, offset: int, count: int) -> int:
    transport = connection.transport
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")
    sent = _send_at_once(transport, reader, offset, count)
    if sent < count:
        loop = asyncio.get_running_loop()
        sent += await loop.sendfile(transport, cast(IO[bytes], reader), offset + sent, count - sent, fallback=False)
    return sent


def _send_at_once(transport: asyncio.WriteTransport, reader: Reader, offset: int, count: int) -> int:
    """As much as the socket takes now; most blobs fit, and asking the loop costs more than the call."""
    sock, source = transport.get_extra_info("socket"), reader.fileno()
    if transport.get_write_buffer_size() or sock is None or source is None:
        return 0
    sent, target, most = 0, sock.fileno(), min(count, AT_ONCE_BYTES)
    try:
        while sent < most and (taken := os.sendfile(target, source, offset + sent, most - sent)):
            sent += taken
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise asyncio.SendfileNotAvailableError(str(error)) from error
        raise
    return sent
