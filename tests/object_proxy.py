"""A real HTTP proxy before a real object store, which does what networks and bad servers do.

It keeps signatures valid: Host goes through as it came, and where headers are dropped the request is signed anew.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from yarl import URL

from tests.buckets import ACCESS, SECRET

CONDITIONS = {"if-match", "if-none-match"}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding"}
RESET, LOST, TORN, BROKEN, SLOW, GATEWAY = "reset", "lost reply", "may_truncate body", "500", "503", "502"
CUT, REFUSED = "cut request", "501"
FAULTS = (RESET, LOST, TORN, BROKEN, SLOW, GATEWAY)
"""No answer, not done; no answer, but done; half of an answer; three errors, of which the last is no S3's. CUT: the
connection to the server ends in the middle of the request's body, and that to the client with it. REFUSED: for good."""

Choose = Callable[[web.Request], str]


def nothing(_: web.Request) -> str:
    return ""


def one_in(rate: int, seed: int, faults: tuple[str, ...] = FAULTS) -> Choose:
    dice = random.Random(seed)
    return lambda _: dice.choice(faults) if dice.randrange(rate) == 0 else ""


class Proxy:
    """On a port of its own, in a thread of its own. `conditions` False: If-Match and If-None-Match are lost; None: a
    PUT with one is refused (501). With `region`, it
    tells where the bucket is, as Amazon does. `expiry` False: a signed URL is good for ever."""

    def __init__(
        self, target: str, choose: Choose = nothing, *,
        conditions: bool | None = True, region: str | None = None, expiry: bool = True,
    ) -> None:  # fmt: skip
        self.target, self.choose, self.conditions, self.region = target, choose, conditions, region
        self.expiry = expiry
        self.faults: list[tuple[str, str]] = []
        self.port = 0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=False)
        await self._runner.setup()
        context = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512)
        await context.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        fault = self.choose(request)
        if fault:
            self.faults.append((request.method, fault))
        body = await request.read()
        conditional = any(name.lower() in CONDITIONS for name in request.headers)
        if self.conditions is None and conditional and request.method == "PUT":
            return _error(REFUSED)
        if fault == RESET:
            return _hang_up(request)
        if fault in (BROKEN, SLOW, GATEWAY, REFUSED):
            return _error(fault)
        if fault == CUT:
            await self._cut(request, body)
            return _hang_up(request)
        status, headers, answer = await self._forward(request, body)
        if fault == LOST or (fault == TORN and len(answer) < 2):
            return _hang_up(request)
        reply = web.StreamResponse(status=status, headers=headers)
        await reply.prepare(request)
        if fault == TORN:
            await reply.write(answer[: len(answer) // 2])
            return _hang_up(request)
        await reply.write(answer)
        await reply.write_eof()
        return reply

    async def _cut(self, request: web.Request, body: bytes) -> None:
        server = URL(self.target)
        _, writer = await asyncio.open_connection(server.host, server.port)
        lines = [f"{request.method} {request.raw_path} HTTP/1.1", *(f"{n}: {v}" for n, v in request.headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _forward(self, request: web.Request, body: bytes) -> tuple[int, Any, bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        path = request.raw_path.removeprefix(self.target)  # all of the URL is asked of a proxy
        url = URL(f"{self.target}{path}", encoded=True)
        if self.conditions is False and any(name.lower() in CONDITIONS for name in headers):
            headers = _signed(request, str(url), headers, body)
        if not self.expiry and "X-Amz-Signature" in url.query:
            url = url.with_query({name: text for name, text in url.query.items() if not name.startswith("X-Amz-")})
            headers = _signed(request, str(url), headers, body)
        async with self._session.request(
            request.method, url, headers=headers, data=body, skip_auto_headers=["User-Agent", "Content-Type"]
        ) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
            if self.region:
                kept.append(("x-amz-bucket-region", self.region))
            return answer.status, kept, await answer.read()


def _signed(request: web.Request, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """Without conditions; the signature covers the headers that are left, and the host as the client knows it."""
    kept = {name: value for name, value in headers.items() if name.lower() not in CONDITIONS}
    drop = {"authorization", "x-amz-date", "x-amz-content-sha256"}
    fresh = AWSRequest(request.method, url, {n: v for n, v in kept.items() if n.lower() not in drop}, data=body)
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(fresh)
    return dict(fresh.headers.items())


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _error(fault: str) -> web.Response:
    if fault == GATEWAY:
        return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
    code = {SLOW: "SlowDown", REFUSED: "NotImplemented"}.get(fault, "InternalError")
    return web.Response(
        status=int(fault), text=f"<Error><Code>{code}</Code><Message>says the test</Message></Error>",
        content_type="application/xml",
    )  # fmt: skip
