"""What was pushed and pulled on a bucket (storage.history): objects `history/KEY/TOKEN`, each some lines of JSON.

Events are kept in the process and written about once a minute, for no request waits for them: killed, a process loses
its last ones. What retention has to know all the same, it can tell from the objects: a manifest that was pushed here
says so in its metadata, and its time is that of its last push. Unknown means keep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from functools import partial

from zotctl.errors import NotFound, StorageError
from zotctl.oci.digest import check_digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.cache import Lru
from zotctl.storage.history import (
    REMEMBERED_EVENTS,
    Event,
    Pulls,
    Timeline,
    believed,
    condensed,
    event_of,
    events_of,
    lines_of,
)
from zotctl.storage.protocol import Snapshot

FLUSH_INTERVAL_S = 60.0
MAX_EVENTS = 100_000
"""Kept in memory while the bucket is away; then the oldest go."""
COMPACT_NAMES = 10_000
MAX_HISTORY_OBJECTS = 8
"""Objects of a repository above which they are made one."""
CACHED_EVENTS_BYTES = 32 << 20
"""Events that were read, and never change."""
CLOCK_SLACK_S = 60.0
"""By so much a process may be wrong about the server's clock, generously: kept, an event costs some bytes."""
PUSHED_METADATA = {"zotctl": "pushed"}
"""Metadata of a manifest that came by a push, and not with a layout of another tool."""


class BucketHistory:
    """`History` on a bucket. Safe between threads."""

    def __init__(self, context: BucketContext, read: Callable[[str], Snapshot]) -> None:
        """`read`: a repository's index.json."""
        self._context, self._read = context, read
        self._events: list[Event] = []
        self._mutex = threading.Lock()
        self._flushed = context.clock.elapsed()
        self._pulls = Pulls(context.clock)
        self._few: Lru[str, bool] = Lru(COMPACT_NAMES)
        """Was there nothing to compact when the past of a repository was looked at?"""
        self._files: Lru[str, tuple[Event, ...]] = Lru(CACHED_EVENTS_BYTES)

    # -- noting ---------------------------------------------------------------------------------

    def note(
        self,
        name: str,
        action: str,
        digest: str,
        tags: dict[str, str | None] | None = None,
        happened_at: float | None = None,
        *,
        user: str = "",
        by: str = "",
    ) -> None:
        """No request. Never raises: the push it tells of goes on."""
        with suppress(StorageError):
            event = event_of(self._context.objects.date(), name, action, digest, tags, happened_at, user=user, by=by)
            with self._mutex:
                self._events.append(event)
                del self._events[:-MAX_EVENTS]

    def note_pull(self, name: str, digest: str, *, wait: bool = True) -> None:
        """Once a day for each manifest and process. No request, so it never waits."""
        if self._pulls.note(name, digest):
            self.note(name, "pull", digest)

    def maintain(self) -> None:
        """`flush`, once in `FLUSH_INTERVAL_S`."""
        if self._events and self._context.clock.elapsed() - self._flushed >= FLUSH_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write what was noted. What can't be written now, is kept. Never raises."""
        self._flushed = self._context.clock.elapsed()
        with self._mutex:
            events, self._events = self._events, []
        by_name: dict[str, list[Event]] = {}
        for event in events:
            by_name.setdefault(event["r"], []).append(event)
        for name, some in by_name.items():
            try:
                self._write(name, some)
            except StorageError:
                with self._mutex:
                    self._events[:0] = some

    def _write(self, name: str, events: Iterable[Event]) -> str:
        self._context.objects.put(key := f"{keys.history(name)}/{self._context.clock.token()}", lines_of(events))
        return key

    # -- reading --------------------------------------------------------------------------------

    def timeline(self, name: str) -> Timeline:
        """What this process and others have noted, and what the objects tell: one LIST, a GET for each history object
        that is new to this process, and a HEAD for each untagged manifest that no event is about."""
        past = self.written(name)
        self._add_untagged(name, past, self._context.objects.date())
        return past

    def written(self, name: str) -> Timeline:
        """The same, without a look at the objects."""
        past = Timeline()
        for event in self.events(name):
            past.take(event)
        return past

    def events(self, name: str) -> list[Event]:
        """What was noted, by this process and by others, in the order of time."""
        with self._mutex:
            events = [event for event in self._events if event["r"] == name]
        now, written = self._context.objects.date(), self._written(name)
        self._few.put(name, self._are_few(written))
        events = believed(events, now)[0]
        for found, some in written:
            events += believed(list(some), now, found.modified)[0]
        return sorted(events, key=lambda event: float(event["t"]))

    def names(self) -> set[str]:
        """Repositories that have a history, also those that are gone: one LIST, and a GET for each of them."""
        found = {one.key.removeprefix(keys.below(keys.HISTORY)).partition("/")[0]: one
                 for one in self._context.objects.list(keys.below(keys.HISTORY))}  # fmt: skip
        with self._mutex:
            names = {str(event["r"]) for event in self._events}
        return names | {str(event["r"]) for one in found.values() for event in self._events_in(one)[:1] if "r" in event}

    def _written(self, name: str) -> list[tuple[Object, tuple[Event, ...]]]:
        return [(found, self._events_in(found)) for found in self._context.objects.list(keys.below(keys.history(name)))]

    def _events_in(self, found: Object) -> tuple[Event, ...]:
        known = self._files.get(found.key)
        if known is None:
            with suppress(NotFound):
                got = self._context.objects.get(found.key)
                known = tuple(events_of(got[1])) if got else ()
                self._files.put(found.key, known, found.size + 100)
        return known or ()

    def _add_untagged(self, name: str, past: Timeline, now: float) -> None:
        """When an untagged manifest was pushed that no event tells of."""
        try:
            index = self._read(name).index
        except (NotFound, StorageError):
            return
        known = past.here | past.pushed.keys() | past.noted.keys()
        untold = [digest for digest in index.digests if digest not in known and not index.tags_of(digest)]
        heads = [partial(self._context.head, keys.blob(name, check_digest(digest))) for digest in untold]
        for digest, found in zip(untold, self._context.each(heads), strict=True):
            if found is not None and PUSHED_METADATA.items() <= found.metadata.items():
                past.here.add(digest)
                past.pushed[digest] = min(found.modified, now)
                past.ahead |= {digest} if found.is_ahead else set()

    # -- keeping it small -----------------------------------------------------------------------

    def _are_few(self, written: list[tuple[Object, tuple[Event, ...]]]) -> bool:
        """What is dated ahead is written anew, so that it has a time."""
        return len(written) <= MAX_HISTORY_OBJECTS and not any(found.is_ahead for found, _ in written)

    def compact(self, name: str, alive: Container[str], tags: Container[str], asof: float) -> None:
        """One object for many, without what is about manifests and tags that are gone: `alive` and `tags` are those
        that were there at `asof` by the server's clock, or later. Two that do so at once, or one that dies in between,
        leave some events twice, which is the same."""
        if self._few.get(name):
            return
        written, now = self._written(name), self._context.objects.date()
        if self._are_few(written):
            return
        dated = [believed(list(some), now, found.modified)[0] for found, some in written]
        events = sorted((event for some in dated for event in some), key=lambda event: float(event["t"]))
        old = [event for event in events if event["t"] < asof - CLOCK_SLACK_S]
        kept = condensed(old, alive, tags, REMEMBERED_EVENTS) + events[len(old) :]
        if kept:
            self._write(name, kept)
        for found, _ in written:
            self._context.objects.delete(found.key)
