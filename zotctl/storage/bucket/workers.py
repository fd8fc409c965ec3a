"""What the worker processes of one server tell each other without a request, by marks in a shared page.

A reservation that one worker remembers is void when another has deleted the blob (DELETE by a client). Between hosts
the epoch in index.json says so; on one host a HEAD must not say 200 after the DELETE was answered. What one worker has
found missing or damaged, none says to be there; other hosts notice within `reservations.BELIEVED_FOR_S`.
"""

from __future__ import annotations

import mmap
import os
import zlib

from zotctl.oci.digest import Digest

MARK_BYTES = 8
DIGEST_SLOTS = 8192

Page = bytearray | mmap.mmap
"""A `mmap` is shared by all processes that are forked after it was made."""


class Mark:
    """A value that differs after each `change`. It is random, so that two processes can change it at once. Safe between
    threads, and between processes that share its page."""

    def __init__(self, page: Page | None = None) -> None:
        self._page = bytearray(MARK_BYTES) if page is None else page

    def seen(self) -> bytes:
        """Its value now, to be compared with a later one."""
        return bytes(self._page[:MARK_BYTES])

    def change(self) -> None:
        """To be called after the event, and before a client gets the answer to it."""
        self._page[:MARK_BYTES] = os.urandom(MARK_BYTES)


class DigestMarks:
    """A `Mark` for each digest. Some digests share one, and change together."""

    def __init__(self, page: Page | None = None) -> None:
        self._page = bytearray(MARK_BYTES * DIGEST_SLOTS) if page is None else page

    def seen(self, digest: Digest) -> bytes:
        """Its value now; zeros before the first change."""
        return bytes(self._page[_slot(digest)])

    def change(self, digest: Digest) -> None:
        """As `Mark.change`, for one digest."""
        self._page[_slot(digest)] = os.urandom(MARK_BYTES)


def _slot(digest: Digest) -> slice:
    """The slot of a digest. It is the same in all processes, unlike Python's own hash."""
    at = zlib.crc32(digest.encode()) % DIGEST_SLOTS * MARK_BYTES
    return slice(at, at + MARK_BYTES)


SERVER_DELETIONS = Mark(mmap.mmap(-1, mmap.PAGESIZE))
SERVER_LOSSES = DigestMarks(mmap.mmap(-1, MARK_BYTES * DIGEST_SLOTS))
SERVER_DAMAGE = DigestMarks(mmap.mmap(-1, MARK_BYTES * DIGEST_SLOTS))
"""Those of this server: its workers are forked after this module was loaded."""
