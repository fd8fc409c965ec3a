"""The pool: one more hard link of each content, where a push finds the copy in O(1).

It is a hint. The kernel's link count is the reference count, and a pool name with one link is
used by no repository (docs/design/local.md#deduplication).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from typing import NamedTuple

from zotctl.errors import CannotLink, Changed, Exists, NoSpace, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.local.naming import own_name


class Copy(Enum):
    ABSENT = "absent"
    GOOD = "good"
    DAMAGED = "damaged"


class PoolEntry(NamedTuple):
    copy: Copy
    held: HeldFile | None = None
    """The file that was compared."""


class Pool:
    def __init__(self, context: LocalContext, damaged: DamagedFiles) -> None:
        self._context, self._damaged = context, damaged

    @property
    def used(self) -> bool:
        return self._context.dedupe and self._context.driver.capabilities.links

    @contextmanager
    def look(self, digest: Digest, staged: str) -> Iterator[PoolEntry]:
        """Is there a copy, with the very bytes that were just hashed? It is held as long as the block runs, and `link`
        gives that file a name, whatever the pool's name leads to by then."""
        with ExitStack() as stack:
            held = self._take(digest, stack)
            yield self._judge(digest, staged, held) if held is not None else PoolEntry(Copy.ABSENT)

    def _take(self, digest: Digest, stack: ExitStack) -> HeldFile | None:
        if not self.used:
            return None
        try:
            return HeldFile(stack.enter_context(self._context.driver.open(keys.pool(digest))))
        except NotFound:
            return None

    def _judge(self, digest: Digest, staged: str, held: HeldFile) -> PoolEntry:
        reader = held.reader
        if reader is not None and not self._damaged.has(digest, held.info) and self._context.same_bytes(reader, staged):
            return PoolEntry(Copy.GOOD, held)
        self._context.driver.stat(staged)  # raises if it is ours that went: then the copy may well be good
        return PoolEntry(Copy.DAMAGED, held)

    def link(self, digest: Digest, found: PoolEntry, target: str, *, flush: bool) -> bool:
        """Give the copy that was compared one more name; `flush`: when its bytes are on the device. False: the pool has
        another by now, or none, or the copy has no link left to give. Raises Exists."""
        if found.copy is not Copy.GOOD or found.held is None:
            return False
        try:
            with own_name(self._context, keys.pool(digest), found.held) as name:
                if flush:
                    self._context.durable.flushed(name)
                self._context.driver.link(name, target)
        except (Changed, NotFound, CannotLink):
            return False
        return True

    def offer(self, digest: Digest, staged: str, found: PoolEntry) -> None:
        """Make our bytes the pool's, in place of a damaged copy or of one that takes no more links."""
        if not self.used:
            return
        key = keys.pool(digest)
        try:
            if found.copy is Copy.ABSENT:
                self._context.link_into(staged, key)
            else:
                self._replace(digest, staged, key, found)
        except (Exists, CannotLink, NoSpace):
            pass  # a hint that is missing costs a copy, nothing more

    def _replace(self, digest: Digest, staged: str, key: str, found: PoolEntry) -> None:
        # The inode that was compared, and no other: another process may have put a good one in its place.
        if found.copy is Copy.DAMAGED and found.held and not self._damaged.mark(digest, key, found.held):
            return
        temp = keys.tmp(self._context.clock.token())
        self._context.driver.link(staged, temp)
        try:
            self._context.driver.rename(temp, key)
        finally:
            self._context.discard(temp)

    def release(self, digest: Digest) -> None:
        """Drop the pool's name if no repository has one. No lock: a racing link finds it or uses its own."""
        key = keys.pool(digest)
        info = self._context.stat(key)
        if info is not None and info.nlink == 1:
            with suppress(NotFound):
                self._context.driver.unlink(key)
