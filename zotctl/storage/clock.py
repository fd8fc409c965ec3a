"""The only source of time for storage and jobs, so that a test or a simulation can replace it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DAY_S = 86400
AHEAD_TOLERANCE_S = 60.0
"""Seconds by which a time stamp may lie in the future, since other hosts wrote it."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.001, 0.020
"""Between two looks at what another one has (`poll`)."""


def is_ahead(at: float, now: float) -> bool:
    """Does this time lie in the future, so that it says nothing about when something happened?"""
    return at - now > AHEAD_TOLERANCE_S


class Clock:
    """`now`: seconds since 1970 (may jump). `elapsed`: seconds that only grow. `token`: a fresh random name."""

    def now(self) -> float:
        """Seconds since 1970. May jump."""
        return time.time()

    def now_ns(self) -> int:
        """The same in nanoseconds."""
        return time.time_ns()

    def elapsed(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def boottime(self) -> float:
        """Like `elapsed`, but it goes on while the machine is suspended, as the clock of a server does."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        time.sleep(seconds)

    def jitter(self) -> float:
        """Between 0.5 and 1.5, so that waiters don't march in step."""
        return 0.5 + random.random()

    def token(self) -> str:
        """A fresh random name of 16 hexadecimal digits."""
        return os.urandom(8).hex()


def poll(clock: Clock, ask: Callable[[], T], until: float, longest: float = LONGEST_WAIT_S) -> T:
    """Ask for something that another thread or process has, until the answer is true or it is `until` by
    `clock.elapsed`: the last answer. Waits longer each time, `longest` seconds at the most. Raises what `ask` raises.

    No wait in the kernel, which has no deadline: a frozen process keeps what it has.
    """
    wait = FIRST_WAIT_S
    while not (answer := ask()) and clock.elapsed() < until:
        clock.sleep(wait * clock.jitter())
        wait = min(2 * wait, longest)
    return answer
