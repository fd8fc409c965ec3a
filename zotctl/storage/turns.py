"""Turns of the worker processes of one server at an index.json.

On a bucket they keep the workers from losing their swaps to each other; in a directory, the worker that has just
committed from taking the lock again before another looks. They are a courtesy, no lock: what is safe is decided by the
swap (docs/design/bucket.md#indexjson) or the lock (docs/design/local.md#locks). A worker that gets no turn for a while
goes ahead without, so that a frozen one delays no other; one that dies gives its turn back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial

from zotctl.storage.clock import Clock, poll

TURN_TIMEOUT_S = 0.5
TURN_POLL_S = 0.001

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
        self._file = -1
        with suppress(OSError):  # a sandbox may allow no anonymous file: no command needs one, so none fails for it
            self._file = os.memfd_create("zotctl-turns")

    def of(self, label: str, clock: Clock) -> Turn:
        """The turns at the repositories of one root, which `label` names."""
        if self._file < 0:
            return at_once
        return lambda name: self._turn(2 * zlib.crc32(f"{label}/{name}".encode()), clock)

    @contextmanager
    def _turn(self, place: int, clock: Clock) -> Iterator[None]:
        until = clock.elapsed() + TURN_TIMEOUT_S
        try:
            try:
                if poll(clock, partial(self._take, place + 1), until, TURN_POLL_S):
                    poll(clock, partial(self._take, place), until, TURN_POLL_S)
            finally:
                self._release(place + 1)
            yield
        finally:
            self._release(place)

    def _take(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:  # or there are no locks to be had, and nothing to wait for
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True

    def _release(self, place: int) -> None:
        with suppress(OSError):  # the kernel may have no memory for it; the others then wait for as long as they do
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


SERVER_TURNS = TicketLocks()
"""Those of this server: its workers are forked after this module was loaded."""
