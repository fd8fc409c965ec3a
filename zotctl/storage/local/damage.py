"""Known damage, and its healing in every repository that shares it (docs/design/local.md#damage-and-healing).

`damaged/ALG/ENC/N` is one more hard link of each damaged inode. The link keeps the inode number taken, so that a good
file never inherits it, and the bytes for a look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from zotctl.errors import CannotLink, Changed, NotEmpty, NotFound, StorageError
from zotctl.oci.digest import Digest, digest_named
from zotctl.storage import keys
from zotctl.storage.clock import is_ahead
from zotctl.storage.driver import Generation, Info
from zotctl.storage.file_identity import HeldFile, file_number, same_file
from zotctl.storage.local.catalog import LocalCatalog
from zotctl.storage.local.context import LocalContext, Settling
from zotctl.storage.locks import Locks

HEALING_LOCK_TIMEOUT_S = 1.0
"""How long to wait for the lock of a repository. One that is left out heals with its own push, or the next scrub."""


class DamagedFiles:
    """The damaged inodes of one root. Safe between threads and processes."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._nothing: Generation | None = None
        """The generation of `damaged/` when it was last seen empty."""
        self._settling = Settling()

    def has(self, digest: Digest, info: Info) -> bool:
        """Is this inode known to be damaged?"""
        return self.any_known() and any(same_file(known, info) for _, known in self.kept(digest))

    def is_bad(self, digest: Digest, info: Info, size: int) -> bool:
        """Is this file of another size than its blob has, or known to be damaged?"""
        return info.size != size or self.has(digest, info)

    def any_known(self) -> bool:
        """Is any inode known to be damaged? One `stat` where none is, which is nearly always."""
        folder = self._context.stat(keys.DAMAGED)
        if folder is None or folder.generation == self._nothing:
            return False
        settled = self._settling.settled(folder, self._context.clock)
        if not self._context.driver.scan(keys.DAMAGED):
            self._nothing = settled
            return False
        return True

    def kept(self, digest: Digest) -> Iterator[tuple[str, Info]]:
        """The damaged inodes of a digest, each with the key of its link."""
        directory = keys.damaged_links(digest)
        if self._context.stat(directory) is None:
            return
        for entry in self._context.scan(directory):
            info = self._context.stat(key := f"{directory}/{entry.name}")
            if info is not None:
                yield key, info

    def digests(self) -> list[Digest]:
        """Every digest with a known damaged inode."""
        found = []
        for algorithm in self._context.scan(keys.DAMAGED):
            for entry in self._context.scan(keys.damaged_of(algorithm.name)):
                if (digest := digest_named(algorithm.name, entry.name)) is not None:
                    found.append(digest)
        return found

    def lasting(self) -> int:
        """The number of digests with a damaged inode that still has another name, so is not healed everywhere."""
        return sum(any(info.nlink > 1 for _, info in self.kept(digest)) for digest in self.digests())

    def mark(self, digest: Digest, key: str, damaged: HeldFile) -> bool:
        """Mark the file that was looked at, and no other that got its name meanwhile. False: `key` leads elsewhere."""
        if self.has(digest, damaged.info):
            return True
        try:
            with self._context.own_name(key, damaged) as name:
                kept = f"{keys.damaged_links(digest)}/{self._context.clock.token()}"
                self._context.with_room(lambda: self._context.link_into(name, kept))
        except CannotLink:
            return self.move_aside(digest, key, damaged)
        except (Changed, NotFound):
            return False
        return True

    def move_aside(self, digest: Digest, key: str, damaged: HeldFile) -> bool:
        """Move what can't be linked out of sight. If another file had come to the name meanwhile, it goes back."""
        aside = keys.moved_aside(digest, self._context.clock.token())
        self._context.make_dirs(keys.DAMAGED_MOVED)
        if not damaged.is_at(self._context.stat(key)):
            return False
        self._context.driver.rename(key, aside)
        if damaged.is_at(self._context.stat(aside)):
            return True
        self._context.driver.rename(aside, key)
        return False

    def clear(self, digest: Digest, good: HeldFile) -> bool:
        """Take the mark from a file whose bytes were found right after all (a cable, a cache)."""
        links = [key for key, known in self.kept(digest) if good.is_at(known)]
        for key in links:
            self._context.discard(key)
        self._drop_empty(digest)
        return bool(links)

    def sweep(self, digest: Digest, before_ns: int) -> int:
        """Remove damaged inodes that lost their last other name before then (nanoseconds since 1970). Returns the bytes
        freed."""
        freed = 0
        for key, info in list(self.kept(digest)):
            if info.nlink == 1 and is_ahead(info.ctime_ns / 1e9, now := self._context.storage_clock.now()):
                self._context.driver.touch(key, int(now * 1e9))  # by a clock that was wrong: it counts from now
            elif info.nlink == 1 and info.ctime_ns < before_ns:
                self._context.discard(key)
                freed += info.size
        self._drop_empty(digest)
        return freed

    def _drop_empty(self, digest: Digest) -> None:
        with suppress(NotEmpty, NotFound):
            self._context.driver.rmdir(keys.damaged_links(digest))
            self._context.driver.rmdir(keys.parent(keys.damaged_links(digest)))


