"""The age of files and upload sessions in a directory, also where their time stamps are ahead of the clock.

A stamp ahead of the clock (of a clock that was wrong, of a restored backup) is meaningless, and would keep content
until the clock reaches it. Then the change time of the inode counts. If that is ahead too, the file is touched, so
that its age counts from the run that finds it; with a delay of zero it counts as old.
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
"""Seconds since 1970; older than every grace period."""


class Ages:
    """The ages of files of one root, in one run.

    `now`: the present time of the clock that stamps the files; `clock` measures how much time passes after that.
    `no_delay`: the delay is zero. `dry_run`: no file is touched, and one with a stamp ahead of the clock counts as new.
    Times are in seconds since 1970. Safe between threads.
    """

    def __init__(
        self, driver: Driver, now: float, clock: Clock, *, no_delay: bool = False, dry_run: bool = False
    ) -> None:
        self._driver, self.now, self._no_delay, self._dry_run = driver, now, no_delay, dry_run
        self._clock, self._began = clock, clock.boottime()

    def later(self) -> Ages:
        """A copy for the present moment of the same run."""
        return Ages(self._driver, self._present(), self._clock, no_delay=self._no_delay, dry_run=self._dry_run)

    def _present(self) -> float:
        return self.now + self._clock.boottime() - self._began

    def written(self, key: str, info: Info) -> float:
        """When the content of a file, or the list of names in a directory, changed last; never later than now."""
        return self._first(key, info.mtime_ns / 1e9, info.ctime_ns / 1e9)

    def changed(self, key: str, info: Info) -> float:
        """When anything about a file changed last, its names included; never later than now."""
        return self._first(key, max(info.mtime_ns, info.ctime_ns) / 1e9)

    def is_old(self, at: float, delay: float) -> bool:
        """Whether `at` is `delay` seconds ago. False for what was written since the run began, even if the delay is
        zero."""
        return self.now - at >= delay

    def _first(self, key: str, *stamps: float) -> float:
        # What was written during the run is not ahead: once touched, it would count from the start of the run.
        present = self._present()
        for at in stamps:
            if not is_ahead(at, present):
                return at
        if self._no_delay:
            return LONG_AGO
        if not self._dry_run:
            with suppress(StorageError):
                self._driver.touch(key, int(present * 1e9))
        return present


# -- uploads --------------------------------------------------------------------------------------


UPLOAD_SPARED_S = 86400.0
"""An upload that lasts longer than this no longer holds collection back."""
JUST_BEGUN_S = 1.0
"""A session that received bytes within this time counts as active even when the grace period is zero."""


class ListedUpload(NamedTuple):
    """An upload session. `key`: its file; `owner`: the `name_key` of its repository. Times in seconds since 1970."""

    id: str
    key: str
    owner: str
    started: float
    moved: float
    size: int


def uploads(root: Root, ages: Ages) -> Iterator[ListedUpload]:
    """List the upload sessions of one root.

    Times are the storage's, except the start, which a server wrote into the id and which is never later than `moved`.
    """
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
