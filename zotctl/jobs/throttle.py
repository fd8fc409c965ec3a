"""A token bucket that paces bytes: `--rate 50MiB` is fifty mebibytes a second over any second or two."""

from __future__ import annotations

import threading

from zotctl.storage.clock import Clock


class Throttle:
    """`rate` in bytes, or whatever is taken, a second; None: as fast as it goes."""

    def __init__(self, rate: int | None, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._mutex = threading.Lock()
        self._free_at = clock.elapsed()

    def piece(self, most: int) -> int:
        """How much to read at a time, so that the pace is even: a sixteenth of a second's worth at most."""
        return max(1, min(most, self._rate // 16)) if self._rate else most

    def take(self, size: int) -> None:
        """Wait until so many bytes are allowed."""
        if not self._rate:
            return
        with self._mutex:
            now = self._clock.elapsed()
            wait = max(0.0, self._free_at - now)
            self._free_at = max(self._free_at, now) + size / self._rate
        if wait:
            self._clock.sleep(wait)
