"""Deletion intents: what collectors and DELETEs are about to delete (docs/design/bucket.md#c3, and #p2).

An intent is an object that lists keys. It lives for seconds; after a crash of its collector for `INTENT_LIFETIME_S`:
the deletes that were signed for it are void long before (`DELETES_SIGNED_FOR_S`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from zotctl.errors import Busy, NotFound
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.cache import Lru
from zotctl.storage.clock import Clock

T = TypeVar("T")

INTENT_LIFETIME_S = 300.0
"""D: the lifetime of an intent that is not withdrawn."""
DELETES_SIGNED_FOR_S = 30
"""The lifetime of the presigned deletes of an intent."""
INTENT_WAIT_S = 30.0
"""How long a push waits for an intent to end."""
INTENT_POLL_S = 0.25
KNOWN_INTENTS = 1000
WORTH_SHARING_S, LONGEST_PAUSE_S = 0.01, 0.005
"""A look that takes longer than the first is begun later by a sixteenth of it, at most by the second."""


class Announced(NamedTuple):
    """The result of one look. `withdrawn`: another intent was withdrawn before it could be read, so what it announced
    is unknown: what was written before this look may have been deleted under it."""

    announced: set[str]
    withdrawn: bool


class SingleFlight(Generic[T]):
    """One look shared by all threads that ask at the same time. Each gets the result of a look that began after it had
    asked, as good as its own. Where looks take long, one begins a little later, so that who asks a moment afterwards
    need not wait for the next. Safe between threads."""

    def __init__(self, look: Callable[[], T], clock: Clock | None = None) -> None:
        self._look, self._clock = look, clock or Clock()
        self._took = 0.0
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._looking = False
        self._seen: T

    def __call__(self) -> T:
        """Raises what the look raises, in one of the waiting threads; another one then looks."""
        with self._changed:
            wanted = self._begun + 1
            while self._done < wanted and self._looking:
                self._changed.wait()
            if self._done >= wanted:
                return self._seen
            self._looking = True
        try:
            if self._took > WORTH_SHARING_S:
                self._clock.sleep(min(self._took / 16, LONGEST_PAUSE_S))
            with self._changed:
                self._begun += 1
                number = self._begun
            began = self._clock.elapsed()
            seen = self._look()
            self._took = self._clock.elapsed() - began
        except BaseException:
            with self._changed:
                self._looking = False
                self._changed.notify_all()
            raise
        with self._changed:
            self._seen, self._done, self._looking = seen, number, False
            self._changed.notify_all()
        return seen


class DeletionIntents:
    """The intents of one bucket. Safe between threads. Each method may raise what a request raises."""

    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._known: Lru[str, frozenset[str]] = Lru(KNOWN_INTENTS)
        self._ahead: Lru[str, float] = Lru(KNOWN_INTENTS)
        """When those were first seen that are dated ahead, by `clock.boottime`."""
        # A simulation has one thread, and pushes that are one after the other have nothing to share.
        self.look = self._look if context.threads is None else SingleFlight(self._look, context.clock)
        """P2: what is in living intents. One LIST, and a GET for each intent that is new to this process."""

    def announce(self, announced: Iterable[str]) -> str:
        """C3: say that these keys are about to be deleted; the key of the intent."""
        key = keys.intent(self._context.clock.token())
        self._context.objects.put(key, json.dumps(sorted(announced)).encode())
        return key

    def withdraw(self, intent: str) -> None:
        """C7: nothing that was announced under this key can be deleted any more."""
        self._context.objects.delete(intent)

    def _look(self) -> Announced:
        living = [found for found in self._context.objects.list(keys.below(keys.INTENTS)) if self._counts(found)]
        read = [self._read(intent) for intent in living]
        return Announced(set().union(*(found for found in read if found is not None)), None in read)

    def _counts(self, intent: Object) -> bool:
        """Is it younger than D? One that is dated ahead counts from when this process first saw it: the server's clock
        was put back, and with it the expiry of the deletes."""
        if not intent.is_ahead:
            return intent.age < INTENT_LIFETIME_S
        now = self._context.clock.boottime()
        since = self._ahead.get(intent.key)
        if since is None:
            self._ahead.put(intent.key, since := now)
        return now - since < INTENT_LIFETIME_S

    def wait_out(self, wanted: Iterable[str]) -> bool:
        """P2 of a push: return when none of these keys is announced. Raises Busy (503, Retry-After).

        True: some were. Then the reservation that was written in P1 may have been deleted under that intent, whose
        collector had looked at the reservations before: begin again with P1.
        """
        wanted, until, waited = set(wanted), self._context.clock.elapsed() + INTENT_WAIT_S, False
        while True:
            announced, withdrawn = self.look()
            waited = waited or withdrawn
            if not announced & wanted:
                return waited
            waited = True
            if self._context.clock.elapsed() >= until:
                raise Busy("content of this push is being collected just now; try again")
            self._context.clock.sleep(INTENT_POLL_S * self._context.clock.jitter())

    def _read(self, intent: Object) -> frozenset[str] | None:
        """The keys of an intent; None: it was withdrawn since. An object that can't be parsed is not ours, and
        announces nothing."""
        known = self._known.get(intent.key)
        if known is None:
            try:
                got = self._context.objects.get(intent.key)
                known = frozenset(map(str, load_json(got[1]))) if got else frozenset()
            except NotFound:
                return None
            except (ValueError, TypeError):
                known = frozenset()
            self._known.put(intent.key, known)
        return known
