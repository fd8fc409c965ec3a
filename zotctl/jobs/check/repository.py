"""One repository under examination: what its layout, its manifests and its blobs say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from zotctl.errors import Damaged, DigestInvalid, LayoutInvalid, NotFound, quoted
from zotctl.jobs.check.affected import Affected
from zotctl.jobs.check.damage import HashResult
from zotctl.jobs.check.rules import not_computed, uncomputable
from zotctl.jobs.report import Kind
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, digest_named
from zotctl.oci.layout import LAYOUT_FILE, check_layout
from zotctl.oci.media_types import is_nondistributable
from zotctl.storage import keys
from zotctl.storage.driver import Entry, Info, read
from zotctl.storage.facts import Fault, ManifestFacts, Reference
from zotctl.storage.graph import ManifestGraph, RepositoryGraph
from zotctl.storage.index import Index, nameless
from zotctl.storage.root import Root

LEFTOVER_AGE = 3600.0
"""Seconds after which what was begun counts as abandoned."""


_TOLD: dict[str, Kind] = {
    "invalid_manifest": "invalid_manifest", "unknown_media_type": "unknown_media_type",
    "digest_mismatch": "digest_mismatch",
}  # fmt: skip
"""Faults of manifests that are told as they are; what is missing is looked for again first."""


class Trouble(NamedTuple):
    """Something wrong that is no damaged content; `digest` None: the layout itself."""

    digest: str | None
    kind: Kind
    reason: str
    path: str
    wanted: int = -1
    had: int = -1


@dataclass
class GraphView:
    """What index.json and the manifests say, read afresh."""

    index: Index
    graph: ManifestGraph
    affected: Affected = field(init=False)

    def __post_init__(self) -> None:
        self.affected = Affected(self.index, self.facts)

    @property
    def facts(self) -> dict[str, ManifestFacts]:
        return self.graph.facts

    @property
    def faults(self) -> dict[str, Fault]:
        return self.graph.faults

    def references(self) -> Iterator[tuple[str, Reference]]:
        """What each manifest names, with the manifest; layers that need not be here left out, and what is no digest."""
        for digest, known in self.facts.items():
            for reference in (*known.blobs, *known.children):
                if not is_nondistributable(reference.media_type) and _is_digest(reference.digest):
                    yield digest, reference

    def nonsense(self) -> Iterator[tuple[str, str]]:
        """Each manifest that names something by what is no digest, and that."""
        for digest, known in self.facts.items():
            for reference in (*known.blobs, *known.children):
                if not _is_digest(reference.digest):
                    yield digest, reference.digest

    def sizes(self, digest: str) -> set[int]:
        """What rows and manifests say. A row of a negative size says nothing."""
        rows = {row.size for row in self.index.rows_of(digest)}
        above = [self.facts[parent] for parent in self.affected.parents(digest) if parent in self.facts]
        return rows | {r.size for known in above for r in (*known.blobs, *known.children) if r.digest == digest}

    def is_manifest(self, digest: str) -> bool:
        if digest in self.graph.leaves:
            return False
        children = {child.digest for known in self.facts.values() for child in known.children}
        return digest in self.index or digest in self.facts or digest in children


def view_of(root: Root, name: str) -> GraphView:
    """Raises LayoutInvalid, NotFound. Not from the cache of the root: what rots below a cache is found here."""
    index = root.protocol.read_index(name).index
    with RepositoryGraph(root.protocol, name).at(index) as graph:
        return GraphView(index, graph)


def layout_trouble(root: Root, name: str, error: LayoutInvalid | NotFound) -> Trouble | None:
    """Which of the two files is wrong; None: the repository is gone, or is being made."""
    if root.stat(name) is None:
        return None
    try:
        check_layout(read(root.driver, keys.layout(name), 4096))
    except NotFound:
        return _layout(root, name, "invalid_layout", keys.layout(name), f"{LAYOUT_FILE} is missing")
    except LayoutInvalid as worse:
        return _layout(root, name, "invalid_layout", keys.layout(name), worse.message)
    missing = isinstance(error, NotFound)
    if missing and (root.stat(keys.index(name)) is not None or is_being_made(root, name)):
        return None
    reason = "index.json is missing" if missing else error.message
    return _layout(root, name, "invalid_index", keys.index(name), reason)


def is_being_made(root: Root, name: str) -> bool:
    """A repository of a store begins with `oci-layout`, and comes to index.json before any blob."""
    if root.stat(keys.VERSION) is None or root.stat(keys.layout(name)) is None or root.stat(keys.index(name)):
        return False
    with suppress(NotFound):
        for algorithm in root.driver.scan(keys.blobs(name)):
            if not algorithm.is_dir or root.driver.scan(f"{keys.blobs(name)}/{algorithm.name}"):
                return False
    return True


def _layout(root: Root, name: str, kind: Kind, key: str, reason: str) -> Trouble:
    return Trouble(None, kind, f"{reason}; nothing in {name} is served", path_of(root, key))


@dataclass
class RepositoryCheck:
    """One repository on its way: what lies in it, and what was found so far."""

    root: Root
    name: str
    present: dict[str, int] = field(default_factory=dict)
    """Every blob by its digest, with the size of its file."""
    damaged: list[HashResult] = field(default_factory=list)
    left: int = 0
    """Blobs that are with the workers."""
    listed: bool = False

    @property
    def done(self) -> bool:
        return self.listed and not self.left

    def blobs(self) -> Iterator[tuple[Digest, Info]]:
        """Whatever has a digest for a name, with its inode. Anything else is not ours."""
        for algorithm in self._scan(keys.blobs(self.name)):
            if algorithm.is_dir:
                for entry in self._scan(keys.blobs_of(self.name, algorithm.name)):
                    digest = digest_named(algorithm.name, entry.name)
                    if digest is not None:
                        yield from self._blob(digest, entry.info)

    def _blob(self, digest: Digest, listed: Info | None) -> Iterator[tuple[Digest, Info]]:
        info = listed or self.root.stat(keys.blob(self.name, digest))
        if info is not None and info.is_file:
            self.present[digest] = info.size
            if digest.algorithm in ALGORITHMS:
                yield digest, info

    def _scan(self, key: str) -> list[Entry]:
        try:
            return self.root.driver.scan(key)
        except NotFound:
            return []

    # -- what the manifests say of each other and of the blobs ------------------------------------

    def unclear(self, view: GraphView) -> list[Digest]:
        """Manifests that could not be read although their blobs are there and were not found damaged."""
        known = {result.digest for result in self.damaged}
        return [check_digest(digest) for digest in view.faults if digest in self.present and digest not in known]

    def troubles(self, view: GraphView, *, hashed: bool) -> Iterator[Trouble]:
        """Everything but damaged content. `hashed`: what was not found damaged is good."""
        damaged = {result.digest for result in self.damaged}
        yield from self._faults(view, damaged)
        yield from self._said_otherwise(view)
        yield from self._wrong_sizes(view, damaged, "the content is right and" if hashed else "the file")
        yield from self._missing(view)

    def _faults(self, view: GraphView, damaged: set[Digest]) -> Iterator[Trouble]:
        unknown = {nameless(row): digest for row in view.index.nameless() if (digest := uncomputable(row)) is not None}
        for digest in unknown.values():
            reason = f"what it needs can't be known: a row has {not_computed(digest)}"
            yield Trouble(None, "unreadable", reason, path_of(self.root, keys.index(self.name)))
        if unclear := [reason for reason in view.index.unclear() if reason not in unknown]:
            rest = f", and {len(unclear) - 1} more of the kind" if len(unclear) > 1 else ""
            reason = f"what it needs can't be known: {unclear[0]}{rest}"
            yield Trouble(None, "invalid_index", reason, path_of(self.root, keys.index(self.name)))
        for fault in view.faults.values():
            if fault.kind in _TOLD and fault.digest not in damaged and _is_digest(fault.digest):
                yield Trouble(fault.digest, _TOLD[fault.kind], fault.reason, self._path(fault.digest))

    def _said_otherwise(self, view: GraphView) -> Iterator[Trouble]:
        """Manifests in which one program reads something else than another; all of it is kept."""
        for digest, reason in view.graph.contradictions():
            yield Trouble(digest, "media_type_mismatch", reason, self._path(digest))
        for digest, facts in view.facts.items():
            for reason in facts.irregular:
                yield Trouble(digest, "invalid_manifest", reason, self._path(digest))
        for digest, text in view.nonsense():
            reason = f"it names {quoted(text)}, which is no digest, so that nothing can have it"
            yield Trouble(digest, "invalid_manifest", reason, self._path(digest))

    def _wrong_sizes(self, view: GraphView, damaged: set[Digest], what: str) -> Iterator[Trouble]:
        """A manifest says another length than that of the right content: clients refuse one of the two."""
        wrong: dict[str, tuple[int, list[str]]] = {}
        said = [(parent, r.digest, r.size) for parent, r in view.references()]
        said += [("index.json", row.digest, row.size) for row in view.index.rows() if row.digest]
        for parent, digest, size in said:
            if digest in self.present and digest not in damaged and self.present[digest] != size:
                wrong.setdefault(digest, (size, []))[1].append(parent)
        for digest, (size, parents) in wrong.items():
            had = self.present[digest]
            reason = f"{what} has {had} bytes, but {', '.join(sorted(parents))} says {size}"
            yield Trouble(digest, "size_mismatch", reason, self._path(digest), size, had)

    def _missing(self, view: GraphView) -> Iterator[Trouble]:
        """Looked for again, and then the index again, and then the name again: what was deleted or pushed
        meanwhile is no finding."""
        first = {digest for digest, _ in self._wanted(view) if self._is_missing(digest)}
        if not first:
            return
        self.root.require()
        if self.root.stat(self.name) is None:
            return
        for digest, reason in self._wanted(view_of(self.root, self.name)):
            if digest in first and self._is_missing(digest):
                first.discard(digest)
                kind: Kind = "missing_manifest" if view.is_manifest(digest) else "missing_blob"
                yield Trouble(digest, kind, reason, self._path(digest))

    def _wanted(self, view: GraphView) -> Iterator[tuple[str, str]]:
        """What must be here and was not listed, and why."""
        for fault in view.faults.values():
            if fault.kind == "missing_manifest" and fault.digest not in self.present:
                yield fault.digest, _needed(view, fault.digest)
        for parent, reference in view.references():
            if reference.digest not in self.present:
                yield reference.digest, f"{parent} needs it and it is not there"

    def _is_missing(self, text: str) -> bool:
        """Content in the trash comes back when it is asked for."""
        digest = check_digest(text)
        with suppress(NotFound, Damaged):  # damaged is another finding
            self.root.maintenance.look(self.name, digest)
            return False
        info = self.root.stat(keys.blob(self.name, digest))
        return info is None or not info.is_file

    def leftovers(self, now: float) -> Iterator[Trouble]:
        """What a process left that died between write and rename."""
        for entry in self._scan(self.name):
            if entry.name.startswith(keys.INDEX_TEMP_PREFIX):
                yield from leftover(self.root, f"{self.name}/{entry.name}", now)

    def _path(self, digest: str) -> str:
        return path_of(self.root, keys.blob(self.name, check_digest(digest)))


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except DigestInvalid:
        return False
    return True


def leftover(root: Root, key: str, now: float) -> Iterator[Trouble]:
    info = root.stat(key)
    # A link into tmp leaves the mtime alone, and moves the ctime.
    if info is not None and now - max(info.mtime_ns, info.ctime_ns) / 1e9 > LEFTOVER_AGE:
        yield Trouble(None, "orphan", "left over from a process that died; gc removes it", path_of(root, key))


def temporaries(root: Root, now: float) -> Iterator[Trouble]:
    with suppress(NotFound):
        for entry in root.driver.scan(keys.TMP):
            yield from leftover(root, keys.tmp(entry.name), now)


def path_of(root: Root, key: str) -> str:
    return f"{root.label}/{key}"


def _needed(view: GraphView, digest: str) -> str:
    parents = view.affected.parents(digest)
    return f"{parents[0] if parents else 'index.json'} lists it and it is not there"
