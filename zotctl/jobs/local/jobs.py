"""What `jobs.stores` asks of a root that is a directory, `gc --explain` and `import-layout --link` included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from zotctl.errors import StorageError
from zotctl.jobs.ages import Ages
from zotctl.jobs.local.dedupe import deduplicating, undoing
from zotctl.jobs.local.gc import ActiveUploads, LocalCollector
from zotctl.jobs.local.probe import probe
from zotctl.jobs.local.stored import stored
from zotctl.jobs.local.trash import LocalTrash
from zotctl.jobs.report import time_of, whole_second
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Deduplicate, OtherClock, Stored, Whereabouts
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc import GcOptions
    from zotctl.jobs.run import Run


class LocalJobs:
    """The jobs of a root that is a directory. See `jobs.stores.StoreJobs`; safe between threads."""

    dedupes_on_entry = False

    def __init__(self, root: Root) -> None:
        self._root = root

    def other_clock(self, clock: Clock, *, dry_run: bool) -> OtherClock | None:
        """That of the file system, which takes a file to be made."""
        if not dry_run:
            with suppress(StorageError):
                return OtherClock(local_of(self._root).context.storage_clock.ask(), "the file system", refutes=True)
        return None

    def collector(self, run: Run, options: GcOptions) -> LocalCollector:
        """Moves what is unreachable into the trash."""
        return LocalCollector(run, self._root, options)

    def explain(
        self, run: Run, name: str, digest: Digest, options: GcOptions, since: float | None, rows: Sequence[str] = ()
    ) -> Whereabouts | None:
        """By its file, or else by its copies in the trash."""
        info = local_of(self._root).context.stat(keys.blob(name, digest))
        active = ActiveUploads(self._root, options.delay, self._root.protocol.now())
        if info is None:
            return self._in_trash(run, name, digest, options, active)
        if since is None:
            return Whereabouts("")
        ages = Ages(self._root.driver, self._root.protocol.now(), run.clock, no_delay=options.delay == 0, dry_run=True)
        written = ages.written("", info)
        at, why = written + options.delay, "no manifest reaches it"
        if (until := active.until(name, written)) is not None:
            at, why = max(at, until), f"{why}; an upload into this repository that began before it is still moving"
        trashed = since if at <= since else whole_second(at)
        times = {"trashed_after_at": time_of(trashed), "purged_after_at": time_of(whole_second(trashed + options.kept))}
        return Whereabouts("goes", why, times)

    def _in_trash(
        self, run: Run, name: str, digest: Digest, options: GcOptions, active: ActiveUploads
    ) -> Whereabouts | None:  # fmt: skip
        trash, now = local_of(self._root).trash, self._root.protocol.now()
        stamps = {
            folder: min(trash.stamp(folder) / 1e9, now) for folder in trash.folders()
            if folder.name == name and local_of(self._root).context.stat(keys.trashed(folder.run, name, digest))
        }  # fmt: skip
        if not stamps:
            return None
        ends = [max(at + options.kept, active.until(name, at) or 0.0) for at in stamps.values()]
        # Of several copies, one from which a request brings it back counts.
        folder = max(stamps, key=lambda folder: (not folder.deleted, stamps[folder]))
        why = f"in the trash of run {folder.run}; `zotctl gc --restore {name}@{digest}` brings it back"
        if folder.deleted:
            why = f"a client deleted it; {why}"
        times = {
            "trashed_at": time_of(stamps[folder]), "purged_after_at": time_of(whole_second(max(ends))),
            "run": folder.run,
        }  # fmt: skip
        return Whereabouts("in trash", why, times, folder.deleted)

    def trash(self) -> LocalTrash:
        """`.zotctl/trash`, with what clients have deleted."""
        return LocalTrash(self._root)

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        """Hard links, or with `undo` copies; one repository after the other."""
        return undoing(run, roots) if options.undo else deduplicating(run, roots, options)

    def require_linkable(self, info: os.stat_result) -> None:
        """The file must lie on the same file system, and servers must be able to read it. Raises OSError."""
        owner = self._root.driver.stat(keys.HIDDEN)
        if not os.path.isdir(self._root.label) or info.st_dev != owner.dev:
            raise OSError(0, "it is on another file system")
        if info.st_uid != owner.uid or not info.st_mode & 0o400:
            raise OSError(0, f"its files don't belong to uid {owner.uid}, the owner of the store")

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        """One more hard link, published as a blob. False: the file was changed meanwhile. Raises OSError."""
        context = local_of(self._root).context
        temp = keys.tmp(context.clock.token())
        _link_open(fd, os.path.join(self._root.label, temp))
        try:
            if not held.is_at(context.stat(temp)):
                return False
            local_of(self._root).blobs.publish(name, digest, temp)
            return True
        finally:
            context.discard(temp)

    def stored(self, run: Run, top: str) -> Iterator[Stored]:
        """By a walk; names of one inode, and files that share their blocks, are one content."""
        return stored(run, self._root, top)

    def probe(self) -> tuple[dict[str, Any], str]:
        """Tries the file system with a few small files."""
        return probe(self._root)


def _link_open(fd: int, path: str) -> None:
    """One more name for an open file. Outside of the driver, since its first name lies in no root."""
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without a directory descriptor Python calls link(2), which on Linux would link the link in /proc.
        os.link(str(fd), path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)
