"""Parts that need no server."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.wire import Wire
from zotctl.config import Config, HttpConfig, MethodRate, RateLimit, RootConfig, StorageConfig
from zotctl.errors import (
    ConfigError,
    IoFailed,
    PermissionRefused,
    RangeInvalid,
    RangeUnsatisfiable,
    ReadOnlyStorage,
    RequestRefused,
    TooManyRanges,
    TooManyRequests,
    Unavailable,
    ZotctlError,
)
from zotctl.http import sockets, systemd, transfer, worker
from zotctl.http.answer import Answer, _date, _safe, fields_of
from zotctl.http.body import (
    ALL_BUFFERS_BYTES,
    BATCH_BYTES,
    LEAST_BUFFER_BYTES,
    SCRATCH_BYTES,
    SMALL_CHUNK_BYTES,
    Body,
    ChunkedBody,
    ClientGone,
    ReceiveBuffers,
    SizedBody,
)
from zotctl.http.conditions import names_etag, parse_content_range, parse_ranges
from zotctl.http.counters import StatusBoard
from zotctl.http.errors import Refused, malformed, render, render_bug
from zotctl.http.lists import PAGE_BYTES, Pages, _page_of, next_link
from zotctl.http.protocol import REQUESTS_AT_ONCE, Connection
from zotctl.http.ratelimit import Limits, SharedRates
from zotctl.http.request import KEPT_HEADS_BYTES, Request, _parsed
from zotctl.http.service import Service
from zotctl.http.supervisor import Supervisor
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import digest_of

SPECS = st.tuples(st.integers(0, 40) | st.none(), st.integers(0, 40) | st.none())
RANGES = st.lists(SPECS.map(lambda spec: "-".join("" if part is None else str(part) for part in spec)))


@given(st.text() | RANGES.map(lambda specs: f"bytes={','.join(specs)}"), st.integers(0, 1 << 62) | st.integers(0, 50))
def test_ranges_are_inside_and_apart_or_refused(value: str, size: int) -> None:
    try:
        found = parse_ranges(value, size)
    except (RangeUnsatisfiable, TooManyRanges):
        return
    if found is not None:
        end = -1
        for offset, count in sorted(found):
            assert end < offset < offset + count <= size
            end = offset + count
        assert sum(count for _, count in found) <= size


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_a_range_is_what_a_slice_is(first: int, last: int, size: int) -> None:
    data = bytes(number % 256 for number in range(size))
    if first <= last and first < size:
        ((offset, count),) = parse_ranges(f"bytes={first}-{last}", size) or [(0, size)]
        assert data[offset : offset + count] == data[first : last + 1]
    else:
        with pytest.raises(RangeUnsatisfiable):
            parse_ranges(f"bytes={first}-{last}", size)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("0-0,9-9", [(0, 1), (9, 1)]),
        ("9-9,0-0", [(9, 1), (0, 1)]),
        ("5-6, 0-1,\t7-8", [(5, 2), (0, 2), (7, 2)]),
        ("0-5,3-9", [(0, 10)]),
        ("0-,2-3", [(0, 10)]),
        ("-3,0-1", [(7, 3), (0, 2)]),
        ("-3,8-", [(7, 3)]),
        ("20-30,1-2", [(1, 2)]),
        ("1-2,,5-6,", [(1, 2), (5, 2)]),
        ("1-2,5-4", None),
        ("1-2,x", None),
        ("1-2,-", None),
        ("0" * 30 + "5-" + "0" * 30 + "6", [(5, 2)]),
        ("-" + "0" * 30 + "3", [(7, 3)]),
        ("9" * 30 + "-,1-" + "9" * 30, [(1, 9)]),
        ("9" * 5000 + "-,1-" + "9" * 5000, [(1, 9)]),  # Python converts no text of more than 4300 digits
        ("-" + "9" * 5000 + ",0-0", [(0, 10)]),
    ],
)
def test_several_ranges(value: str, parts: list[tuple[int, int]] | None) -> None:
    assert parse_ranges(f"bytes={value}", 10) == parts


def test_more_ranges_than_are_answered() -> None:
    for count in (64, 65):
        value = "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(count))
        if count == 64:
            assert len(parse_ranges(value, 1000) or []) == 64
        else:
            with pytest.raises(TooManyRanges):
                parse_ranges(value, 1000)
    assert parse_ranges("bytes=" + ",".join(f"{n}-{n + 1}" for n in range(1000)), 2000) == [(0, 1001)]
    with pytest.raises(RangeUnsatisfiable):
        parse_ranges("bytes=20-30,-0", 10)


@given(st.text())
def test_a_content_range_is_two_numbers_or_refused(value: str) -> None:
    try:
        first, last = parse_content_range(value)
    except RangeInvalid:
        return
    assert value.isascii()
    assert 0 <= first <= last


def test_a_content_range_may_be_of_one_byte() -> None:
    assert (parse_content_range("0-0"), parse_content_range("7-7"), parse_content_range("7-9")) == (
        (0, 0),
        (7, 7),
        (7, 9),
    )
    with pytest.raises(RangeInvalid):
        parse_content_range("8-7")


def test_entity_tags() -> None:
    assert names_etag('W/"a", "b"', '"b"')
    assert names_etag('W/"a"', '"a"')
    assert not names_etag('W/"a"', '"a"', weak=False)
    assert not names_etag("a", '"a"')
    assert names_etag(" * ", '"a"')


def waits(rates: SharedRates, count: int, method: str = "GET", client: str = "127.0.0.1") -> list[float]:
    return [rates.take(method, client) for _ in range(count)]


def test_a_rate() -> None:
    now = [0]
    rates = SharedRates(RateLimit(rate=2.0), lambda: now[0])
    assert waits(rates, 3) == [0.0, 0.0, 0.5]
    now[0] = 500_000_000
    assert waits(rates, 2) == [0.0, 0.5]
    now[0] = 100_000_000_000
    assert waits(rates, 3) == [0.0, 0.0, 0.5]


def test_a_rate_for_each_client() -> None:
    rates = SharedRates(RateLimit(rate=None, client_rate=1.0), lambda: 7)
    assert waits(rates, 2, client="10.0.0.1") == [0.0, 1.0]
    assert waits(rates, 2, client="10.0.0.2") == [0.0, 1.0]
    assert waits(rates, 1, client="2001:db8::1") == [0.0]
    assert waits(rates, 1, client="2001:db8::2") == [1.0], "a client chooses the second half of its address"
    assert waits(rates, 1, client="2001:db8:0:1::2") == [0.0]
    for number in range(20_000):
        rates.take("GET", f"10.1.{number >> 8}.{number & 255}")


def test_a_refused_request_is_counted_nowhere() -> None:
    rates = SharedRates(RateLimit(rate=2.0, methods=(MethodRate("PUT", 1.0),)), lambda: 0)
    assert waits(rates, 5, "PUT") == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert waits(rates, 2) == [0.0, 0.5]


def test_processes_share_a_rate() -> None:
    rates = SharedRates(RateLimit(rate=50.0), lambda: 0)
    read, write = os.pipe()
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            os.write(write, b"x" * waits(rates, 100).count(0.0))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    os.close(write)
    assert len(os.read(read, 1000)) == 50
    os.close(read)


def test_limits() -> None:
    def asked(method: str, path: str = "/v2/") -> Any:
        return SimpleNamespace(method=method, path=path, client="::1", admitted=False)

    limits = Limits(SharedRates(RateLimit(rate=None, methods=(MethodRate("PUT", 0.1),))))
    for _ in range(5):
        limits.take(asked("GET"))
    put = asked("PUT")
    for _ in range(3):
        limits.take(put)  # it is one request
    with pytest.raises(Refused) as caught:
        limits.take(asked("PUT"))
    limits.take(asked("PUT", "/livez"))
    assert isinstance(caught.value.error, TooManyRequests)
    answer = render(caught.value)
    assert answer.status == 429
    assert dict(answer.headers)["Retry-After"] == "10"


def test_a_client_that_waits_as_it_was_told_to_is_let_in() -> None:
    """Whole seconds, so that they are rounded up."""
    asked = SimpleNamespace(method="PUT", path="/v2/", client="::1", admitted=False)
    limits = Limits(SharedRates(RateLimit(rate=0.3), lambda: 7))
    limits.take(cast(Any, SimpleNamespace(**vars(asked))))
    with pytest.raises(Refused) as caught:
        limits.take(cast(Any, asked))
    assert dict(caught.value.headers)["Retry-After"] == "4"


def test_pages_forget_the_oldest() -> None:
    pages = Pages(limit_bytes=2500)
    pages.put("a", 1, b"x")
    assert pages.get("a", 1) == b"x"
    assert pages.get("a", 2) is None
    pages.put("b", 1, b"y")
    pages.get("a", 1)
    pages.put("c", 1, b"z")
    assert pages.get("b", 1) is None
    assert pages.get("a", 1) == b"x"
    pages.put("d", 1, b"x" * 5000)
    assert pages.get("d", 1) is None


def test_a_page_ends_by_count_or_by_bytes_and_is_never_empty() -> None:
    def of(size: int, seed: str) -> Descriptor:
        return Descriptor("application/x", str(digest_of(seed.encode())), 1, annotations={"a": "x" * size})

    small = sorted((of(1, str(n)) for n in range(4)), key=lambda one: one.digest)
    assert _page_of(small, "", 4) == (small, False)
    assert _page_of(small, "", 3) == (small[:3], True)
    assert _page_of(small, small[2].digest, 3) == (small[3:], False)
    large = sorted((of(PAGE_BYTES + 1, str(n)) for n in range(2)), key=lambda one: one.digest)
    assert _page_of(large, "", 10) == (large[:1], True)
    assert _page_of(large, large[0].digest, 10) == (large[1:], False)


def test_a_link() -> None:
    assert next_link("/v2/a/tags/list", n=1, last="a&b", x=None) == (
        "Link",
        '</v2/a/tags/list?n=1&last=a%26b>; rel="next"',
    )


@given(st.text())
def test_no_header_is_split(value: str) -> None:
    assert not {"\r", "\n", "\0"} & set(_safe(value))


def test_errors_with_odd_values() -> None:
    answer = render(ZotctlError("a lone \udcff surrogate", {"value": "\udcff"}))
    assert b"\\\\udcff" in answer.body
    answer = render(ZotctlError("x", {1j}))
    assert b'"detail":["1j"]' in answer.body  # what JSON has no form for goes as its text, the rest as it is
    assert b"abc-1" in render_bug("abc-1").body
    assert malformed(400, "x").close


def test_what_a_worker_reports() -> None:
    error = worker.failure(b'["ConfigError", "no such root"]')
    assert isinstance(error, ConfigError)
    assert error.message == "no such root"
    assert isinstance(worker.failure(b""), ZotctlError)


def test_a_board() -> None:
    board = StatusBoard(2)
    board.row(0).write(1, 2, 3)
    board.row(1).write(10, 20, 30)
    assert board.total() == (11, 22, 33)


def test_addresses() -> None:
    assert sockets.resolve("127.0.0.1", 0).is_loopback
    assert not sockets.resolve("", 0).is_loopback
    assert sockets.shown(sockets.ListenAddress(socket.AF_INET6, ("::1", 5000, 0, 0))) == "[::1]:5000"
    with pytest.raises(ConfigError):
        sockets.resolve("no.such.host.invalid", 0)
    with pytest.raises(ZotctlError):
        sockets.listen(sockets.ListenAddress(socket.AF_INET, ("192.0.2.1", 0)), 1)


def test_a_port_that_is_taken() -> None:
    first = sockets.listen(sockets.resolve("127.0.0.1", 0), 2)
    with pytest.raises(ZotctlError, match="in use"):
        sockets.listen(sockets.bound_to(first[0]), 2)
    more = sockets.again(sockets.bound_to(first[0]))
    for sock in (*first, more):
        sock.close()


def test_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        systemd.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"
        systemd.reloading()
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    systemd.notify("no one listens")
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("no one asked")
    assert systemd.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert systemd.watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert systemd.watchdog_interval() is None


@pytest.mark.parametrize("made", [lambda c: SizedBody(c, 10), ChunkedBody], ids=["sized", "chunked"])
def test_a_body_is_not_waited_for_when_the_client_was_gone_before(made: Callable[[Any], Body]) -> None:
    """The reader may begin after the connection was lost."""

    async def run() -> None:
        body = made(_Reading())
        body.fail(ClientGone("gone"))
        async with asyncio.timeout(5):
            with pytest.raises(ClientGone):
                await body.batch(1)

    asyncio.run(run())


class _Reading(SimpleNamespace):
    """The connection of a body that is fed by hand."""

    def __init__(self) -> None:
        super().__init__(buffers=ReceiveBuffers(), held=False, await_body=lambda: None, await_nothing=lambda: None)

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False


def test_the_bytes_of_a_batch_are_good_until_the_next_call_but_one() -> None:
    """While a thread stores a batch, the next one is received; a third waits in the kernel."""

    async def run() -> None:
        connection = _Reading()
        body = SizedBody(cast(Any, connection), 5 * BATCH_BYTES)

        def fill(byte: bytes) -> None:
            while not connection.held and body.arrived - body.received < BATCH_BYTES and not body.complete:
                space = body.space()
                space[:] = byte * len(space)
                body.filled(len(space))

        kept: list[bytes | bytearray | memoryview] = []
        for number in range(5):
            waiting = asyncio.create_task(body.batch(BATCH_BYTES))
            await asyncio.sleep(0)
            fill(b"%d" % number)
            kept += await waiting
            fill(b"%d" % (number + 1))
            assert [bytes(piece[:1]) for piece in kept[-2:]] == [b"%d" % n for n in (number - 1, number) if n >= 0]
        assert len({id(piece.obj) for piece in kept if isinstance(piece, memoryview)}) == 2, "two buffers a body"
        body.close(reuse=True)
        assert len({id(connection.buffers.take()) for _ in range(2)}) == 2

    asyncio.run(run())


@pytest.mark.parametrize("behind_the_head", [0, 1, SCRATCH_BYTES])
def test_of_many_clients_each_has_small_buffers(behind_the_head: int) -> None:
    """A thousand that push take two mebibytes each otherwise. A full buffer is a batch, whatever was asked for."""

    async def run() -> None:
        connection = _Reading()
        connection.buffers.lent = ALL_BUFFERS_BYTES  # by others
        assert len(connection.buffers.scratch) == LEAST_BUFFER_BYTES
        wanted = random.Random(behind_the_head).randbytes(BATCH_BYTES + 3)
        body, sent, got, sizes = SizedBody(cast(Any, connection), len(wanted)), behind_the_head, b"", list[int]()
        body.feed(wanted[:sent])
        while True:
            reading = asyncio.create_task(body.batch(BATCH_BYTES))
            await asyncio.sleep(0)
            while not reading.done() and not connection.held and not body.complete:
                space = body.space()
                sizes.append(len(space))
                space[:] = wanted[sent : sent + len(space)]
                sent += len(space)
                body.filled(len(space))
                await asyncio.sleep(0)
            pieces = await asyncio.wait_for(reading, 10)
            if not pieces:
                break
            got += b"".join(map(bytes, pieces))
        assert got == wanted and max(sizes) == LEAST_BUFFER_BYTES
        body.close(reuse=True)
        assert connection.buffers.lent == ALL_BUFFERS_BYTES, "all that was taken has been given back"

    asyncio.run(run())


def test_of_many_clients_that_send_chunks_each_has_little_waiting() -> None:
    """Docker pushes in chunks. The reader gets what waits, whatever it asked for."""

    async def run() -> None:
        connection = _Reading()
        connection.buffers.lent = ALL_BUFFERS_BYTES  # by others
        wanted, got = random.Random(1).randbytes(BATCH_BYTES + 3), b""
        body, rest = ChunkedBody(cast(Any, connection)), b"%x\r\n%s\r\n0\r\n\r\n" % (len(wanted), wanted)
        while True:
            reading = asyncio.create_task(body.batch(BATCH_BYTES))
            await asyncio.sleep(0)
            while not reading.done() and not connection.held and not body.complete:
                body.feed(rest[:LEAST_BUFFER_BYTES])
                rest = rest[LEAST_BUFFER_BYTES:]
                await asyncio.sleep(0)
            pieces = await asyncio.wait_for(reading, 10)
            assert sum(map(len, pieces)) < 2 * LEAST_BUFFER_BYTES
            if not pieces:
                break
            assert connection.buffers.lent > ALL_BUFFERS_BYTES
            got += b"".join(pieces)
        assert got == wanted
        body.close(reuse=True)
        assert connection.buffers.lent == ALL_BUFFERS_BYTES, "all that was taken has been given back"

    asyncio.run(run())


def test_chunks_that_wait_for_more_memory_are_received_on() -> None:
    """They were held when memory was scarce, and it is not any more."""

    async def run() -> None:
        connection = _Reading()
        connection.await_body = connection.go_on
        connection.buffers.lent = ALL_BUFFERS_BYTES
        body = ChunkedBody(cast(Any, connection))
        body.feed(b"%x\r\n" % BATCH_BYTES + bytes(LEAST_BUFFER_BYTES))
        assert connection.held
        connection.buffers.lent -= ALL_BUFFERS_BYTES
        reading = asyncio.create_task(body.batch(BATCH_BYTES))
        await asyncio.sleep(0)
        assert not connection.held and not reading.done()
        body.feed(bytes(BATCH_BYTES - LEAST_BUFFER_BYTES))
        assert sum(map(len, await reading)) == BATCH_BYTES

    asyncio.run(run())


def test_small_chunks_are_joined() -> None:
    """A million objects of two bytes take as much as fifty megabytes."""

    async def run() -> None:
        body = ChunkedBody(cast(Any, _Reading()))
        body.feed(b"".join(b"2\r\n%02d\r\n" % number for number in range(100)))
        large = b"x" * SMALL_CHUNK_BYTES
        body.feed(b"%x\r\n%s\r\n3\r\nabc\r\n3\r\ndef\r\n" % (len(large), large))
        before = b"".join(b"%02d" % number for number in range(100))
        assert await body.batch(len(large)) == [before, large, b"abcdef"]

    asyncio.run(run())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("end", ["close", "drop", "del"])
def test_what_a_body_has_is_given_back_whatever_becomes_of_its_task(chunked: bool, taken: bool, end: str) -> None:
    connection = _Reading()
    body = ChunkedBody(cast(Any, connection)) if chunked else SizedBody(cast(Any, connection), BATCH_BYTES)
    body.feed(b"3e8\r\n" + bytes(1000) if chunked else bytes(1000))
    assert connection.buffers.lent == (1000 if chunked else BATCH_BYTES)
    if taken:
        asyncio.run(body.batch(1000))
    if end != "del":
        body.close(reuse=True)
    if end == "drop":
        body.drop()
        body.feed(b"\r\n")
    del body
    gc.collect()  # a parser refers to its body
    assert connection.buffers.lent == 0


def test_few_clients_have_whole_buffers() -> None:
    buffers = ReceiveBuffers()
    taken = [buffers.take() for _ in range(200)]
    sizes = [len(one) for one in taken]
    assert sizes[:32] == [BATCH_BYTES] * 32 and sizes[33] == BATCH_BYTES // 4 and sizes[-1] == LEAST_BUFFER_BYTES
    assert buffers.again(taken[-1]) is taken[-1]
    taken[0] = buffers.again(taken[0])
    assert len(taken[0]) == LEAST_BUFFER_BYTES
    for one in taken:
        buffers.give(one, reuse=True)
    assert buffers.lent == 0 and len(buffers.take()) == BATCH_BYTES


def test_a_buffer_that_a_thread_may_still_use_is_not_used_again() -> None:
    async def run() -> None:
        connection = _Reading()
        body = SizedBody(cast(Any, connection), 2 * BATCH_BYTES)
        body.filled(len(body.space()))
        (piece,) = await body.batch(BATCH_BYTES)
        body.close(reuse=False)
        assert isinstance(piece, memoryview)
        assert connection.buffers.take() is not piece.obj

    asyncio.run(run())


@pytest.mark.parametrize("chunked", [False, True])
def test_what_came_before_a_client_left_is_kept(chunked: bool) -> None:
    """An upload goes on behind it."""

    async def run() -> None:
        body: Body = ChunkedBody(cast(Any, _Reading())) if chunked else SizedBody(cast(Any, _Reading()), 10)
        body.feed(b"3\r\nabc\r\n" if chunked else b"abc")
        body.fail(ClientGone("gone"))
        assert b"".join(map(bytes, await body.batch(10))) == b"abc"
        with pytest.raises(ClientGone):
            await body.batch(10)

    asyncio.run(run())


@pytest.mark.parametrize("chunked", [False, True])
def test_what_came_before_a_worker_stopped_is_kept(chunked: bool) -> None:
    async def run() -> None:
        body: Body = ChunkedBody(cast(Any, _Reading())) if chunked else SizedBody(cast(Any, _Reading()), 10)
        waiting = asyncio.create_task(body.batch(10))
        await asyncio.sleep(0)
        body.feed(b"3\r\nabc\r\n" if chunked else b"abc")
        waiting.cancel()
        assert b"".join(map(bytes, await waiting)) == b"abc"
        with pytest.raises(asyncio.CancelledError):
            await body.batch(10)

    asyncio.run(run())


def test_chunks_that_nobody_has_read_wait_in_the_kernel() -> None:
    async def run() -> None:
        connection = _Reading()
        body = ChunkedBody(cast(Any, connection))
        body.feed(b"%x\r\n" % (2 * BATCH_BYTES) + bytes(BATCH_BYTES - 1))
        assert not connection.held
        body.feed(bytes(1))
        assert connection.held
        await body.batch(BATCH_BYTES)
        assert not connection.held

    asyncio.run(run())


class _Unreadable(Answer):
    """A blob on a disk that reports errors, and whether its header is out already."""

    async def send(self, request: Any) -> None:
        raise IoFailed("read: Input/output error")


@pytest.mark.parametrize("sent", [False, True])
def test_a_blob_that_cannot_be_read_is_unavailable(sent: bool) -> None:
    written: list[Answer] = []

    async def remember(answer: Answer, request: Any) -> None:
        written.append(answer)

    def failed(request: Any, error: Exception) -> Answer:
        answer = render(cast(ZotctlError, error))
        answer.__class__ = type("Sent", (Answer,), {"__slots__": (), "send": remember})
        return answer

    answer = _Unreadable(200)
    answer.sent = sent
    service: Any = SimpleNamespace(_failed=failed)
    if sent:
        with pytest.raises(IoFailed):
            asyncio.run(Service._send(service, cast(Any, None), answer))
    else:
        got = asyncio.run(Service._send(service, cast(Any, None), answer))
        assert (got.status, got.error_code, written) == (503, "UNAVAILABLE", [got])


def test_memory_between_two_pieces_is_kept() -> None:
    """Each page that has to be made anew is a fault."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library keeps memory by its own rules")
    script = """
import resource, sys
from zotctl.http.worker import keep_pieces
if sys.argv[1] == "kept":
    keep_pieces()
def turn():
    pieces = [bytes(1 << 18) for _ in range(8)]
turn(); turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, check=True).stdout)

    assert faults("kept") < 1000 < faults("as it is")


@pytest.mark.parametrize(("clients", "piece"), [(0, 4), (1, 4), (4, 4), (5, 3), (8, 2), (16, 1), (1000, 1)])
def test_pieces_over_a_network_are_large_while_few_are_served(clients: int, piece: int) -> None:
    assert transfer._distant_piece(clients) >> 20 == piece


def test_a_piece_that_is_not_waited_for_any_more_may_fail() -> None:
    """The client is gone: the log has nothing to say of what else went wrong."""
    closed, told = list[bool](), list[object]()

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        reader = SimpleNamespace(close=lambda: closed.append(True))
        answer = transfer.BlobAnswer(200, [], cast(Any, reader), [(0, 1)])
        answer._reading = loop.create_future()
        answer._reading.set_exception(IoFailed("away"))
        answer._close()
        answer._reading = None

    asyncio.run(leave())
    assert closed == [True] and told == []


def test_heads_are_parsed_once_and_secrets_not_kept() -> None:
    def is_kept(head: str) -> bool:
        line, *fields = head.split("|")
        said = "".join(f"{line}\r\n" for line in (f"{line} HTTP/1.1", "Host: a", *fields, "")).encode()
        return _parsed(said)[0] is _parsed(said)[0]

    assert is_kept("GET /v2/ab/manifests/kept") and is_kept("HEAD /v2/ab/manifests/kept|User-Agent: x")
    for field in ("Authorization: Bearer x", "AUTHORIZATION: Basic x", "Cookie: x", "Proxy-Authorization: x"):
        assert not is_kept(f"GET /v2/ab/manifests/kept|{field}")
    assert not is_kept("PUT /v2/ab/blobs/uploads/x") and not is_kept(f"GET /{'x' * 1024}")


def test_heads_that_are_kept_take_the_memory_that_is_said() -> None:
    """Also those of a client that sends many short fields."""
    names = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrstu"]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(400):
            fields = "".join(f"{name}{number % 7}:{number}\r\n" for name in names)
            _parsed(f"GET /{number} HTTP/1.1\r\nhost:x\r\n{fields}\r\n".encode())
        assert tracemalloc.get_traced_memory()[0] - before < 2 * KEPT_HEADS_BYTES
    finally:
        tracemalloc.stop()


def test_nothing_is_answered_on_a_socket_that_has_failed() -> None:
    """asyncio says that the connection is lost in a later turn, and writing raises until then."""

    class Failing(Wire):
        def answer_now(self, request: Request) -> bool:
            request.connection.write(b"the answer")
            self.closed = True
            return super().answer_now(request)

    async def feed() -> int:
        wire, data = Failing(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3
        connection = Connection(cast(Service, wire))
        connection.connection_made(wire)
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))
        return len(wire.seen.requests)

    assert asyncio.run(feed()) == 1


def test_what_is_refused_for_good_is_not_to_be_asked_again() -> None:
    for kind, status in ((RequestRefused, 500), (PermissionRefused, 503), (ReadOnlyStorage, 503)):
        answer = render(kind("s3://bucket/x: no"))
        assert answer.status == status
        assert "Retry-After" not in dict(answer.headers)
        assert b"again" not in answer.body and b"bucket" not in answer.body
    assert dict(render(Unavailable("s3://bucket/x: no")).headers)["Retry-After"]


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::ffff:1", "2001:db8::ffff:1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_clients_of_a_socket_for_both_families_have_their_own_address(peer: str, client: str) -> None:
    """Mapped addresses have one /64 in common, so that all IPv4 clients shared a limit."""

    async def connect() -> str:
        wire = Wire()
        wire.get_extra_info = lambda name, default=None: (peer, 1, 0, 0) if name == "peername" else default  # type: ignore[method-assign]
        connection = Connection(cast(Service, wire))
        connection.connection_made(wire)
        return connection.client

    assert asyncio.run(connect()) == client


def test_a_reload_names_what_needs_a_restart_each_time(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    config = Config(storage=StorageConfig(roots=(RootConfig(path=str(tmp_path)),)), http=HttpConfig(port=0, workers=1))
    (sock,) = sockets.listen(sockets.resolve("127.0.0.1", 0), 1)
    with sock:
        running = Supervisor(config, [sock], lambda: None, lambda config: config)
        for _ in range(2):
            caplog.clear()
            running._take(replace(config, http=replace(config.http, workers=3, rate_limit=RateLimit(rate=1.0))))
            assert [record.message for record in caplog.records] == [
                "http.workers stays 1 until a restart, which makes it 3"
            ]
        assert running.rates is not None and running.rates.take("GET", "192.0.2.1") == 0.0
        assert running.rates.take("GET", "192.0.2.1") > 0.0, "what has no such line is in force"
        caplog.clear()
        running._take(config)
        assert caplog.records == [] and running.rates is None


def test_requests_that_were_sent_ahead_let_other_connections_have_their_turn() -> None:
    async def run() -> None:
        wire = Wire()
        connection = Connection(cast(Service, wire))
        connection.connection_made(wire)
        sent = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (3 * REQUESTS_AT_ONCE)
        connection.get_buffer(-1)[: len(sent)] = sent
        connection.buffer_updated(len(sent))
        for turn in range(1, 4):
            assert len(wire.seen.requests) == turn * REQUESTS_AT_ONCE
            await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("second", [0, 951_782_400, 1_893_455_999, 4_102_444_800])
def test_a_date_is_written_as_http_wants_it(second: int) -> None:
    assert _date(second) == formatdate(second, usegmt=True)


def test_a_value_ends_no_header_line() -> None:
    assert fields_of([("Location", "/a\r\nSet-Cookie: b\0")], "a/b\n") == (
        b"Location: /a??Set-Cookie: b?\r\nContent-Type: a/b?\r\n"
    )
