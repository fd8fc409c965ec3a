"""What was pushed, moved, deleted and pulled, and when: events, their JSON lines, and the timeline they make.

Actions: `push` (with `tags`: that each of them leads there now), `untag`, `delete` (by a client), `drop` (a collector
removed the row), `purge` (a collector deleted the bytes of a manifest), `pull`, `note` and `clock` (for collectors).
Only retention and reports depend on it. What is lost or incomplete is unknown, and unknown means keep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from zotctl.errors import printable
from zotctl.oci.codec import load_json
from zotctl.storage.cache import Lru
from zotctl.storage.clock import DAY_S, Clock, is_ahead

PULLS_REMEMBERED = 100_000
CLOCK_ACTION = "clock"
"""The action by which a collector notes that it saw events dated in the future: they count as written before it."""
REMEMBERED_EVENTS = 1000
"""Changes of tags and manifests of one repository that a compaction leaves for people, whatever became of them."""
CHANGES = ("push", "move", "untag", "delete", "drop", "purge")
"""Actions that changed what clients see, or what can be restored."""
EVENT_STEP_S = 0.001
"""Seconds between two events that have no time of their own."""


@dataclass
class Timeline:
    """Times in seconds since 1970, the latest of each kind."""

    pushed: dict[str, float] = field(default_factory=dict)
    """By digest: when it was pushed, or lost a tag; from then on its delay runs."""
    tagged: dict[str, float] = field(default_factory=dict)
    entered: dict[str, float] = field(default_factory=dict)
    """By tag: when that was written down here, which for an import is later than when it was pushed."""
    pulled: dict[str, float] = field(default_factory=dict)
    noted: dict[str, float] = field(default_factory=dict)
    """By digest: when a collector first saw an untagged row that was not pushed here."""
    here: set[str] = field(default_factory=set)
    """Digests that were pushed here."""
    ahead: set[str] = field(default_factory=set)
    """What was dated by a clock that was ahead, and counts as of now until a collector has noted when it saw that: a
    digest, or "" for everything that is written."""

    def take(self, event: dict[str, Any]) -> None:
        """Enter one event; those of a repository are taken in the order in which they were written."""
        action, digest, at = event.get("a"), event.get("d"), float(event["t"])
        if action == "pull" and digest:
            self.pulled[digest] = max(moment_of(event), self.pulled.get(digest, 0.0))
        elif action == "note" and digest:
            self.noted.setdefault(digest, at)
        elif action in ("push", "move", "untag", "delete") and digest:
            self._moved(action, digest, at, event)

    def _moved(self, action: str, digest: str, at: float, event: dict[str, Any]) -> None:
        tags: dict[str, str | None] = event.get("tags") or {}
        self.pushed[digest] = max(at, self.pushed.get(digest, 0.0))
        if action == "push":
            self.here.add(digest)
            self.tagged.update(dict.fromkeys(tags, moment_of(event)))
            self.entered.update(dict.fromkeys(tags, at))
        for before in filter(None, tags.values()):
            self.pushed[before] = max(at, self.pushed.get(before, 0.0))


Event = dict[str, Any]


def event_of(
    at: float,
    name: str,
    action: str,
    digest: str,
    tags: dict[str, str | None] | None,
    happened_at: float | None = None,
    *,
    user: str = "",
    by: str = "",
) -> Event:
    """An event that is written down `at` (seconds since 1970); `tags` with the digests that they had before.

    `happened_at`: when it happened in another store, if it was copied from there.
    `user`: the login of the client that did it. `by`: the job or the policy that did it, in words. Neither: a client
    without a login, or an event of an earlier version.
    """
    event: Event = {"t": round(at, 3), "a": action, "r": name, "d": str(digest)}
    if happened_at is not None:
        event["at"] = round(min(at, happened_at), 3)
    if tags:
        event["tags"] = {tag: str(before) if before else None for tag, before in tags.items()}
    event |= {"u": user} if user else {}
    event |= {"by": by} if by else {}
    return event


def moment_of(event: Event) -> float:
    """When it was, if it was written down later; never after that."""
    at, happened_at = float(event["t"]), event.get("at")
    return at if happened_at is None else min(at, float(happened_at))


def lines_of(events: Iterable[Event]) -> bytes:
    """One JSON line per event, after an empty line, so that none continues a line that a crash tore."""
    return b"\n" + b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)


def events_of(body: bytes) -> list[Event]:
    """Parse JSON lines. A torn line, or one that is no event, is skipped."""
    events = []
    for line in body.splitlines():
        with suppress(ValueError):
            event = load_json(line)
            if _is_event(event):
                events.append(_printable(event) if b"\\" in line or not line.isascii() else event)
    return events


def _printable(found: Any) -> Any:
    """A login may have been no UTF-8."""
    if isinstance(found, dict):
        return {_printable(key): _printable(value) for key, value in found.items()}
    return printable(found) if isinstance(found, str) else found


def _is_event(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    at, tags = found.get("t"), found.get("tags") or {}
    if not all(isinstance(time, (int, float)) and math.isfinite(time) for time in (at, found.get("at") or 0)):
        return False
    if not isinstance(found.get("d", ""), str):
        return False
    return isinstance(tags, dict) and all(before is None or isinstance(before, str) for before in tags.values())


def believed(events: list[Event], now: float, bound: float | None = None) -> tuple[list[Event], bool]:
    """Events in the order in which they were written, without a time in the future.

    An event dated in the future gets the time at which a collector noted that it saw one (`CLOCK_ACTION`), or `bound`,
    before which it was written, or else now. The second result is True if neither is known.
    """
    limit, known, ahead = min(now, bound) if bound is not None else now, bound is not None, 0
    found, missing = list[Event](), False
    for event in reversed(events):
        at = float(event["t"])
        if is_ahead(at, now):
            # Each a bit before the one that was written after it, so that the latest is found.
            ahead, missing = ahead + 1, missing or not known
            found.append(event | {"t": limit - EVENT_STEP_S * ahead})
            continue
        if event.get("a") == CLOCK_ACTION:
            limit, known, ahead = at, True, 0
        found.append(event)
    return found[::-1], missing


def condensed(events: Iterable[Event], alive: Container[str], tags: Container[str], recent: int = 0) -> list[Event]:
    """The events without which a `Timeline` would know less of these digests and tags, and the `recent` latest changes,
    in their order.

    Of a manifest that was pushed here: that, its last push or loss of a tag (which the push of another manifest
    tells), its last pull, when it was noted. Of a tag: its last push.
    """
    listed = list(events)
    best: dict[tuple[str, str], int] = {}
    for number, event in enumerate(listed):
        for kind, name in _told(event):
            if name not in (tags if kind == "tagged" else alive):
                continue
            known = best.setdefault((kind, name), number)
            # The latest; of tags the last one written, of notes the first.
            when = moment_of if kind == "pulled" else _written
            if kind in ("tagged", "here") or (kind != "noted" and when(event) >= when(listed[known])):
                best[kind, name] = number
    changes = [number for number, event in enumerate(listed) if event.get("a") in CHANGES]
    return [listed[number] for number in sorted({*best.values(), *changes[len(changes) - min(recent, len(changes)) :]})]


def _written(event: Event) -> float:
    return float(event["t"])


def _told(event: Event) -> Iterator[tuple[str, str]]:
    """The facts of a `Timeline` that an event may be the source of."""
    action, digest, tags = event.get("a"), event.get("d"), event.get("tags") or {}
    if not digest:
        return
    if action in ("pull", "note"):
        yield "pulled" if action == "pull" else "noted", digest
    elif action in ("push", "move", "untag", "delete"):
        yield "pushed", digest
        yield from (("pushed", before) for before in filter(None, tags.values()))
        if action == "push":
            yield "here", digest
            yield from (("tagged", tag) for tag in tags)
    elif action not in CHANGES:
        yield str(action), digest  # of a later version


class Pulls:
    """Which manifests were pulled today: one event a day for each is enough for retention, and cheap. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._days: Lru[tuple[str, str], float] = Lru(PULLS_REMEMBERED)

    def note(self, name: str, digest: str) -> bool:
        """Note a pull. True: it is the first of its day in this process, so an event is due."""
        key, day = (name, digest), self._clock.now() // DAY_S
        if self._days.get(key) == day:
            return False
        self._days.put(key, day)
        return True

    def forget(self, name: str, digest: str) -> None:
        """The event of a pull could not be written: the next pull is the first again."""
        self._days.drop((name, digest))
