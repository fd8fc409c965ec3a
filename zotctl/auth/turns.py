"""Threads for costly calls of many clients, who take turns.

However many calls one client has waiting, another one waits for as many calls as there are clients. When all places
are taken, a client that waits with fewer calls takes one from a client that waits with the most. A call that is
cancelled while it waits leaves its place at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from zotctl.errors import TooManyRequests


class Turns:
    """`threads` run the calls, each of which returns a bool; at most `places` of them wait. Thread-safe."""

    def __init__(self, threads: int, places: int, name: str) -> None:
        self._threads, self._thread_count = ThreadPoolExecutor(threads, name), threads
        self._places = places
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, dict[Future[bool], Callable[[], bool]]] = {}
        """The calls of each client that has any, in their order; the first client is the next."""
        self._count = self._asked = 0
        """How many calls wait, and how often a thread was asked to run one: a call that left did not take that back."""

    def submit(self, client: Hashable, call: Callable[[], bool]) -> Future[bool]:
        """Run a call of `client`, in its turn.

        Raises TooManyRequests if there is no place; the future raises it if another client took the place. Cancel the
        future when no caller waits for it any more.
        """
        future = Future[bool]()
        with self._lock:
            dropped = self._make_room(client) if self._count >= self._places else None
            self._waiting.setdefault(client, {})[future] = call
            self._count += 1
            if self._asked < self._count:
                self._asked += 1
                self._threads.submit(self._run_next)
        if dropped is not None:
            _refuse(dropped)
        future.add_done_callback(partial(self._leave, client))
        return future

    def refuse_waiting(self) -> None:
        """Refuse the calls that wait, as a server does that is told to stop. From now on only so many wait as there are
        threads: no flood keeps the end waiting, and a call that comes alone is still made."""
        self._places = self._thread_count
        for future in self._take_all():
            _refuse(future)

    def close(self) -> None:
        """End the threads. Calls that wait are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for future in self._take_all():
            future.cancel()

    def _take_all(self) -> list[Future[bool]]:
        with self._lock:
            found = [future for calls in self._waiting.values() for future in calls]
            self._waiting, self._count = {}, 0
        return found

    def _make_room(self, client: Hashable) -> Future[bool]:
        """Take the place of the latest call of the client that has the most."""
        most = max(self._waiting, key=lambda other: len(self._waiting[other]))
        if len(self._waiting[most]) <= len(self._waiting.get(client, ())) + 1:
            raise _too_many()
        self._count -= 1
        return self._waiting[most].popitem()[0]

    def _leave(self, client: Hashable, future: Future[bool]) -> None:
        with self._lock:
            calls = self._waiting.get(client, {})
            if calls.pop(future, None) is not None:
                self._count -= 1
                if not calls:
                    del self._waiting[client]

    def _run_next(self) -> None:
        with self._lock:
            self._asked -= 1
            if not self._waiting:
                return  # closed, or all have left
            client = next(iter(self._waiting))
            calls = self._waiting.pop(client)
            future = next(iter(calls))
            call = calls.pop(future)
            if calls:
                self._waiting[client] = calls  # behind all others
            self._count -= 1
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def _refuse(future: Future[bool]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(_too_many())


def _too_many() -> TooManyRequests:
    return TooManyRequests("too many logins at once; try again")
