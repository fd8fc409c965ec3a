"""What the processes of one server tell each other at once: that one of them has deleted something, or found a loss.

A reservation that one worker remembers is void when another has deleted the blob (DELETE by a client). Between hosts
the epoch in index.json says so; on one host a HEAD must not say 200 after the DELETE was answered. What one worker has
found missing or damaged, none says to be there; other hosts hear of it within `reservations.BELIEVED`.
"""

from __future__ import annotations

import mmap
import os
import zlib

from zotctl.oci.digest import Digest

SIZE = 8
SLOTS = 8192


class Mark:
    """A value that is another after each `change`. Random, so that two processes can change it at once."""

    def __init__(self, page: bytearray | mmap.mmap | None = None, at: int = 0) -> None:
        self._page, self._place = bytearray(SIZE) if page is None else page, slice(at, at + SIZE)

    def seen(self) -> bytes:
        return bytes(self._page[self._place])

    def change(self) -> None:
        """After what it tells of, and before a client is told that it is done."""
        self._page[self._place] = os.urandom(SIZE)


class DigestMarks:
    """A `Mark` for each digest. Some share one, and change together."""

    def __init__(self, page: bytearray | mmap.mmap | None = None) -> None:
        self._page = bytearray(SIZE * SLOTS) if page is None else page

    def seen(self, digest: Digest) -> bytes:
        """Zeros before the first change."""
        return self._of(digest).seen()

    def change(self, digest: Digest) -> None:
        self._of(digest).change()

    def _of(self, digest: Digest) -> Mark:
        """The same in all processes, as with Python's own hash it would not be."""
        return Mark(self._page, zlib.crc32(digest.encode()) % SLOTS * SIZE)


def _shared(size: int) -> mmap.mmap:
    """By all processes that are forked after this module was loaded."""
    return mmap.mmap(-1, size)


OF_THIS_SERVER = Mark(_shared(mmap.PAGESIZE))
LOST_ON_THIS_SERVER = DigestMarks(_shared(SIZE * SLOTS))
DAMAGED_ON_THIS_SERVER = DigestMarks(_shared(SIZE * SLOTS))
