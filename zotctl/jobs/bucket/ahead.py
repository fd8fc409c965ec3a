"""How old objects are that are dated ahead of their server's clock: it was wrong, or is.

Such a date says nothing, and would keep content until the clock has come there. It counts from the run that saw it
first, which is noted; from long ago for who wants the space now.
"""

from __future__ import annotations

import threading

from zotctl.jobs.bucket.first_unreachable import FirstUnreachable
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object

PLACE = "_ahead"
"""No name of a repository."""
LONG_AGO = 0.0
REMEMBERED = 30 * 86400.0


class Ahead:
    """In one run on one root. `now`: by the server's clock; `at_once`: the delay is zero. Any thread may ask."""

    def __init__(self, context: BucketContext, now: float, *, at_once: bool) -> None:
        self._context, self.now, self._at_once = context, now, at_once
        self._seen: FirstUnreachable | None = None
        self._mutex = threading.Lock()

    def modified(self, found: Object) -> float:
        """When it was written, at the most; in seconds since 1970."""
        if not found.is_ahead:
            return found.modified
        if self._at_once:
            return LONG_AGO
        with self._mutex:
            # A request, once, and only where there is such a thing.
            self._seen = self._seen or FirstUnreachable(self._context, PLACE)
            return self._seen.note(f"{found.key} {int(found.modified)}", self.now)

    def age(self, found: Object) -> float:
        """Seconds."""
        return self.now - self.modified(found) if found.is_ahead else found.age

    def save(self) -> None:
        """Not every run comes to everything: what was not met is remembered for a while."""
        if self._seen is not None:
            self._seen.keep(self.now - REMEMBERED)
            self._seen.save()
