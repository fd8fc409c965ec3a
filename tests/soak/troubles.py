"""What befalls a storage from when to when, so that a job that met it may end with the exit code that tells of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

DAMAGE, FULL = 4, 13
"""Exit codes of jobs."""


@dataclass
class Troubles:
    """Thread-safe. Times are of the monotonic clock."""

    damaged: set[str] = field(default_factory=set)
    """Digests of what a soak has damaged by itself, at any time."""
    _spans: list[tuple[int, float, float | None]] = field(default_factory=list)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def during(self, code: int) -> Iterator[None]:
        with self._mutex:
            number = len(self._spans)
            self._spans.append((code, time.monotonic(), None))
        try:
            yield
        finally:
            with self._mutex:
                self._spans[number] = (code, self._spans[number][1], time.monotonic())

    def excused(self, began: float) -> set[int]:
        """Exit codes of a job that began then and ends now."""
        with self._mutex:
            return {code for code, _, ended in self._spans if ended is None or ended >= began}
