"""What a collector of a bucket may delete, and when (docs/design/bucket.md#c1).

A digest is eligible when no repository needs it (`Reached`), it was first found so longer ago than the grace period
(`FirstUnreachable`), and its object and its reservations are older than that, and than the oldest active upload of its
repository (`ActiveBucketUploads`). All times are the server's; a date ahead of its clock counts from the run that saw
it first (`Ahead`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Set
from contextlib import suppress

from zotctl.errors import BlobUploadUnknown, Changed, NotFound, OutcomeUnknown
from zotctl.jobs.ages import JUST_BEGUN_S, LONG_AGO, UPLOAD_SPARED_S
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.uploads.upload import StoredUpload
from zotctl.storage.digests import Numbers
from zotctl.storage.keys import parse_upload_id

ROUNDING_S = 2.0
"""Seconds: times of a server have whole seconds, and so have differences of two of them, rounded both ways."""


class FirstUnreachable:
    """Since when something is known to be unreachable: one object for each repository, and one for the pool.

    It takes the place of the trash: what a deletion sets free is there for the delay from the run that found it, for a
    client in the middle of a pull. If the object is lost, the delay begins anew; of two collectors the slower one's
    note is dropped. Times in seconds since 1970 by the server's clock, by the key of what is unreachable. Used by one
    thread at a time.
    """

    def __init__(self, context: BucketContext, name: str, *, there: bool = True) -> None:
        """`there` False: an earlier run has left nothing, so it is not looked for; left meanwhile by another one, it
        is not replaced, and what this run sees is dropped (docs/design/bucket.md#collection)."""
        self._context, self._name, self._key = context, name, keys.first_seen(name)
        self._etag, self._before = "", dict[str, float]()
        self._now: dict[str, float] = {}
        if not there:
            return
        with suppress(NotFound):
            got = context.objects.get(self._key)
            assert got is not None
            self._etag, self._before = got[0].etag, _parse(got[1])

    def note(self, key: str, now: float) -> float:
        """Note that a key is unreachable in this run. The time since when it has been."""
        return self._now.setdefault(key, min(self._before.get(key, now), now))

    def is_new(self, key: str) -> bool:
        """No earlier run has found it unreachable."""
        return key not in self._before

    def again(self, key: str, now: float) -> None:
        """It was reserved since, so that it may have been reachable between two runs."""
        self._now[key] = now

    def at(self, key: str) -> float | None:
        """Since when it has been unreachable, as an earlier run wrote it; None: it was not."""
        return self._before.get(key)

    def keep(self, since: float) -> None:
        """What this run has not come to, and was first seen since then, stays as it was."""
        self._now = {key: at for key, at in self._before.items() if at >= since} | self._now

    def save(self) -> None:
        """What was not noted in this run was reachable, or is gone."""
        if self._now == self._before:
            return
        body = json.dumps({"name": self._name, "seen": self._now}).encode()
        with suppress(Changed, OutcomeUnknown):
            if self._now or not self._etag:
                self._context.objects.put(self._key, body, match=self._etag, absent=not self._etag)
            else:
                self._context.objects.delete(self._key)


def _parse(body: bytes) -> dict[str, float]:
    """Nothing, if it is nothing that we have written."""
    try:
        return {str(key): float(at) for key, at in load_json(body)["seen"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


AHEAD_NAME = "_ahead"
"""No name of a repository."""
AHEAD_REMEMBERED_S = 30 * 86400.0


class Ahead:
    """How old objects are, in one run on one root, even if they are dated ahead of their server's clock: it was wrong,
    or is.

    Such a date says nothing, and would keep content until the clock has come there. It counts from the run that saw it
    first, which is noted; if the space is wanted now, it counts as old. `now`: by the server's clock; `no_delay`: the
    delay is zero. Safe between threads.
    """

    def __init__(self, context: BucketContext, now: float, *, no_delay: bool) -> None:
        self._context, self.now, self._no_delay = context, now, no_delay
        self._seen: FirstUnreachable | None = None
        self._mutex = threading.Lock()

    def modified(self, found: Object) -> float:
        """When it was written, at the most; in seconds since 1970."""
        if not found.is_ahead:
            return found.modified
        if self._no_delay:
            return LONG_AGO
        with self._mutex:
            # A request, once, and only where there is such a thing.
            self._seen = self._seen or FirstUnreachable(self._context, AHEAD_NAME)
            return self._seen.note(f"{found.key} {int(found.modified)}", self.now)

    def age(self, found: Object) -> float:
        """Seconds."""
        return self.now - self.modified(found) if found.is_ahead else found.age

    def save(self) -> None:
        """Not every run comes to everything: what was not met is remembered for a while."""
        if self._seen is not None:
            self._seen.keep(self.now - AHEAD_REMEMBERED_S)
            self._seen.save()


class ActiveBucketUploads:
    """As they were when a run began. A session was renewed by the server's clock, and begun by that of the host that
    took it, which only says how far back to spare."""

    def __init__(self, context: BucketContext, delay: float, ahead: Ahead | None = None) -> None:
        """`ahead` None: only to look."""
        ahead = ahead or Ahead(context, context.objects.date(), no_delay=not delay)
        self._context, self._ahead = context, ahead
        self._began: dict[str, float] = {}
        self._ends: list[tuple[str, float, float]] = []
        for found in context.objects.list(keys.below(keys.UPLOADS)):
            if ahead.age(found) < max(delay, JUST_BEGUN_S):
                self._learn(found.key, max(delay, JUST_BEGUN_S))

    def _learn(self, key: str, idle: float) -> None:
        with suppress(NotFound, BlobUploadUnknown, ValueError):
            session = StoredUpload.parse(found := self._context.objects.head(key))
            started = min(parse_upload_id(session.id).started, self._ahead.modified(found))
            if self._ahead.now - started < UPLOAD_SPARED_S:
                self._began[session.name] = min(started, self._began.get(session.name, float("inf")))
                ends = min(self._ahead.modified(found) + idle, started + UPLOAD_SPARED_S)
                self._ends.append((session.name, started, ends))

    def since(self, name: str) -> float:
        """When the oldest one of a repository began; infinity without one."""
        return self._began.get(name, float("inf"))

    def until(self, name: str, written: float) -> float | None:
        """When those that spare what was written then will not count any more, if nobody continues them."""
        return max((ends for key, began, ends in self._ends if key == name and began <= written), default=None)


SHARED_BY_ZOT = "zot has deduplicated this bucket, so nothing is freed: run `zotctl dedupe --undo` first"


class Reached:
    """What each repository reaches and has, as its collection found it. Threads may enter different repositories.

    What the walk has found, in some thirteen bytes for each digest of each repository. A collision only keeps
    something."""

    def __init__(self) -> None:
        self._reached, self._needed, self._own = Numbers(), Numbers(), Numbers()
        self._mutex = threading.Lock()
        """Of those who enter."""
        self.left_alone = set[str]()
        """Repositories of which something is not known: they keep all that they hold."""
        self.walked = set[str]()

    def reaches(self, name: str, digest: str) -> bool:
        """Does a manifest of this repository lead to it?"""
        return _number(name, digest) in self._reached

    def needs(self, digest: str) -> bool:
        """Does some repository need the pool's copy?"""
        return _number("", digest) in self._needed

    def has_own(self, name: str, digest: str) -> bool:
        """Has the repository a good copy of its own?"""
        return _number(name, digest) in self._own

    def enter(self, name: str, reachable: Iterable[str], own: Set[str], *, shared: bool) -> None:
        """A repository was looked at. `shared`: the pool's copy is needed even where there is one of its own."""
        with self._mutex:
            for digest in reachable:
                self._reached.add(_number(name, digest))
                if shared or digest not in own:
                    self._needed.add(_number("", digest))
            for digest in own:
                self._own.add(_number(name, digest))
        self.walked.add(name)
        self.left_alone.discard(name)


def _number(name: str, digest: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name} {digest}".encode(), digest_size=8).digest())


class Eligibility:
    """Decides for one run on one root what may be deleted. `delay` in seconds; every time is the server's. Safe between
    threads, each with a `FirstUnreachable` of its own."""

    def __init__(self, run: Run, context: BucketContext, delay: float) -> None:
        self._run, self._context, self.delay = run, context, delay
        self.ahead = Ahead(context, float(int(context.objects.date())), no_delay=not delay)
        self._active = ActiveBucketUploads(context, delay, self.ahead)
        self.now = float(int(context.objects.date()))

    @property
    def window(self) -> float:
        """w in seconds: that of the servers, or what it would be by a shorter delay, if one is asked for."""
        return min(self._context.window, self.delay / 4)

    def active_until(self, name: str, written: float) -> float | None:
        """When uploads that spare what was written then will not count any more, if nobody continues them; None: there
        are none."""
        return self._active.until(name, written)

    def is_old(self, name: str, found: Object) -> bool:
        """Not written within the delay, nor since the oldest upload began that is still moving."""
        return self.ahead.age(found) >= self.delay and self.ahead.modified(found) < self._active.since(name)

    def tell(self, name: str, seen: FirstUnreachable, digest: Digest, blob: Object) -> None:
        """It is unreachable; from the first run that finds it so, its delay runs."""
        seen.note(blob.key, self.now)
        if seen.is_new(blob.key):
            then = {"purged_after_at": time_of(self.now + self.delay)} if self.delay else {}
            self._run.item(action="unreachable", repository=name, digest=str(digest), size_bytes=blob.size, **then)
            self._run.add("unreachable")
            self._run.add("unreachable_bytes", blob.size)

    def is_due(self, seen: FirstUnreachable, key: str) -> bool:
        """Has it been unreachable for the delay?"""
        return seen.note(key, self.now) + self.delay <= self.now

    def is_unasked(self, seen: FirstUnreachable, key: str, found: Iterable[Object]) -> bool:
        """Was it reserved for no repository since it was first seen? A reservation may be younger than its object by a
        window, for which a server answers from memory. Else the delay begins anew."""
        if not self.delay:
            return True
        since = seen.note(key, self.now)
        if all(self.ahead.modified(one) + self.window + ROUNDING_S <= since for one in found):
            return True
        seen.again(key, self.now)
        return False
