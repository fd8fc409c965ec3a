"""The history of a directory (docs/design/local.md#history): `.zotctl/history/KEY`, one append-only file of JSON lines
per repository (`storage.history`).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.clock import poll
from zotctl.storage.driver import CHUNK_BYTES, Driver, Info, Reader, Writer, place, scan_or_empty
from zotctl.storage.file_identity import same_file
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
from zotctl.storage.local.context import LocalContext, open_own
from zotctl.storage.protocol import WouldBlock

LARGEST_HISTORY_BYTES = 256 << 20
"""Bytes of one file that are read, from its end. A longer file grows only where no collector ever runs."""
APPEND_ATTEMPTS = 5
LOCK_PATIENCE_S, LOCK_POLL_S = 0.1, 0.001
"""How long an event waits for who replaces the file, which takes a rename."""
FROZEN_S = 10.0
"""For so long nobody waits again for a file that was waited for in vain: each change of a commit notes an event, under
the repository's lock."""
FROZEN_FILES = 1000
NAMING_BYTES = 64 << 10
"""Bytes at the end of a file in which its last event is looked for."""


class Here(NamedTuple):
    """What is in a repository at one moment, as far as its history is about it."""

    alive: Container[str]
    """The digests that its index.json leads to."""
    tags: Container[str]


