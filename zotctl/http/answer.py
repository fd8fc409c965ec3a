"""Answers with their content in memory: one write to the socket for what is small."""

from __future__ import annotations

import time
from collections.abc import Iterable
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

FIELDS_KEPT = 4096
"""Of so many manifests, and as many blobs, the header lines are kept: some hundred bytes each."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WITHOUT_BODY = frozenset({204, 304})
_CLOSES, _STAYS_OPEN = b"Connection: close\r\n\r\n", b"Connection: keep-alive\r\n\r\n"


class Answer:
    """A status, headers and a body in memory.

    `length` is Content-Length where that is not the body's own. `fields`: all of `fields_of`, rendered before. `close`:
    the connection ends with it. When it was sent, `sent` is set and `bytes_out` counts the bytes of its body.
    `error_code` is for the log.
    """

    __slots__ = (
        "body",
        "bytes_out",
        "close",
        "content_type",
        "error_code",
        "fields",
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
        fields: bytes | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.content_type = content_type
        self.length = len(body) if length is None else length
        self.fields = fields
        self.close = False
        self.sent = False
        self.bytes_out = 0
        self.error_code: str | None = None

    async def send(self, request: Request) -> None:
        """Write it, or what is left of it, and wait until the socket took it. Raises ConnectionError if the client is
        gone."""
        self.write(request)
        await request.connection.flushed()

    def write(self, request: Request) -> bool:
        """Hand it to the socket, which buffers what it cannot send at once. False: only a part; `send` goes on."""
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
        return True

    def head(self, service: Service, *, is_http10: bool = False) -> bytes:
        """Status line and headers."""
        fields = self.fields
        if fields is None:
            length = None if self.status in _WITHOUT_BODY else self.length
            fields = fields_of(self.headers, self.content_type, length)
        end = _CLOSES if self.close else _STAYS_OPEN if is_http10 else b"\r\n"
        return service.beginnings.of(self.status) + fields + end


def fields_of(headers: Headers, content_type: str = "", length: int | None = None) -> bytes:
    """The header lines that depend on what is answered. `length`: Content-Length in bytes, if there is to be one."""
    lines = [f"{name}: {_safe(value)}\r\n" for name, value in headers]
    if content_type:
        lines.append(f"Content-Type: {_safe(content_type)}\r\n")
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    return "".join(lines).encode("utf-8", "replace")


class Beginnings:
    """How answers begin: status line, date, and the headers that all of them have. Each is made once a second. For the
    event loop."""

    def __init__(self, common: str) -> None:
        """`common`: header lines."""
        self._common, self._second = common, 0
        self._made: dict[int, bytes] = {}

    def of(self, status: int) -> bytes:
        """The first lines of an answer with this status, now."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._made.clear()
        beginning = self._made.get(status)
        if beginning is None:
            beginning = f"{_STATUS_LINES[status]}Date: {_date(now)}\r\n{self._common}".encode()
            self._made[status] = beginning
        return beginning


def json_answer(status: int, value: Any, headers: Headers = ()) -> Answer:
    """`value` as JSON."""
    return Answer(status, headers, msgspec.json.encode(value), content_type=JSON)


def _date(now: int) -> str:
    """RFC 9110, section 5.6.7. `email.utils` does it too, in 350 KiB; `strftime` speaks the language of a locale."""
    at = time.gmtime(now)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


def _safe(value: str) -> str:
    # RFC 9110, section 5.5: CR, LF and NUL in a field value are "invalid and dangerous".
    return value if value.isprintable() else "".join(c if c.isprintable() else "?" for c in value)
