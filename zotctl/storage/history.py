"""What was pushed, moved, deleted and pulled here, and when (local.md, "History").

`.zotctl/history/KEY`, one append-only file of JSON lines a repository. Nothing depends on it but
retention and what people ask: lost or incomplete means unknown, and unknown means keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from zotctl.errors import NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.clock import Clock
from zotctl.storage.driver import read
from zotctl.storage.local.site import Site

LARGEST = 256 << 20
DAY = 86400
PULLS_REMEMBERED = 100_000


@dataclass
class Past:
    """Times in seconds since 1970, the latest of each kind."""

    pushed: dict[str, float] = field(default_factory=dict)
    """By digest: when it was pushed, or lost a tag; from then on its delay runs."""
    tagged: dict[str, float] = field(default_factory=dict)
    pulled: dict[str, float] = field(default_factory=dict)
    noted: dict[str, float] = field(default_factory=dict)
    """By digest: when a collector first saw an untagged row that was not pushed here."""
    here: set[str] = field(default_factory=set)
    """Digests that were pushed here."""

    def take(self, event: dict[str, Any]) -> None:
        action, digest, at = event.get("a"), event.get("d"), float(event["t"])
        if action == "pull" and digest:
            self.pulled[digest] = max(at, self.pulled.get(digest, 0.0))
        elif action == "note" and digest:
            self.noted.setdefault(digest, at)
        elif action in ("push", "move", "untag", "delete") and digest:
            self._moved(action, digest, at, event.get("tags") or {})

    def _moved(self, action: str, digest: str, at: float, tags: dict[str, str | None]) -> None:
        self.pushed[digest] = max(at, self.pushed.get(digest, 0.0))
        if action == "push":
            self.here.add(digest)
            self.tagged.update(dict.fromkeys(tags, at))
        for before in filter(None, tags.values()):
            self.pushed[before] = max(at, self.pushed.get(before, 0.0))


Event = dict[str, Any]


def event_of(at: float, name: str, action: str, digest: str, tags: dict[str, str | None] | None) -> Event:
    """`at` in seconds since 1970; `tags` with the digests that they had before."""
    event: Event = {"t": round(at, 3), "a": action, "r": name, "d": str(digest)}
    if tags:
        event["tags"] = {tag: str(before) if before else None for tag, before in tags.items()}
    return event


def lines_of(events: Iterable[Event]) -> bytes:
    """As they are written: a line of JSON each."""
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)


class Pulls:
    """Which manifests were pulled today: one event a day for each is enough for retention, and cheap."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: Lru[tuple[str, str, int], bool] = Lru(PULLS_REMEMBERED)

    def is_first(self, name: str, digest: str) -> bool:
        """The first one of its day that this process is told of?"""
        key = (name, str(digest), int(self._clock.now() // DAY))
        known = self._seen.get(key)
        if known is None:
            self._seen.put(key, True)
        return known is None


class Memory(Protocol):
    """What every store remembers; a file system does it in files, a bucket in objects."""

    def note(self, name: str, action: str, digest: str, tags: dict[str, str | None] | None = None) -> None:
        """One event. Never raises: whatever it tells of goes on."""

    def note_pull(self, name: str, digest: str) -> None:
        """Once a day for each manifest: enough for retention, and cheap."""

    def past(self, name: str) -> Past:
        """Everything that is known."""


class History:
    def __init__(self, site: Site) -> None:
        self._site, self._pulls = site, Pulls(site.clock)

    def note(self, name: str, action: str, digest: str, tags: dict[str, str | None] | None = None) -> None:
        """Append one event. Never raises: the push it tells of is done already."""
        with suppress(StorageError):
            self._append(name, [event_of(self._site.clock.now(), name, action, digest, tags)])

    def note_pull(self, name: str, digest: str) -> None:
        if self._pulls.is_first(name, digest):
            self.note(name, "pull", digest)

    def past(self, name: str) -> Past:
        """Everything that is known. A torn line, after a crash, is skipped."""
        past = Past()
        try:
            body = read(self._site.driver, keys.history(name), LARGEST)
        except NotFound:
            return past
        for line in body.splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                past.take(json.loads(line))
        return past

    def _append(self, name: str, events: Iterable[Event]) -> None:
        try:
            writer = self._site.driver.append(keys.history(name))
        except NotFound:
            self._site.make_dirs(keys.HISTORY)
            writer = self._site.driver.append(keys.history(name))
        with writer:
            writer.write([lines_of(events)])

    def compact(self, name: str, alive: set[str]) -> None:
        """Forget what is about manifests that are gone. Called under the repository's lock."""
        kept = [event for event in self._events(name) if event.get("d") in alive]
        temp = keys.tmp(self._site.clock.token())
        with self._site.driver.create(temp) as writer:
            writer.write([lines_of(kept)])
        self._site.driver.rename(temp, keys.history(name))

    def size(self, name: str) -> int:
        info = self._site.stat(keys.history(name))
        return info.size if info else 0

    def _events(self, name: str) -> list[Event]:
        events = []
        for line in read(self._site.driver, keys.history(name), LARGEST).splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                events += [event] if isinstance(event, dict) else []
        return events
