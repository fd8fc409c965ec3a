"""What the lists of tags and of manifests say of one manifest: what it needs, what is wrong with it, when it came."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from zotctl.errors import DigestInvalid, ManifestInvalid, ManifestUnknown, NotFound, StorageError
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.storage import Repository, keys
from zotctl.storage.facts import Content, Unusable
from zotctl.storage.graph import ManifestGraph, reader_of
from zotctl.storage.history import Timeline
from zotctl.storage.references import Reference
from zotctl.storage.rows import Row
from zotctl.web import words
from zotctl.web.platforms import platform_of

PAGE_TAGS = 50
"""Lines of one page."""
MOST_UNREAD = 2000
"""Manifests that are read at once to learn which content tags share. In a repository with more, a page says what an
image has, and not what it shares, until something else has read them."""
MOST_READ = 1000
"""Manifests that are read for one page, where not all of a repository are."""
MOST_PLATFORMS = 100
"""Platforms of an index that are looked at for a line."""
MOST_MANIFEST_BYTES = 256 << 10
"""Of a manifest that is read for a line: of a larger one it says what its row does."""
MOST_HISTORY_BYTES = 4 << 20
"""Of a history that is read for the times of one page; with more, the files' own times are shown."""


# -- what it leads to -------------------------------------------------------------------------------


def closure_of(graph: ManifestGraph, digest: str) -> dict[str, int]:
    """What a manifest needs, itself included, with sizes. Its subject is not part of it."""
    found: dict[str, int] = {}
    todo = [digest]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found[one] = max(graph.sizes(one), default=0)
        if (facts := graph.facts.get(one)) is not None:
            todo += [reference.digest for reference in (*facts.blobs, *facts.children)]
    return found


def trouble_in(graph: ManifestGraph, closure: dict[str, int], damaged: Damage) -> str:
    """What is wrong with the content of an image, in a word; "" if nothing is known to be."""
    faults = [graph.faults[digest] for digest in closure if digest in graph.faults]
    if any(fault.kind == "digest_mismatch" for fault in faults) or any(digest in damaged for digest in closure):
        return "damaged"
    if any(fault.kind == "missing_manifest" for fault in faults):
        return "incomplete"
    return "unclear" if faults else ""


def graph_of_rows(repository: Repository, rows: Sequence[Row]) -> ManifestGraph:
    """What these rows lead to and nothing else, of at most `MOST_READ` manifests."""
    read, left = reader_of(repository.root.protocol, repository.name), [MOST_READ]

    def bounded(digest: Digest, whole: bool) -> Content:
        left[0] -= 1
        if left[0] < 0:
            raise Unusable("unreadable", "it was not looked at, since a page shows only so much")
        return read(digest, whole)

    protocol = repository.root.protocol
    graph = ManifestGraph(bounded, each=protocol.each if protocol.index_costs_request else None)
    graph.add(Reference(str(row.digest), row.size, row.media_type) for row in rows)
    return graph


class Damage:
    """The digests of which the repository has a copy that is known to be damaged. Only what is asked for, and has a
    mark in the root, is looked at."""

    def __init__(self, repository: Repository) -> None:
        self._repository, self._marked = repository, dict[str, Digest]()
        with suppress(StorageError):
            self._marked = {str(digest): digest for digest in repository.root.maintenance.damaged()}

    def __contains__(self, digest: str) -> bool:
        return digest in self._marked and _is_damaged(self._repository, self._marked[digest])


def _is_damaged(repository: Repository, digest: Digest) -> bool:
    """Is the repository's own copy known to be damaged?"""
    root = repository.root
    with suppress(StorageError):
        if root.by_requests:
            try:
                root.maintenance.look(repository.name, digest)
            except NotFound:
                return False
            except StorageError:
                return True
            return False
        info = root.stat(keys.blob(repository.name, digest))
        return info is not None and root.maintenance.is_marked(repository.name, digest, info)
    return False


def manifest_of(repository: Repository, reference: str) -> Manifest | None:
    """What a manifest says; None if it can't be read, or is none."""
    with suppress(ManifestUnknown, ManifestInvalid, StorageError):
        stored = repository.manifest(reference)
        return read_manifest(stored.body, stored.digest)
    return None


def small_manifest(repository: Repository, digest: str, row: Row | None) -> Manifest | None:
    """What the manifest of a row says; None also if it is too large to be read for a line."""
    return manifest_of(repository, digest) if row is not None and row.size <= MOST_MANIFEST_BYTES else None


def kind_of(manifest: Manifest | None, media_type: str) -> str:
    """What it is, in a word or two."""
    if manifest is None:
        return words.kind(media_type, None)
    config = manifest.config.media_type if manifest.config else ""
    return words.kind(manifest.media_type, manifest.artifact_type, config)


def platforms_in(manifest: Manifest | None) -> tuple[str, ...]:
    """The platforms of an index, each once, of as many as are looked at for a line."""
    found = [platform_of(one) for one in manifest.manifests[:MOST_PLATFORMS]] if manifest is not None else []
    return tuple(dict.fromkeys(platform for platform in found if platform))


# -- when it came -----------------------------------------------------------------------------------


class Times:
    """When tags were pushed: as the history says or, where that is long, when their manifests were written."""

    def __init__(self, repository: Repository, past: Timeline | None) -> None:
        self._repository, self._past = repository, past

    def of(self, tag: str | None, digest: str) -> float | None:
        """Seconds since 1970. `tag` None: of a manifest without one."""
        if self._past is not None:
            known = self._past.pushed.get(digest) if tag is None else self._past.tagged.get(tag)
            if known:
                return known
        root = self._repository.root
        if root.by_requests:
            return None
        with suppress(StorageError, DigestInvalid):
            info = root.stat(keys.blob(self._repository.name, parse_digest(digest)))
            return info.mtime_ns / 1e9 if info is not None else None
        return None


def times_of(repository: Repository) -> Times:
    """When its tags and manifests came."""
    root, name = repository.root, repository.name
    with suppress(StorageError):
        info = None if root.by_requests else root.stat(keys.history(name))
        if info is None or info.size <= MOST_HISTORY_BYTES:
            return Times(repository, root.history.written(name))
    return Times(repository, None)
