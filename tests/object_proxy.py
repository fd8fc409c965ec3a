"""A real HTTP proxy before a real object store, which does what networks and bad servers do.

It keeps signatures valid: Host goes through as it came, and where headers are dropped the request is signed anew.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from tests.buckets import ACCESS, SECRET

CONDITIONS = {"if-match", "if-none-match"}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "expect"}
RESET, LOST, TORN, BROKEN, SLOW, GATEWAY = "reset", "lost reply", "truncated body", "500", "503", "502"
CUT, REFUSED = "cut request", "501"
LATE, TWICE, INNER = "late reply", "done twice", "error in a 200"
FAULTS = (RESET, LOST, TORN, BROKEN, SLOW, GATEWAY)
"""No answer, not done; no answer, but done; half of an answer; three errors, of which the last is no S3's. CUT: the
connection to the server ends in the middle of the request's body, and that to the client with it. REFUSED: for good."""
ALL_FAULTS = (*FAULTS, LATE, TWICE, INNER)
"""And: answered seconds after it was done; sent to the server twice, as by a proxy that repeats, so that the second
answer comes to the client; a copy or a Complete that is answered by an error with a status of 200, done or not."""
LATE_S = (2.0, 8.0, 31.0)

Choose = Callable[["ProxiedRequest"], str]


class ProxiedRequest:
    """What a client asked. `raw_path` as it was sent, `path` decoded and without the query."""

    def __init__(self, method: str, raw_path: str, headers: Message) -> None:
        self.method, self.raw_path, self.headers = method, raw_path, headers
        path, _, query = raw_path.partition("?")
        self.path, self.query = unquote(path), dict(parse_qsl(query, keep_blank_values=True))

    @property
    def may_fail_in_a_200(self) -> bool:
        """Is it a copy or a Complete?"""
        return "x-amz-copy-source" in self.headers or (self.method == "POST" and "uploadId" in self.query)


def nothing(_: ProxiedRequest) -> str:
    return ""


def one_in(rate: int, seed: int, faults: tuple[str, ...] = FAULTS) -> Choose:
    dice = random.Random(seed)
    return lambda _: dice.choice(faults) if dice.randrange(rate) == 0 else ""


class Proxy:
    """On a port of its own, in threads of its own. `conditions` False: If-Match and If-None-Match are lost; None: a
    PUT with one is refused (501). With `region`, it
    tells where the bucket is, as Amazon does. `expiry` False: a signed URL is good for ever."""

    def __init__(
        self, target: str, choose: Choose = nothing, *,
        conditions: bool | None = True, region: str | None = None, expiry: bool = True, host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self.target, self.choose, self.conditions, self.region = target, choose, conditions, region
        self.expiry = expiry
        self.faults: list[tuple[str, str]] = []
        self.choosing = threading.Lock()
        self._server = _Server((host, 0), type("_Bound", (_Handler,), {"proxy": self}))
        self.host, self.port = host, self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or a server that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None: ...

    def _pass(self) -> None:
        proxy, request = self.proxy, ProxiedRequest(self.command, self.path, self.headers)
        with proxy.choosing:
            fault = proxy.choose(request)
            if fault:
                proxy.faults.append((request.method, fault))
        body = self._body()
        conditional = any(name.lower() in CONDITIONS for name in request.headers)
        if proxy.conditions is None and conditional and request.method == "PUT":
            return self._error(REFUSED)
        if fault == RESET:
            return self._hang_up()
        if fault in (BROKEN, SLOW, GATEWAY, REFUSED):
            return self._error(fault)
        if fault == CUT:
            self._cut(request, body)
            return self._hang_up()
        if fault == INNER and request.may_fail_in_a_200:
            if random.random() < 0.5:
                self._forward(request, body)
            return self._error("200")
        if fault == TWICE:
            self._forward(request, body)
        status, headers, answer = self._forward(request, body)
        if fault == LATE:
            time.sleep(random.choice(LATE_S))
        if fault == LOST or (fault == TORN and len(answer) < 2):
            return self._hang_up()
        self._reply(status, headers, answer[: len(answer) // 2] if fault == TORN else answer)
        if fault == TORN:
            self._hang_up()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _error(self, fault: str) -> None:
        code = {SLOW: "SlowDown", REFUSED: "NotImplemented"}.get(fault, "InternalError")
        text = f"<Error><Code>{code}</Code><Message>says the test</Message></Error>".encode()
        kind = "application/xml"
        if fault == GATEWAY:
            text, kind = b"<html>Bad Gateway</html>", "text/html"
        self._reply(int(fault), [("Content-Type", kind), ("Content-Length", str(len(text)))], text)

    def _cut(self, request: ProxiedRequest, body: bytes) -> None:
        server = urlsplit(self.proxy.target)
        lines = [f"{request.method} {request.raw_path} HTTP/1.1", *(f"{n}: {v}" for n, v in request.headers.items())]
        with socket.create_connection((server.hostname, server.port)) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])

    def _forward(self, request: ProxiedRequest, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy = self.proxy
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        url = proxy.target + request.raw_path.removeprefix(proxy.target)  # all of the URL is asked of a proxy
        if proxy.conditions is False and any(name.lower() in CONDITIONS for name in headers):
            headers = _signed(request, url, headers, body)
        if not proxy.expiry and "X-Amz-Signature" in request.query:
            kept = {name: text for name, text in request.query.items() if not name.startswith("X-Amz-")}
            url = url.partition("?")[0] + (f"?{urlencode(kept)}" if kept else "")
            headers = _signed(request, url, headers, body)
        server = http.client.HTTPConnection(urlsplit(proxy.target).netloc)
        try:
            server.putrequest(request.method, url.removeprefix(proxy.target), skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                server.putheader(name, value)
            if "content-length" not in {name.lower() for name in headers} and (
                body or request.method in ("PUT", "POST")
            ):
                server.putheader("Content-Length", str(len(body)))
            server.endheaders(body or None)
            answer = server.getresponse()
            content = answer.read()
        finally:
            server.close()
        told = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
        if answer.headers.get("Content-Length") is None and answer.status not in (204, 304):
            told.append(("Content-Length", str(len(content))))
        if proxy.region:
            told.append(("x-amz-bucket-region", proxy.region))
        return answer.status, told, content


def _signed(request: ProxiedRequest, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """Without conditions; the signature covers the headers that are left, and the host as the client knows it."""
    kept = {name: value for name, value in headers.items() if name.lower() not in CONDITIONS}
    drop = {"authorization", "x-amz-date", "x-amz-content-sha256"}
    fresh = AWSRequest(request.method, url, {n: v for n, v in kept.items() if n.lower() not in drop}, data=body)
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(fresh)
    return dict(fresh.headers.items())
