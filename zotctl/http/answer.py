"""Answers with their content in memory: one write to the socket for what is small."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from zotctl.http.request import Request
    from zotctl.http.service import Service

Headers = Iterable[tuple[str, str]]

JSON = "application/json"
JOINED_BYTES = 65536
"""Bodies up to this size are copied behind their headers and leave in one system call."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


class Answer:
    """A status, headers and a body in memory.

    `length` is Content-Length where that is not the body's own. `close`: the connection ends with it. When it was
    sent, `sent` is set and `bytes_out` counts the bytes of its body. `error_code` is for the log.
    """

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

    async def send(self, request: Request) -> None:
        """Write it and wait until the socket took it. Raises ConnectionError if the client is gone."""
        self.write(request)
        await request.connection.flushed()

    def write(self, request: Request) -> None:
        """Hand it to the socket, which buffers what it cannot send at once."""
        self.sent = True
        body = b"" if request.method == "HEAD" or self.status in _WITHOUT_BODY else self.body
        connection = request.connection
        head = self.head(connection.service, is_http10=request.is_http10)
        if len(body) <= JOINED_BYTES:
            connection.write(head + body)
        else:
            connection.write(head)
            connection.write(body)
        self.bytes_out = len(body)

    def head(self, service: Service, *, is_http10: bool = False) -> bytes:
        """Status line and headers."""
        lines = [_STATUS_LINES[self.status], _date(), service.common_headers]
        lines += [f"{name}: {_safe(value)}\r\n" for name, value in self.headers]
        if self.content_type:
            lines.append(f"Content-Type: {_safe(self.content_type)}\r\n")
        if self.status not in _WITHOUT_BODY:
            lines.append(f"Content-Length: {self.length}\r\n")
        if self.close:
            lines.append("Connection: close\r\n")
        elif is_http10:
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
