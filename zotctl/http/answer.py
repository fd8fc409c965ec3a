"""Responses, written by hand: one write to the socket for what is small.

An answer takes the place of aiohttp's response class, which spends more time on headers than a registry
spends on finding a manifest. aiohttp calls `prepare` and `write_eof`, and asks for `keep_alive`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from zotctl.http.request import Request

Headers = Iterable[tuple[str, str]]

JSON = "application/json"
JOINED = 65536
"""Bodies up to this many bytes are copied behind their headers and leave in one system call."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


class Answer:
    """A response with its body in memory. `length` is Content-Length where that is not the body's own."""

    __slots__ = (
        "body",
        "bytes_out",
        "close",
        "content_type",
        "error_code",
        "headers",
        "length",
        "sent",
        "status",
    )

    def __init__(
        self,
        status: int,
        headers: Headers = (),
        body: bytes = b"",
        *,
        content_type: str = "",
        length: int | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.content_type = content_type
        self.length = len(body) if length is None else length
        self.close = False
        self.sent = False
        self.bytes_out = 0
        self.error_code: str | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may take another request; aiohttp reads it."""
        return not self.close

    async def prepare(self, request: Request) -> None:
        """aiohttp's hook. Does nothing once the answer is sent."""
        if not self.sent:
            await self.send(request)

    async def write_eof(self) -> None:
        """aiohttp's hook; `send` has written everything."""

    async def send(self, request: Request) -> None:
        """Write it and wait until the socket took it. Raises ConnectionError if the client is gone."""
        self.write(request)
        await request.flushed()

    def write(self, request: Request) -> None:
        """Hand it to the socket, which buffers what it cannot send at once."""
        self.sent = True
        body = b"" if request.method == "HEAD" or self.status in _WITHOUT_BODY else self.body
        head = self.head(request)
        if len(body) <= JOINED:
            request.write(head + body)
        else:
            request.write(head)
            request.write(body)
        self.bytes_out = len(body)

    def head(self, request: Request) -> bytes:
        """Status line and headers."""
        lines = [_STATUS_LINES[self.status], _date(), request.common_headers]
        lines += [f"{name}: {_safe(value)}\r\n" for name, value in self.headers]
        if self.content_type:
            lines.append(f"Content-Type: {_safe(self.content_type)}\r\n")
        if self.status not in _WITHOUT_BODY:
            lines.append(f"Content-Length: {self.length}\r\n")
        if self.close:
            lines.append("Connection: close\r\n")
        elif request.is_http10:
            lines.append("Connection: keep-alive\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("utf-8", "replace")


def json_answer(status: int, value: Any, headers: Headers = ()) -> Answer:
    """`value` as JSON."""
    return Answer(status, headers, msgspec.json.encode(value), content_type=JSON)


def _safe(value: str) -> str:
    # RFC 9110, section 5.5: CR, LF and NUL in a field value are "invalid and dangerous".
    return value if value.isprintable() else "".join(c if c.isprintable() else "?" for c in value)


class _Clock:
    second = 0
    line = ""


def _date() -> str:
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second, _Clock.line = now, f"Date: {formatdate(now, usegmt=True)}\r\n"
    return _Clock.line
