"""What the processes of one server tell each other at once: that somebody has deleted something.

A reservation that one worker remembers is void when another has deleted the blob (DELETE by a client). Between hosts
the epoch in index.json says so; on one host a HEAD must not say 200 after the DELETE was answered.
"""

from __future__ import annotations

import mmap
import os

SIZE = 8


class Mark:
    """A value that is another after each `change`. Random, so that two processes can change it at once."""

    def __init__(self, page: bytearray | mmap.mmap | None = None) -> None:
        self._page = bytearray(SIZE) if page is None else page

    def seen(self) -> bytes:
        return bytes(self._page[:SIZE])

    def change(self) -> None:
        """After what it tells of, and before anybody is told that it is done."""
        self._page[:SIZE] = os.urandom(SIZE)


OF_THIS_SERVER = Mark(mmap.mmap(-1, mmap.PAGESIZE))
"""Shared by all processes that were forked after this module was loaded."""
