"""Blobs of a bucket that the kernel passes on, and what becomes of them when it can't."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from tests.http.serving import digest
from tests.http.test_http_service import BODY, Content, FakeStore, asked
from zotctl.http import splice
from zotctl.storage.driver import Stream

HALF = len(BODY) // 2
HELD = 1000


class Arriving(Content):
    """Comes through a socket, up to `until`; then that ends, or falls silent."""

    def __init__(self, until: int, *, silent: bool = False) -> None:
        super().__init__(BODY, len(BODY))
        self.until, self.silent = until, silent
        self.read: list[int] = []
        self.came = 0
        self.ends: list[socket.socket] = []

    def stream(self, offset: int) -> Stream:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours = socket.create_connection(listening.getsockname(), timeout=20)
            theirs, _ = listening.accept()
        self.ends += ours, theirs
        threading.Thread(target=self._send, args=(theirs, BODY[offset + HELD : self.until])).start()
        return Stream(BODY[offset : offset + HELD], ours)

    def _send(self, theirs: socket.socket, data: bytes) -> None:
        with suppress(OSError):  # an answer that is given up closes both ends
            theirs.sendall(data)
        if not self.silent:
            theirs.close()

    def passed(self, count: int) -> None:
        assert self.ends[-2].getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1  # for the next answer
        self.came += count

    def read_at(self, offset: int, count: int) -> bytes:
        self.read.append(offset)
        return super().read_at(offset, count)

    def close(self) -> None:
        super().close()
        for end in self.ends:
            end.close()


def pulled(content: Content, **headers: str) -> bytes:
    store, got = FakeStore(nonblocking=False), list[bytes]()
    store.content = content

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # the connection is as it was
            got.append((await client.get(f"/v2/a/blobs/{digest(BODY)}", headers=headers)).content)

    asked(store, ask)
    assert got[0] == got[1]
    return got[0]


def test_the_kernel_passes_a_blob_on() -> None:
    content = Arriving(len(BODY))
    assert pulled(content) == BODY
    assert (content.read, content.came) == ([], 2 * (len(BODY) - HELD))


def test_i2_nothing_overtakes_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport holds the end of what it was given, whenever it is looked at first."""
    looks = iter([True])
    connection, spliced, written = FakeConnection(lambda: next(looks, False)), list[int](), list[bytes]()
    connection.write = written.append
    into = os.splice

    def splice_in(source: int, target: int, count: int, *, flags: int) -> int:
        spliced.append(len(written))
        return into(source, target, count, flags=flags)

    pipe = splice._Pipe(connection)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "splice", splice_in)
    try:
        os.write(pipe.end, b"x" * 70_000)
        asyncio.run(pipe.empty(70_000))
    finally:
        pipe.close()
        connection.close()
    assert spliced[0] == 1 and len(written[0]) == splice.BY_HAND_BYTES


class FakeConnection:
    """Whose transport `holds` something."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.transport = self
        self.get_write_buffer_size = holds
        self.write: Callable[[bytes], object] = self.ours.send

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _: str) -> socket.socket:
        return self.ours

    async def flushed(self) -> None: ...

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def test_a_range_comes_from_its_beginning() -> None:
    content = Arriving(len(BODY))
    assert pulled(content, Range=f"bytes={HALF}-{HALF + 99_999}") == BODY[HALF : HALF + 100_000]
    assert (content.read, content.came) == ([], 2 * (100_000 - HELD))


@pytest.mark.parametrize("silent", [False, True])
def test_i2_what_does_not_come_is_read(monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    monkeypatch.setattr(splice, "PAUSE_S", 0.02)
    content = Arriving(HALF, silent=silent)
    assert pulled(content) == BODY
    assert content.read[0] == HALF


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EINVAL])
def test_a_client_whose_socket_takes_nothing_is_written_to(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """It is full, or of a kind that can't be spliced to."""
    into_pipe = os.splice

    def splice_in(source: int, target: int, count: int, *, flags: int) -> int:
        if target not in pipes:
            raise OSError(error, "not now")
        return into_pipe(source, target, count, flags=flags)

    pipes, make = set[int](), os.pipe2

    def pipe2(flags: int) -> tuple[int, int]:
        ends = make(flags)
        pipes.add(ends[1])
        return ends

    monkeypatch.setattr(os, "splice", splice_in)
    monkeypatch.setattr(os, "pipe2", pipe2)
    content = Arriving(len(BODY))
    assert pulled(content) == BODY
    assert content.read == []


@pytest.mark.parametrize("missing", ["pipe2", "splice"])
def test_without_it_all_is_read(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, missing, refuse)
    content = Arriving(len(BODY))
    assert pulled(content) == BODY
    assert content.read[0] == HELD


def test_a_client_that_leaves_ends_it() -> None:
    store, content = FakeStore(nonblocking=False), Arriving(HALF, silent=True)
    store.content = content

    async def ask(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"/v2/a/blobs/{digest(BODY)}") as answer:
            await anext(answer.aiter_raw(1000))

    def patient(wait: Callable[[], bool]) -> None:
        for _ in range(2000):
            if wait():
                return
            threading.Event().wait(0.01)

    content.silent = False
    asked(store, ask)
    patient(lambda: content.closed)
    assert content.closed
