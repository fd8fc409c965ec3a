"""The pool: one more hard link of each content, where a push finds the copy in O(1).

It is a hint. The kernel's link count is the reference count, and a pool name with one link is
used by nobody (local.md, "Deduplication").
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from zotctl.errors import CannotLink, Exists, NoSpace, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.local.bad import Bad
from zotctl.storage.local.site import Site


class Copy(Enum):
    ABSENT = "absent"
    GOOD = "good"
    DAMAGED = "damaged"


class Found(NamedTuple):
    copy: Copy
    info: Info | None = None
    """Of the file that was compared."""


class Pool:
    def __init__(self, site: Site, bad: Bad) -> None:
        self._site, self._bad = site, bad

    @property
    def used(self) -> bool:
        return self._site.dedupe and self._site.driver.capabilities.links

    def look(self, digest: Digest, staged: str) -> Found:
        """Is there a copy, with the very bytes that were just hashed?"""
        key = keys.pool(digest)
        info = self._site.stat(key) if self.used else None
        if info is None:
            return Found(Copy.ABSENT)
        if not self._bad.holds(digest, info) and self._site.same_bytes(key, staged):
            return Found(Copy.GOOD, info)
        self._site.driver.stat(staged)  # raises if it is ours that went: then the copy may well be good
        now = self._site.stat(key)
        return Found(Copy.DAMAGED, info) if now is not None and now.ino == info.ino else Found(Copy.ABSENT)

    def offer(self, digest: Digest, staged: str, found: Found) -> None:
        """Make our bytes the pool's, in place of a damaged copy or of one that takes no more links."""
        if not self.used:
            return
        key = keys.pool(digest)
        try:
            if found.copy is Copy.ABSENT:
                self._site.link_into(staged, key)
            else:
                self._replace(digest, staged, key, found)
        except (Exists, CannotLink, NoSpace):
            pass  # a hint that is missing costs a copy, nothing more

    def _replace(self, digest: Digest, staged: str, key: str, found: Found) -> None:
        # The inode that was compared, and no other: somebody may have put a good one in its place.
        if found.copy is Copy.DAMAGED and found.info and not self._bad.mark(digest, key, found.info):
            return
        temp = keys.tmp(self._site.clock.token())
        self._site.driver.link(staged, temp)
        try:
            self._site.driver.rename(temp, key)
        finally:
            self._site.discard(temp)

    def release(self, digest: Digest) -> None:
        """Drop the pool's name if nobody else has one. No lock: a racing link finds it or uses its own."""
        key = keys.pool(digest)
        info = self._site.stat(key)
        if info is not None and info.nlink == 1:
            with suppress(NotFound):
                self._site.driver.unlink(key)
