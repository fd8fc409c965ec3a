"""One connection: aiohttp's protocol, with deadlines, which it lacks, and errors as OCI JSON.

Private parts of aiohttp that are leaned on, here and in `request`: `_messages`, `_message_tail`,
`_waiter`, `_request_count`, `_lingering_time`, and the calls `_finish` and `_cancel` on a request.
`tests/http/test_http_aiohttp.py` holds them down; the version is pinned.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from zotctl.errors import BlobUploadInvalid, BodyTimeout, SizeInvalid, ZotctlError
from zotctl.http.answer import Answer
from zotctl.http.body import Body
from zotctl.http.errors import malformed, printable

if TYPE_CHECKING:
    from zotctl.http.service import Service

LINGER = 5.0
"""How many seconds the rest of a body is read and dropped, so that the client sees the answer."""

LINE_LIMIT = 8190
"""Maximum bytes of a request line or header field."""

READ_BUFFER = 1 << 19
"""Bytes of a body that may wait for their reader, twice over."""

_REQUEST_LINE = re.compile(r"""^ *b['"]([A-Za-z0-9!#$%&*+.^_`|~-]{1,64}) \S+ HTTP/1\.[01]['"]$""", re.MULTILINE).search

_ACKED = struct.Struct("<Q")
_ACKED_AT = 120


