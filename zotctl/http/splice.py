"""Bytes from the socket of an object store to that of a client, by the kernel: no thread and no copy in this process.

splice(2) moves pages through a pipe. Whatever goes wrong at the source only ends the passing on: the caller reads what
is left as it would have read it all, with repetitions and errors.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zotctl.http.protocol import Connection

PIPE_BYTES = 1 << 20
"""In the pipe at once: what a user may have in one without privileges (pipe(7), /proc/sys/fs/pipe-max-size)."""
WORTH_A_TURN_BYTES = 512 << 10
"""So many arrive before the event loop is told, as long as more than that is to come."""
BY_HAND_BYTES = 64 << 10
"""Read and written when the client's socket is full: then the transport waits until it is empty."""
AT_ONCE_BYTES = 4 << 20
"""That one client gets before the others have their turn."""
PAUSE_S = 5.0
"""Without a byte from the source: then a thread waits for it, and knows for how long."""
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


async def splice(connection: Connection, source: socket.socket, count: int) -> int:
    """Pass on `count` bytes of a non-blocking socket, in the event loop. Returns how many left it: fewer when it ended,
    failed or paused. All of them are in the client's transport then. Raises ConnectionError when the client is gone."""
    try:
        pipe = _Pipe(connection)
    except OSError:  # no descriptors are left, or no memory for pipes
        return 0
    try:
        with _unbuffered(connection), _patient(source) as patience:
            await connection.flushed()
            return await _pass_on(pipe, source, count, patience)
    finally:
        pipe.close()


async def _pass_on(pipe: _Pipe, source: socket.socket, count: int, patience: _Patience) -> int:
    passed, turn = 0, 0
    while passed < count:
        try:
            taken = os.splice(source.fileno(), pipe.end, min(count - passed, PIPE_BYTES), flags=_FLAGS)
        except BlockingIOError:
            patience.expect(count - passed)
            if not await _readable(source):
                break
            turn = 0
            continue
        except OSError:
            break
        if not taken:
            break
        passed, turn = passed + taken, turn + taken
        await pipe.empty(taken)
        if turn >= AT_ONCE_BYTES:
            turn = 0
            await asyncio.sleep(0)
    return passed


class _Pipe:
    """Between the two sockets. `end`: where the source's bytes go in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._out, self.end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # the user has too many large ones
            fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    async def empty(self, held: int) -> None:
        """Hand all it holds to the client."""
        connection, splices = self._connection, True
        while held:
            transport = connection.transport
            if transport.is_closing():
                raise ConnectionResetError("the client is gone")
            sock: socket.socket = transport.get_extra_info("socket")
            if splices and not transport.get_write_buffer_size():
                try:
                    held -= os.splice(self._out, sock.fileno(), held, flags=_FLAGS)
                    continue
                except ConnectionError:
                    raise
                except OSError as error:  # it is full, or of a kind that can't be spliced to
                    splices = isinstance(error, BlockingIOError)
            piece = os.read(self._out, min(held, BY_HAND_BYTES))
            held -= len(piece)
            connection.write(piece)
            await connection.flushed()

    def close(self) -> None:
        """What it may still hold is of no interest."""
        os.close(self._out)
        os.close(self.end)


@contextmanager
def _unbuffered(connection: Connection) -> Iterator[None]:
    """While this lasts, `flushed` waits until the transport holds nothing: what is spliced would overtake it."""
    connection.transport.set_write_buffer_limits(0)
    try:
        yield
    finally:
        if not connection.transport.is_closing():
            connection.transport.set_write_buffer_limits()


class _Patience:
    """How many bytes of a socket have to be there before the event loop is told."""

    def __init__(self, source: socket.socket) -> None:
        self._source, self._bytes = source, 1

    def expect(self, left: int) -> None:
        """So many are to come, at the most."""
        wanted = WORTH_A_TURN_BYTES if left > WORTH_A_TURN_BYTES else 1
        if wanted != self._bytes:
            self._bytes = wanted
            with suppress(OSError):
                self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)


@contextmanager
def _patient(source: socket.socket) -> Iterator[_Patience]:
    """The next answer on this connection may be short."""
    patience = _Patience(source)
    try:
        yield patience
    finally:
        patience.expect(0)


async def _readable(source: socket.socket) -> bool:
    """Wait for bytes, or the end. False: nothing came."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def tell(found: bool) -> None:
        if not ready.done():
            ready.set_result(found)

    loop.add_reader(source, tell, True)
    timer = loop.call_later(PAUSE_S, tell, False)
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(source)
