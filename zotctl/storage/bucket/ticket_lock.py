"""The processes of one server take turns at one index.json, rather than lose their swaps to each other.

A courtesy, no lock: what is safe is decided by the swap (docs/design/bucket.md#indexjson). Who gets no turn for a
while goes ahead without, so that a process that is frozen in its own delays no other; one that dies gives it back. Two
bytes for each repository: who waits for the turn holds the second, so that who had the turn comes after it.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from zotctl.storage.clock import Clock

PATIENCE = 0.5
PAUSE = 0.001

Turn = Callable[[str], AbstractContextManager[None]]


def at_once(_: str) -> AbstractContextManager[None]:
    """For a single process."""
    return nullcontext()


class TicketLocks:
    """Between processes that were forked after it was made; threads of one don't wait for each other."""

    def __init__(self) -> None:
        self._file = os.memfd_create("zotctl-turns")

    def of(self, label: str, clock: Clock) -> Turn:
        """The turns at the repositories of one bucket."""
        return lambda name: self._turn(2 * zlib.crc32(f"{label}/{name}".encode()), clock)

    @contextmanager
    def _turn(self, place: int, clock: Clock) -> Iterator[None]:
        until = clock.elapsed() + PATIENCE
        try:
            try:
                if self._taken(place + 1, clock, until):
                    self._taken(place, clock, until)
            finally:
                self._release(place + 1)
            yield
        finally:
            self._release(place)

    def _taken(self, place: int, clock: Clock, until: float) -> bool:
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return True
            except OSError:
                if clock.elapsed() >= until:
                    return False
            clock.sleep(PAUSE)

    def _release(self, place: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


OF_THIS_SERVER = TicketLocks()
