"""One connection: HTTP/1.1 on an asyncio transport, one request at a time.

Bytes come in here, a head is cut off and becomes a `Request`; its body goes to a `Body`, and the service answers.
What a client sends behind its request waits. A request that can be answered from memory is answered at once, any other
one in a task.

A client owes something at any moment, or nothing, and `Wait` says what. Each has a deadline of its own, and one timer
watches over whichever it is:

| waits for | at most |
|---|---|
| `NEXT`, the first byte of a request | `idle_timeout` after the last answer |
| `HEAD`, its blank line | `header_timeout` after its first byte |
| `BODY`, which a reader waits for | `body_timeout` after its last byte |
| `READER`: the client is to take bytes | `write_timeout` after it last took any |
| `REST` of a body that no handler reads | `LINGER_S` |
| `NOTHING`: it is our turn | |

A client that confirms nothing of what it was sent is cut off by the kernel, too, a little later than by us, and also
when we have closed (`sockets.give_up_after`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from ssl import SSLObject
from typing import TYPE_CHECKING, TypeVar, cast

from zotctl.auth.proxies import without_mapping
from zotctl.errors import BlobUploadInvalid, BodyTimeout, SizeInvalid
from zotctl.http.body import NO_BODY, Body, ChunkedBody, ClientGone, SizedBody
from zotctl.http.errors import malformed
from zotctl.http.request import HEAD_BYTES, Malformed, Request, check_beginning, without_empty_lines
from zotctl.http.sockets import send_with_more

if TYPE_CHECKING:
    from zotctl.http.service import Service

T = TypeVar("T")

LINGER_S = 5.0
"""For which the rest of a body is read and dropped, so that the client sees the answer before a reset."""
REQUESTS_AT_ONCE = 16
"""That a client has sent ahead, and that are answered before other connections have their turn."""
LOOK_S = 1.0
"""Between two looks at what a client has taken of an answer."""

_BLANK_LINE = b"\r\n\r\n"
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
"""RFC 9110, section 15.2: a client has to expect answers of this class before the final one."""
_ACKED = struct.Struct("<Q")
_RESET = struct.pack("ii", 1, 0)
"""A linger of no time: closing sends a reset, as socket(7) has it."""
_ACKED_AT = 120


class Wait(Enum):
    """What a client owes."""

    NEXT = auto()
    HEAD = auto()
    BODY = auto()
    READER = auto()
    REST = auto()
    NOTHING = auto()


class _Gone(asyncio.Transport):
    """In the place of the transport of a connection that has ended.

    TLS's has a buffer of 256 KiB and refers to the connection: together they would stay until the collector comes.
    """

    def is_closing(self) -> bool:
        """It has ended."""
        return True


_GONE = _Gone()


class Connection(asyncio.BufferedProtocol):
    """One connection, in the event loop. `client`: the address at the other end; `tls`: its session."""

    def __init__(self, service: Service) -> None:
        self.service, self.buffers = service, service.buffers
        self.client = ""
        self.tls: SSLObject | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.socket = cast(socket.socket, None)
        """Under the transport, for its options and for `sendfile`."""
        self._loop = asyncio.get_running_loop()
        self._pending, self._scanned = b"", 0
        """What came and was not looked at yet, but for a blank line in its first bytes."""
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        """The one that what arrives belongs to."""
        self._held = self._half_closed = self._ending = self._lost = self._takes_turns = False
        self.rest_refused = False
        """The client was not told to send the rest of its body, or can't: the connection ends with the answer."""
        self.writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._left: asyncio.Future[None] | None = None
        """Done when the client closes its half, or all."""
        self._wait, self._since = Wait.NOTHING, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._acked = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: the connection begins, with TLS after the handshake."""
        self.transport = cast(asyncio.Transport, transport)
        self.socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        self.client = without_mapping(str(peer[0])) if isinstance(peer, tuple) else ""
        self.tls = transport.get_extra_info("ssl_object")
        self.service.connections.add(self)
        self._watch(Wait.NEXT)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: it has ended. A request that is under way learns it from what it does next."""
        self._lost = True
        self.service.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._body is not None:
            self._body.fail(ClientGone("the client is gone"))
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client is gone"))
        self._notice_leaving()
        self.transport = _GONE
        self.socket = cast(socket.socket, None)

    # -- what arrives ----------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio's: where to read into. The loop reads and calls `buffer_updated` before it does anything else."""
        return self.buffers.scratch if self._body is None else self._body.space()

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio's: so many bytes came."""
        if self._body is not None:
            self._since = self._loop.time()
            self._took(self._body, self._body.filled(nbytes))
        elif not self._ending:
            arrived = bytes(self.buffers.scratch[:nbytes])
            self._pending = self._pending + arrived if self._pending else arrived
        if self._request is None and self._body is None:
            self._advance()
        if len(self._pending) > HEAD_BYTES:
            self.hold()

    def eof_received(self) -> bool:
        """asyncio's: the client closed its half. It gets its answers; what it has not sent by now never comes."""
        self._half_closed = True
        self._notice_leaving()
        if self.tls is not None:
            return False  # and the transport closes; TLS has no half
        if self._body is not None:
            self.end_body(SizeInvalid(f"the body ended after {self._body.arrived} bytes, too early"))
        return self._request is not None or ((self.writing_paused or self._takes_turns) and bool(self._pending))

    def _took(self, body: Body, behind: bytes) -> None:
        """A body has taken what arrived for it, but for what is behind it."""
        if body.complete:
            self._body = None
            self._pending, self._scanned = behind, 0

    def hold(self) -> None:
        """Read no more for now: what arrives waits in the kernel."""
        if not self._held and not self._lost:
            self._held = True
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._held:
            self._held = False
            if not self._lost and not self._half_closed:
                self.transport.resume_reading()

    # -- requests --------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin what has arrived, until a request takes a task or the next one is incomplete."""
        if self._takes_turns:
            return
        for _ in range(REQUESTS_AT_ONCE):
            if self._request or self._body or self._ending or self._lost or self.writing_paused:
                return
            if self.transport.is_closing():
                return  # the last answer met a socket that failed, of which asyncio tells later
            try:
                head = self._next_head()
                if head is None:
                    return
                request = Request(head, self)
            except Malformed as error:
                self.service.log.debug("refused: %s", error.message)
                self._refuse(error.status, error.message)
                return
            self._begin(request)
            if not (self._pending or self._half_closed or self._held):
                return
        self._takes_turns = True
        self._loop.call_soon(self._have_a_turn)

    def _have_a_turn(self) -> None:
        self._takes_turns = False
        self._advance()

    def _next_head(self) -> bytes | None:
        """The bytes of a head, which are then gone; None: more has to come."""
        if self._pending.startswith(b"\r\n"):
            # RFC 9112, section 2.2: "SHOULD ignore at least one empty line (CRLF) received prior to the request-line"
            self._pending, self._scanned = without_empty_lines(self._pending), 0
        end = self._pending.find(_BLANK_LINE, max(0, self._scanned - 3))
        if end >= 0 and end <= HEAD_BYTES - len(_BLANK_LINE):
            end += len(_BLANK_LINE)
            head, self._pending, self._scanned = self._pending[:end], self._pending[end:], 0
            return head
        if len(self._pending) <= HEAD_BYTES:
            self.go_on()
        if self._pending:
            # Lines that were looked at are not looked at again, however small the pieces are in which they come.
            line = self._pending.rfind(b"\r\n", 0, self._scanned) + 1
            start = line + 1 if line else 0
            check_beginning(self._pending[start:], before=start)
            self._scanned = len(self._pending)
        if self._half_closed:
            self.close()
        elif self._pending:
            if self._wait is not Wait.HEAD:
                self._watch(Wait.HEAD)
        elif self._wait is not Wait.NEXT:
            self._watch(Wait.NEXT)
        return None

    def _begin(self, request: Request) -> None:
        body: Body
        if request.length == 0:
            request.body = NO_BODY
            if self.service.answer_now(request):
                self._await_next()
                return
        else:
            expects = "expect" in request.headers and not request.is_http10
            if request.length is None:
                body = ChunkedBody(self, expects=expects)
            else:
                body = SizedBody(self, request.length, expects=expects)
            request.body = self._body = body
        self._request = request  # from now on its answer is to come, whatever is found in its body
        if self._body is not None:
            body, behind, self._pending = self._body, self._pending, b""
            if behind:
                self._took(body, body.feed(behind))
            if self._half_closed and self._body is not None:
                self.end_body(SizeInvalid(f"the body ended after {body.arrived} bytes, too early"))
        self._wait = Wait.NOTHING
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        closes, reuse = True, False
        try:
            answer = await self.service.handle(request)
            closes, reuse = answer.close, True
        except asyncio.CancelledError:
            self.drop()
        except Exception:
            self.service.log.exception("a bug ended a connection")
            self.drop()
        finally:
            request.body.close(reuse=reuse)
            self._request = self._task = None
            if closes or self.rest_refused:
                self._end(linger=not request.body.complete)
            elif self._body is not None:
                self._body.drop()
                self._watch(Wait.REST)
                self.go_on()
            else:
                self._await_next()
                self._advance()

    def _await_next(self) -> None:
        if self.writing_paused:
            self._acked = -1
            self._watch(Wait.READER)
        elif self._wait is Wait.NEXT:
            self._since = self._loop.time()
        else:
            self._watch(Wait.NEXT)

    @property
    def at_end(self) -> bool:
        """Whether the client has sent everything, and everything was begun."""
        return self._half_closed and not self._pending

    # -- for the body ----------------------------------------------------------------------------

    def await_body(self) -> None:
        """The client is to send more of it."""
        self._watch(Wait.BODY)
        self.go_on()

    def await_nothing(self) -> None:
        """It is our turn."""
        self._wait = Wait.NOTHING

    def end_body(self, error: SizeInvalid | BlobUploadInvalid | BodyTimeout) -> None:
        """The rest of the body never comes, or can't be read."""
        self.rest_refused = True
        if self._body is None:
            return
        body, self._body = self._body, None
        self._pending, self._ending = b"", True
        body.fail(error)
        if self._request is None:
            self._end(linger=True)

    # -- answers ---------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes to the socket, which buffers what it can't take at once. Raises ConnectionError when the client
        is gone."""
        if self._lost or self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.transport.write(data)

    def write_before_file(self, data: bytes) -> None:
        """As `write`, before a file that the kernel sends next: one packet less, and the client wakes up once."""
        transport = self.transport
        if self.tls is None and not (self._lost or transport.is_closing() or transport.get_write_buffer_size()):
            data = data[send_with_more(self.socket.fileno(), data) :]
        if data:
            self.write(data)

    async def flushed(self) -> None:
        """Wait while the socket's buffer is full. A deadline ends a client that takes nothing."""
        if self.writing_paused and not self._lost:
            with self.sending():
                self._drained = self._loop.create_future()
                await self._drained

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While this lasts, the client must keep taking bytes."""
        before, self._acked = self._wait, -1
        self._watch(Wait.READER)
        try:
            yield
        finally:
            self._wait = before if before is Wait.READER else Wait.NOTHING

    async def stay(self, seconds: float) -> None:
        """Wait so long before an answer. Raises ConnectionResetError when the client is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.attend(self._loop.create_future())

    async def attend(self, awaited: asyncio.Future[T]) -> T:
        """Wait for something before an answer. When the client is gone, `awaited` is cancelled, and
        ConnectionResetError raised.

        Who closed only a half still waits for the answer, and who closed all looks the same: it is sent something, and
        refuses that.
        """
        try:
            while not awaited.done():
                if self._lost:
                    raise ConnectionResetError("the client is gone")
                if self._half_closed and self._request is not None and not self._request.is_http10:
                    self.write(_PROCESSING)
                self._left = self._loop.create_future()
                look = LOOK_S if self._half_closed else None
                await asyncio.wait((awaited, self._left), timeout=look, return_when=asyncio.FIRST_COMPLETED)
            return awaited.result()
        finally:
            awaited.cancel()

    def _notice_leaving(self) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def pause_writing(self) -> None:
        """asyncio's: the client is slower than we are."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """asyncio's: it has taken most of it."""
        self.writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._request is None and not self._lost:
            self._advance()

    # -- the end ---------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is in progress, not even partly received."""
        return self._request is None and not self._pending and self._body is None

    def _refuse(self, status: int, message: str) -> None:
        """A last answer, to what can't be understood or came too late."""
        answer = malformed(status, message)
        if not self._lost and not self.transport.is_closing():
            self.transport.write(answer.head(self.service) + answer.body)
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """No other request is taken. To close while the client still sends would reset the connection, and the answer
        might be lost with it."""
        self._ending, self._pending, self._body = True, b"", None
        if self._lost:
            return
        if linger and not self._half_closed:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._watch(Wait.REST)
            self.go_on()
        else:
            self.close()

    def close(self) -> None:
        """Close when the client has taken what was written."""
        self._ending = True
        if not self._lost:
            self._acked = -1
            self._watch(Wait.READER)
            self.transport.close()

    def cancel(self) -> asyncio.Task[None] | None:
        """Interrupt the current request. Returns the task that must end first."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def drop(self) -> None:
        """Cut the connection at once."""
        self._ending = True
        if not self._lost:
            self.transport.abort()

    # -- deadlines -------------------------------------------------------------------------------

    def _watch(self, wait: Wait) -> None:
        """From now on the client owes this. The timer is only set anew when it would come too late."""
        self._wait, self._since = wait, self._loop.time()
        due = self._since + self.service.patience[wait]
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._lost or self._wait is Wait.NOTHING:
            return
        due = self._since + self.service.patience[self._wait]
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._on_time)
            return
        config = self.service.config
        match self._wait:
            case Wait.NEXT:
                self.close()
            case Wait.HEAD:
                self._refuse(408, f"the header of the request took longer than {config.header_timeout:g} s")
            case Wait.BODY:
                self.end_body(BodyTimeout(f"no byte of the body came for {config.body_timeout:g} s"))
            case Wait.REST:
                self.close()
            case Wait.READER:
                self._look_at_reader()

    def _look_at_reader(self) -> None:
        """A client that takes bytes slowly is served; one that takes none is cut off."""
        acked, now = self._acknowledged(), self._loop.time()
        if acked != self._acked or acked < 0:
            self._acked, self._since = acked, now
        elif now - self._since >= self.service.config.write_timeout:
            self.service.log.info("a client took no byte for %g s; its connection is cut", now - self._since)
            # sendfile waits for the socket itself, and would not notice that it is closed.
            self.cancel()
            # Megabytes of answers may be in the kernel: a reset frees them, and tells a client that waits for room.
            with suppress(OSError, AttributeError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.drop()
            return
        self._timer = self._loop.call_later(LOOK_S, self._on_time)

    def _acknowledged(self) -> int:
        """Bytes that the client's kernel has confirmed (tcpi_bytes_acked, linux/tcp.h); -1: unknown."""
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
        except (OSError, AttributeError):
            return -1
        return int(_ACKED.unpack_from(info, _ACKED_AT)[0]) if len(info) >= _ACKED_AT + _ACKED.size else -1
