"""Sending blobs: by sendfile where the kernel can, in pieces of half a MiB where it can't.

A slow client holds a file and a socket, no thread and no buffer beyond the socket's own.
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

AT_ONCE = 4 << 20
"""Bytes that one client gets before the others have their turn."""


class BlobAnswer(Answer):
    """`count` bytes of a blob from `offset`; closes the reader."""

    __slots__ = ("_count", "_offset", "_reader")

    def __init__(self, status: int, headers: Headers, reader: Reader, offset: int, count: int) -> None:
        super().__init__(status, headers, length=count, content_type="application/octet-stream")
        self._reader, self._offset, self._count = reader, offset, count

    async def send(self, request: Request) -> None:
        """Raises ConnectionError when the client is gone, or the blob turns out to be shorter."""
        with self._reader:
            service = request.connection.service
            if self._count <= JOINED and service.store.local_fast:
                await self._send_small(request)
            else:
                await self._send_large(service, request)

    async def _send_small(self, request: Request) -> None:
        self.body = self._reader.read_at(self._offset, self._count)
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
        # A page that is not in memory stops the event loop until it is read: too long over a network.
        plain = request.connection.ssl_context is None
        return plain and service.store.local_fast and self._reader.fileno() is not None

    async def _copy(self, request: Request, answer: BlobAnswer) -> None:
        service = request.connection.service
        while self.bytes_out < self._count:
            want = min(PIECE, self._count - self.bytes_out)
            piece = await service.move_bytes(self._reader.read_at, self._offset + self.bytes_out, want)
            if not piece:
                return
            request.write(piece)
            self.bytes_out += len(piece)
            await request.flushed()

    def _cut_short(self, request: Request, sent: int) -> None:
        self._failed(request, f"only {sent} of {self._count} bytes are there")

    def _failed(self, request: Request, reason: str) -> None:
        # I2: bytes of the wrong length are never sent as if they were whole.
        request.connection.service.log.error("%s: %s", request.path, reason)
        if self.sent:
            request.connection.drop()
            raise ConnectionAbortedError(reason)
        raise IoFailed(reason)


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
