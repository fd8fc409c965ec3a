"""Clients that are malformed, slow, or gone."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.http.serving import Raw, Server, digest, push_blob, until

MANY = 200


def is_oci_error(body: bytes) -> bool:
    return body.startswith(b'{"errors":[{"code":"') and b"Traceback" not in body


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with server.connect() as made:
        yield made


# -- what is not HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: a b/c@d\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x:y\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.0\r\nHost: <x>\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /v2/\xff/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v2/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500 + b"\r\n", 400),
    ],
    ids=range(16),
)
def test_malformed(raw: Raw, data: bytes, status: int) -> None:
    got, headers, body = raw.send(data).answer()
    assert (got, headers["connection"]) == (status, "close")
    assert is_oci_error(body)
    assert raw.rest() == b""


@pytest.mark.parametrize(
    "host", ["x", "x:5000", "X.example.:", "127.0.0.1:1", "[::1]:5000", "[fe80::1%25eth0]", "my_host", "", "a%2Fb"]
)
def test_hosts(raw: Raw, host: str) -> None:
    assert raw.send(f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).answer()[0] == 200


@pytest.mark.parametrize("method", [b"FOO", b"get", b"PUTT", b"BREW-COFFEE", b"X" * 64])
def test_an_unknown_method_is_not_implemented(raw: Raw, method: bytes) -> None:
    """RFC 9110, section 9.1; the parser knows many, which are 405 on each path."""
    status, headers, body = raw.send(method + b" /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    assert (status, headers["connection"]) == (501, "close")
    assert b'"code":"UNSUPPORTED"' in body
    assert method in body
    assert raw.rest() == b""


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "LINK", "CONNECT"])
def test_a_method_of_others_is_not_allowed(raw: Raw, method: str) -> None:
    status, headers, body = raw.head(method, "/v2/a/manifests/x").answer()
    assert (status, headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")
    assert b'"code":"UNSUPPORTED"' in body


@pytest.mark.parametrize("zeros", [20, 4400, 8000])
def test_a_length_of_many_zeros(raw: Raw, zeros: int) -> None:
    """RFC 9110, section 8.6: 1*DIGIT, and Python's `int` refuses more than 4300 of them."""
    raw.head("PUT", "/v2/a/manifests/x", f"Content-Length: {'0' * zeros}2").send(b"{}")
    status, _, body = raw.answer()
    assert (status, is_oci_error(body)) == (400, True)
    assert raw.head("GET", "/v2/").answer()[0] == 200


def test_two_lengths_are_answered_once(raw: Raw) -> None:
    """RFC 9112, section 6.1: what follows could be read as another request."""
    raw.head("POST", "/v2/a/blobs/uploads/", "Content-Length: 4", "Transfer-Encoding: chunked")
    raw.send(b"0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    everything = raw.rest()
    assert everything.startswith(b"HTTP/1.1 400 ")
    assert everything.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("chunk", [b"zz\r\nabc\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"ffffffffffffffffff\r\n"])
def test_malformed_chunks(raw: Raw, chunk: bytes) -> None:
    raw.head("POST", f"/v2/a/blobs/uploads/?digest={digest(b'abc')}", "Transfer-Encoding: chunked")
    raw.send(b"3\r\nabc\r\n").taken()
    raw.send(chunk).half_close()
    status, _, body = raw.answer()
    assert status == 400
    assert is_oci_error(body)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcd\r\n", b"1\na\n"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v2/a/manifests/x", 400),
        ("PATCH", "/v2/a/blobs/uploads/x", 404),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest(b'abc')}", 400),
        ("GET", "/v2/", 200),
        ("GET", "/nowhere", 404),
    ],
)
def test_malformed_chunks_in_one_piece_with_the_head(
    raw: Raw, server: Server, method: str, path: str, status: int, chunk: bytes
) -> None:
    """The body is refused before there is a task for the request, whose answer is sent nevertheless."""
    raw.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunk)
    answer = raw.rest()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    assert "a bug" not in server.log()


