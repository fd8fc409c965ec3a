"""Bodies of requests, in bounded batches that are never joined.

A body with Content-Length is received where it is hashed and written from: in buffers of a mebibyte, less where many
clients send at once, two a body, of which a thread uses one while the kernel fills the other. One that is chunked goes
through the parser, and as much of it waits for its reader.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpRequestParser

from zotctl.errors import BlobUploadInvalid
from zotctl.http.request import HEAD_BYTES
from zotctl.storage.driver import Buffer

if TYPE_CHECKING:
    from zotctl.http.protocol import Connection

BATCH_BYTES = 1 << 20
"""Handed to a thread at once: a hop costs as much as hashing 100 KiB. Measured in turns, a push takes 8 % more CPU with
half of it, and 40 % more with four times as much, which is more than a core's cache has."""
SMALL_BODY_BYTES = 65536
"""A body up to this is taken whole, and stored in a single hop."""
SCRATCH_BYTES = 1 << 18
"""Where all connections of a worker receive what is copied at once: heads and chunks."""
ALL_BUFFERS_BYTES = 64 << 20
"""What the buffers of a worker take together; beyond that, each takes LEAST_BUFFER_BYTES."""
LEAST_BUFFER_BYTES = 1 << 16
KEPT_BUFFERS = 8
"""Buffers that are kept between requests, with their pages."""
SMALL_CHUNK_BYTES = 4096
"""Smaller chunks are joined: as objects of their own they may take twenty times their bytes."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_OF_A_BODY = b"\r\n\r\n"


class ClientGone(ConnectionError):
    """The client went away, or its connection was cut, so there is no one to answer."""


class ReceiveBuffers:
    """The memory that a worker receives into."""

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._free: list[bytearray] = []
        self.lent = 0
        """Bytes that bodies have, in buffers or in chunks."""

    @property
    def scratch(self) -> memoryview:
        """Good until the next read of any connection. Small while memory is scarce, since what it takes of a body is
        copied into a buffer."""
        return self._scratch if self.lent < ALL_BUFFERS_BYTES else self._scratch[:LEAST_BUFFER_BYTES]

    def take(self, least: int = 0) -> bytearray:
        """A buffer of BATCH_BYTES, or of less, but not less than `least`, while much is lent."""
        left = ALL_BUFFERS_BYTES - self.lent
        share = BATCH_BYTES if left > ALL_BUFFERS_BYTES // 2 else BATCH_BYTES // 4
        size = max(least, share if left > 0 else LEAST_BUFFER_BYTES)
        buffer = self._free.pop() if self._free and left > 0 else bytearray(size)
        self.lent += len(buffer)
        return buffer

    def again(self, buffer: bytearray) -> bytearray:
        """This buffer, which was taken, or another one where it is larger than can be had by now."""
        if self.lent <= ALL_BUFFERS_BYTES or len(buffer) <= LEAST_BUFFER_BYTES:
            return buffer
        self.give(buffer, reuse=False)
        return self.take()

    def give(self, buffer: bytearray, *, reuse: bool) -> None:
        """Take back a buffer that was taken. `reuse`: no thread uses it any more."""
        self.lent -= len(buffer)
        if reuse and len(buffer) == BATCH_BYTES and len(self._free) < KEPT_BUFFERS:
            self._free.append(buffer)


class Body(ABC):
    """The body of one request, for one reader, in the event loop.

    `arrived`: bytes of it that came; `received`: those that the reader has; `complete`: all have come. `started`: the
    reader has asked for it. `expects`: the client waits for a 100, which it gets then. `length`: None if it is chunked.
    """

    __slots__ = (
        "_failure",
        "_waiter",
        "_wanted",
        "arrived",
        "complete",
        "connection",
        "dropping",
        "expects",
        "length",
        "received",
        "started",
    )

    def __init__(self, connection: Connection, length: int | None, *, expects: bool = False) -> None:
        self.connection, self.length, self.expects = connection, length, expects
        self.arrived = self.received = 0
        self.started = self.complete = self.dropping = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0

    @property
    def ended(self) -> bool:
        """Whether the reader has every byte."""
        return self.complete and self.received == self.arrived

    async def batch(self, size: int) -> list[Buffer]:
        """About `size` bytes, at most BATCH_BYTES beyond what one read brings, or what is left; empty at the end.

        The bytes are good until the next call but one. When the client breaks off or the server stops, what came
        before is returned first, and the next call raises: ClientGone, BodyTimeout, SizeInvalid, BlobUploadInvalid
        for a malformed body, CancelledError.
        """
        if not self.started:
            self.started = True
            if self.expects and not self.arrived:
                self.connection.write(_CONTINUE)
        self._wanted = min(size, BATCH_BYTES)
        while not self._has_enough() and self._failure is None:
            await self._more()
        if self.arrived == self.received and self._failure is not None:
            raise self._failure
        taken = self._take() if self.arrived > self.received else []
        self.received = self.arrived
        return taken

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self.connection.await_body()
        try:
            await self._waiter
        except asyncio.CancelledError as error:
            if self.arrived == self.received:
                raise
            self._failure = error
        finally:
            self._waiter = None
            self.connection.await_nothing()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the reader, now or at its next call: nothing more comes, or nothing more can be stored."""
        if not self.ended:
            self._failure = self._failure or error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _has_enough(self) -> bool:
        return self.complete or self.arrived - self.received >= self._wanted

    def _wake_if_enough(self) -> None:
        if self._has_enough():
            self._wake()

    def drop(self) -> None:
        """The request is answered: what still comes is of no interest."""
        self.dropping = True

    @abstractmethod
    def space(self) -> memoryview:
        """Where the next bytes go; never empty while the connection reads."""

    @abstractmethod
    def filled(self, count: int) -> bytes:
        """So many bytes came into `space`. Returns what belongs to the next request."""

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Bytes that came behind the head. Returns what belongs to the next request."""

    @abstractmethod
    def _take(self) -> list[Buffer]:
        """What has come and the reader has not."""

    @abstractmethod
    def close(self, *, reuse: bool) -> None:
        """The reader is gone. `reuse`: no thread uses a byte of it any more."""


class SizedBody(Body):
    """A body with Content-Length: no byte of it is looked at before it is hashed."""

    __slots__ = ("_buffer", "_fill", "_lent", "_small", "_view")

    def __init__(self, connection: Connection, length: int, *, expects: bool = False) -> None:
        super().__init__(connection, length, expects=expects)
        self.complete = length == 0
        self._buffer: bytearray | None = None
        self._view = memoryview(b"")
        self._fill = 0
        self._lent: list[bytearray] = []
        self._small = length <= SMALL_BODY_BYTES

    def _left(self) -> int:
        return (self.length or 0) - self.arrived

    def _has_enough(self) -> bool:
        """No more fits into a full buffer."""
        return super()._has_enough() or (self._buffer is not None and self._fill == len(self._view))

    def space(self) -> memoryview:
        """The rest of a buffer, and never more than the rest of the body."""
        return self._space(0)

    def _space(self, least: int) -> memoryview:
        if self.dropping:
            return self.connection.buffers.scratch[: self._left()]
        if self._buffer is None:
            self._use(bytearray(self._left()) if self._small else self.connection.buffers.take(least))
        return self._view[self._fill : self._fill + self._left()]

    def _use(self, buffer: bytearray) -> None:
        self._buffer, self._view, self._fill = buffer, memoryview(buffer), 0

    def filled(self, count: int) -> bytes:
        """Count them; a full buffer waits for its reader."""
        self.arrived += count
        self._fill += count
        self.complete = self.arrived == self.length
        if not self.dropping and not self.complete and self._fill == len(self._view):
            self.connection.hold()
        self._wake_if_enough()
        return b""

    def feed(self, data: bytes) -> bytes:
        """Copy them into the buffer, the first of the body, which is made large enough."""
        count = min(len(data), self._left())
        if count:
            if not self.dropping:
                self._space(count)[:count] = data[:count]
            self.filled(count)
        return data[count:]

    async def batch(self, size: int) -> list[Buffer]:
        """The bytes of one buffer. Of two that are lent, the older is filled again from now on."""
        if len(self._lent) == 2:
            free = self._lent.pop(0)
            if self._buffer is None and not self.complete:
                self._use(free if self._small else self.connection.buffers.again(free))
                self.connection.go_on()
            else:
                self._give([free], reuse=True)
        return await super().batch(size)

    def _take(self) -> list[Buffer]:
        assert self._buffer is not None
        taken: list[Buffer] = [self._view[: self._fill]]
        self._lent.append(self._buffer)
        self._buffer, self._view, self._fill = None, memoryview(b""), 0
        if not self.complete:
            if len(self._lent) == 2:
                self.connection.hold()
            else:
                self.connection.go_on()
        return taken

    def _give(self, buffers: list[bytearray], *, reuse: bool) -> None:
        for buffer in () if self._small else buffers:
            self.connection.buffers.give(buffer, reuse=reuse)

    def close(self, *, reuse: bool) -> None:
        """Give the buffers back."""
        self._give([*self._lent, *([self._buffer] if self._buffer is not None else ())], reuse=reuse)
        self._lent, self._buffer, self._view = [], None, memoryview(b"")

    def __del__(self) -> None:
        """The task of a request may be cancelled before it has begun, and then closes nothing."""
        if self._lent or self._buffer is not None:
            self.close(reuse=False)


NO_BODY = SizedBody(cast("Connection", None), 0)
"""Of all requests that have none."""


class ChunkedBody(Body):
    """A chunked body, without its trailers (RFC 9112, section 7.1)."""

    __slots__ = ("_framing", "_lent", "_parser", "_pieces", "_tail")

    def __init__(self, connection: Connection, *, expects: bool = False) -> None:
        super().__init__(connection, None, expects=expects)
        self._pieces: list[Buffer] = []
        self._lent: list[int] = []
        """Bytes of the batches that the reader has."""
        self._tail = b""
        self._framing = 0
        # A parser of its own: the head had to be whole before anything behind it was looked at.
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_body(self, piece: bytes) -> None:
        """For the parser."""
        self._framing = 0
        self.arrived += len(piece)
        if self.dropping:
            self.received = self.arrived
            return
        self.connection.buffers.lent += len(piece)
        if len(piece) >= SMALL_CHUNK_BYTES:
            self._pieces.append(piece)
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def on_message_complete(self) -> None:
        """For the parser."""
        self.complete = True

    def space(self) -> memoryview:
        """The scratch: the parser copies."""
        return self.connection.buffers.scratch

    def filled(self, count: int) -> bytes:
        """Parse them."""
        return self.feed(bytes(self.connection.buffers.scratch[:count]))

    def feed(self, data: bytes) -> bytes:
        """Parse up to the end of the body, which can only be behind a blank line: the parser gets no more at once.

        It would take what follows for another request, and does not tell where it began.
        """
        start, known = 0, len(self._tail)
        joined = self._tail + data
        at = joined.find(_LAST_OF_A_BODY)
        while not self.complete and start < len(data) and self._parser is not None:
            end = len(data) if at < 0 else at + len(_LAST_OF_A_BODY) - known
            self._parse(data[start:end])
            start = end
            at = joined.find(_LAST_OF_A_BODY, at + 2) if at >= 0 else -1
        self._tail = joined[-3:]
        if self._parser is None:
            return b""
        if self.complete:
            self._parser = None
        elif self._is_full():
            self.connection.hold()
        self._wake_if_enough()
        return data[start:]

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
            if self._framing > HEAD_BYTES:
                raise HttpParserError("chunk extensions or trailers are too long")
        except HttpParserError as error:
            self._parser = None
            self.connection.end_body(BlobUploadInvalid(f"the body is malformed: {error}"))

    def _is_full(self) -> bool:
        """Whether no more is received before the reader takes what came. While memory is scarce, that is little."""
        scarce = self.connection.buffers.lent >= ALL_BUFFERS_BYTES
        return self.arrived - self.received >= (LEAST_BUFFER_BYTES if scarce else BATCH_BYTES)

    def _has_enough(self) -> bool:
        return super()._has_enough() or self._is_full()

    async def batch(self, size: int) -> list[Buffer]:
        """What has come. Of two batches that are lent, the older is forgotten from now on."""
        if len(self._lent) == 2:
            self.connection.buffers.lent -= self._lent.pop(0)
        return await super().batch(size)

    def _take(self) -> list[Buffer]:
        taken, self._pieces = self._pieces, []
        self._lent.append(self.arrived - self.received)
        self.connection.go_on()
        return taken

    def drop(self) -> None:
        """Forget what the reader has not taken."""
        super().drop()
        self.received = self.arrived
        self._forget()

    def _forget(self) -> None:
        self.connection.buffers.lent -= sum(map(len, self._pieces))
        self._pieces = []

    def close(self, *, reuse: bool) -> None:
        """Pieces are of no use to another body."""
        self._forget()
        self.connection.buffers.lent -= sum(self._lent)
        self._lent = []

    def __del__(self) -> None:
        """The task of a request may be cancelled before it has begun, and then closes nothing."""
        if self._lent or self._pieces:
            self.close(reuse=False)


async def read_whole(body: Body, limit: int) -> bytes | None:
    """All of a body that is to be kept in memory; None if it has more than `limit` bytes."""
    if body.length is not None and body.length > limit:
        return None
    content = bytearray()
    while pieces := await body.batch(limit + 1 - len(content)):
        for piece in pieces:
            content += piece
        if len(content) > limit:
            return None
    return bytes(content)
