"""Blobs in a directory: found, opened, published and mounted by the steps of docs/design/local.md#reading and #upload;
and the pool, where a push looks for a copy of its bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import NamedTuple

from zotctl.errors import CannotLink, Changed, Damaged, Exists, NoSpace, NotFound, PermissionRefused, StorageError
from zotctl.oci.digest import Digest, check_digest, is_stub
from zotctl.storage import keys
from zotctl.storage.driver import Generation, Info, Reader, hash_of
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles, Healing
from zotctl.storage.local.index_file import make_layout
from zotctl.storage.local.trash import Trash
from zotctl.storage.locks import Held
from zotctl.storage.protocol import Blobs, WouldBlock


class Copy(Enum):
    """The state of the pool's copy of one content."""

    ABSENT = "absent"
    GOOD = "good"
    DAMAGED = "damaged"


class PoolEntry(NamedTuple):
    """The result of `Pool.look`."""

    copy: Copy
    held: HeldFile | None = None
    """The file that was compared."""


class Pool:
    """One more hard link of each content, where a push finds the copy in O(1) (docs/design/local.md#deduplication).

    It is a hint. The kernel's link count is the reference count, and a pool name with one link is used by no
    repository. Safe between threads and processes.
    """

    def __init__(self, context: LocalContext, damaged: DamagedFiles) -> None:
        self._context, self._damaged = context, damaged

    @property
    def used(self) -> bool:
        """Is there a pool here? Not without hard links, or with dedupe = false."""
        return self._context.dedupe and self._context.driver.capabilities.links

    @contextmanager
    def look(self, digest: Digest, staged: str) -> Iterator[PoolEntry]:
        """Look for a copy with the very bytes that were just hashed. It is held while the block runs, and `link` gives
        that file a name, whatever the pool's name leads to by then."""
        try:
            reader = self._context.driver.open(keys.pool(digest)) if self.used else None
        except NotFound:
            reader = None
        if reader is None:
            yield PoolEntry(Copy.ABSENT)
            return
        with reader:
            held = HeldFile(reader)
            if not self._damaged.has(digest, held.info) and self._context.same_bytes(reader, staged):
                yield PoolEntry(Copy.GOOD, held)
                return
            self._context.driver.stat(staged)  # raises if the staged file is gone: then the copy may well be good
            yield PoolEntry(Copy.DAMAGED, held)

    def link(self, digest: Digest, found: PoolEntry, target: str, *, flush: bool) -> bool:
        """Give the copy that was compared one more name; with `flush`, after its bytes are on the device. False: the
        pool has another copy by now, or none, or this one can have no more links. Raises Exists."""
        if found.copy is not Copy.GOOD or found.held is None:
            return False
        try:
            with self._context.own_name(keys.pool(digest), found.held) as name:
                if flush:
                    self._context.durable.flush(name)
                self._context.driver.link(name, target)
        except (Changed, NotFound, CannotLink):
            return False
        return True

    def offer(self, digest: Digest, staged: str, found: PoolEntry) -> None:
        """Put the staged file into the pool, in place of a damaged copy or of one that can have no more links."""
        if not self.used:
            return
        key = keys.pool(digest)
        try:
            if found.copy is Copy.ABSENT:
                self._context.link_into(staged, key)
                return
            # The inode that was compared, and no other: another process may have put a good one in its place.
            if found.copy is Copy.DAMAGED and found.held and not self._damaged.mark(digest, key, found.held):
                return
            temp = keys.tmp(self._context.clock.token())
            self._context.driver.link(staged, temp)
            try:
                self._context.driver.rename(temp, key)
            finally:
                self._context.discard(temp)
        except (Exists, CannotLink, NoSpace):
            pass  # a hint that is missing costs a copy, nothing more

    def release(self, digest: Digest) -> None:
        """Remove the pool's name if no repository shares it. No lock: a racing link finds it or uses its own file."""
        key = keys.pool(digest)
        info = self._context.stat(key)
        if info is not None and info.nlink == 1:
            with suppress(NotFound):
                self._context.driver.unlink(key)