class Connection(RequestHandler):
    """`header_since`: when the request began whose header is still incomplete; 0 for none.

    `answered`: the body of the last request that was answered; aiohttp reads and drops what is left of it.
    """

    __slots__ = (
        "_acked",
        "_half_closed",
        "_last_payload",
        "_progress",
        "_sending",
        "_wire",
        "answered",
        "body",
        "header_since",
        "service",
    )

    def __init__(self, server: web.Server, service: Service, **options: Any) -> None:
        super().__init__(server, **options)
        self.service = service
        self.header_since = 0.0
        self.body: Body | None = None
        self.answered: StreamReader | None = None
        self._sending = self._half_closed = False
        self._acked, self._progress = -1, 0.0
        self._last_payload: StreamReader | None = None
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport

    # -- reading ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        # The task that waits for requests is not woken before it is clear that it has to be.
        waiter, self._waiter = self._waiter, None
        before = self._request_count
        super().data_received(data)
        self._waiter = waiter
        if self._request_count != before:
            self.header_since = 0.0
            self._end_malformed()
            self._last_payload = self._messages[-1][1]
            if waiter is not None and not waiter.done() and not self._answered_now():
                waiter.set_result(None)
        elif data and waiter is not None and not self.header_since:
            self.header_since = self._loop.time()

    def _end_malformed(self) -> None:
        """Ends a body that cannot be parsed. aiohttp would let its reader wait for the rest."""
        message = self._messages[-1][0]
        if not isinstance(message, RawRequestMessage):
            self._end_body(BlobUploadInvalid(f"the body is malformed: {_first_line(message.message)}"))

    def _answered_now(self) -> bool:
        """Answer a single request without the task, if no waiting is needed."""
        message, payload = self._messages[0]
        if (
            len(self._messages) > 1
            or self.writing_paused
            or self._upgraded
            or payload is not EMPTY_PAYLOAD
            or not isinstance(message, RawRequestMessage)
            or not self.service.answer_now(self, message)
        ):
            return False
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client may close its half after the request. What it has not sent by then never comes."""
        last = self._last_payload
        if self.ssl_context is not None or last is None or self.idle:
            return None
        self._end_early(last)
        self._half_closed = True
        return True

    def _end_early(self, last: StreamReader) -> None:
        self._end_body(SizeInvalid(f"the body ended after {last.total_bytes} bytes, too early"))

    def _end_body(self, error: ZotctlError) -> None:
        """The rest of the last body never comes."""
        last = self._last_payload
        if last is None or last.is_eof():
            return
        self.refuse_rest()
        if last is self.answered:
            last.feed_eof()
        else:
            last.set_exception(error)

    @property
    def at_end(self) -> bool:
        """Whether the client has sent everything, and everything was handled."""
        return self._half_closed and not self._messages and not self._message_tail

    async def finish_response(self, request: Any, resp: Any, start_time: float | None) -> tuple[Any, bool]:
        """aiohttp's hook, where it parses what came behind an upgrade that was declined, unseen by
        `data_received`. The client's end may have come before that."""
        waiting = bool(self._messages)
        finished = await super().finish_response(request, resp, start_time)
        if self._messages and not waiting:
            self._end_malformed()
            self._last_payload = self._messages[-1][1]
            if self._half_closed:
                self._end_early(self._last_payload)
        return finished

    # -- errors ----------------------------------------------------------------------------------

    def handle_error(  # type: ignore[override]
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Answer:
        """aiohttp's hook for what its parser refused."""
        if isinstance(exc, LineTooLong):
            status, message = _too_long(exc)
        elif isinstance(exc, BadHttpMethod) and (method := _unknown_method(exc.message)):
            # RFC 9110, section 9.1: "An origin server that receives a request method that is unrecognized
            # or not implemented SHOULD respond with the 501 (Not Implemented) status code."
            return malformed(501, f"the method {method} is not implemented")
        text = _first_line(message or str(exc) or "bad request")
        self.service.log.debug("refused a malformed request: %s", text)
        return malformed(status, f"malformed request: {text}")

    def refuse_rest(self) -> None:
        """Close after the answer without waiting for the body, which the client was not told to send."""
        self._lingering_time = 0.0

    @property
    def rest_refused(self) -> bool:
        return self._lingering_time == 0.0

    # -- deadlines -------------------------------------------------------------------------------

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While this lasts, the client must keep taking bytes."""
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def check_deadlines(self, now: float) -> None:
        """Called every second: for a whole header, and between two bytes of a body or an answer."""
        config = self.service.config
        if self.header_since and now - self.header_since > config.header_timeout:
            self._cut_off(408, f"the header of the request took longer than {config.header_timeout:g} s")
        if self.body is not None:
            self._check_body(self.body, now, config.body_timeout)
        if self._sending or self.writing_paused or self.transport is None:
            self._check_reader(now, config.write_timeout)
        else:
            self._acked = -1

    def _cut_off(self, status: int, message: str) -> None:
        if self.transport is not None:
            answer = malformed(status, message)
            request = self.service.nothing(self)
            self.transport.write(answer.head(request) + answer.body)
            self.force_close()

    def _check_body(self, body: Body, now: float, idle: float) -> None:
        if body.arrived != body.seen or not body.waiting:
            body.seen, body.idle_since = body.arrived, now
        elif now - body.idle_since > idle:
            self.refuse_rest()
            body.fail(BodyTimeout(f"no byte of the body came for {idle:g} s"))

    def _check_reader(self, now: float, idle: float) -> None:
        acked = self._acknowledged()
        if acked != self._acked or acked < 0:
            self._acked, self._progress = acked, now
        elif now - self._progress > idle and self._wire is not None:
            self.service.log.info("a client took no byte for %g s; its connection is cut", idle)
            # sendfile waits for the socket itself, and would not notice that it is closed.
            self.cancel()
            self._wire.abort()

    def _acknowledged(self) -> int:
        """Bytes that the client's kernel has confirmed (tcpi_bytes_acked, linux/tcp.h); -1: unknown."""
        sock = self._wire.get_extra_info("socket") if self._wire is not None else None
        if sock is None:
            return -1
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
        except OSError:
            return -1
        return int(_ACKED.unpack_from(info, _ACKED_AT)[0]) if len(info) >= _ACKED_AT + _ACKED.size else -1

    # -- the end ---------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is in progress, not even partly received."""
        return self._waiter is not None and not self._messages and not self.header_since

    def cancel(self) -> asyncio.Task[None] | None:
        """Interrupt the current request. Returns the task that must end first."""
        if self._task_handler is not None:
            self._task_handler.cancel()
        return self._task_handler

    def drop(self) -> None:
        """Cut the connection at once."""
        if self.transport is not None:
            self.transport.abort()
        self.force_close()


def _first_line(text: str) -> str:
    """aiohttp shows the place of a mistake on the lines that follow."""
    return printable(text.partition("\n")[0].strip().rstrip(":"))


def _unknown_method(message: str) -> str | None:
    """The method of an otherwise valid request; the parser shows it on a line of its message."""
    found = _REQUEST_LINE(message)
    return found[1] if found else None


def _too_long(error: LineTooLong) -> tuple[int, str]:
    """aiohttp does not distinguish a long target from a long field, but only a target starts like one of ours."""
    if error.args and bytes(error.args[0]).startswith(b"/v2/"):
        return 414, f"the target is longer than {LINE_LIMIT} bytes"
    return 431, f"a header field is longer than {LINE_LIMIT} bytes"


class Listener(web.Server):
    """aiohttp's server, making our connections."""

    def __init__(self, service: Service, *, idle_timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            service.handle,  # type: ignore[arg-type]
            request_factory=service.make_request,  # type: ignore[arg-type]
            keepalive_timeout=idle_timeout,
            lingering_time=LINGER,
            read_bufsize=READ_BUFFER,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            auto_decompress=False,
            access_log=None,
            logger=service.log,
            loop=loop,
        )
        self._service = service

    def __call__(self) -> Connection:
        return Connection(self, self._service, loop=self._loop, **self._kwargs)
