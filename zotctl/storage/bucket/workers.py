"""What the worker processes of one server tell each other without a request: marks in a shared page, and turns.

A reservation that one worker remembers is void when another has deleted the blob (DELETE by a client). Between hosts
the epoch in index.json says so; on one host a HEAD must not say 200 after the DELETE was answered. What one worker has
found missing or damaged, none says to be there; other hosts notice within `reservations.BELIEVED_FOR_S`.

Turns keep the workers from losing their swaps of one index.json to each other. They are a courtesy, no lock: what is
safe is decided by the swap (docs/design/bucket.md#indexjson). A worker that gets no turn for a while goes ahead
without, so that a frozen one delays no other; one that dies gives its turn back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock

MARK_BYTES = 8
DIGEST_SLOTS = 8192
TURN_TIMEOUT_S = 0.5
TURN_POLL_S = 0.001

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


Turn = Callable[[str], AbstractContextManager[None]]
"""A context for the commit to the index.json of one repository."""


def at_once(_: str) -> AbstractContextManager[None]:
    """A turn that never waits, for a single process."""
    return nullcontext()


class TicketLocks:
    """Turns between processes that were forked from its creator; threads of one process don't wait for each other.

    Two bytes of an anonymous file for each repository: a process that waits for the turn locks the second, so that the
    one that had the turn comes after it.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("zotctl-turns")

    def of(self, label: str, clock: Clock) -> Turn:
        """The turns at the repositories of one bucket, which `label` names."""
        return lambda name: self._turn(2 * zlib.crc32(f"{label}/{name}".encode()), clock)

    @contextmanager
    def _turn(self, place: int, clock: Clock) -> Iterator[None]:
        until = clock.elapsed() + TURN_TIMEOUT_S
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
            clock.sleep(TURN_POLL_S)

    def _release(self, place: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


SERVER_DELETIONS = Mark(mmap.mmap(-1, mmap.PAGESIZE))
SERVER_LOSSES = DigestMarks(mmap.mmap(-1, MARK_BYTES * DIGEST_SLOTS))
SERVER_DAMAGE = DigestMarks(mmap.mmap(-1, MARK_BYTES * DIGEST_SLOTS))
SERVER_TURNS = TicketLocks()
"""Those of this server: its workers are forked after this module was loaded."""
