"""Threads for costly calls of many clients, who take turns.

However many calls one client has waiting, another one waits for as many calls as there are clients. When all places
are taken, a client that waits with fewer calls takes one from a client that waits with the most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from zotctl.errors import TooManyRequests


class Turns:
    """`threads` run the calls, each of which returns a bool; at most `places` of them wait. Thread-safe."""

    def __init__(self, threads: int, places: int, name: str) -> None:
        self._threads, self._places = ThreadPoolExecutor(threads, name), places
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[_Call]] = {}
        """The calls of each client that has any; the first client is the next."""
        self._count = 0

    def submit(self, client: Hashable, call: Callable[[], bool]) -> Future[bool]:
        """Run a call of `client`, in its turn.

        Raises TooManyRequests if there is no place; the future raises it if another client took the place.
        """
        future = Future[bool]()
        with self._lock:
            dropped = self._make_room(client) if self._count == self._places else None
            if dropped is None:
                self._count += 1
                self._threads.submit(self._run_next)
            self._waiting.setdefault(client, deque()).append((future, call))
        if dropped is not None:
            dropped.set_exception(_too_many())
        return future

    def close(self) -> None:
        """End the threads. Calls that wait are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            dropped = [future for calls in self._waiting.values() for future, _ in calls]
            self._waiting, self._count = {}, 0
        for future in dropped:
            future.cancel()

    def _make_room(self, client: Hashable) -> Future[bool]:
        """Take the place of the latest call of who has the most; a thread that was asked to run it runs another."""
        most = max(self._waiting, key=lambda other: len(self._waiting[other]))
        if len(self._waiting[most]) <= len(self._waiting.get(client, ())) + 1:
            raise _too_many()
        return self._waiting[most].pop()[0]

    def _run_next(self) -> None:
        with self._lock:
            if not self._waiting:
                return  # closed
            client = next(iter(self._waiting))
            calls = self._waiting.pop(client)
            future, call = calls.popleft()
            if calls:
                self._waiting[client] = calls  # behind all others
            self._count -= 1
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


_Call = tuple[Future[bool], Callable[[], bool]]


def _too_many() -> TooManyRequests:
    return TooManyRequests("too many logins at once; try again")
