"""What all requests of a worker share, and the way of a request to its answer.

A request goes through `limits`, then `routes`, then its handler. What stands between the last two decides whether it
may, for all endpoints alike.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from zotctl.config import HttpConfig, StorageConfig
from zotctl.errors import Unsupported, ZotctlError
from zotctl.http import access, page, routes
from zotctl.http.answer import Answer, Beginnings
from zotctl.http.body import ReceiveBuffers
from zotctl.http.errors import Refused, encodable, render, render_bug
from zotctl.http.gate import Gate
from zotctl.http.health import Readiness
from zotctl.http.lists import Pages
from zotctl.http.protocol import LINGER_S, LOOK_S, Connection, Wait
from zotctl.http.ratelimit import Limits, SharedRates
from zotctl.http.repeats import Repeats
from zotctl.http.request import Request
from zotctl.http.rounds import Rounds
from zotctl.http.sockets import most_connections
from zotctl.http.uploadlimit import SharedUploads, UploadHolds
from zotctl.storage import Quotas, Store, WouldBlock

if TYPE_CHECKING:
    from zotctl.http.counters import CounterRow

T = TypeVar("T")

BYTES_THREADS = 16
DISTANT_THREADS = 32
"""For storage behind a network, where threads mostly wait."""
COMMIT_THREADS = 32
"""Manifests that wait for one index.json share one commit, so many may wait."""
PAGE_THREADS = 2
"""Pages for people that are made at a time: requests of clients go first."""
SMALL_REST_BYTES = 1 << 18
"""Of an unread body, that are dropped to keep the connection; with more it is closed."""


class Service:
    """One worker's registry, in its event loop. Handlers get it beside their request.

    `connections`: those that are open; `in_flight`: requests under way. `draining`: no connection takes another
    request, and `drained` is set when none is under way. `row`: where requests are counted, if they are.
    """

    def __init__(
        self,
        store: Store,
        config: HttpConfig,
        row: CounterRow | None = None,
        rates: SharedRates | None = None,
        uploads: SharedUploads | None = None,
        storage: StorageConfig | None = None,
        scrubs_every: float | None = None,
    ) -> None:
        """`scrubs_every`: seconds in which the jobs of this server hash everything; None: they don't."""
        self.store, self.config = store, config
        self.connections: set[Connection] = set()
        self.most_connections = most_connections()
        self.buffers = ReceiveBuffers()
        self.patience = {
            Wait.NEXT: config.idle_timeout,
            Wait.HEAD: config.header_timeout,
            Wait.BODY: config.body_timeout,
            Wait.READER: LOOK_S,
            Wait.REST: LINGER_S,
            Wait.NOTHING: math.inf,
        }
        self.row = row
        self.log = logging.getLogger("zotctl.http")
        self.access = access.AccessLog(self.log, row)
        self.gate = Gate(config)
        storage = storage or StorageConfig()
        self.read_only, self.scrubs_every = storage.read_only, scrubs_every
        self.quotas = Quotas(store, storage.quotas, storage.max_repos)
        self.limits = Limits(rates)
        self.uploads = UploadHolds(uploads)
        self.pages, self.repeats = Pages(), Repeats()
        self.rounds = Rounds()
        self.readiness = Readiness(self)
        self.endpoints: Mapping[str, routes.Resource] = routes.EXACT if config.ui else routes.WITHOUT_PAGES
        self.beginnings = Beginnings(_common_headers(config))
        self.id_prefix = secrets.token_hex(4)
        self.requests = 0
        self.in_flight = 0
        self.draining = False
        self.drained = asyncio.Event()
        self._closed = False
        self._bytes = ThreadPoolExecutor(BYTES_THREADS if store.nonblocking else DISTANT_THREADS, "bytes")
        self._commits = ThreadPoolExecutor(COMMIT_THREADS, "commit")
        self._maintenance = ThreadPoolExecutor(2, "maintenance")
        self._pages = ThreadPoolExecutor(PAGE_THREADS, "page")
        self._loop = asyncio.get_running_loop()

    # -- threads ---------------------------------------------------------------------------------

    def move_bytes(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread: for hashing, writing and reading content. Cancelled when the service was closed."""
        if self._closed:
            never = self._loop.create_future()
            never.cancel()
            return never
        return self._loop.run_in_executor(self._bytes, call, *args)

    def commit(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread: for calls that may wait for the lock of a repository."""
        return self._loop.run_in_executor(self._commits, call, *args)

    def maintenance(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread that no request waits for."""
        return self._loop.run_in_executor(self._maintenance, call, *args)

    def make_page(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run in a thread: for a page, which may read much and is written by a template."""
        return self._loop.run_in_executor(self._pages, call, *args)

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

    def connect(self) -> Connection:
        """For asyncio: the protocol of a new connection."""
        return Connection(self)

    @property
    def _full(self) -> bool:
        """Do others wait for a connection? Then it is their turn after an answer."""
        return len(self.connections) >= self.most_connections

    def answer_now(self, request: Request) -> bool:
        """Answer a GET, a HEAD, or a POST that begins an upload without a task: most requests, at half the cost.

        False if it takes more than a look at what is in memory, and nothing has happened; or if the socket does not
        take all of it, and `handle` goes on.
        """
        self._count(request)
        if request.method not in ("GET", "HEAD", "POST") or not request.keep_alive or request.connection.at_end:
            return False
        if self.draining or self._full or not self.store.nonblocking or "expect" in request.headers:
            return False
        started = self._loop.time() if self.access.enabled else 0.0
        try:
            self.limits.take(request)
            endpoint = routes.find(request, self.endpoints)
            if not isinstance(endpoint.handler, routes.RouteMatch):
                return False
            self.gate.admit(request, endpoint.need)
            answer = self.repeats.get(request) or endpoint.handler.call(self, request, False)
        except WouldBlock:
            return False
        except Exception as error:
            answer = self._failed(request, error)
        if not answer.write(request):
            request.begun, request.began = answer, started
            return False
        if self.access.enabled:
            self.access.write(request, answer, self._loop.time() - started)
        return True

    def _count(self, request: Request) -> None:
        self.requests += 1
        request.number = self.requests

    async def handle(self, request: Request) -> Answer:
        """Answer a request and write the answer. Raises nothing but cancellation."""
        if not request.number:  # it has a body, so nothing has looked at it before
            self._count(request)
        self.in_flight += 1
        if self.row is not None:
            self.row.begin()
        started = self._loop.time() if request.begun is None else request.began
        try:
            answer = request.begun or await self._answer(request)
            connection = request.connection
            last = not request.keep_alive or connection.at_end or connection.rest_refused
            answer.close = answer.close or self.draining or self._full or last or not _settled(request)
            answer = await self._send(request, answer)
        except (ConnectionError, TimeoutError):
            answer = _gone()
            request.connection.drop()
        finally:
            self.in_flight -= 1
            if self.row is not None:
                self.row.end()
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
            self.limits.take(request)
            endpoint = routes.find(request, self.endpoints)
            await self.gate.admit_waiting(request, endpoint.need)
            handler = endpoint.handler
            if "expect" in request.headers:
                _check_expectation(request)
            if not isinstance(handler, routes.RouteMatch):
                return await handler(self, request)
            if handler.otherwise is not None:
                return await handler.otherwise(self, request)
            call = handler.call
            return await self.look(lambda wait: call(self, request, wait))
        except ConnectionError:
            raise
        except Exception as error:
            answer = self._failed(request, error)
            return await page.refusal(self, request, answer) if request.route in routes.PAGES else answer

    def _failed(self, request: Request, error: Exception) -> Answer:
        fields = {"request_id": request.id, "method": request.method, "path": encodable(request.path)}
        if not isinstance(error, (ZotctlError, Refused)):
            self.log.error("a bug: %s", error, exc_info=error, extra={"fields": fields})
            return render_bug(request.id)
        answer = render(error)
        if answer.status >= 500:
            self.log.error("%s", error, extra={"fields": {**fields, "error_code": answer.error_code}})
        return answer

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let no thread start further work. What waits for one that hangs is cut off, and its session left as it is."""
        self._closed = True
        self.gate.close()
        for pool in (self._bytes, self._commits, self._maintenance, self._pages):
            pool.shutdown(wait=False)

    def location(self, path: str) -> str:
        """A Location header: relative, or under `external_url`."""
        return f"{self.config.external_url.rstrip('/')}{path}" if self.config.external_url else path


def _settled(request: Request) -> bool:
    """Whether the connection can take another request: the body is here, or little is left of it."""
    body = request.body
    if body.complete:
        return True
    if request.waits_for_continue:
        return False  # RFC 9110, section 10.1.1: a refused client need not send the body
    return body.length is not None and body.length - body.arrived <= SMALL_REST_BYTES


def _check_expectation(request: Request) -> None:
    # RFC 9110, section 10.1.1: "MAY respond with a 417 (Expectation Failed) status code"
    expected = request.headers["expect"]
    if expected.lower() != "100-continue":
        raise Refused(Unsupported(f"Expect: {expected[:100]!r} is not supported"), status=417)


def _gone() -> Answer:
    answer = Answer(499)
    answer.close = answer.sent = True
    return answer


# By name: to a page that sends credentials, "*" is the name of a header.
_EXPOSED = (
    "Content-Length, Content-Range, Docker-Content-Digest, Docker-Distribution-API-Version, Docker-Upload-UUID, ETag,"
    " Link, Location, OCI-Filters-Applied, OCI-Subject, OCI-Tag, Range, Retry-After, Warning, WWW-Authenticate"
)


def _common_headers(config: HttpConfig) -> str:
    # "clients SHOULD NOT depend on them", and some do: docker asks for this one.
    headers = "Docker-Distribution-API-Version: registry/2.0\r\n"
    if config.allow_origin:
        headers += f"Access-Control-Allow-Origin: {config.allow_origin}\r\n"
        headers += f"Access-Control-Expose-Headers: {_EXPOSED}\r\n"
    return headers
