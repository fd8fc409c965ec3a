"""`gc --restore RUN|DIGEST|NAME@DIGEST`: back out of the trash, deletions by clients too."""

from __future__ import annotations

import json
from collections.abc import Iterator

from zotctl.errors import Damaged, DigestInvalid, ManifestInvalid, NotFound, Unsupported
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import Manifest
from zotctl.oci.media_types import OCI_INDEX, is_nondistributable
from zotctl.storage import keys
from zotctl.storage.contents import read_stored
from zotctl.storage.driver import Info
from zotctl.storage.index import Index
from zotctl.storage.local.trash import Folder
from zotctl.storage.protocol import Change, Transaction
from zotctl.storage.root import Root


def restore(run: Run, what: str) -> None:
    """Link back what `what` names; a manifest gets its row again, without the tags that it had.

    Raises NotFound (exit 10) when nothing in the trash answers to it.
    """
    name, _, text = what.rpartition("@")
    digest = _digest(text)
    found = False
    for root in _with_trash(run):
        for folder in root.local.trash.folders():
            if not run.covers(folder.name) or (name and folder.name != name) or (digest is None and folder.run != what):
                continue
            for candidate, size in _lying(root, folder, digest):
                found = True
                _restore(run, root, folder, candidate, size)
    if not found:
        raise NotFound(f"nothing in the trash answers to {what}; `zotctl gc --list-trash` shows what lies there")


def _with_trash(run: Run) -> list[Root]:
    """Raises Unsupported if there is none: what was deleted on a bucket is gone."""
    roots = [root for root in run.store.roots if not root.is_bucket]
    if not roots:
        label = run.store.roots[0].label
        raise Unsupported(f"{label}: there is no trash on a bucket: what `gc` has deleted there is gone")
    return roots


def _digest(text: str) -> Digest | None:
    try:
        return parse_digest(text)
    except DigestInvalid:
        return None


def _lying(root: Root, folder: Folder, digest: Digest | None) -> Iterator[tuple[Digest, int]]:
    for candidate, info in root.local.trash.lying(folder):
        if digest is None or candidate == digest:
            yield candidate, info.size


def _restore(run: Run, root: Root, folder: Folder, digest: Digest, size: int) -> None:
    run.item(action="restore", repository=folder.name, digest=str(digest), size_bytes=size, run=folder.run)
    run.add("restored")
    run.add("restored_bytes", size)
    if run.dry_run:
        return
    root.local.layouts.make(folder.name, digest.algorithm, None)
    root.local.trash.restore_from(folder.run, folder.name, digest)
    manifest = _as_manifest(root, folder.name, digest)
    if manifest is not None:
        (outcome,) = root.protocol.commit_index(folder.name, [_give_row(root, manifest)])
        if outcome is not None:
            run.error(folder.name, outcome)


def _as_manifest(root: Root, name: str, digest: Digest) -> Manifest | None:
    """What lay there as bytes: a manifest says so itself, by its media type or by its shape."""
    try:
        with root.protocol.open(name, digest) as reader:
            if reader.size > (4 << 20):
                return None
            document = json.loads(reader.read_at(0, reader.size))
        if not isinstance(document, dict) or document.get("schemaVersion") != 2:
            return None
        return read_stored(root.protocol, name, digest, document.get("mediaType") or _shape(document))
    except (NotFound, Damaged, ManifestInvalid, ValueError, UnicodeDecodeError):
        return None


def _shape(document: dict[str, object]) -> str:
    return OCI_INDEX if "manifests" in document else ""


def _give_row(root: Root, manifest: Manifest) -> Change:
    """Its row, with all that it needs: that comes back from the trash, too. Raises NotFound where it can't."""

    def change(tx: Transaction, draft: Index) -> None:
        tx.require(manifest.digest)
        todo, seen = [manifest], set[str]()
        while todo:
            one = todo.pop()
            for blob in one.blobs:
                if not is_nondistributable(blob.media_type):
                    tx.require(parse_digest(blob.digest))
            for child in one.children:
                tx.require(parse_digest(child.digest))
                if child.digest not in draft and child.digest not in seen:
                    seen.add(child.digest)
                    todo.append(read_stored(root.protocol, tx.name, parse_digest(child.digest), child.media_type))
        draft.put(manifest.digest, manifest.size, manifest.media_type)
        root.history.note(tx.name, "push", manifest.digest)  # before the rename, as for a push

    return change


def list_trash(run: Run) -> None:
    """What lies in the trash, by run and repository."""
    for root in _with_trash(run):
        for folder in root.local.trash.folders():
            lying = _lying_only_there(root, folder) if run.covers(folder.name) else []
            if not lying:
                continue
            size = sum(info.size for _, info in lying)
            run.item(
                action="lies", run=folder.run, repository=folder.name, deleted=folder.deleted,
                digests=[str(digest) for digest, _ in lying], size_bytes=size,
            )  # fmt: skip
            run.add("lying", len(lying))
            run.add("lying_bytes", size)


def _lying_only_there(root: Root, folder: Folder) -> list[tuple[Digest, Info]]:
    """What was restored, or pushed again, is in its place: the name in the trash only waits to be purged."""
    stat = root.local.site.stat
    return [one for one in root.local.trash.lying(folder) if stat(keys.blob(folder.name, one[0])) is None]
