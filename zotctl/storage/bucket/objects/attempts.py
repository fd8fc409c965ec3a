"""When a request is made again: with full jitter, until a deadline, and not for each client that comes while the
object store has been away for longer than that."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from zotctl.errors import IoFailed, NoBucket, OutcomeUnknown, StorageError, Unavailable
from zotctl.storage.clock import Clock

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a failure goes up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


class Attempts:
    """Shared by all threads that talk to one object store."""

    def __init__(self, clock: Clock, patience: float = PATIENCE) -> None:
        self.clock, self.patience = clock, patience
        self._mutex = Lock()
        self._failing: tuple[float, float] | None = None
        """Nobody had an answer from the first of these times to the second."""

    def make(self, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """`repeatable` False: not after it may have been done."""
        began, pause = self.clock.elapsed(), FIRST_PAUSE
        while True:
            try:
                done = call()
            except StorageError as error:
                if not hopeful(error, repeatable) or not self._may_wait(began, pause):
                    raise
            else:
                self._failing = None
                return done
            # Full jitter: from nothing to the whole pause.
            self.clock.sleep(pause * (self.clock.jitter() - 0.5))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _may_wait(self, began: float, pause: float) -> bool:
        """Is the deadline further than the pause? After an outage of the whole deadline the first failure goes up,
        so that clients hear it at once; a first success ends that."""
        now = self.clock.elapsed()
        with self._mutex:
            since, last = self._failing or (now, now)
            if now - last > self.patience:
                since = now
            self._failing = (since, now)
        return now + pause < min(began, since) + self.patience


def hopeful(error: StorageError, repeatable: bool) -> bool:
    """May another attempt have another end? Not for a bucket that isn't there, or bytes that are not what was said."""
    if not isinstance(error, Unavailable) or isinstance(error, NoBucket | IoFailed):
        return False
    return repeatable or not isinstance(error, OutcomeUnknown)
