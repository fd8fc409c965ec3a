"""One look for all who ask at the same time: each gets one that began after it had asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """As good as a look of one's own, for what is seen is from a moment after the call. Safe between threads."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._looking = False
        self._seen: T

    def __call__(self) -> T:
        """Raises what the look raises, to one of those who wait for it; another one of them then looks."""
        with self._changed:
            wanted = self._begun + 1
            while self._done < wanted and self._looking:
                self._changed.wait()
            if self._done >= wanted:
                return self._seen
            self._begun, self._looking = self._begun + 1, True
            turn = self._begun
        return self._lead(turn)

    def _lead(self, turn: int) -> T:
        try:
            seen = self._look()
        except BaseException:
            self._end(None)
            raise
        self._seen = seen
        self._end(turn)
        return seen

    def _end(self, turn: int | None) -> None:
        with self._changed:
            self._looking = False
            if turn is not None:
                self._done = turn
            self._changed.notify_all()
