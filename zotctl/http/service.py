"""What all requests of a worker share, and the path of a request from the parser to the socket."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR

from zotctl.config import HttpConfig
from zotctl.errors import Unsupported, ZotctlError
from zotctl.http import access, routes
from zotctl.http.answer import Answer
from zotctl.http.connection import Connection
from zotctl.http.errors import Refused, printable, render, render_bug
from zotctl.http.health import Readiness
from zotctl.http.pages import Pages
from zotctl.http.ratelimit import Limits
from zotctl.http.request import Request
from zotctl.storage import Store, WouldBlock

T = TypeVar("T")

BYTES_THREADS = 16
DISTANT_THREADS = 32
"""For storage behind a network, where threads mostly wait."""
COMMIT_THREADS = 32
"""Manifests that wait for one index.json share one commit, so many may wait."""
SMALL_REST = 1 << 18
"""Bytes of an unread body that are dropped to keep the connection; with more it is closed."""


class Service:
    """One worker's registry. Handlers get it beside their request."""

    def __init__(self, store: Store, config: HttpConfig) -> None:
        self.store, self.config = store, config
        self.log = logging.getLogger("zotctl.http")
        self.access = access.AccessLog(self.log)
        self.limits = Limits(config.rate_limit)
        self.pages = Pages()
        self.readiness = Readiness(self)
        self.endpoints: Mapping[str, routes.Resource] = routes.EXACT
        self.common_headers = _common_headers(config)
        self.id_prefix = secrets.token_hex(4)
        self.requests = 0
        self.in_flight = 0
        self.draining = False
        self.drained = asyncio.Event()
        self._bytes = ThreadPoolExecutor(BYTES_THREADS if store.nonblocking else DISTANT_THREADS, "bytes")
        self._commits = ThreadPoolExecutor(COMMIT_THREADS, "commit")
        self._maintenance = ThreadPoolExecutor(2, "maintenance")
        self._loop = asyncio.get_running_loop()

    # -- threads ---------------------------------------------------------------------------------

    def move_bytes(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread: for hashing, writing and reading content."""
        return self._loop.run_in_executor(self._bytes, call, *args)

    def commit(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread: for calls that may wait for the lock of a repository."""
        return self._loop.run_in_executor(self._commits, call, *args)

    def maintenance(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread that no request waits for."""
        return self._loop.run_in_executor(self._maintenance, call, *args)

    async def look(self, call: Callable[[bool], T]) -> T:
        """A read of metadata: at once where the storage is local and knows it, else in a thread.

        `call(wait)` passes `wait` on to the store, which raises WouldBlock if it is false and a longer
        read is due.
        """
        if self.store.nonblocking:
            try:
                return call(False)
            except WouldBlock:
                pass
        return await self.move_bytes(call, True)

    # -- requests --------------------------------------------------------------------------------

    def make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        writer: Any,
        task: asyncio.Task[None],
    ) -> Request:
        return Request(message, payload, connection, writer, task)

    def answer_now(self, connection: Connection, message: RawRequestMessage) -> bool:
        """Answer a GET or HEAD without a task: most requests, at half the cost.

        False, and nothing has happened, if it takes more than a look at what is in memory.
        """
        if message.method not in ("GET", "HEAD") or message.should_close:
            return False
        if self.draining or not self.store.nonblocking:
            return False
        request = Request(message, EMPTY_PAYLOAD, connection, None, None)
        started = self._loop.time()
        try:
            self.limits.take(request.method)
            handler = routes.find(request, self.endpoints)
            if not isinstance(handler, routes.RouteMatch):
                return False
            answer = handler.call(self, request, False)
        except WouldBlock:
            return False
        except Exception as error:
            answer = self._failed(request, error)
        answer.write(request)
        if self.access.enabled:
            self.access.write(request, answer, self._loop.time() - started)
        return True

    def nothing(self, connection: Connection) -> Request:
        """Stands for a request whose header never arrived completely."""
        return Request(ERROR, EMPTY_PAYLOAD, connection, None, None)

    async def handle(self, request: Request) -> Answer:
        """Answer a request and write the answer. Raises nothing but cancellation."""
        self.in_flight += 1
        started = self._loop.time()
        try:
            answer = await self._answer(request)
            answer.close = answer.close or self.draining or request.is_last or not _settled(request)
            answer = await self._send(request, answer)
        except (ConnectionError, TimeoutError):
            answer = _gone()
            request.connection.force_close()
        finally:
            request.connection.body = None
            request.connection.answered = request.payload
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self.drained.set()
        if self.access.enabled:
            self.access.write(request, answer, self._loop.time() - started)
        return answer

    async def _send(self, request: Request, answer: Answer) -> Answer:
        """Write an answer; another one when its content can't be read, which is seen before anything went out."""
        try:
            await answer.send(request)
        except ZotctlError as error:
            if answer.sent:
                raise
            close, answer = answer.close, self._failed(request, error)
            answer.close = close
            await answer.send(request)
        return answer

    async def _answer(self, request: Request) -> Answer:
        try:
            self.limits.take(request.method)
            handler = routes.find(request, self.endpoints)
            if "Expect" in request.headers:
                _check_expectation(request)
            if isinstance(handler, routes.RouteMatch):
                call = handler.call
                return await self.look(lambda wait: call(self, request, wait))
            return await handler(self, request)
        except ConnectionError:
            raise
        except Exception as error:
            return self._failed(request, error)

    def _failed(self, request: Request, error: Exception) -> Answer:
        fields = {"request_id": request.id, "method": request.method, "path": printable(request.path)}
        if not isinstance(error, (ZotctlError, Refused)):
            self.log.error("a bug: %s", error, exc_info=error, extra={"fields": fields})
            return render_bug(request.id)
        answer = render(error)
        if answer.status >= 500:
            self.log.error("%s", error, extra={"fields": {**fields, "error_code": answer.error_code}})
        return answer

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let no thread start further work."""
        for pool in (self._bytes, self._commits, self._maintenance):
            pool.shutdown(wait=False)

    def location(self, path: str) -> str:
        """A Location header: relative, or under `external_url`."""
        return f"{self.config.external_url.rstrip('/')}{path}" if self.config.external_url else path


def _settled(request: Request) -> bool:
    """Whether the connection can take another request: the body is read, or little is left of it."""
    if request.payload.is_eof():
        return True
    if request.connection.rest_refused:
        return False
    if request.waits_for_continue:
        # RFC 9110, section 10.1.1: a refused client need not send the body.
        request.connection.refuse_rest()
        return False
    length = request.content_length
    return length is not None and length - request.payload.total_bytes <= SMALL_REST


def _check_expectation(request: Request) -> None:
    # RFC 9110, section 10.1.1: "MAY respond with a 417 (Expectation Failed) status code"
    if request.headers["Expect"].lower() != "100-continue":
        raise Refused(Unsupported(f"Expect: {request.headers['Expect'][:100]!r} is not supported"), status=417)


def _gone() -> Answer:
    answer = Answer(499)
    answer.close = answer.sent = True
    return answer


def _common_headers(config: HttpConfig) -> str:
    # "clients SHOULD NOT depend on them", and some do: docker asks for this one.
    headers = "Docker-Distribution-API-Version: registry/2.0\r\n"
    if config.allow_origin:
        headers += f"Access-Control-Allow-Origin: {config.allow_origin}\r\n"
        headers += "Access-Control-Expose-Headers: *\r\n"
    return headers