class LocalBlobs(Blobs):
    """The blobs of one root. Safe between threads and processes."""

    def __init__(self, context: LocalContext, trash: Trash, pool: Pool, damaged: DamagedFiles) -> None:
        self._context, self._trash, self._pool, self._damaged = context, trash, pool, damaged
        self.healing = Healing(context, damaged)

    # -- reading: no lock, no write -------------------------------------------------------------

    def find(self, name: str, digest: Digest, *, fresh: bool = False) -> Info:
        """Find a blob, and take it back from the trash if need be. Raises NotFound: absent. Damaged: known to be
        damaged, or a stub."""
        key = keys.blob(name, digest)
        try:
            info = self._context.driver.stat(key)
        except NotFound:
            if (again := self._found_again(name, digest, fresh=fresh)) is None:
                raise
            info = self._context.driver.stat(again)
        return self._sound(digest, info)

    def open(self, name: str, digest: Digest) -> Reader:
        """Open a blob, and take it back from the trash if need be. Raises NotFound, Damaged."""
        key = keys.blob(name, digest)
        try:
            reader = self._context.driver.open(key)
        except NotFound:
            if (again := self._found_again(name, digest)) is None:
                self._sound(digest, self._context.driver.stat(key))  # a link, a directory: there, and damaged
                raise
            reader = self._context.driver.open(again)
        try:
            if not reader.size or self._damaged.any_known():
                self._sound(digest, reader.info())
        except BaseException:
            reader.close()
            raise
        return reader

    def _found_again(self, name: str, digest: Digest, *, fresh: bool = False) -> str | None:
        """Where a blob is to be read that was not in its place. None: there is none.

        Where nothing may be written, what was just being put there is read in the trash.
        """
        if self._trash.restore(name, digest, fresh=fresh):
            return keys.blob(name, digest)
        kept = keys.trashed(keys.REPLACED_RUN, name, digest)
        return kept if not self._context.driver.capabilities.local and self._context.stat(kept) is not None else None

    def still_has(self, name: str, digest: Digest, size: int) -> bool:
        """One `stat`, since nothing is remembered. Raises NotFound, Damaged."""
        return self.find(name, digest).size == size

    def generation(self, name: str, digest: Digest) -> Generation | None:
        """The inode, size and times of the file; None: there is none to read."""
        try:
            return self.find(name, digest).generation
        except StorageError:
            return None

    def _sound(self, digest: Digest, info: Info) -> Info:
        if not info.is_file or is_stub(digest, info.size) or self._damaged.has(digest, info):
            raise Damaged(f"{digest} is damaged here; push it again to heal it")
        return info

    # -- publishing: no lock but to heal, `link` never replaces ----------------------------------

    def publish(
        self,
        name: str,
        digest: Digest,
        staged: str,
        held: Held | None = None,
        *,
        manifest: bool = False,
        wait: bool = True,
    ) -> None:
        """Give verified bytes their name. The caller removes the staged name, if it is left. What is published under a
        lock, or as a manifest, is flushed even without `commit`: an index.json is about to lead there (I3). With `wait`
        false, WouldBlock where it takes more than names that are free."""
        if not wait:
            return self._publish_at_once(name, digest, staged)
        gathering = self._context.durable.gathering
        if gathering is not None and (manifest or self._context.commit):
            return gathering.add(name, digest, staged)
        if self._context.stat(keys.layout(name)) is None:
            make_layout(self._context, name, digest.algorithm, held)
        flush = manifest or held is not None or self._context.commit
        while not (self._publish_once(name, digest, staged, held, flush) and self._flush_names(name, digest, staged)):
            make_layout(self._context, name, digest.algorithm, held)  # a collector may have removed an empty one
        if held is None:
            self.healing.heal_waiting()
        return None

    def _publish_at_once(self, name: str, digest: Digest, staged: str) -> None:
        """Without `commit`, in a repository that is there, and where neither it nor the pool has the blob: nothing to
        flush, to compare or to heal, and no lock to wait for."""
        if self._context.stat(keys.layout(name)) is None or self._context.stat(keys.pool(digest)) is not None:
            raise WouldBlock(name)
        try:
            self._context.driver.link(staged, keys.blob(name, digest))
        except (Exists, CannotLink, NotFound):
            raise WouldBlock(name) from None
        self._pool.offer(digest, staged, PoolEntry(Copy.ABSENT))

    def _flush_names(self, name: str, digest: Digest, staged: str) -> bool:
        """With `commit`, flush the names. False: a collector took the blob away meanwhile; begin again."""
        try:
            self._context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))
        except NotFound:
            if self._context.stat(staged) is not None:
                return False
            self.flush(name, [digest])  # it was renamed into its place, and is in the trash, if anywhere
        return True

    def flush(self, name: str, digests: Collection[str]) -> None:
        """Flush blobs of a repository, bytes and names, also those that other processes wrote, with `commit` and
        without.

        A blob that was trashed meanwhile comes back. Raises NotFound: a client or `gc --delay 0s` removed one.
        """
        if not digests or self._context.durable.flush_all(len(digests)):
            return
        for digest in digests:
            self._flush_or_restore(name, check_digest(digest))
        for algorithm in sorted({digest.partition(":")[0] for digest in digests}):
            self._context.durable.flush_names(keys.blobs_of(name, algorithm))

    def _flush_or_restore(self, name: str, digest: Digest) -> None:
        while True:
            try:
                self._context.durable.flush(keys.blob(name, digest))
            except NotFound:
                if not self._trash.restore(name, digest, fresh=True):
                    raise
            else:
                return

    def distrust(self, name: str, digest: Digest) -> bool:
        """Hash a blob whose length a manifest disputes, and mark it if it is wrong. True: it is right.

        A power cut may have cut it short before a manifest named its size. Until it is marked, HEAD answers 200, and no
        client sends it again.
        """
        with self._context.driver.open(keys.blob(name, digest)) as reader:
            held = HeldFile(reader)
            right: bool = hash_of(reader, digest.algorithm).hexdigest() == digest.encoded
            if not right:
                self._damaged.mark(digest, keys.blob(name, digest), held)
        return right

    def _publish_once(self, name: str, digest: Digest, staged: str, held: Held | None, flush: bool) -> bool:
        """One round. False: another process came between; begin again at stat(blob).

        `flush`: flush the file that gets or has the name. The staged file is flushed already, but one that is there, or
        in the pool, may have come by a push without `commit`.
        """
        blob = keys.blob(name, digest)
        if (there := self._context.stat(blob)) is not None:
            return self._keep_or_heal(name, digest, staged, there, held, flush)
        with self._pool.look(digest, staged) as pooled:
            try:
                if self._pool.link(digest, pooled, blob, flush=flush):
                    return True
                self._context.driver.link(staged, blob)
            except Exists:
                return False
            except NotFound:
                self._context.driver.stat(staged)  # raises if the staged file is gone, not the layout
                return False
            except CannotLink:
                self._context.durable.replace(self._context.durable.flush(staged), blob)
                return True
            self._pool.offer(digest, staged, pooled)
            if pooled.copy is Copy.DAMAGED:
                self.healing.heal_later(digest, staged)
        return True

    def _keep_or_heal(
        self, name: str, digest: Digest, staged: str, there: Info, held: Held | None, flush: bool
    ) -> bool:
        blob = keys.blob(name, digest)
        if not there.is_file:
            self._damaged.move_aside(digest, blob, HeldFile.unopened(there))
            return False
        try:
            reader = self._context.driver.open(blob)
        except NotFound:
            return False
        with reader:
            found = HeldFile(reader)
            good = not self._damaged.has(digest, found.info) and self._context.same_bytes(reader, staged)
            if not good:
                self._context.driver.stat(staged)  # raises if the staged file is gone: then the other may well be good
                return self._heal(name, digest, staged, found, held)
            try:
                if flush:
                    self._context.durable.flush(blob)
            except NotFound:
                return False
            return found.is_at(self._context.stat(blob))  # else the name leads elsewhere by now

    def _heal(self, name: str, digest: Digest, staged: str, damaged: HeldFile, held: Held | None) -> bool:
        """Replace a damaged file by the staged one. The damaged inode stays known, and the pool and the other
        repositories that share it get good bytes. False: another process was faster."""
        if not self._damaged.mark(digest, keys.blob(name, digest), damaged):
            return False
        with self._pool.look(digest, staged) as pooled:
            self._pool.offer(digest, staged, pooled)
        self.healing.heal_later(digest, staged)
        return self._context.replace_blob(name, digest, staged, damaged.is_at, self._context.locks, held)

    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """Give a blob of one repository to another by one link, without a lock."""
        if not self._context.driver.capabilities.links:
            return False
        try:
            with self.open(source, digest) as reader:
                needed = (keys.layout(name), keys.blobs_of(name, digest.algorithm))
                if any(self._context.stat(key) is None for key in needed):
                    make_layout(self._context, name, digest.algorithm)
                with self._context.own_name(keys.blob(source, digest), HeldFile(reader)) as own:
                    if self._context.commit:
                        self._context.durable.flush(own)  # before it is seen
                    self._context.driver.link(own, keys.blob(name, digest))
            flushed = True
        except Exists:
            try:
                self.find(name, digest)
            except (NotFound, Damaged):
                return False
            flushed = False
        except (NotFound, Damaged, Changed, CannotLink, PermissionRefused):
            return False
        return self._keep_mounted(name, digest, flushed=flushed)

    def _keep_mounted(self, name: str, digest: Digest, *, flushed: bool) -> bool:
        """With `commit`, flush a mounted blob. `flushed`: its bytes are flushed already. False: it was deleted
        meanwhile."""
        try:
            if not flushed and self._context.durable.waits:
                self._context.durable.flush(keys.blob(name, digest))
            self._context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))
        except NotFound:
            return self._trash.restore(name, digest, fresh=True) and self._keep_mounted(name, digest, flushed=flushed)
        return True