@pytest.mark.parametrize("path", ["/v2/../../etc/passwd", "/v2/a/../b/tags/list", "//v2/", "/v2/./tags/list"])
def test_dots(raw: Raw, path: str) -> None:
    status, _, body = raw.head("GET", path).answer()
    assert status in (400, 404)
    assert is_oci_error(body)


@pytest.mark.parametrize("name", ["..", ".zotctl", "a\x7f", "%00", "%c0%ae", "a?b"])
def test_uploads_outside(raw: Raw, name: str, server: Server) -> None:
    raw.head("PUT", f"/v2/a/blobs/uploads/{name}?digest={digest(b'')}", "Content-Length: 0")
    status, _, body = raw.answer()
    assert status in (400, 404)
    assert is_oci_error(body)


def test_other_forms_of_target(raw: Raw) -> None:
    assert raw.head("GET", "http://elsewhere:1/v2/").answer()[0] == 200
    assert raw.head("OPTIONS", "*").answer()[0] == 404
    status, _, body = raw.head("CONNECT", "elsewhere:1").answer()
    assert (status, is_oci_error(body)) == (404, True)
    assert raw.rest() == b""


def test_an_upgrade_is_declined(raw: Raw) -> None:
    raw.head("GET", "/v2/", "Connection: Upgrade", "Upgrade: websocket")
    assert raw.answer()[0] == 200
    assert raw.head("GET", "/livez").answer()[0] == 200


def test_what_follows_an_upgrade_ends_with_the_connection(raw: Raw) -> None:
    """The end came before the body behind it was looked at: nothing waits for the rest."""
    raw.head("GET", "/v2/", "Connection: Upgrade", "Upgrade: websocket")
    raw.head("PUT", "/v2/a/manifests/x", "Content-Length: 50").send(b"{}").half_close()
    assert [part[:4] for part in raw.rest().split(b"HTTP/1.1 ")] == [b"", b"200 ", b"400 "]


# -- connections ---------------------------------------------------------------------------------


def test_pipelining(raw: Raw) -> None:
    raw.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * MANY).half_close()
    assert raw.rest().count(b"HTTP/1.1 200 OK") == MANY


def test_pipelining_keeps_the_order(raw: Raw) -> None:
    """Answers that take a thread must not be overtaken by those that don't."""
    for path in ("/v2/_catalog", "/livez", "/v2/no/manifests/x", "/v2/_catalog?n=0", "/v2/"):
        raw.head("GET", path)
    raw.half_close()
    statuses = [part.split(b" ")[1] for part in raw.rest().split(b"HTTP/1.1")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200", b"200"]


@pytest.mark.parametrize(
    ("request_line", "closes"),
    [
        (b"GET /v2/ HTTP/1.0\r\n\r\n", True),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
        (b"GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", False),
    ],
    ids=range(4),
)
def test_keep_alive(raw: Raw, request_line: bytes, closes: bool) -> None:
    assert raw.send(request_line).answer()[0] == 200
    if closes:
        assert raw.rest() == b""
    else:
        assert raw.send(request_line).answer()[0] == 200


def test_half_closed_after_the_request(raw: Raw) -> None:
    body = b"all of it"
    path = f"/v2/a/blobs/uploads/?digest={digest(body)}"
    raw.head("POST", path, f"Content-Length: {len(body)}").send(body).half_close()
    assert raw.answer()[0] == 201
    assert raw.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"short", b"x" * 200_000])
def test_a_body_that_ends_early(raw: Raw, sent: bytes) -> None:
    path = f"/v2/a/blobs/uploads/?digest={digest(b'x')}"
    raw.head("POST", path, "Content-Length: 300000").send(sent).half_close()
    status, _, body = raw.answer()
    assert status == 400
    assert b"SIZE_INVALID" in body


@pytest.mark.parametrize(
    ("header", "sent", "more"),
    [
        ("Content-Length: 300000", b"short", b""),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n", b"zzz\r\n"),
    ],
    ids=["breaks off", "malformed"],
)
def test_a_body_that_ends_after_the_answer(raw: Raw, server: Server, header: str, sent: bytes, more: bytes) -> None:
    raw.head("PUT", "/v2/a/manifests/-bad-", header).send(sent)
    assert raw.answer()[0] == 400
    raw.send(more).half_close()
    assert raw.rest() == b""
    assert "Unhandled exception" not in server.log()


