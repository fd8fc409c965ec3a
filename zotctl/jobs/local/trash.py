"""The trash of a directory, for `gc --restore` and `gc --list-trash`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zotctl.errors import Damaged, NotFound, ReadOnly
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Trashed
from zotctl.oci.digest import Digest, digest_named, parse_digest
from zotctl.oci.media_types import is_nondistributable
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.facts import Content, ManifestFacts, Reference, understand
from zotctl.storage.graph import ManifestGraph, reader_of
from zotctl.storage.index import Index
from zotctl.storage.local.index_file import make_layout
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.trash import Folder
from zotctl.storage.protocol import Change, Transaction
from zotctl.storage.root import Root


class LocalTrash:
    """Lists and restores what lies in `.zotctl/trash` of one root. See `jobs.stores.TrashJobs`."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def restore(self, run: Run, what: str, name: str, digest: Digest | None) -> bool:
        """By links back; a manifest gets its row again, with all that it needs. What cannot come back is reported."""
        root, found = self._root, False
        for folder in local_of(root).trash.folders():
            if not run.covers(folder.name) or (name and folder.name != name) or (digest is None and folder.run != what):
                continue
            for candidate, size in _contents(root, folder, digest):
                found = True
                _restore(run, root, folder, candidate, size)
        return found

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


def _contents(root: Root, folder: Folder, digest: Digest | None) -> Iterator[tuple[Digest, int]]:
    for candidate, info in local_of(root).trash.contents(folder):
        if digest is None or candidate == digest:
            yield candidate, info.size


def _restore(run: Run, root: Root, folder: Folder, digest: Digest, size: int) -> None:
    run.item(action="restore", repository=folder.name, digest=str(digest), size_bytes=size, run=folder.run)
    run.add("restored")
    run.add("restored_bytes", size)
    if not root.owns(folder.name):
        refusal = ReadOnly(f"{folder.name} is only read from here, so nothing comes back into it")
        run.error(folder.name, refusal, root)
        return
    if run.dry_run:
        return
    make_layout(local_of(root).context, folder.name, digest.algorithm)
    local_of(root).trash.restore_from(folder.run, folder.name, digest)
    facts = _as_manifest(root, folder.name, digest)
    if facts is not None:
        (outcome,) = root.protocol.commit_index(folder.name, [_give_row(root, digest, facts)])
        if outcome is not None:
            run.error(folder.name, outcome, root)


def _as_manifest(root: Root, name: str, digest: Digest) -> ManifestFacts | None:
    """What lay there as bytes: a manifest says so itself, by its media type or by its shape."""
    try:
        return understand(reader_of(root.protocol, name)(digest, False), digest).facts
    except (NotFound, Damaged):
        return None


def _give_row(root: Root, digest: Digest, facts: ManifestFacts) -> Change:
    """Its row, with all that it needs: that comes back from the trash, too. Raises NotFound where it can't."""

    def change(tx: Transaction, draft: Index) -> None:
        read = reader_of(root.protocol, tx.name)

        def taken_back(digest: Digest, whole: bool) -> Content:
            tx.require(digest)
            return read(digest, whole)

        graph = ManifestGraph(taken_back)
        graph.add([Reference(digest, facts.size, facts.media_type)])
        for fault in graph.faults.values():
            if fault.may_pass and graph.is_needed(fault.digest):
                raise NotFound(f"{fault.digest}: {fault.reason}")
        for leaf in graph.leaves:
            tx.require(parse_digest(leaf))
        for found in graph.facts.values():
            for blob in found.blobs:
                if not is_nondistributable(blob.media_type):
                    tx.require(parse_digest(blob.digest))
        draft.put(digest, facts.size, facts.media_type)
        root.history.note(tx.name, "push", digest, by="gc --restore")  # before the rename, as for a push

    return change


def _only_there(root: Root, folder: Folder) -> list[tuple[Digest, Info]]:
    """What was restored, or pushed again, is in its place: the name in the trash only waits to be purged."""
    stat = local_of(root).context.stat
    return [one for one in local_of(root).trash.contents(folder) if stat(keys.blob(folder.name, one[0])) is None]
