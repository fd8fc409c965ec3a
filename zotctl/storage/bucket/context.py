"""What the parts of the bucket protocol share: its objects, clock and options, and the threads in which requests are
made side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from zotctl.errors import DigestInvalid, Expired, NotFound
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.bucket.workers import DigestMarks, Mark
from zotctl.storage.clock import Clock, is_ahead
from zotctl.storage.turns import Turn, at_once

T = TypeVar("T")

MAX_WINDOW_S = 900.0
"""The upper limit of w (docs/design/bucket.md#times)."""
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
    """Has this process written anything? If not, it writes no caches either, since it may only be looking."""
    single_writer: bool = False
    server: str = ""
    """The endpoint, whose abilities are remembered."""
    direct: Objects | None = None
    """The same objects without retries, for callers that ask whether the bucket answers now."""
    pooled: bool = True
    """May the pool have content? Looked up now and then; False spares a request for what is absent."""
    deletions: Mark = field(default_factory=Mark)
    """Changes with each DELETE by a client that a worker of this server has answered."""
    lost: DigestMarks = field(default_factory=DigestMarks)
    """Changes for a digest each time that a worker of this server finds it missing or damaged."""
    marked: DigestMarks = field(default_factory=DigestMarks)
    """Changes for a digest with each mark of damage that a worker of this server writes."""
    turn: Turn = at_once
    """At a repository's index.json, between the processes of this server."""
    threads: ThreadPoolExecutor | None = None
    """None: requests of one push go one after the other, as a simulation wants it."""
    halted: threading.Event = field(default_factory=threading.Event)
    """Set when a job stops early: its threads then begin no further call of `each`."""
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
        """The key for new bytes of a blob."""
        return keys.shared(digest) if self.dedupe else keys.blob(name, digest)

    def places(self, name: str, digest: Digest) -> tuple[str, ...]:
        """The keys at which a blob may be, the likely one first. Both are tried, so a store is readable while it is
        converted."""
        own, shared = keys.blob(name, digest), keys.shared(digest)
        if self.dedupe:
            return shared, own
        return (own, shared) if self.pooled else (own,)

    def own_blobs(self, name: str) -> Iterator[tuple[Digest, Object]]:
        """The blobs that lie in the repository itself. Other objects below `blobs` belong to other programs."""
        prefix = f"{keys.blobs(name)}/"
        for found in self.objects.list(prefix):
            with suppress(DigestInvalid):
                yield parse_digest(found.key.removeprefix(prefix).replace("/", ":", 1)), found

    def head(self, key: str) -> Object | None:
        """One request; None: there is no such object."""
        with suppress(NotFound):
            return self.objects.head(key)
        return None

    def carry_out(self, presigned: PresignedDelete) -> None:
        """Execute a presigned delete in its time. Raises Expired, and what `Objects.execute` raises.

        Where the server's clock was put back, its expiry may come hours late, and not every server refuses what is
        signed with a time to come: so what it has said of its clock must agree.
        """
        now = self.objects.date()
        if is_ahead(presigned.begins, now) or now > presigned.ends:
            raise Expired(f"{self.objects.label}: deletes were signed too long ago, or the server's clock was put back")
        self.objects.execute(presigned)

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """All of them, side by side where there are threads; the results in order. A call may come here itself."""
        if self.threads is None or len(calls) < 2:
            return [call() for call in calls]
        return abreast(self.threads, PARALLEL_REQUESTS, calls, self.halted)


class Halted(Exception):
    """The job has stopped, so no caller waits for the result. Not a ZotctlError: code that ignores those must not
    ignore this."""


def abreast(
    threads: ThreadPoolExecutor, most: int, calls: Sequence[Callable[[], T]], halted: threading.Event | None = None
) -> list[T]:
    """Make all calls, at most `most` at once. Returns their results in order.

    The calling thread makes calls too, and waits only for those that another thread has begun: so a call may itself
    call this, however few threads there are. After a failure no other call begins; of several failures the first in
    order is raised. After `halted` is set no other call begins either; Halted is raised if some were not made.
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