# -- Expect --------------------------------------------------------------------------------------


def test_continue(raw: Raw) -> None:
    body = os.urandom(100_000)
    path = f"/v2/a/blobs/uploads/?digest={digest(body)}"
    raw.head("POST", path, f"Content-Length: {len(body)}", "Expect: 100-continue")
    assert raw.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert raw.send(body).answer()[0] == 201
    assert raw.head("GET", "/v2/").answer()[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v2/a/manifests/x", 413),
        ("PUT", "/v2/a/blobs/uploads/6ba7b810-9dad-11d1-80b4-00c04fd430c8?digest=" + digest(b""), 404),
        ("PATCH", "/v2/a/blobs/uploads/6ba7b810-9dad-11d1-80b4-00c04fd430c8", 404),
        ("PUT", "/v2/A/manifests/x", 400),
        ("POST", "/v2/a/tags/list", 405),
    ],
)
def test_refused_before_the_body(raw: Raw, method: str, path: str, status: int) -> None:
    raw.head(method, path, "Content-Length: 9999999", "Expect: 100-continue")
    got, headers, body = raw.answer()
    assert (got, headers["connection"]) == (status, "close")
    assert is_oci_error(body)
    assert raw.rest() == b""


def test_an_unknown_expectation(raw: Raw) -> None:
    raw.head("POST", "/v2/a/blobs/uploads/", "Content-Length: 3", "Expect: a miracle")
    status, _, body = raw.answer()
    assert status == 417
    assert is_oci_error(body)


def test_a_large_rest_closes_the_connection(raw: Raw) -> None:
    body = b"x" * 3_000_000
    raw.head("POST", "/v2/A/blobs/uploads/", f"Content-Length: {len(body)}").send(body)
    status, headers, _ = raw.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert raw.rest() == b""


def test_a_small_rest_keeps_the_connection(raw: Raw) -> None:
    raw.head("POST", "/v2/A/blobs/uploads/", "Content-Length: 100000").send(b"x" * 100_000)
    status, headers, _ = raw.answer()
    assert (status, "connection" in headers) == (400, False)
    assert raw.head("GET", "/v2/").answer()[0] == 200


# -- clients that vanish -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 100_000, 3_500_000])
@pytest.mark.parametrize("reset", [False, True])
def test_an_upload_goes_on_where_a_client_vanished(
    server: Server, client: httpx.Client, size: int, reset: bool
) -> None:
    body = os.urandom(4_000_000)
    location = client.post("/v2/resume/blobs/uploads/").headers["location"]
    with server.connect() as raw:
        raw.head("PATCH", location, f"Content-Length: {len(body)}").send(body[:size]).taken()
        if reset:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def go_on() -> bool:
        """It is ours once the other request is over. Until then it is a conflict, or more of it comes in
        after we asked how far it is: ask again."""
        offset = _offset(client, location)
        assert 0 <= offset <= size
        headers = {"Content-Range": f"{offset}-{len(body) - 1}"}
        answer = client.patch(location, content=body[offset:], headers=headers)
        assert answer.status_code in (202, 409, 416), answer.text
        return answer.status_code == 202

    until(go_on)
    answer = client.put(location, params={"digest": digest(body)})
    assert answer.status_code == 201


def _offset(client: httpx.Client, location: str) -> int:
    answer = client.get(location)
    assert answer.status_code == 204
    end = int(answer.headers["range"].removeprefix("0-"))
    return end + 1 if end else 0


def test_a_single_post_that_vanishes_leaves_nothing(server: Server, client: httpx.Client) -> None:
    uploads = server.root / ".zotctl" / "uploads"
    before = set(os.listdir(uploads)) if uploads.exists() else set()
    with server.connect() as raw:
        path = f"/v2/vanish/blobs/uploads/?digest={digest(b'x')}"
        raw.head("POST", path, "Content-Length: 5000000").send(b"x" * 2_000_000)
        until(lambda: set(os.listdir(uploads)) - before)
    until(lambda: set(os.listdir(uploads)) == before)
    assert client.get("/v2/").status_code == 200


