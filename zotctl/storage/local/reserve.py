"""Room that is kept back, so that freeing room works on a full disk (docs/design/local.md#a-full-disk): bytes in one
file, and inodes in some empty ones."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import Exists, NoSpace, StorageError
from zotctl.storage import keys
from zotctl.storage.local.context import LocalContext

LEAST_RESERVE_BYTES = 4 << 20
LARGEST_SHARE = 40
"""The reserve takes at most one part in this many of a small file system."""
SPARE_INODES = 16
"""For the folders of a repository in the trash, its index.json, and what a job writes down."""


class Reserve:
    """The file `reserve` and the empty files in `spare/` of one root. Safe between processes."""

    def __init__(self, context: LocalContext, min_free: int | None = None) -> None:
        self._context, self._min_free = context, min_free
        self._want, self._kept = LEAST_RESERVE_BYTES, False

    def keep(self) -> None:
        """Make the reserve if it is missing and there is room. Never raises: without it, deleting a row
        on a full disk may fail, nothing more."""
        try:
            is_there = self._context.stat(keys.RESERVE) is not None  # another process may have given it back
            if is_there and self._kept:
                return
            if not is_there:
                self._context.driver.allocate(
                    keys.RESERVE, min(self._want, self._context.driver.space().total // LARGEST_SHARE)
                )
            self._keep_inodes()
            self._kept = True
        except StorageError:
            pass

    def _keep_inodes(self) -> None:
        """Make the spare files, only where inodes are counted and plenty are free."""
        if not self._context.driver.space().free_inodes >= LARGEST_SHARE * SPARE_INODES // 2:
            return
        self._context.make_dirs(keys.SPARE)
        for number in range(SPARE_INODES):
            with suppress(Exists):
                self._context.driver.create(keys.spare(number)).close()

    def grow(self, index_size: int) -> None:
        """Note the size of an index that was written; the reserve holds at least twice that."""
        if 2 * index_size > self._want:
            self._want = 4 * index_size
            self._context.discard(keys.RESERVE)

    def release(self) -> bool:
        """Free the reserve. It is unlinked, since truncating would free no inode. False: there was none."""
        held = [keys.spare(entry.name) for entry in self._context.scan(keys.SPARE)]
        held += [keys.RESERVE] if self._context.stat(keys.RESERVE) is not None else []
        for key in held:
            self._context.discard(key)
        return bool(held)

    def check(self) -> None:
        """Raise NoSpace when too little room is left for the bytes of an upload."""
        space = self._context.driver.space()
        least = (
            self._min_free if self._min_free is not None else min(2 * self._want, space.total // (LARGEST_SHARE // 2))
        )
        if space.free < least:
            raise NoSpace(
                f"the disk below {self._context.driver.label} is full: {space.free} bytes are free and {least} are "
                "kept back (min_free); delete images and run `zotctl gc --delay 0s`, or add room"
            )
