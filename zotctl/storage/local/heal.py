"""A good copy takes the place of a damaged one, in every repository of the root that has it
(docs/design/local.md#damage-and-healing): link to tmp, lock, same bad inode?, rename, unlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from zotctl.errors import CannotLink, StorageError
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import file_number
from zotctl.storage.local.catalog import LocalCatalog
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.locks import Locks

PATIENCE = 1.0
"""Seconds to wait for the lock of a repository; what is left out heals with its own push, or the next scrub."""


class Healing:
    def __init__(self, context: LocalContext, damaged: DamagedFiles) -> None:
        self._context, self._damaged = context, damaged
        self._catalog = LocalCatalog(context.driver, context.clock)
        self._locks = Locks(context.driver, context.clock, PATIENCE)
        self._locks.claims = context.locks.claims
        self._owed: deque[tuple[Digest, str]] = deque()
        """Each with a name in `tmp` of the good bytes."""

    def owe(self, digest: Digest, good: str) -> None:
        """A repository is healed by a push: the others of the root shall be, once no lock is held. `good` gets a name
        of its own for that, since what it is called now may lead elsewhere by then."""
        temp = keys.tmp(self._context.clock.token())
        with suppress(CannotLink):  # no links: nothing is shared, so no other repository has the damaged file
            self._context.driver.link(good, temp)
            self._owed.append((digest, temp))

    def pay(self) -> None:
        """Heal what is owed. Never raises: the push that brought the good bytes is done."""
        while self._owed:
            digest, temp = self._owed.popleft()
            with suppress(StorageError):
                try:
                    self.spread(digest, temp)
                finally:
                    self._context.discard(temp)

    def spread(self, digest: Digest, good: str) -> list[str]:
        """Give `good`, verified bytes under a name that is only the caller's, to every repository whose blob is a file
        known to be damaged; their names."""
        damaged = {file_number(info) for _, info in self._damaged.kept(digest)}  # held by their names in `bad`
        having = (name for name in self._catalog.walk() if self._has(name, digest, damaged))
        return [name for name in having if self._heal(name, digest, good)]

    def _has(self, name: str, digest: Digest, damaged: set[tuple[int, int]]) -> bool:
        info = self._context.stat(keys.blob(name, digest))
        return info is not None and file_number(info) in damaged

    def _heal(self, name: str, digest: Digest, good: str) -> bool:
        """One name: the good file in place of a damaged one, if it still is that under the lock."""
        temp = keys.tmp(self._context.clock.token())
        try:
            if not self._context.owned.has(name) or not self._another(good, temp):
                return False
            done = swap(self._context, self._locks, name, digest, temp, lambda now: self._damaged.has(digest, now))
            self._context.flush_names(keys.blobs_of(name, digest.algorithm))
        except StorageError:
            return False
        finally:
            self._context.discard(temp)
        return done

    def _another(self, good: str, temp: str) -> bool:
        """One more name, or a copy where an inode can't have one. False: the copy is not the same."""
        try:
            self._context.driver.link(good, temp)
        except CannotLink:
            with self._context.driver.open(good) as reader:
                with self._context.driver.create(temp) as writer:
                    writer.copy(reader)
                return self._context.same_bytes(reader, temp)
        return True


def swap(
    context: LocalContext, locks: Locks, name: str, digest: Digest, temp: str, still: Callable[[Info], bool]
) -> bool:
    """Give `temp` the name of a blob, if that still is what `still` says. LP: the rename.

    Without the second look a blob that was deleted meanwhile would be back (I7).
    """
    blob, new = keys.blob(name, digest), context.durable.flushed(temp)
    with locks.hold(name):
        now = context.stat(blob)
        if now is None or not now.is_file or not still(now):
            return False
        context.durable.replace(new, blob)
    return True
