"""Known damage: `damaged/ALG/ENC/N` is one more hard link of each damaged inode
(docs/design/local.md#damage-and-healing).

The link keeps the inode number taken, so that a good file never inherits it, and the bytes for a look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from zotctl.errors import CannotLink, Changed, NotEmpty, NotFound
from zotctl.oci.digest import Digest, digest_named
from zotctl.storage import keys
from zotctl.storage.clock import is_ahead
from zotctl.storage.driver import Generation, Info
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.naming import own_name


class DamagedFiles:
    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._nothing: Generation | None = None
        """What `bad` was like when nothing was in it."""

    def has(self, digest: Digest, info: Info) -> bool:
        """Is this inode known to be damaged? One `stat` where nothing is, which is nearly always."""
        folder = self._context.stat(keys.DAMAGED)
        if folder is None or folder.generation == self._nothing:
            return False
        if not self._context.driver.scan(keys.DAMAGED):
            self._nothing = folder.generation if self._context.is_settled(folder) else None
            return False
        return any(same_file(known, info) for _, known in self.kept(digest))

    def kept(self, digest: Digest) -> Iterator[tuple[str, Info]]:
        """The damaged inodes of a digest, each with the key of its link."""
        directory = keys.damaged_links(digest)
        if self._context.stat(directory) is None:
            return
        for name in self._names(directory):
            info = self._context.stat(key := f"{directory}/{name}")
            if info is not None:
                yield key, info

    def digests(self) -> list[Digest]:
        """Every digest of which a damaged inode is known."""
        algorithms = self._names(keys.DAMAGED)
        found = (digest_named(a, encoded) for a in algorithms for encoded in self._names(f"{keys.DAMAGED}/{a}"))
        return [digest for digest in found if digest is not None]

    def lasting(self) -> int:
        """Digests of which a damaged inode has another name yet: what was healed everywhere is kept for a look."""
        return sum(any(info.nlink > 1 for _, info in self.kept(digest)) for digest in self.digests())

    def _names(self, directory: str) -> list[str]:
        try:
            return [entry.name for entry in self._context.driver.scan(directory)]
        except NotFound:
            return []

    def mark(self, digest: Digest, key: str, damaged: HeldFile) -> bool:
        """Mark the file that was looked at, and no other that got its name meanwhile. False: the name moved on."""
        if self.has(digest, damaged.info):
            return True
        try:
            with own_name(self._context, key, damaged) as name:
                kept = f"{keys.damaged_links(digest)}/{self._context.clock.token()}"
                self._context.with_room(lambda: self._context.link_into(name, kept))
        except CannotLink:
            return self.set_aside(digest, key, damaged)
        except (Changed, NotFound):
            return False
        return True

    def set_aside(self, digest: Digest, key: str, damaged: HeldFile) -> bool:
        """No link to be had, or no file: it moves out of sight itself. Anything else, come in between, goes back."""
        aside = f"{keys.QUARANTINE}/{digest.encoded}.{self._context.clock.token()}"
        self._context.make_dirs(keys.QUARANTINE)
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
        """Let go of damaged inodes that no other name leads to since before then. Returns the bytes freed."""
        freed = 0
        for key, info in list(self.kept(digest)):
            if info.nlink == 1 and is_ahead(info.ctime_ns / 1e9, now := self._context.clock.now()):
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
