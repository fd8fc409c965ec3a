"""Hashing at the speed of all cores: threads, since hashlib lets go of the interpreter while it works."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from zotctl.jobs.run import Run, TimeUp
from zotctl.oci.digest import Digest, digest_of_hash, new_hash
from zotctl.storage.driver import Reader

T = TypeVar("T")

BUFFER = 1 << 20
"""Bytes read at a time: few calls, each of which lets go of the interpreter and has to get it back."""
BREATH = 8
"""Buffers between two looks at whether requests are waiting."""
QUEUE = 4
"""Pieces of work for each worker that may be under way or waiting."""


class HashingStopped(Exception):
    """No caller waits for this any more."""


class Hasher:
    """Hashes for one run, paced by its throttle. Safe between threads: each has a buffer of its own."""

    def __init__(self, run: Run) -> None:
        self._run, self._buffers, self._mutex = run, threading.local(), threading.Lock()
        self.stopped = threading.Event()
        self.done = 0
        self.total: int | None = None

    def digest(self, reader: Reader, algorithm: str) -> Digest:
        """Of all that can be read, to the end as it is then."""
        state, at, turns = new_hash(algorithm), 0, 0
        buffer = self._buffer()
        if reader.size > BUFFER:
            reader.once()
        while count := reader.read_into(at, buffer):
            state.update(buffer[:count])
            at += count
            turns += 1
            self._count(count)
            self._run.throttle.take(count)
            if turns % BREATH == 0:
                self._breathe()
        return digest_of_hash(algorithm, state)

    def _buffer(self) -> memoryview:
        if not hasattr(self._buffers, "view"):
            self._buffers.view = memoryview(bytearray(self._run.throttle.piece(BUFFER)))
        view: memoryview = self._buffers.view
        return view

    def _count(self, count: int) -> None:
        with self._mutex:
            self.done += count

    def tell(self, what: str = "") -> None:
        """How far it is, in bytes."""
        self._run.progress(self.done, self.total, "bytes", what)

    def _breathe(self) -> None:
        if self.stopped.is_set():
            raise HashingStopped
        # Time that is up ends the run between two blobs: a blob that was begun is finished, or the largest
        # one would be begun anew each night and never be checked.
        with suppress(TimeUp):
            self._run.check()
        self.tell()


def cores() -> int:
    return len(os.sched_getaffinity(0))


class Workers:
    """Threads that work, and one caller that takes the results; with one worker, no thread at all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count, "zotctl-hash") if count > 1 else None
        self._pending: dict[Future[Any], Callable[[Any], None]] = {}

    def put(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have it done, and `then` called with the result, in this thread, here or in a later call."""
        if self._threads is None:
            then(work())
            return
        self._pending[self._threads.submit(work)] = then
        if len(self._pending) >= QUEUE * self._count:
            self._collect()

    def drain(self) -> None:
        """Until nothing is left to do, what the results themselves ask for included."""
        while self._pending:
            self._collect()

    def _collect(self) -> None:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            then = self._pending.pop(future, None)  # what `then` asks for may have collected it already
            if then is not None:
                then(future.result())

    def close(self) -> None:
        """Drop what was not begun and wait for the rest."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
