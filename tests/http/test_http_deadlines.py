"""Wherever a client falls silent, its connection ends: random beginnings on a clock that is not waited for."""

from __future__ import annotations

import asyncio
import random
import selectors
from typing import Any, cast

import pytest

from tests.http.wire import Wire
from zotctl.config import HttpConfig
from zotctl.errors import ZotctlError
from zotctl.http.answer import Answer
from zotctl.http.body import SCRATCH_BYTES, ClientGone
from zotctl.http.protocol import LINGER_S, LOOK_S, Connection, Wait
from zotctl.http.request import Request
from zotctl.http.service import Service

CONFIG = HttpConfig(header_timeout=1.0, body_timeout=2.0, write_timeout=3.0, idle_timeout=4.0)
LONGEST_S = 60.0
"""More than all deadlines, one after the other."""
KERNEL_BYTES, HIGH_BYTES, LOW_BYTES = 3_000, 65_536, 16_384
"""What a socket takes without its client, and when asyncio asks to pause and to go on."""
BEGINNINGS = 400


class Skipping(asyncio.SelectorEventLoop):
    """Its time is the next time that anything is due."""

    def __init__(self) -> None:
        super().__init__(_Impatient(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Impatient(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    def __init__(self, loop: Skipping) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self._loop.now += timeout
        return super().select(0)


class Line(Wire):
    """A socket with a client that takes what it likes, and handlers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.config = CONFIG
        self.patience = {
            Wait.NEXT: CONFIG.idle_timeout,
            Wait.HEAD: CONFIG.header_timeout,
            Wait.BODY: CONFIG.body_timeout,
            Wait.READER: LOOK_S,
            Wait.REST: LINGER_S,
        }
        self.loop = asyncio.get_running_loop()
        self.waiting = self.confirmed = self.room = 0
        self.paused = self.lost = False
        self.sent = b""
        self.connection = Connection(cast(Service, self))
        self.connection.connection_made(self)

    # -- the transport -----------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        return bytes(size - 8) + self.confirmed.to_bytes(8, "little")

    def setsockopt(self, level: int, name: int, value: bytes) -> None: ...

    def write(self, data: Any) -> None:
        self.waiting += len(data)
        self._move()

    def close(self) -> None:
        self.closed = True
        if not self.waiting:
            self._end()

    def abort(self) -> None:
        self.closed = True
        self._end()

    def _end(self) -> None:
        if not self.lost:
            self.lost = True
            self.loop.call_soon(self.connection.connection_lost, None)

    def _move(self) -> None:
        gone = min(self.waiting, self.room)
        self.waiting, self.room, self.confirmed = self.waiting - gone, self.room - gone, self.confirmed + gone
        if self.waiting > HIGH_BYTES and not self.paused:
            self.paused = True
            self.connection.pause_writing()
        if self.waiting <= LOW_BYTES and self.paused:
            self.paused = False
            self.connection.resume_writing()
        if self.closed and not self.waiting:
            self._end()

    # -- the client --------------------------------------------------------------------------------

    def take(self, count: int) -> None:
        self.room += count
        self._move()

    def send(self, data: bytes) -> None:
        self.sent += data
        while self.sent and self.reading and not self.closed:
            space = self.connection.get_buffer(-1)
            count = min(len(space), len(self.sent))
            space[:count], self.sent = self.sent[:count], self.sent[count:]
            self.connection.buffer_updated(count)

    def half_close(self) -> None:
        if not self.closed and not self.connection.eof_received():
            self.close()

    # -- the service -------------------------------------------------------------------------------

    def answer_now(self, request: Request) -> bool:
        if request.path != "/now" or not request.keep_alive or request.connection.at_end:
            return False
        Answer(200, body=b"x" * 30_000).write(request)
        return True

    async def handle(self, request: Request) -> Answer:
        answer = Answer(200, body=b"x" * (100_000 if request.path == "/large" else 10))
        try:
            if request.path == "/slow":
                await asyncio.sleep(0.5)
            while request.path != "/unread" and await request.body.batch(1000):
                pass
            answer.close = not request.keep_alive or request.connection.at_end or request.connection.rest_refused
            await answer.send(request)
        except (ZotctlError, ConnectionError, ClientGone):
            answer.close = True
        return answer


def _piece(chance: random.Random) -> bytes:
    method, path = chance.choice(["GET", "PUT"]), chance.choice(["/now", "/now", "/large", "/slow", "/unread"])
    body, field = b"", ""
    if method == "PUT":
        body = b"b" * chance.choice([1, 200, 3000])
        field = f"Content-Length: {len(body)}\r\n"
        if chance.random() < 0.3:
            body, field = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked\r\n"
        if chance.random() < 0.2:
            field += "Expect: 100-continue\r\n"
    data = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n".encode() + body
    data *= chance.choice([1, 1, 1, 40])
    return data[: chance.randrange(1, len(data))] if chance.random() < 0.2 else data


async def _begin_and_fall_silent(seed: int) -> None:
    chance, line = random.Random(seed), Line()
    line.take(KERNEL_BYTES)
    for _ in range(chance.randrange(12)):
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                line.send(_piece(chance))
            case 4:
                line.take(chance.choice([1, 20_000, 300_000]))
            case 5 | 6:
                await asyncio.sleep(chance.choice([0.0, 0.1, 1.1]))
            case _ if chance.random() < 0.2:
                line.half_close()
    for _ in range(int(LONGEST_S)):
        line.send(b"")  # what it had sent lies in the kernel, and nothing comes after it
        await asyncio.sleep(1.0)
    assert line.lost, f"seed {seed}: {line.connection._wait} without a deadline"


async def _send_ahead(count: int) -> Line:
    """Requests that a client sends at once, while it takes nothing; then it takes all that comes."""
    line = Line()
    line.send(b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    await asyncio.sleep(0)
    assert line.paused and line.waiting < count * 30_000
    for _ in range(2 * count):
        line.take(100_000)
        await asyncio.sleep(0)
    return line


def test_what_was_sent_ahead_is_answered_when_the_client_takes_bytes_again() -> None:
    with asyncio.Runner(loop_factory=Skipping) as runner:
        assert runner.run(_send_ahead(10)).confirmed > 10 * 30_000


async def _behind_a_slow_one(behind: bytes, *, leave: bool) -> Line:
    """What a client sends behind a request that takes half a second, and whether it sends nothing more."""
    line = Line()
    line.take(1 << 30)
    line.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
    if leave:
        line.half_close()
    return line


def test_a_body_that_cannot_come_any_more_is_not_waited_for() -> None:
    """The client had closed its half before its request began."""

    async def end() -> None:
        line = await _behind_a_slow_one(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nxyz", leave=True)
        await asyncio.sleep(1.0)
        assert line.lost, "it waits for its body"

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(end())


def test_a_body_that_is_slow_but_moves_is_waited_for() -> None:
    async def dribble() -> None:
        line = Line()
        line.take(1 << 30)
        line.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.75 * CONFIG.body_timeout)
            assert not line.confirmed
            line.send(b"x")
        await asyncio.sleep(0.1)
        assert line.confirmed and not line.closed

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(dribble())


def test_a_reader_that_is_slow_but_moves_is_served_to_the_end() -> None:
    async def sip() -> None:
        line = Line()
        line.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(8):
            line.take(10_000)
            await asyncio.sleep(0.75 * CONFIG.write_timeout)
            assert not line.closed
        line.take(1 << 30)
        assert line.confirmed > 100_000

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(sip())


def test_what_is_sent_ahead_waits_in_the_kernel() -> None:
    """Else a client could fill the memory while one request of it takes its time."""

    async def fill() -> None:
        one = b"GET /now HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * 4000)
        count = 4 * SCRATCH_BYTES // len(one)
        line = await _behind_a_slow_one(one * count, leave=False)
        assert len(line.sent) > 2 * SCRATCH_BYTES
        for _ in range(count):
            await asyncio.sleep(0.1)
            line.send(b"")
        assert not line.sent and line.confirmed > count * 30_000

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(fill())


@pytest.mark.parametrize("first", range(0, BEGINNINGS, BEGINNINGS // 4))
def test_a_client_that_falls_silent_is_cut_off(first: int) -> None:
    with asyncio.Runner(loop_factory=Skipping) as runner:
        for seed in range(first, first + BEGINNINGS // 4):
            runner.run(_begin_and_fall_silent(seed))
