"""Limits on the rate of requests: token buckets, for all of them and for single methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from zotctl.config import RateLimit
from zotctl.errors import TooManyRequests
from zotctl.http.errors import Refused


class Bucket:
    """`rate` tokens per second, and as many at once as come in a second, at least one."""

    __slots__ = ("_clock", "_rate", "_room", "_seen", "_tokens")

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._room = self._tokens = max(1.0, rate)
        self._seen = clock()

    def take(self) -> float:
        """0 if there was a token, or else the seconds until the next one."""
        now = self._clock()
        self._tokens = min(self._room, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0


class Limits:
    """The limits of the configuration, if it has any."""

    def __init__(self, limit: RateLimit | None) -> None:
        self._all = Bucket(limit.rate) if limit is not None and limit.rate else None
        self._methods = {m.method.upper(): Bucket(m.rate) for m in limit.methods} if limit is not None else {}

    def take(self, method: str) -> None:
        """Let one request pass, or raise TooManyRequests."""
        for bucket in (self._methods.get(method), self._all):
            if bucket is not None and (wait := bucket.take()):
                seconds = str(math.ceil(wait))
                raise Refused(
                    TooManyRequests(f"too many requests; try again in {seconds} s"),
                    [("Retry-After", seconds)],
                )
