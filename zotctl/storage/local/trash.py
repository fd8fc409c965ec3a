"""The trash is the grace period: unreachable content lies here, and a request for it brings it back by one link.

`trash/RUN/NAME/blobs/ALG/ENC`, a folder for each run. Folders `deleted-...` hold what a client deleted
on purpose; reads don't look into these (docs/design/local.md#reading).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from zotctl.errors import CannotLink, Exists, NoSpace, NotEmpty, NotFound, PermissionRefused, ReadOnlyStorage
from zotctl.oci.digest import Digest, digest_named
from zotctl.storage import keys
from zotctl.storage.driver import Generation, Info
from zotctl.storage.file_identity import FileIdentity
from zotctl.storage.local.context import LocalContext, Settling
from zotctl.storage.locks import Held


class Folder(NamedTuple):
    """`trash/RUN/NAME/blobs/ALG`."""

    run: str
    name: str
    algorithm: str

    @property
    def key(self) -> str:
        """Its directory."""
        return f"{keys.trash_run(self.run)}/{keys.blobs_of(self.name, self.algorithm)}"

    @property
    def deleted(self) -> bool:
        """Did a client delete this? Then it never goes back by itself."""
        return self.run.startswith(keys.DELETED_PREFIX)


class Trash:
    """The trash of one root. Safe between threads and processes; what needs the lock takes a `Held`."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self._runs: tuple[Generation | None, list[str]] = (None, [])
        self._settling = Settling()

    def runs(self, *, fresh: bool = False) -> list[str]:
        """The runs that reads look into. Listed again when the folder's time stamp moved, or with `fresh` always."""
        info = self._context.stat(keys.TRASH)
        if info is None:
            return []
        if fresh or self._runs[0] != info.generation:
            stamp = self._settling.settled(info, self._context.clock)
            names = sorted(entry.name for entry in self._context.driver.scan(keys.TRASH) if entry.is_dir)
            self._runs = (stamp, [name for name in names if not name.startswith(keys.DELETED_PREFIX)])
        return self._runs[1]

    def restore(self, name: str, digest: Digest, *, fresh: bool = False) -> bool:
        """Link trashed content back into its place. True: it is there now. Needs no lock."""
        if any(self.restore_from(run, name, digest) for run in self.runs(fresh=fresh)):
            return True
        info = self._context.stat(keys.blob(name, digest))  # it may have come back between the caller's look and ours
        return info is not None and info.is_file

    def restore_from(self, run: str, name: str, digest: Digest) -> bool:
        """Restore from one run, unless the repository is a link or on another mount: a read writes nothing there (I9),
        so its blobs in the trash are absent to a reader."""
        source, blob = keys.trashed(run, name, digest), keys.blob(name, digest)
        if self._context.stat(source) is None or not self._context.owns(name):
            return False
        try:
            self._context.link_into(source, blob)
        except Exists:
            return True
        except CannotLink:
            try:
                self._context.driver.rename(source, blob)
            except (CannotLink, NotFound):
                return False  # the trash itself is another mount
        except (NotFound, ReadOnlyStorage, PermissionRefused):
            return False
        return True

    # -- collecting (docs/design/local.md#collection) -----------------------------------------------------

    def add(self, held: Held, run: str, digests: Sequence[Digest]) -> list[Digest]:
        """Move blobs to the trash, from which a request brings them back. Returns those that were still there.

        Under the lock, after the caller has seen that nothing in index.json reaches them. LP: each rename.
        """
        for algorithm in {digest.algorithm for digest in digests}:
            folder = f"{keys.trash_run(run)}/{keys.blobs_of(held.name, algorithm)}"
            self._context.with_room(partial(self._context.make_dirs, folder))
        moved = []
        for digest in digests:
            blob, kept = keys.blob(held.name, digest), keys.trashed(run, held.name, digest)
            if self._context.stat(blob) is None:
                continue  # what lies there may be all that is left of it, as of what this run has moved before
            # Lying there already, restored and trashed again: a rename of two names of one inode would do
            # nothing. While the blob has its own name, the other is not needed.
            self._context.discard(kept)
            with suppress(NotFound):
                self._context.driver.rename(blob, kept)
                moved.append(digest)
        return moved

    def folders(self) -> Iterator[Folder]:
        """Every folder of every run, those of deletions included."""
        if self._context.stat(keys.TRASH) is None:
            return
        for run in sorted(entry.name for entry in self._context.driver.scan(keys.TRASH) if entry.is_dir):
            yield from self._folders(run, "")

    def _folders(self, run: str, name: str) -> Iterator[Folder]:
        directory = f"{keys.trash_run(run)}/{name}".rstrip("/")
        for entry in self._context.scan(directory):
            if name and entry.name == "blobs":
                for algorithm in self._context.scan(f"{directory}/blobs"):
                    yield Folder(run, name, algorithm.name)
            elif entry.is_dir:
                yield from self._folders(run, f"{name}/{entry.name}".lstrip("/"))

    def stamp(self, folder: Folder) -> int:
        """When something was last moved here, in nanoseconds since 1970 by the storage's clock."""
        info = self._context.stat(folder.key)
        return info.mtime_ns if info else 0

    def contents(self, folder: Folder) -> Iterator[tuple[Digest, Info]]:
        """The files in a folder, each as it was when it was listed."""
        for entry in self._context.scan(folder.key):
            info, digest = self._context.stat(f"{folder.key}/{entry.name}"), digest_named(folder.algorithm, entry.name)
            if info is not None and info.is_file and digest is not None:
                yield digest, info

    def purge(self, held: Held, folder: Folder, listed: Mapping[Digest, Info], needed: Container[str]) -> list[Digest]:
        """Under the lock, put back what is needed again and delete the rest for good. Returns what was deleted. What
        can't be put back stays, and so does what was touched since it was listed: it may have been restored and trashed
        again meanwhile."""
        digests = []
        for digest, info in listed.items():
            if FileIdentity.of(info).is_untouched(self._context.stat(keys.trashed(folder.run, held.name, digest))):
                digests.append(digest)
        back = {digest for digest in digests if digest in needed and not folder.deleted}
        kept = [digest for digest in sorted(back) if self.restore_from(folder.run, held.name, digest)]
        for digest in kept:
            self._context.durable.flush(keys.blob(held.name, digest))  # it may have been pushed again meanwhile
        if kept:
            self._context.durable.flush_names(keys.blobs_of(held.name, folder.algorithm))
        gone = [digest for digest in digests if digest not in back]
        for digest in (*kept, *gone):
            self._context.discard(keys.trashed(folder.run, held.name, digest))
        return gone

    def sweep(self, folder: Folder) -> None:
        """Remove the empty folders of a repository, up to the run's own."""
        key = folder.key
        while key != keys.TRASH:
            try:
                self._context.driver.rmdir(key)
            except (NotEmpty, NotFound):
                return
            key = keys.parent(key)

    # -- deleting on purpose --------------------------------------------------------------------

    def delete(self, held: Held, digest: Digest) -> None:
        """Delete a blob for a client: from each trash folder first, so that no read can restore it."""
        for run in self.runs(fresh=True):
            self._context.discard(keys.trashed(run, held.name, digest))
        blob = keys.blob(held.name, digest)
        kept = keys.trashed(self._deleted_run(), held.name, digest)
        try:
            self._context.make_dirs(keys.parent(kept))
            self._context.discard(kept)
            self._context.driver.rename(blob, kept)
        except NoSpace:
            # A full disk is why people delete: the folder in the trash is worth less than the bytes.
            self._context.driver.unlink(blob)

    def _deleted_run(self) -> str:
        """One folder per hour, which can be purged when its last deletion is older than the delay."""
        return f"{keys.DELETED_PREFIX}{int(self._context.clock.now() // 3600):08x}"
