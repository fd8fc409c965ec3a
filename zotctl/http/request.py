"""One request, as far as a registry needs it. It replaces aiohttp's own, and is cheaper."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import HttpVersion10
from aiohttp.streams import StreamReader

from zotctl.errors import SizeInvalid
from zotctl.http.body import Body

if TYPE_CHECKING:
    from zotctl.http.connection import Connection


class Request:
    """One request. `path` is raw, never decoded: `%2F` must not become a separator.

    The router sets `route`, `name` and `reference`, as text that is not checked yet.
    """

    __slots__ = (
        "_body",
        "_query",
        "_task",
        "_writer",
        "connection",
        "headers",
        "is_http10",
        "message",
        "method",
        "name",
        "number",
        "path",
        "payload",
        "raw_query",
        "reference",
        "route",
    )

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        writer: AbstractStreamWriter | None,
        task: asyncio.Task[None] | None,
    ) -> None:
        self.message, self.payload, self.connection = message, payload, connection
        self._writer, self._task = writer, task
        self.method, self.headers = message.method, message.headers
        self.path, _, self.raw_query = _origin_form(message).partition("?")
        self.is_http10 = message.version == HttpVersion10
        self.name = self.reference = self.route = ""
        self._query: dict[str, list[str]] | None = None
        self._body: Body | None = None
        connection.service.requests += 1
        self.number = connection.service.requests

    # -- what aiohttp's protocol calls -----------------------------------------------------------

    def _finish(self) -> None:
        pass

    def _cancel(self, error: BaseException) -> None:
        self.payload.set_exception(error)

    # -- the request -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return f"{self.connection.service.id_prefix}-{self.number:x}"

    @property
    def client(self) -> str:
        """The address at the other end, without its port."""
        peer = self.connection.peername
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def param(self, name: str) -> str | None:
        """The first value of a query parameter; None if it is absent or empty."""
        return next(iter(self.params(name)), None)

    def params(self, name: str) -> list[str]:
        """All values of a query parameter that are not empty."""
        if not self.raw_query:
            return []
        if self._query is None:
            self._query = parse_qs(self.raw_query)
        return self._query.get(name, [])

    def decoded_reference(self) -> str:
        """The last segment of the path: some clients encode the colon of a digest."""
        return unquote(self.reference) if "%" in self.reference else self.reference

    @property
    def content_length(self) -> int | None:
        """In bytes; None if the body is chunked. The parser let only digits through."""
        value = self.headers.get("Content-Length")
        if value is None:
            return None if self.message.chunked else 0
        if not value.isdecimal():
            raise SizeInvalid(f"Content-Length: {value!r} is not a number of bytes")
        # Leading zeros are digits too: the parser takes thousands of them, and `int` refuses so many.
        return int(value.lstrip("0") or "0")

    @property
    def body(self) -> Body:
        if self._body is None:
            self._body = Body(self)
        return self._body

    @property
    def waits_for_continue(self) -> bool:
        """The client asked for a 100 before its body, and got none yet."""
        expected = self.headers.get("Expect")
        return expected is not None and not (self._body is not None and self._body.started)

    @property
    def is_last(self) -> bool:
        """Whether no other request can follow on this connection."""
        return self.message.should_close or self.method == "CONNECT" or self.connection.at_end

    # -- the connection --------------------------------------------------------------------------

    @property
    def common_headers(self) -> str:
        return self.connection.service.common_headers

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes to the socket. Raises ConnectionError when the client is gone."""
        transport = self.connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    async def flushed(self) -> None:
        """Wait while the socket's buffer is full. A deadline ends a client that reads nothing."""
        connection = self.connection
        if connection.writing_paused and self._writer is not None:
            with connection.sending():
                await self._writer.drain()


def _origin_form(message: RawRequestMessage) -> str:
    if message.path.startswith("/"):
        return message.path
    # RFC 9112, section 3.2.2: "a server MUST accept the absolute-form in requests"
    return message.url.raw_path_qs if message.url.absolute and message.method != "CONNECT" else message.path
