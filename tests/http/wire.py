"""A connection without a socket: what a stream of bytes is understood as, wherever it is cut."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any, cast

from zotctl.config import HttpConfig
from zotctl.errors import ZotctlError
from zotctl.http.answer import Answer, Beginnings
from zotctl.http.body import ClientGone, ReceiveBuffers
from zotctl.http.gate import Gate
from zotctl.http.protocol import Connection, Wait
from zotctl.http.request import Request
from zotctl.http.service import Service

LOG = logging.getLogger("tests.wire")


class Seen:
    """`requests`: method, target and body of each, or the name of the error that ended its body; `refused`: the status
    with which the rest of the stream was refused."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes | str]] = []
        self.refused: int | None = None

    def __eq__(self, other: object) -> bool:
        """Of two mistakes in one head, either may be the one that is named."""
        same = isinstance(other, Seen) and self.requests == other.requests
        return same and (self.refused is None) == (cast(Seen, other).refused is None)

    def __repr__(self) -> str:
        return f"{self.requests} {self.refused}"


class Wire(asyncio.Transport):
    """What the connection takes for its socket, and its service at once: it answers every request, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.written, self.closed = Seen(), b"", False
        self.config, self.log, self.connections = HttpConfig(), LOG, set[Connection]()
        self.buffers, self.beginnings, self.id_prefix = ReceiveBuffers(), Beginnings(""), ""
        self.patience = dict.fromkeys(Wait, math.inf)
        self.gate = Gate(self.config)
        self.reading = True

    # -- the transport -----------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    # -- the service -------------------------------------------------------------------------------

    def answer_now(self, request: Request) -> bool:
        if request.method != "GET" or not request.keep_alive:
            return False
        self.seen.requests.append((request.method, request.path, b""))
        return True

    async def handle(self, request: Request) -> Answer:
        answer = Answer(200)
        try:
            body = b""
            while pieces := await request.body.batch(70_000):
                body += b"".join(bytes(piece) for piece in pieces)
            self.seen.requests.append((request.method, request.path, body))
        except (ZotctlError, ClientGone) as error:
            self.seen.requests.append((request.method, request.path, type(error).__name__))
            answer.close = True
        answer.close = answer.close or not request.keep_alive or not request.body.complete
        return answer


async def _feed(pieces: Sequence[bytes]) -> Seen:
    wire = Wire()
    connection = Connection(cast(Service, wire))
    connection.connection_made(wire)
    for piece in pieces:
        while piece and not wire.closed:
            while not wire.reading:
                await asyncio.sleep(0)
            space = connection.get_buffer(-1)
            count = min(len(space), len(piece))
            assert count, "an empty buffer is an error of the loop"
            space[:count] = piece[:count]
            piece = piece[count:]
            connection.buffer_updated(count)
        await asyncio.sleep(0)
    if not wire.closed and not connection.eof_received():
        wire.closed = True
    for _ in range(10_000):
        if connection.idle or wire.closed:
            break
        await asyncio.sleep(0)
    connection.connection_lost(None)
    if wire.written.startswith(b"HTTP/1.1 "):
        wire.seen.refused = int(wire.written[9:12])
    return wire.seen


def understood(*pieces: bytes) -> Seen:
    """What the stream of these pieces, each one read of the socket, and then its end is understood as."""
    return asyncio.run(_feed(pieces))
