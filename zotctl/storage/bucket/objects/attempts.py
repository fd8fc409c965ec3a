"""When a request is made again: with full jitter, until a deadline, and not for each client that comes while the
object store has been away for longer than that. Then nothing is asked of it but
whether it is there again: each request may hang until its time is out, and a job has thousands."""

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
LEFT_ALONE = 2.0
"""Seconds between two looks at an object store that was away for the whole deadline."""


class Attempts:
    """Shared by all threads that talk to one object store. `probe`: a request of the same kind that any store answers
    which is there: it tells an outage from one object that can't be had. `also`: attempts at what these need, too."""

    def __init__(
        self, clock: Clock, patience: float = PATIENCE, *, probe: Callable[[], object], also: Attempts | None = None
    ) -> None:
        self.clock, self.patience, self._probe, self._also = clock, patience, probe, also
        self._mutex = Lock()
        self._away: tuple[float, StorageError] | None = None
        """When it is looked for again, and why nothing is asked before."""
        self._failing: tuple[float, float] | None = None
        """No request was answered from the first of these times to the second."""

    def make(self, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """`repeatable` False: not after it may have been done."""
        began, pause = self.clock.elapsed(), FIRST_PAUSE
        self._require(began)
        while True:
            try:
                done = call()
            except StorageError as error:
                if not hopeful(error, repeatable):
                    raise
                if not self._may_wait(began, pause):
                    self._look_around()
                    raise
            else:
                self._failing = self._away = None
                return done
            # Full jitter: from nothing to the whole pause.
            self.clock.sleep(pause * (self.clock.jitter() - 0.5))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _require(self, now: float) -> None:
        """Raises Unavailable, and nothing was asked. The first one after a while looks again, for all."""
        if self._also is not None:
            self._also._require(now)
        with self._mutex:
            if self._away is None:
                return
            due, error = self._away
            if now < due:
                raise Unavailable(error.message)
            if now > due + self.patience:
                self._away = None  # an outage of yesterday is none of today
                return
            self._away = (now + LEFT_ALONE, error)
        self._look_around()
        if self._away is not None:
            raise Unavailable(error.message)
        self._failing = None

    def _look_around(self) -> None:
        """Is it the store that is away, and not only what was asked for?"""
        try:
            self._probe()
        except Unavailable as error:
            with self._mutex:
                self._away = (self.clock.elapsed() + LEFT_ALONE, error)
        except StorageError:
            self._away = None  # any other answer is one, too
        else:
            self._away = None

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
