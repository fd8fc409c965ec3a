"""What time it is by the clock that stamps the files of a directory (docs/design/local.md#time).

Several hosts may share a directory, and the clock of one of them may be hours off. Ages of files, and times that
are compared with them, are therefore taken from here and never from the host's clock.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import NoSpace, NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver

ASKED_EVERY_S = 60.0
"""For so long this machine's uptime tells how the storage's clock goes on."""
QUICK_S = 0.5
"""An answer that took longer is out of date, and not relied on again."""


class _Asked(NamedTuple):
    at: float
    """What the storage's clock said, in seconds since 1970."""
    up: float
    """`Clock.boottime` then."""


class StorageClock:
    """The clock of one root's file system. Safe between threads."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver, self._clock = driver, clock
        self._asked: _Asked | None = None

    def now(self) -> float:
        """Seconds since 1970. A moment behind rather than ahead, so that nothing seems older than it is.

        The file systems of this machine are stamped by its own clock. Another one is asked once in a while. Where
        nothing may be written, this machine's clock has to do.
        """
        if self._driver.capabilities.local:
            return self._clock.now()
        began, asked = self._clock.boottime(), self._asked
        if asked is None or began - asked.up > ASKED_EVERY_S:
            try:
                asked = _Asked(self.ask(), self._clock.boottime())
            except StorageError:
                if asked is None:
                    return self._clock.now()
            else:
                if asked.up - began < QUICK_S:
                    self._asked = asked
        return asked.at + (self._clock.boottime() - asked.up)

    def now_ns(self) -> int:
        """Nanoseconds since 1970, as exactly as they are known: of another machine's clock, to less than one
        microsecond."""
        return self._clock.now_ns() if self._driver.capabilities.local else int(self.now() * 1e9)

    def ask(self) -> float:
        """Seconds since 1970 by a fresh file, so that no host's clock counts, be it that of a local file system."""
        probe = keys.tmp(f"now-{self._clock.token()}")
        try:
            with self._driver.create(probe) as writer:
                return writer.info().mtime_ns / 1e9
        except NoSpace:
            # Of a file that is there already and has no content, for what frees an inode may need none.
            with self._driver.append(keys.LOCK, create=False) as writer:
                writer.truncate(0)
                return writer.info().mtime_ns / 1e9
        finally:
            with suppress(NotFound):
                self._driver.unlink(probe)
