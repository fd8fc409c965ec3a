"""How old what lies in a directory is, where its time stamps can be believed.

A stamp ahead of the clock (one that was wrong, a restored backup) says nothing, and would keep content until the clock
has come there. What the kernel says about the inode is the most that can be, then; and where that lies ahead too, the
file is put right: it counts from the run that finds it. A wish to have the space now counts it as old.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.clock import Clock, is_ahead
from zotctl.storage.driver import Driver, Info
from zotctl.storage.keys import parse_upload_id
from zotctl.storage.root import Root

LONG_AGO = 0.0
"""Seconds since 1970: old for every grace period."""


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


# -- uploads --------------------------------------------------------------------------------------


UPLOAD_SPARED_S = 86400.0
"""Seconds: an upload that lasts longer than a day no longer holds collection back."""
JUST_BEGUN_S = 1.0
"""Seconds in which a session counts as active even when the grace period is zero."""


class ListedUpload(NamedTuple):
    """`key` names the file, `owner` stands for the repository. Seconds since 1970."""

    id: str
    key: str
    owner: str
    started: float
    moved: float
    size: int


def uploads(root: Root, ages: Ages) -> Iterator[ListedUpload]:
    """The sessions of one root. Times by the storage, but for the start, which the server wrote; it can't have begun
    after it moved."""
    files = list[str]()
    with suppress(NotFound):
        files = [entry.name for entry in root.driver.scan(keys.UPLOADS)]
    for file in files:
        upload_id, _, owner = file.partition(".")
        info = root.stat(key := keys.upload_file(file))
        with suppress(ValueError):
            if info is not None:
                started, moved = parse_upload_id(upload_id).started, ages.written(key, info)
                yield ListedUpload(upload_id, key, owner, min(started, moved), moved, info.size)
