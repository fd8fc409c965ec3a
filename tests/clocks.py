"""A clock that stands still, for a host and the server in memory: it moves when somebody sleeps, or by hand."""

from __future__ import annotations

from collections.abc import Callable

from zotctl.storage.clock import Clock


class Hand(Clock):
    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at
        self.on_sleep: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return self.at

    boottime = elapsed

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.on_sleep()
