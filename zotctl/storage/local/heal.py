"""A good copy takes the place of a damaged one, in every repository of the root that has it (local.md,
"Deduplication"): link to tmp, lock, same bad inode?, rename, unlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from zotctl.errors import CannotLink, StorageError
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.catalog import Catalog
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import file_number
from zotctl.storage.local.bad import Bad
from zotctl.storage.local.site import Site
from zotctl.storage.locks import Locks

PATIENCE = 1.0
"""Seconds to wait for the lock of a repository; what is left out heals with its own push, or the next scrub."""


class Healing:
    def __init__(self, site: Site, bad: Bad) -> None:
        self._site, self._bad = site, bad
        self._catalog = Catalog(site.driver, site.clock)
        self._locks = Locks(site.driver, site.clock, PATIENCE)
        self._locks.claims = site.locks.claims
        self._owed: deque[tuple[Digest, str]] = deque()
        """Each with a name in `tmp` of the good bytes."""

    def owe(self, digest: Digest, good: str) -> None:
        """A repository is healed by a push: the others of the root shall be, once no lock is held. `good` gets a name
        of its own for that, since what it is called now may lead elsewhere by then."""
        temp = keys.tmp(self._site.clock.token())
        with suppress(CannotLink):  # no links: nothing is shared, so nobody else has the damaged file
            self._site.driver.link(good, temp)
            self._owed.append((digest, temp))

    def pay(self) -> None:
        """Heal what is owed. Never raises: the push that brought the good bytes is done."""
        while self._owed:
            digest, temp = self._owed.popleft()
            with suppress(StorageError):
                try:
                    self.spread(digest, temp)
                finally:
                    self._site.discard(temp)

    def spread(self, digest: Digest, good: str) -> list[str]:
        """Give `good`, verified bytes under a name that is only the caller's, to every repository whose blob is a file
        known to be damaged; their names."""
        damaged = {file_number(info) for _, info in self._bad.kept(digest)}  # held by their names in `bad`
        having = (name for name in self._catalog.walk() if self._has(name, digest, damaged))
        return [name for name in having if self._heal(name, digest, good)]

    def _has(self, name: str, digest: Digest, damaged: set[tuple[int, int]]) -> bool:
        info = self._site.stat(keys.blob(name, digest))
        return info is not None and file_number(info) in damaged

    def _heal(self, name: str, digest: Digest, good: str) -> bool:
        """One name: the good file in place of a damaged one, if it still is that under the lock."""
        temp = keys.tmp(self._site.clock.token())
        try:
            if not self._site.owned.has(name) or not self._another(good, temp):
                return False
            done = swap(self._site, self._locks, name, digest, temp, lambda now: self._bad.holds(digest, now))
            self._site.flush_names(keys.blobs_of(name, digest.algorithm))
        except StorageError:
            return False
        finally:
            self._site.discard(temp)
        return done

    def _another(self, good: str, temp: str) -> bool:
        """One more name, or a copy where an inode can't have one. False: the copy is not the same."""
        try:
            self._site.driver.link(good, temp)
        except CannotLink:
            with self._site.driver.open(good) as reader:
                with self._site.driver.create(temp) as writer:
                    writer.copy(reader)
                return self._site.same_bytes(reader, temp)
        return True


def swap(site: Site, locks: Locks, name: str, digest: Digest, temp: str, still: Callable[[Info], bool]) -> bool:
    """Give `temp` the name of a blob, if that still is what `still` says. LP: the rename.

    Without the second look a blob that was deleted meanwhile would be back (I7).
    """
    blob, new = keys.blob(name, digest), site.durable.flushed(temp)
    with locks.hold(name):
        now = site.stat(blob)
        if now is None or not now.is_file or not still(now):
            return False
        site.durable.replace(new, blob)
    return True
