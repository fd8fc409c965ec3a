"""What collectors are deleting just now (s3.md 5, C3, and P2 of those who promise).

A sentence is an object that lists keys. It lives for seconds; after a crash of its collector for `LIFETIME`, for the
deletes that were signed for it are dead long before (`SIGNED_FOR`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from zotctl.errors import Busy, NotFound
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.objects import Object
from zotctl.storage.s3.site import Site
from zotctl.storage.s3.together import Together

LIFETIME = 300.0
"""D: seconds after which nobody carries a sentence out any more."""
SIGNED_FOR = 30
"""Seconds for which the deletes of a sentence are signed."""
PATIENCE = 30.0
"""Seconds that a push waits for one to be over."""
POLL = 0.25
SEEN = 1000


class Look(NamedTuple):
    """`lifted`: there was another one, of which is not known any more what it condemned: what was written before this
    look may have been deleted under it."""

    condemned: set[str]
    lifted: bool


class Sentences:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: Lru[str, frozenset[str]] = Lru(SEEN)
        # A simulation has one thread, and pushes that are one after the other have nothing to share.
        self.look = self._look if site.threads is None else Together(self._look)
        """P2: what is in living sentences. One LIST, and a GET for each sentence that is new to us."""

    def pronounce(self, condemned: Iterable[str]) -> str:
        """C3: say that these keys are about to be deleted; the key of the sentence."""
        key = keys.sentence(self._site.clock.token())
        self._site.objects.put(key, json.dumps(sorted(condemned)).encode())
        return key

    def lift(self, sentence: str) -> None:
        """C7."""
        self._site.objects.delete(sentence)

    def condemned(self) -> set[str]:
        """Every key in a living sentence, for whoever has written nothing before."""
        return self.look().condemned

    def _look(self) -> Look:
        # One that is dated ahead is dead: the server refuses its deletes, which are signed with that time.
        living = [s for s in self._site.objects.list(f"{keys.SENTENCES}/") if s.is_younger(LIFETIME)]
        read = [self._read(sentence) for sentence in living]
        return Look(set().union(*(found for found in read if found is not None)), None in read)

    def wait_out(self, wanted: Iterable[str]) -> bool:
        """P2 of a push: return when none of these keys is condemned. Raises Busy (503, Retry-After).

        True: some were. Then the hold that was written in P1 may have been deleted under that sentence, which
        had looked at the holds before: begin again with P1.
        """
        wanted, until, waited = set(wanted), self._site.clock.elapsed() + PATIENCE, False
        while True:
            condemned, lifted = self.look()
            waited = waited or lifted
            if not condemned & wanted:
                return waited
            waited = True
            if self._site.clock.elapsed() >= until:
                raise Busy("content of this push is being collected just now; try again")
            self._site.clock.sleep(POLL * self._site.clock.jitter())

    def _read(self, sentence: Object) -> frozenset[str] | None:
        """None: lifted since."""
        known = self._known.get(sentence.key)
        if known is None:
            try:
                got = self._site.objects.get(sentence.key)
            except NotFound:
                return None
            known = _keys_in(got[1]) if got else frozenset()
            self._known.put(sentence.key, known)
        return known


def _keys_in(body: bytes) -> frozenset[str]:
    """None, if nobody of ours has written it: ours are there whole, or not at all."""
    try:
        return frozenset(map(str, load_json(body)))
    except (ValueError, TypeError):
        return frozenset()
