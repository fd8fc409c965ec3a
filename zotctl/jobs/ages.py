"""How old what lies in a directory is, where its time stamps can be believed.

A stamp ahead of the clock (one that was wrong, a restored backup) says nothing, and would keep content until the clock
has come there. What the kernel says about the inode is the most that can be, then; and where that lies ahead too, the
file is put right: it counts from the run that finds it. A wish to have the space now counts it as old.
"""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import StorageError
from zotctl.storage.clock import Clock, is_ahead
from zotctl.storage.driver import Driver, Info

LONG_AGO = 0.0


class Ages:
    """In one run. `now`: by the clock that stamps the files, this very moment; `clock` tells how long ago that is later
    on. `at_once`: the delay is zero. `rehearsed`: nothing is written, and what would be put right counts as new. Times
    in seconds since 1970."""

    def __init__(
        self, driver: Driver, now: float, clock: Clock, *, at_once: bool = False, rehearsed: bool = False
    ) -> None:
        self._driver, self.now, self._at_once, self._rehearsed = driver, now, at_once, rehearsed
        self._clock, self._began = clock, clock.boottime()

    def later(self, now: float) -> Ages:
        """The same, as the run goes on."""
        return Ages(self._driver, now, self._clock, at_once=self._at_once, rehearsed=self._rehearsed)

    def written(self, key: str, info: Info) -> float:
        """When the content of a file, or the names of a directory, changed last, at the most."""
        return self._first(key, info.mtime_ns / 1e9, info.ctime_ns / 1e9)

    def changed(self, key: str, info: Info) -> float:
        """The same of everything about it: a link into a directory leaves the content alone."""
        return self._first(key, max(info.mtime_ns, info.ctime_ns) / 1e9)

    def is_old(self, at: float, delay: float) -> bool:
        """Is that so long ago? Never what was written since the run began, even if the delay is zero."""
        return self.now - at >= delay

    def _first(self, key: str, *stamps: float) -> float:
        # What was written while the run went on is not ahead: put right, it would count from when the run began.
        present = self.now + self._clock.boottime() - self._began
        for at in stamps:
            if not is_ahead(at, present):
                return at
        if self._at_once:
            return LONG_AGO
        if not self._rehearsed:
            with suppress(StorageError):
                self._driver.touch(key, int(present * 1e9))
        return present
