"""The trash of a directory, for `gc --restore` and `gc --list-trash`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zotctl.jobs.run import Run
from zotctl.jobs.stores import Trashed, TrashedBlob
from zotctl.oci.digest import Digest, digest_named
from zotctl.storage import keys
from zotctl.storage.driver import Info, chunks_of
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.index_file import make_layout
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.trash import Folder
from zotctl.storage.root import Root


class LocalTrash:
    """What lies in `.zotctl/trash` of one root. See `jobs.stores.TrashJobs`."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def contents(self) -> Iterator[TrashedBlob]:
        """Folder by folder; also what clients have deleted."""
        for folder in local_of(self._root).trash.folders():
            for digest, info in local_of(self._root).trash.contents(folder):
                yield TrashedBlob(folder.run, folder.name, digest, info.size, folder.deleted)

    def bring_back(self, found: TrashedBlob) -> bool:
        """By a link, into a layout that is made again if it is gone."""
        local = local_of(self._root)
        make_layout(local.context, found.repository, found.digest.algorithm)
        if local.trash.restore_from(found.run, found.repository, found.digest):
            self._heal(found)
            return True
        return local.context.stat(keys.blob(found.repository, found.digest)) is not None

    def _heal(self, found: TrashedBlob) -> None:
        """Where a file that is cut, or known to be damaged, has the name already, give it the bytes from the trash.
        Raises DigestInvalid if they are no better."""
        local, blob = local_of(self._root), keys.blob(found.repository, found.digest)
        info = local.context.stat(blob)
        if info is None or not local.damaged.is_bad(found.digest, info, found.size):
            return
        source = keys.trashed(found.run, found.repository, found.digest)
        with self._root.driver.open(blob) as bad, self._root.driver.open(source) as good:
            local.maintenance.heal(found.repository, found.digest, HeldFile(bad), chunks_of(good))

    def look(self, most: int, most_blobs: int) -> Iterator[Trashed]:
        """Without what has come back into its place since, as far as it was looked at."""
        local = local_of(self._root)
        for folder in islice(local.trash.folders(), most):
            names = [entry.name for entry in local.context.scan(folder.key)]
            size, back = 0, 0
            for name in names[:most_blobs]:
                info, digest = local.context.stat(f"{folder.key}/{name}"), digest_named(folder.algorithm, name)
                if info is None or digest is None or local.context.stat(keys.blob(folder.name, digest)) is not None:
                    back += 1
                else:
                    size += info.size
            if back < len(names):
                counted, moved = len(names) <= most_blobs, local.trash.stamp(folder) / 1e9
                yield Trashed(folder.run, folder.name, len(names) - back, size, counted, moved, folder.deleted)

    def list(self, run: Run) -> None:
        """Without what has come back into its place since: its name in the trash only waits to be purged."""
        root = self._root
        for folder in local_of(root).trash.folders():
            contents = _only_there(root, folder) if run.covers(folder.name) else []
            if not contents:
                continue
            size = sum(info.size for _, info in contents)
            run.item(
                action="in_trash", run=folder.run, repository=folder.name, deleted=folder.deleted,
                digests=[str(digest) for digest, _ in contents], size_bytes=size,
            )  # fmt: skip
            run.add("in_trash", len(contents))
            run.add("in_trash_bytes", size)


def _only_there(root: Root, folder: Folder) -> list[tuple[Digest, Info]]:
    """What was restored, or pushed again, is in its place: the name in the trash only waits to be purged."""
    stat = local_of(root).context.stat
    return [one for one in local_of(root).trash.contents(folder) if stat(keys.blob(folder.name, one[0])) is None]
