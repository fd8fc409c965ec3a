"""What the parts of the protocol share: one bucket's objects, clock and options, and the threads for requests that are
made side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from zotctl.errors import DigestInvalid, NotFound
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.bucket.workers import DigestMarks, Mark, Turn, at_once
from zotctl.storage.clock import Clock

T = TypeVar("T")

MAX_WINDOW_S = 900.0
"""w is at most so long (docs/design/bucket.md#times)."""
PARALLEL_REQUESTS = 16
"""Requests of one push, or of one job's look at many things, that may be under way at once."""


@dataclass
class BucketContext:
    """`dedupe`: new configs and layers go into the pool. `delay`: the grace period, seconds. Safe between threads."""

    objects: Objects
    clock: Clock
    dedupe: bool = False
    delay: float = 3600.0
    read_only: bool = False
    writes: Callable[[], bool] = lambda: True
    """False: nothing yet, so what only saves work isn't written either, for this process may only look."""
    single_writer: bool = False
    server: str = ""
    """The endpoint, for whatever is remembered of its abilities."""
    direct: Objects | None = None
    """The same objects without repetition, for callers that only ask whether they are there just now."""
    pooled: bool = True
    """Can there be anything in the pool? Looked up now and then; False spares a request where something is absent."""
    deletions: Mark = field(default_factory=Mark)
    """Another after each delete by a client that this process or one beside it has answered."""
    lost: DigestMarks = field(default_factory=DigestMarks)
    """Another for a digest after each look, of this process or one beside it, that has found it missing or damaged."""
    marked: DigestMarks = field(default_factory=DigestMarks)
    """Another after each mark of damage that was written."""
    turn: Turn = at_once
    """At a repository's index.json, between the processes of this server."""
    threads: ThreadPoolExecutor | None = None
    """None: requests of one push go one after the other, as a simulation wants it."""
    halted: threading.Event = field(default_factory=threading.Event)
    """Set when a job ends before its end: its threads begin nothing more that has many parts."""
    conflict: Callable[[], None] = lambda: None
    """Called when a commit begins again because another process's came between."""
    _pool_seen: bool = False
    damaged: set[Digest] = field(default_factory=set)
    """Digests with a mark of damage somewhere; a hint that is brought up to date in the background."""

    @property
    def window(self) -> float:
        """Seconds: a reservation that is younger needs no rewriting (w in docs/design/bucket.md#times)."""
        return min(self.delay / 4, MAX_WINDOW_S)

    def look_for_pool(self) -> None:
        """One LIST; none if there was something in it before, or will be."""
        if not (self.dedupe or self._pool_seen):
            self.pooled = self._pool_seen = next(self.objects.list(keys.below(keys.SHARED)), None) is not None

    def blob(self, name: str, digest: Digest) -> str:
        """Where new bytes of a blob go."""
        return keys.shared(digest) if self.dedupe else keys.blob(name, digest)

    def places(self, name: str, digest: Digest) -> tuple[str, ...]:
        """Where a blob may be, the likely place first: a store is readable whichever way it is converted."""
        own, shared = keys.blob(name, digest), keys.shared(digest)
        if self.dedupe:
            return shared, own
        return (own, shared) if self.pooled else (own,)

    def own_blobs(self, name: str) -> Iterator[tuple[Digest, Object]]:
        """What lies below the `blobs` of a repository, whatever it reads elsewhere, and has the name of a blob.
        Anything else in there belongs to other programs."""
        prefix = f"{keys.blobs(name)}/"
        for found in self.objects.list(prefix):
            with suppress(DigestInvalid):
                yield parse_digest(found.key.removeprefix(prefix).replace("/", ":", 1)), found

    def head(self, key: str) -> Object | None:
        """One request; None: there is no such object."""
        with suppress(NotFound):
            return self.objects.head(key)
        return None

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """All of them, side by side where there are threads; the results in order. A call may come here itself."""
        if self.threads is None or len(calls) < 2:
            return [call() for call in calls]
        return abreast(self.threads, PARALLEL_REQUESTS, calls, self.halted)


class Halted(Exception):
    """No caller waits for this any more. It is no error of the registry, so code that passes over those does not pass
    over this."""


def abreast(
    threads: ThreadPoolExecutor, most: int, calls: Sequence[Callable[[], T]], halted: threading.Event | None = None
) -> list[T]:
    """Make all calls, at most `most` at once; the results in order.

    The caller makes calls too, and waits for those only that a thread has begun: so a call may come here itself,
    however few threads there are. After a failure no other call is begun; of several, the first in order is raised.
    Nor is one after `halted`; Halted is raised then, if not all were made.
    """
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}
    todo, mutex = iter(enumerate(calls)), threading.Lock()

    def work() -> None:
        while not (failures or (halted is not None and halted.is_set())):
            with mutex:
                at, call = next(todo, (-1, None))
            if call is None:
                return
            try:
                results[at] = call()
            except BaseException as failure:
                failures[at] = failure

    helpers = [threads.submit(work) for _ in range(min(most, len(calls)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if failures:
        raise failures[min(failures)]
    if len(results) < len(calls):
        raise Halted
    return [results[at] for at in range(len(calls))]
