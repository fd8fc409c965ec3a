"""Room kept back, so that deleting works on a full disk (local.md, "Full disk")."""

from __future__ import annotations

from zotctl.errors import NoSpace, StorageError
from zotctl.storage import keys
from zotctl.storage.local.site import Site

SMALLEST = 4 << 20
SHARE = 40
"""On a small file system the reserve takes no more than one part in forty."""


class Reserve:
    def __init__(self, site: Site, min_free: int | None = None) -> None:
        self._site, self._min_free = site, min_free
        self._want, self._kept = SMALLEST, False

    def keep(self) -> None:
        """Make the reserve if it is missing and there is room. Never raises: without it, deleting a row
        on a full disk may fail, nothing more."""
        if self._kept:
            return
        try:
            if self._site.stat(keys.RESERVE) is None:
                self._site.driver.allocate(keys.RESERVE, min(self._want, self._site.driver.space().total // SHARE))
            self._kept = True
        except StorageError:
            pass

    def grow(self, index_size: int) -> None:
        """An index was written: the next one needs twice its size."""
        if 2 * index_size > self._want:
            self._want = 4 * index_size
            self._site.discard(keys.RESERVE)
            self._kept = False

    def release(self) -> bool:
        """Give the room back. Unlinked, for truncating it would free no inode. False: there was none."""
        if self._site.stat(keys.RESERVE) is None:
            return False
        self._site.discard(keys.RESERVE)
        self._kept = False
        return True

    def check(self) -> None:
        """Refuse bytes of an upload when too little room is left. Raises NoSpace."""
        space = self._site.driver.space()
        least = self._min_free if self._min_free is not None else min(2 * self._want, space.total // (SHARE // 2))
        if space.free < least:
            raise NoSpace(
                f"the disk below {self._site.driver.label} is full: {space.free} bytes are free and {least} are kept "
                "back (min_free); delete images and run `zotctl gc --delay 0s`, or add room"
            )