class Healing:
    """Gives good bytes to every repository of the root that has a damaged file. Safe between threads and processes.

    A push heals its own repository; the others follow once it holds no lock: link to tmp, flush, lock, still the
    damaged inode?, rename.
    """

    def __init__(self, context: LocalContext, damaged: DamagedFiles) -> None:
        self._context, self._damaged = context, damaged
        self._catalog = LocalCatalog(context.driver, context.clock)
        self._locks = Locks(context.driver, context.clock, HEALING_LOCK_TIMEOUT_S)
        self._locks.process_locks = context.locks.process_locks
        self._waiting: deque[tuple[Digest, str]] = deque()
        """Each with a name in `tmp` of the good bytes."""

    def heal_later(self, digest: Digest, good: str) -> None:
        """Have `heal_waiting` heal the other repositories, when no lock is held. `good` gets a name of its own, since
        its present name may lead elsewhere by then."""
        temp = keys.tmp(self._context.clock.token())
        with suppress(CannotLink):  # no links: nothing is shared, so no other repository has the damaged file
            self._context.driver.link(good, temp)
            self._waiting.append((digest, temp))

    def heal_waiting(self) -> None:
        """Heal what waits. Never raises: the push that brought the good bytes is done."""
        while self._waiting:
            digest, temp = self._waiting.popleft()
            with suppress(StorageError):
                try:
                    self.heal_all(digest, temp)
                finally:
                    self._context.discard(temp)

    def heal_all(self, digest: Digest, good: str) -> list[str]:
        """Give `good`, verified bytes under a name that only the caller has, to every repository whose blob is a file
        known to be damaged. Returns their names."""
        damaged = {file_number(info) for _, info in self._damaged.kept(digest)}  # held by their names in `damaged`
        healed = []
        for name in self._catalog.walk():
            info = self._context.stat(keys.blob(name, digest))
            if info is not None and file_number(info) in damaged and self._heal(name, digest, good):
                healed.append(name)
        return healed

    def _heal(self, name: str, digest: Digest, good: str) -> bool:
        """Replace the damaged blob of one repository, if it is still damaged under the lock."""
        temp = keys.tmp(self._context.clock.token())
        try:
            if not self._context.owns(name) or not self._another(good, temp):
                return False
            done = self._context.replace_blob(
                name, digest, temp, lambda now: self._damaged.has(digest, now), self._locks
            )
            self._context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))
        except StorageError:
            return False
        finally:
            self._context.discard(temp)
        return done

    def _another(self, good: str, temp: str) -> bool:
        """Give the good file one more name, or copy it where it can't have one. False: the copy differs."""
        try:
            self._context.driver.link(good, temp)
        except CannotLink:
            with self._context.driver.open(good) as reader:
                with self._context.driver.create(temp) as writer:
                    writer.copy(reader)
                return self._context.same_bytes(reader, temp)
        return True
