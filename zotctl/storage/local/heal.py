"""A good copy takes the place of a damaged one, in every repository of the root that has it (local.md,
"Deduplication"): link to tmp, lock, same bad inode?, rename, unlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zotctl.errors import CannotLink, NotFound, StorageError
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.catalog import Catalog
from zotctl.storage.driver import Info
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
        self._owed: deque[tuple[str, Digest]] = deque()

    def owe(self, name: str, digest: Digest) -> None:
        """A repository was healed by a push: the others of the root shall be, once no lock is held."""
        self._owed.append((name, digest))

    def pay(self) -> None:
        """Heal what is owed. Never raises: the push that brought the good bytes is done."""
        while self._owed:
            name, digest = self._owed.popleft()
            try:
                self.spread(digest, keys.blob(name, digest))
            except StorageError:
                return

    def spread(self, digest: Digest, good: str) -> list[str]:
        """Give `good` to every repository whose blob is an inode known to be damaged; their names."""
        damaged = {(info.ino, info.dev) for _, info in self._bad.kept(digest)}
        having = (name for name in self._catalog.walk() if self._has(name, digest, damaged))
        return [name for name in having if self._heal(name, digest, good)]

    def _has(self, name: str, digest: Digest, damaged: set[tuple[int, int]]) -> bool:
        info = self._site.stat(keys.blob(name, digest))
        return info is not None and (info.ino, info.dev) in damaged

    def _heal(self, name: str, digest: Digest, good: str) -> bool:
        try:
            return self.replace(name, digest, good, lambda now: self._bad.holds(digest, now))
        except StorageError:
            return False

    def replace(self, name: str, digest: Digest, good: str, still: Callable[[Info], bool]) -> bool:
        """One name: verified bytes in place of what `still` recognises under the lock. False: it moved on."""
        if not is_ours(self._site, name):
            return False
        temp = keys.tmp(self._site.clock.token())
        try:
            self._another(good, temp)
            done = swap(self._site, self._locks, name, digest, temp, still)
        except NotFound:
            return False
        finally:
            self._site.discard(temp)
        self._site.flush_names(keys.blobs_of(name, digest.algorithm))
        return done

    def _another(self, good: str, temp: str) -> None:
        """One more name, or a copy where an inode can't have one."""
        try:
            self._site.driver.link(good, temp)
        except CannotLink:
            with self._site.driver.open(good) as reader, self._site.driver.create(temp) as writer:
                writer.copy(reader)
                writer.sync()


def swap(site: Site, locks: Locks, name: str, digest: Digest, temp: str, still: Callable[[Info], bool]) -> bool:
    """Give `temp` the name of a blob, if that still is what `still` says. LP: the rename.

    Without the second look a blob that was deleted meanwhile would be back (I7).
    """
    blob = keys.blob(name, digest)
    with locks.hold(name):
        now = site.stat(blob)
        if now is None or not now.is_file or not still(now):
            return False
        site.driver.rename(temp, blob)
    return True


def is_ours(site: Site, name: str) -> bool:
    """False below a symbolic link or another mount: there nothing is written."""
    dev, parts = site.driver.stat("").dev, name.split("/")
    above = (site.stat("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))
    return all(info is not None and not info.is_link and info.dev == dev for info in above)
