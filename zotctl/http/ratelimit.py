"""Limits on the rate of requests: for all of them, for single methods, and for each client. All workers share them.

A limit is one number in shared memory, the time at which its next request would be due if they came evenly; a burst
may run ahead of it by what comes in a second (the "virtual scheduling" of the generic cell rate algorithm, ITU-T
I.371). The lock is one of the kernel, which ends with a process that is killed.
"""

from __future__ import annotations

import fcntl
import ipaddress
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from zotctl.config import RateLimit
from zotctl.errors import TooManyRequests, Unavailable
from zotctl.http.counters import CELL_BYTES, shared_memory
from zotctl.http.errors import Refused
from zotctl.http.request import Request

CLIENT_SETS = 512
CLIENTS_IN_SET = 8
"""Of 4096 clients the latest requests are known. Who is forgotten, the one that was away longest, begins anew."""
EXEMPT = frozenset({"/livez", "/readyz", "/startupz"})
"""What looks after the server is never refused."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ALL = len(_METHODS)
_CLIENTS = _ALL + 1
_SECOND_NS = 1_000_000_000


class SharedLock:
    """A lock of all workers, for memory that they share; made before the fork. It ends with a process that is killed,
    and is not for several threads of one."""

    def __init__(self, name: str) -> None:
        """Raises Unavailable if no file can be opened."""
        try:
            self._file = os.memfd_create(name, os.MFD_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"no lock can be shared: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for as long as this lasts."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """For the parent: its workers keep what they have."""
        os.close(self._file)


class SharedRates:
    """The memory of all limits; made before the fork. `clock` gives nanoseconds, the same for all processes."""

    def __init__(self, limit: RateLimit, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._rates = dict.fromkeys(range(_ALL + 1), 0.0)
        self._rates |= {_METHODS.index(one.method.upper()): one.rate for one in limit.methods}
        self._rates[_ALL] = limit.rate or 0.0
        self._client_rate, self._clock = limit.client_rate or 0.0, clock
        cells = _CLIENTS + CLIENT_SETS * CLIENTS_IN_SET * 2
        self._cells = memoryview(shared_memory(cells * CELL_BYTES)).cast("Q")
        self._lock = SharedLock("zotctl-rates")

    def take(self, method: str | None, client: str) -> float:
        """0 if a request may pass, which is then counted; else the seconds after which it may. Nothing is counted if
        any limit refuses. `method`: None for what only the limit of the client applies to."""
        with self._lock.held():
            now = self._clock()
            wanted = [(_ALL, self._rates[_ALL])] if method is not None else []
            if method in _METHODS:
                wanted.append((_METHODS.index(method), self._rates[_METHODS.index(method)]))
            if self._client_rate:
                wanted.append((self._client_cell(client_key(client)), self._client_rate))
            due = []
            for cell, rate in wanted:
                if rate:
                    interval = int(_SECOND_NS / rate)
                    at = max(self._cells[cell], now)
                    # At least one at once.
                    wait = at - now - int((max(1.0, rate) - 1) * interval)
                    if wait > 0:
                        return wait / _SECOND_NS
                    due.append((cell, at + interval))
            for cell, at in due:
                self._cells[cell] = at
            return 0.0

    def _client_cell(self, key: int) -> int:
        first = _CLIENTS + key % CLIENT_SETS * CLIENTS_IN_SET * 2
        places = range(first, first + CLIENTS_IN_SET * 2, 2)
        for place in places:
            if self._cells[place] == key:
                return place + 1
        oldest = min(places, key=lambda place: self._cells[place + 1])
        self._cells[oldest], self._cells[oldest + 1] = key, 0
        return oldest + 1

    def close(self) -> None:
        """For the parent: its workers keep what they have."""
        self._lock.close()


def shared_key(value: object) -> int:
    """A number for a value in shared memory, never 0. Forks share the seed of the hash."""
    return hash(value) & (1 << 64) - 1 | 1


@lru_cache(1024)
def client_key(client: str) -> int:
    """The key of an address, of the half of one in IPv6 that a client can't choose."""
    try:
        address = ipaddress.ip_address(client)
        shared = address.packed[:8] if address.version == 6 else address.packed
    except ValueError:
        shared = client.encode()
    return shared_key(shared)


class Limits:
    """The limits of the configuration, if it has any. `exempt`: paths that none applies to."""

    def __init__(self, rates: SharedRates | None, exempt: frozenset[str] = EXEMPT) -> None:
        self._rates, self.exempt = rates, exempt

    def take(self, request: Request) -> None:
        """Let one request pass, once however often it is asked for, or raise TooManyRequests."""
        if self._rates is None or request.admitted:
            return
        request.admitted = True
        if request.path not in self.exempt:
            self._take(self._rates, request.method, request.client)

    def take_check(self, request: Request) -> None:
        """Let one check of a password pass, or raise TooManyRequests: what is exempt is no way to guess faster."""
        if self._rates is not None and request.path in self.exempt:
            self._take(self._rates, None, request.client)

    def _take(self, rates: SharedRates, method: str | None, client: str) -> None:
        if wait := rates.take(method, client):
            seconds = str(math.ceil(wait))
            error = TooManyRequests(f"too many requests; try again in {seconds} s")
            raise Refused(error, [("Retry-After", seconds)])