def test_a_reader_that_vanishes(server: Server, client: httpx.Client) -> None:
    made = push_blob(client, "vanish", os.urandom(8_000_000))
    for _ in range(5):
        with server.connect() as raw:
            raw.head("GET", f"/v2/vanish/blobs/{made}")
            raw.socket.recv(1000)
    assert len(client.get(f"/v2/vanish/blobs/{made}").content) == 8_000_000


# -- deadlines -----------------------------------------------------------------------------------


def test_a_slow_header(hasty: Server) -> None:
    with hasty.connect() as raw:
        raw.send(b"GET /v2/ HTTP/1.1\r\nHost: ")
        with suppress(ConnectionError):
            while not select.select([raw], [], [], 0.2)[0]:
                raw.send(b"x")
        status, _, body = raw.answer()
        assert (status, is_oci_error(body)) == (408, True)
        assert raw.rest() == b""


def test_a_silent_connection(hasty: Server) -> None:
    with hasty.connect() as raw:
        assert raw.rest() == b""


@pytest.mark.parametrize("sent", [0, 5, 200_000])
def test_a_body_that_stands_still(hasty: Server, sent: int) -> None:
    with hasty.connect() as raw:
        path = f"/v2/still/blobs/uploads/?digest={digest(b'x')}"
        raw.head("POST", path, "Content-Length: 300000").send(b"x" * sent)
        status, headers, body = raw.answer()
        assert (status, headers["connection"], is_oci_error(body)) == (408, "close", True)
        assert raw.rest() == b""


def test_a_reader_that_stands_still(hasty: Server) -> None:
    size = 50_000_000
    with hasty.client() as client:
        made = push_blob(client, "stall", os.urandom(size))
    with hasty.connect() as still:
        still.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        still.head("GET", f"/v2/stall/blobs/{made}")
        here, there = still.socket.getsockname()[1], hasty.port
        until(lambda: (there, here) not in _connections())
        assert len(still.rest()) < size


def test_i13_a_client_that_asks_and_never_reads(hasty: Server) -> None:
    """Answers wait in the socket's buffer, requests in the kernel, and the connection is cut."""
    (worker,) = hasty.workers()
    before = _resident(worker)
    with hasty.connect() as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.socket.settimeout(90)
        ask = b"GET /v2/none/tags/list HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        sent = 0
        with pytest.raises(OSError) as caught:
            while sent < 500_000_000:
                sent += raw.socket.send(ask)
        assert not isinstance(caught.value, TimeoutError)
    assert _resident(worker) - before < 20_000_000


def test_the_kernel_gives_up_on_answers_that_nobody_takes(hasty: Server) -> None:
    """They fit into the socket's buffer, so the server closed it and left them to the kernel."""
    with socket.socket() as asks:
        asks.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asks.connect(("127.0.0.1", hasty.port))
        asks.sendall(b"GET /v2/none/tags/list HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        place = asks.getsockname()
        until(lambda: (hasty.port, place[1]) not in _connections(), seconds=40)


def _connections() -> set[tuple[int, int]]:
    """The ports of all that are open in the kernel, by IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(int(row[1].rpartition(":")[2], 16), int(row[2].rpartition(":")[2], 16)) for row in rows}


def test_i13_stalled_readers_take_no_memory(server: Server, client: httpx.Client) -> None:
    made = push_blob(client, "stall", os.urandom(64_000_000))
    (worker,) = server.workers()
    before = _resident(worker)
    readers = [server.connect().head("GET", f"/v2/stall/blobs/{made}") for _ in range(16)]
    time.sleep(1)
    assert _resident(worker) - before < 20_000_000
    assert client.get("/v2/").status_code == 200
    for reader in readers:
        reader.close()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_i13_an_upload_takes_no_memory(server: Server, client: httpx.Client) -> None:
    body = os.urandom(64_000_000)
    (worker,) = server.workers()
    before = _resident(worker)
    push_blob(client, "large", body)
    assert _resident(worker) - before < 20_000_000
