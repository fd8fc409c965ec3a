"""What collectors are deleting just now (docs/design/bucket.md#c3, and #p2 of those who reserve).

An intent is an object that lists keys. It lives for seconds; after a crash of its collector for `LIFETIME`, for the
deletes that were signed for it are dead long before (`SIGNED_FOR`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from zotctl.errors import Busy, NotFound
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.single_flight import SingleFlight
from zotctl.storage.cache import Lru

LIFETIME = 300.0
"""D: seconds after which no collector carries out an intent any more."""
SIGNED_FOR = 30
"""Seconds for which the deletes of an intent are signed."""
PATIENCE = 30.0
"""Seconds that a push waits for one to be over."""
POLL = 0.25
SEEN = 1000


class Announced(NamedTuple):
    """`withdrawn`: there was another one, of which is not known any more what it announced: what was written before
    this look may have been deleted under it."""

    announced: set[str]
    withdrawn: bool


class DeletionIntents:
    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._known: Lru[str, frozenset[str]] = Lru(SEEN)
        # A simulation has one thread, and pushes that are one after the other have nothing to share.
        self.look = self._look if context.threads is None else SingleFlight(self._look)
        """P2: what is in living intents. One LIST, and a GET for each intent that is new to us."""

    def announce(self, announced: Iterable[str]) -> str:
        """C3: say that these keys are about to be deleted; the key of the intent."""
        key = keys.intent(self._context.clock.token())
        self._context.objects.put(key, json.dumps(sorted(announced)).encode())
        return key

    def withdraw(self, intent: str) -> None:
        """C7."""
        self._context.objects.delete(intent)

    def announced(self) -> set[str]:
        """Every key in a living intent, for a caller that has written nothing before."""
        return self.look().announced

    def _look(self) -> Announced:
        # One that is dated ahead is dead: the server refuses its deletes, which are signed with that time.
        living = [s for s in self._context.objects.list(f"{keys.INTENTS}/") if s.is_younger(LIFETIME)]
        read = [self._read(intent) for intent in living]
        return Announced(set().union(*(found for found in read if found is not None)), None in read)

    def wait_out(self, wanted: Iterable[str]) -> bool:
        """P2 of a push: return when none of these keys is announced. Raises Busy (503, Retry-After).

        True: some were. Then the reservation that was written in P1 may have been deleted under that intent, which
        had looked at the reservations before: begin again with P1.
        """
        wanted, until, waited = set(wanted), self._context.clock.elapsed() + PATIENCE, False
        while True:
            announced, withdrawn = self.look()
            waited = waited or withdrawn
            if not announced & wanted:
                return waited
            waited = True
            if self._context.clock.elapsed() >= until:
                raise Busy("content of this push is being collected just now; try again")
            self._context.clock.sleep(POLL * self._context.clock.jitter())

    def _read(self, intent: Object) -> frozenset[str] | None:
        """None: withdrawn since."""
        known = self._known.get(intent.key)
        if known is None:
            try:
                got = self._context.objects.get(intent.key)
            except NotFound:
                return None
            known = _keys_in(got[1]) if got else frozenset()
            self._known.put(intent.key, known)
        return known


def _keys_in(body: bytes) -> frozenset[str]:
    """None, if it is not ours: ours are there whole, or not at all."""
    try:
        return frozenset(map(str, load_json(body)))
    except (ValueError, TypeError):
        return frozenset()