class LocalHistory:
    """One file per repository, to which all processes append. Safe between threads and processes."""

    def __init__(self, context: LocalContext) -> None:
        self._context, self._pulls = context, Pulls(context.clock)
        self._frozen: Lru[str, float] = Lru(FROZEN_FILES)
        """When a file was waited for in vain, by `clock.elapsed`."""

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
        """Append one event. Never raises: the push it tells of is done already."""
        with suppress(StorageError):
            now = self._context.storage_clock.now()
            self._append(name, lines_of([event_of(now, name, action, digest, tags, happened_at, user=user, by=by)]))

    def note_pull(self, name: str, digest: str, *, wait: bool = True) -> None:
        """Once a day for each manifest. With `wait` false, raises WouldBlock while another process has the file, and
        where it has to be copied."""
        if self._pulls.note(name, digest):
            try:
                with suppress(StorageError):
                    event = event_of(self._context.storage_clock.now(), name, "pull", digest, None)
                    self._append(name, lines_of([event]), wait=wait)
            except WouldBlock:
                self._pulls.forget(name, digest)
                raise

    def timeline(self, name: str) -> Timeline:
        """Everything that the file tells; of a file that is too long, its end."""
        return past_in(self._context.driver, name, self._context.storage_clock.now())

    def written(self, name: str) -> Timeline:
        """The same: a look at a file costs nothing more."""
        return self.timeline(name)

    def events(self, name: str) -> list[Event]:
        """What the file tells, one event after the other."""
        with suppress(NotFound):
            return believed(_events_in(self._context.driver, name), self._context.storage_clock.now())[0]
        return []

    def names(self) -> set[str]:
        """Repositories that have a history, also those that are gone."""
        return {
            str(event["r"])
            for entry in scan_or_empty(self._context.driver, keys.HISTORY)
            for event in self._last_events(f"{keys.HISTORY}/{entry.name}")
            if keys.name_key(str(event.get("r"))) == entry.name.partition(".")[0]
        }

    def _last_events(self, key: str) -> list[Event]:
        """The last event of a file, if any: each line names the repository. Nothing of one that went meanwhile."""
        with suppress(NotFound), self._context.driver.open(key) as reader:
            return events_of(_read(reader, max(0, reader.size - NAMING_BYTES), reader.size))[-1:]
        return []

    def removed_since(self, name: str, at: float) -> set[str]:
        """Tags that were taken away, and digests that were deleted, since then (seconds since 1970)."""
        found: set[str] = set()
        with suppress(NotFound):
            for event in _events_in(self._context.driver, name):
                if event["t"] >= at and event.get("a") in ("untag", "delete"):
                    found.update(event.get("tags") or [event.get("d", "")])
        return found

    def _append(self, name: str, lines: bytes, *, wait: bool = True) -> None:
        """Append, to the file that has the name: whoever replaces it locks it, as is done here. Without a lock, do so
        again if the file was replaced meanwhile."""
        key = keys.history(name)
        for _ in range(APPEND_ATTEMPTS):
            with self._open(key, wait) as writer:
                locked, info = self._lock(key, writer, wait), writer.info()
                if not same_file(info, self._context.stat(key)):
                    continue
                if self._is_shared(info):
                    if not wait:
                        raise WouldBlock(key)
                    if locked:
                        self._part(key)
                    continue
                writer.write([lines])
                if locked or same_file(info, self._context.stat(key)):
                    return

    def _lock(self, key: str, writer: Writer, wait: bool) -> bool:
        """Lock the file until it is closed. False: there are no locks, or another process holds it for too long. Raises
        WouldBlock where that is not known yet, and the caller must not wait."""
        if not self._context.driver.capabilities.locks:
            return False
        now, frozen = self._context.clock.elapsed(), self._frozen.get(key)
        is_frozen = frozen is not None and now <= frozen + FROZEN_S
        until = now + LOCK_PATIENCE_S if wait and not is_frozen else now
        with suppress(StorageError):
            if poll(self._context.clock, writer.try_lock, until, LOCK_POLL_S):
                return True
            if not wait and not is_frozen:
                raise WouldBlock(key)
            if not is_frozen:
                self._frozen.put(key, now)
        return False

    def _is_shared(self, info: Info) -> bool:
        """Is it shared with a store that was copied by links (`cp -al`)? An event written here would appear there."""
        return self._context.driver.capabilities.locks and info.nlink > 1

    def _part(self, key: str) -> None:
        """Put a copy in place of the shared file, which the caller has locked, and opens again."""
        with self._context.driver.open(key) as old:
            self._context.replace(keys.renewed(key), [old.read_at(0, old.size)])
        self._context.driver.rename(keys.renewed(key), key)

    def _open(self, key: str, wait: bool) -> Writer:
        """Open it at its end. An NFS client replaces a file that is open on its host, as this one is while it is
        locked, by two requests: between them, and when a process has died there, no file has the name."""
        driver = self._context.driver
        with suppress(NotFound):
            return driver.append(key, create=False)
        with suppress(NotFound), driver.append(keys.renewed(key), create=False) as new:
            # Under its lock, or another process, which takes it for the file of a copied store because of its two
            # names, might be replacing it just now by way of the name that goes here.
            alone = self._lock(key, new, wait) or not driver.capabilities.locks
            if place(driver, keys.renewed(key), key) and alone:
                self._context.discard(keys.renewed(key))
        self._context.make_dirs(keys.HISTORY)
        return driver.append(key)

    def compact(self, name: str, here: Callable[[], Here | None], recent: int | None = None) -> None:
        """Drop events about manifests and tags that are gone, if these are half of the file, but none of the latest
        changes: `recent`, or `REMEMBERED_EVENTS`. `here` is asked when the file was read, and has to hold the
        repository's lock for that: a commit notes what it does before it does it. None: that is not known, so all
        stays. What is written meanwhile is in the new file before that has the name, for whoever writes waits for a
        lock of the file itself (`_append`), from the last look at the old one to the rename. Raises NotFound.
        """
        key, recent = keys.history(name), REMEMBERED_EVENTS if recent is None else recent
        with self._context.driver.open(key) as old:
            size = old.info().size
            events = events_of(_read(old, max(0, size - LARGEST_HISTORY_BYTES), size))
            if (found := here()) is None:
                return
            known = believed(events, self._context.storage_clock.now())[0]
            kept = lines_of(condensed(known, found.alive, found.tags, recent))
            if 2 * len(kept) > size:
                return
            if (end := self._swap(key, old, kept, size)) and (late := _read(old, end, old.info().size)):
                self._append(name, b"\n" + late)  # of a writer that could not wait

    def _swap(self, key: str, old: Reader, kept: bytes, size: int) -> int:
        """Put a file with `kept`, and what was written behind `size` since, in place of the old one. Returns how far
        that was read; 0: nothing was done."""
        driver, temp = self._context.driver, keys.tmp(self._context.clock.token())
        try:
            with driver.create(temp) as new:
                new.write([kept])
                new.sync()
                with self._open(key, True) as writer:
                    free = self._lock(key, writer, True) or not driver.capabilities.locks
                    # Who has shared the file by links, or another collector, may have replaced it meanwhile.
                    if not free or not same_file(old.info(), self._context.stat(key)):
                        return 0
                    if late := _read(old, size, old.info().size):
                        new.write([b"\n", late])
                        new.sync()
                    driver.rename(temp, keys.renewed(key))
                    driver.rename(keys.renewed(key), key)
            return size + len(late)
        finally:
            self._context.discard(temp)

    def size(self, name: str) -> int:
        """Bytes of the history of a repository."""
        info = self._context.stat(keys.history(name))
        return info.size if info else 0


def past_in(driver: Driver, name: str, now: float) -> Timeline:
    """The timeline of a repository in the root of this driver. `now` in seconds since 1970."""
    past = Timeline()
    with suppress(NotFound):
        events, missing = believed(_events_in(driver, name), now)
        for event in events:
            past.take(event)
        past.ahead |= {""} if missing else set()
    return past


def _events_in(driver: Driver, name: str) -> list[Event]:
    """The events of a file; of one that is too long, those at its end. Raises NotFound."""
    with open_own(driver, keys.history(name)) as reader:
        size = reader.info().size
        return events_of(_read(reader, max(0, size - LARGEST_HISTORY_BYTES), size))


def _read(reader: Reader, start: int, end: int) -> bytes:
    """The bytes from `start` to `end`, or to the end of the file as it is now."""
    parts: list[bytes] = []
    while start < end and (data := reader.read_at(start, min(CHUNK_BYTES, end - start))):
        parts.append(data)
        start += len(data)
    return b"".join(parts)
