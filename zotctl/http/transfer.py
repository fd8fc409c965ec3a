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
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from zotctl.errors import IoFailed, ZotctlError
from zotctl.http.answer import JOINED_BYTES, Answer, Headers
from zotctl.http.request import Request
from zotctl.http.splice import AT_ONCE_BYTES, splice
from zotctl.storage.driver import Reader, StreamedReader

if TYPE_CHECKING:
    from zotctl.http.protocol import Connection

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

    __slots__ = ("_at", "_first", "_frames", "_in_pieces", "_parts", "_reader", "_reading", "_sock", "_tail")

    def __init__(
        self,
        status: int,
        headers: Headers,
        reader: Reader,
        parts: Sequence[tuple[int, int]],
        first: bytes = b"",
        sock: socket | None = None,
        *,
        fields: bytes | None = None,
    ) -> None:
        self._frames, self._tail, content_type = [b""], b"", OCTETS
        if len(parts) > 1:
            boundary = secrets.token_hex(16)
            content_type = f"multipart/byteranges; boundary={boundary}"
            self._frames = [_frame(boundary, offset, count, reader.size) for offset, count in parts]
            self._frames[0] = self._frames[0].lstrip()
            self._tail = f"\r\n--{boundary}--\r\n".encode()
        length = parts[0][1]
        if len(parts) > 1:
            length = sum(count for _, count in parts) + sum(map(len, self._frames)) + len(self._tail)
        super().__init__(status, headers, length=length, content_type=content_type, fields=fields)
        self._reader, self._parts, self._first, self._sock = reader, parts, first, sock
        self._at = parts[0][0]
        """The offset of the next byte that is sent of the part whose turn it is."""
        self._in_pieces = False
        """The kernel can't send this file."""
        self._reading: asyncio.Future[Any] | None = None

    def write(self, request: Request) -> bool:
        """What the socket takes now, which is all of most blobs. False: `send` has the rest, or says what failed."""
        try:
            whole = self._write_joined(request) if self._fits(request) else self._write_by_kernel(request)
        except (OSError, ZotctlError, asyncio.SendfileNotAvailableError):
            return False
        if whole:
            self._close()
        return whole

    async def send(self, request: Request) -> None:
        """Raises ConnectionError when the client is gone, or the blob turns out to be shorter."""
        try:
            if self._fits(request):
                self._write_joined(request)
                await request.connection.flushed()
            else:
                await self._send_large(request)
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

    def _fits(self, request: Request) -> bool:
        """Whether all of it is read at once, and leaves with the head."""
        return self.length <= JOINED_BYTES and (
            request.connection.service.store.nonblocking or len(self._first) == self.length
        )

    def _write_joined(self, request: Request) -> bool:
        body = b""
        for frame, (offset, count) in zip(self._frames, self._parts, strict=True):
            body += frame + (self._first or self._reader.read_at(offset, count))
        self.body = body + self._tail
        if len(self.body) != self.length:
            raise IoFailed(f"only {len(self.body)} of {self.length} bytes are there")
        return super().write(request)

    def _write_by_kernel(self, request: Request) -> bool:
        if len(self._parts) > 1 or not self._goes_by_kernel(request):
            return False
        request.connection.write_before_file(self.head(request.connection.service, is_http10=request.is_http10))
        self.sent = True
        end = self._at + self._parts[0][1]
        self._send_at_once(request.connection, end)
        return self._at == end

    def _write_head(self, request: Request) -> None:
        if not self.sent:
            request.connection.write(self.head(request.connection.service, is_http10=request.is_http10))
            self.sent = True

    def _goes_by_kernel(self, request: Request) -> bool:
        # A page that is not in memory blocks the event loop until it is read, which takes too long over a network.
        connection = request.connection
        local = connection.service.store.nonblocking and self._reader.fileno() is not None
        return local and connection.tls is None and not self._in_pieces

    def _send_at_once(self, connection: Connection, end: int) -> None:
        """As much as the socket takes now; asking the loop costs more than the call.

        An error after some bytes comes again with the next call: what was sent is counted, and never sent again.
        """
        source, sock = self._reader.fileno(), connection.socket
        if source is None or sock is None or connection.transport.get_write_buffer_size():
            return
        target, stop = sock.fileno(), min(end, self._at + AT_ONCE_BYTES)
        try:
            while self._at < stop and (taken := os.sendfile(target, source, self._at, stop - self._at)):
                self._went(taken)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise asyncio.SendfileNotAvailableError(str(error)) from error
            raise

    def _went(self, count: int) -> None:
        """So many bytes of the part whose turn it is left for the client."""
        self._at += count
        self.bytes_out += count

    async def _send_large(self, request: Request) -> None:
        connection = request.connection
        with connection.sending():
            self._write_head(request)
            for frame, (offset, count) in zip(self._frames, self._parts, strict=True):
                if frame:
                    connection.write(frame)
                    self.bytes_out += len(frame)
                    self._at = offset
                try:
                    await self._send_part(request, offset + count)
                except (ConnectionError, TimeoutError):
                    raise
                except (OSError, ZotctlError) as error:
                    self._failed(request, str(error))
                if self._at != offset + count:
                    self._failed(request, f"only {self._at - offset} of {count} bytes from {offset} on are there")
            if self._tail:
                connection.write(self._tail)
                self.bytes_out += len(self._tail)

    async def _send_part(self, request: Request, end: int) -> None:
        """Send to the end of a part, or of the file. What the kernel sent before it failed is not sent again."""
        connection = request.connection
        if self._goes_by_kernel(request):
            try:
                return await self._sendfile(connection, end)
            except asyncio.SendfileNotAvailableError:
                self._in_pieces = True
        elif not connection.service.store.nonblocking and connection.tls is None:
            await self._stream(request, end)
        if self._at < end:
            await self._copy(request, end)
        return None

    async def _sendfile(self, connection: Connection, end: int) -> None:
        transport = connection.transport
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._send_at_once(connection, end)
        if self._at < end:
            loop, file = asyncio.get_running_loop(), cast(IO[bytes], self._reader)
            self._went(await loop.sendfile(transport, file, self._at, end - self._at, fallback=False))

    async def _stream(self, request: Request, end: int) -> None:
        """As many of these bytes as the kernel passes on from the store's socket to the client's."""
        service, reader = request.connection.service, self._reader
        if not isinstance(reader, StreamedReader):
            return
        if self._sock is None:
            if self._first or end - self._at <= JOINED_BYTES:
                return
            self._reading = service.move_bytes(reader.stream, self._at)
            await asyncio.wait([self._reading])
            if (stream := self._reading.result()) is None:
                return
            self._first, self._sock = stream
        first, sock, self._first, self._sock = self._first[: end - self._at], self._sock, b"", None
        request.connection.write(first)
        self._went(len(first))
        passed = await splice(request.connection, sock, end - self._at) if self._at < end else 0
        self._went(passed)
        reader.passed(passed)

    async def _copy(self, request: Request, end: int) -> None:
        """The next piece is read while the client takes the last: two in memory, however large the blob is."""
        connection, at = request.connection, self._at
        service = connection.service

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
            self._went(len(piece))
            piece = b""
            piece = await read()

    def _failed(self, request: Request, reason: str) -> NoReturn:
        # I2: bytes of the wrong length are never sent as if they were whole.
        request.connection.service.log.error("%s: %s", request.path, reason)
        request.connection.drop()
        raise ConnectionAbortedError(reason)


def _frame(boundary: str, offset: int, count: int, size: int) -> bytes:
    lines = (f"--{boundary}", f"Content-Type: {OCTETS}", f"Content-Range: bytes {offset}-{offset + count - 1}/{size}")
    return ("\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()


def _distant_piece(clients: int) -> int:
    return max(DISTANT_PIECE_BYTES, min(LARGEST_PIECE_BYTES, ALL_PIECES_BYTES // max(1, clients)))
