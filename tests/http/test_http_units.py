"""Parts that need no server."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.config import MethodRate, RateLimit
from zotctl.errors import (
    ConfigError,
    IoFailed,
    PermissionRefused,
    RangeInvalid,
    RangeUnsatisfiable,
    ReadOnlyStorage,
    RequestRefused,
    TooManyRequests,
    Unavailable,
    ZotctlError,
)
from zotctl.http import sockets, systemd, transfer, worker
from zotctl.http.answer import Answer, _safe
from zotctl.http.body import Body, ClientGone
from zotctl.http.errors import Refused, malformed, render, render_bug
from zotctl.http.pages import Pages, next_link
from zotctl.http.ranges import names_etag, parse_content_range, parse_range
from zotctl.http.ratelimit import Bucket, Limits
from zotctl.http.service import Service
from zotctl.http.status import StatusBoard


@given(st.text(), st.integers(0, 1 << 62))
def test_a_range_is_inside_or_refused(value: str, size: int) -> None:
    try:
        found = parse_range(value, size)
    except RangeUnsatisfiable:
        return
    if found is not None:
        offset, count = found
        assert 0 <= offset < offset + count <= size


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_a_range_is_what_a_slice_is(first: int, last: int, size: int) -> None:
    data = bytes(size % 256 for _ in range(size))
    if first <= last and first < size:
        offset, count = parse_range(f"bytes={first}-{last}", size) or (0, size)
        assert data[offset : offset + count] == data[first : last + 1]
    else:
        with pytest.raises(RangeUnsatisfiable):
            parse_range(f"bytes={first}-{last}", size)


@given(st.text())
def test_a_content_range_is_two_numbers_or_refused(value: str) -> None:
    try:
        first, last = parse_content_range(value)
    except RangeInvalid:
        return
    assert value.isascii()
    assert 0 <= first <= last


def test_entity_tags() -> None:
    assert names_etag('W/"a", "b"', '"b"')
    assert names_etag('W/"a"', '"a"')
    assert not names_etag('W/"a"', '"a"', weak=False)
    assert not names_etag("a", '"a"')
    assert names_etag(" * ", '"a"')


def test_a_bucket() -> None:
    now = [0.0]
    bucket = Bucket(2.0, lambda: now[0])
    assert [bucket.take(), bucket.take(), bucket.take()] == [0.0, 0.0, 0.5]
    now[0] = 0.5
    assert [bucket.take(), bucket.take()] == [0.0, 0.5]
    now[0] = 100.0
    assert [bucket.take(), bucket.take(), bucket.take()] == [0.0, 0.0, 0.5]


def test_limits() -> None:
    limits = Limits(RateLimit(rate=None, methods=(MethodRate("PUT", 0.1),)))
    for _ in range(5):
        limits.take("GET")
    limits.take("PUT")
    with pytest.raises(Refused) as caught:
        limits.take("PUT")
    assert isinstance(caught.value.error, TooManyRequests)
    answer = render(caught.value)
    assert answer.status == 429
    assert dict(answer.headers)["Retry-After"] == "10"


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
    systemd.notify("nobody listens")
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("nobody asked")
    assert systemd.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert systemd.watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert systemd.watchdog_interval() is None


def test_a_body_is_not_waited_for_when_the_client_was_gone_before() -> None:
    """A pipelined request may begin after its connection was lost, and aiohttp tells only the current one."""

    async def run() -> None:
        payload = SimpleNamespace(is_eof=lambda: False, at_eof=lambda: False, readchunk=asyncio.Event().wait)
        request: Any = SimpleNamespace(payload=payload, connection=SimpleNamespace(transport=None))
        async with asyncio.timeout(5):
            with pytest.raises(ClientGone):
                await Body(request).batch(1)

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
from zotctl.http.allocator import keep_pieces
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


def test_a_piece_that_nobody_waits_for_any_more_may_fail() -> None:
    """The client is gone: the log has nothing to say of what else went wrong."""
    closed, told = list[bool](), list[object]()

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        reader = SimpleNamespace(close=lambda: closed.append(True))
        answer = transfer.BlobAnswer(200, [], cast(Any, reader), 0, 1)
        answer._reading = loop.create_future()
        answer._reading.set_exception(IoFailed("away"))
        answer._close()
        answer._reading = None

    asyncio.run(leave())
    assert closed == [True] and told == []


def test_what_is_refused_for_good_is_not_to_be_asked_again() -> None:
    for kind, status in ((RequestRefused, 500), (PermissionRefused, 503), (ReadOnlyStorage, 503)):
        answer = render(kind("s3://bucket/x: no"))
        assert answer.status == status
        assert "Retry-After" not in dict(answer.headers)
        assert b"again" not in answer.body and b"bucket" not in answer.body
    assert dict(render(Unavailable("s3://bucket/x: no")).headers)["Retry-After"]
