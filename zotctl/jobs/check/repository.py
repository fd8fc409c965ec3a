"""The check of one repository: whether its layout, its manifests and its blobs agree with each other.

`scrub` and `verify` share `RepositoryCheck`, which reads through a few abstract methods: `StoredCheck` here implements
them for a repository in a root, and `verify` for an archive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from zotctl.errors import Damaged, DigestInvalid, IndexMissing, LayoutInvalid, NotFound, quoted
from zotctl.jobs.check.hashing import HashResult
from zotctl.jobs.check.rules import not_computed, uncomputable
from zotctl.jobs.finding import Finding, Kind
from zotctl.jobs.report import counted
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, digest_named, is_stub
from zotctl.oci.layout import LAYOUT_FILE, check_layout
from zotctl.oci.media_types import is_nondistributable
from zotctl.storage import keys
from zotctl.storage.clock import DAY_S
from zotctl.storage.digests import DigestMap, Digests
from zotctl.storage.driver import Info, read, scan_or_empty
from zotctl.storage.graph import ManifestGraph, RepositoryGraph
from zotctl.storage.index import Index
from zotctl.storage.multimap import Multimap
from zotctl.storage.references import Reference, References
from zotctl.storage.root import Root
from zotctl.storage.rows import why_nameless

LEFTOVER_AGE_S = DAY_S
"""How old a temporary file is when it counts as left over: by no clock that is some hours off is one in use so old."""
NAMED_ORPHANS = 10
"""How many unreachable blobs one finding names."""

_REPORTED_AT_ONCE: frozenset[str] = frozenset({"invalid_manifest", "unknown_media_type", "digest_mismatch"})
"""Faults of manifests that become findings as they are. What is missing is looked for again first."""


# -- what index.json and the manifests say --------------------------------------------------------


class Affected:
    """Finds the tags whose clients meet a digest: from blobs and children up to manifests, indexes and tags, and from a
    referrer to its subject. Made once per repository, and asked for each finding."""

    def __init__(self, index: Index, graph: ManifestGraph) -> None:
        self._index, self._graph = index, graph
        self._above = Multimap[str, str]()
        """Beside the manifests that need it."""
        for digest, known in graph.facts.items():
            for subject in known.subjects:
                # A client that asks for the referrers of the subject meets this one.
                self._above.add(digest, subject.digest)
        for digest, known in graph.facts.items():
            for subject in known.subjects:
                if subject.digest not in index:  # only its referrers lead to it
                    self._above.add(subject.digest, digest)

    def tags(self, digest: str) -> tuple[str, ...]:
        """The tags whose clients meet the digest, each once, in byte order."""
        seen: set[str] = set()
        todo = [digest]
        while todo:
            if (one := todo.pop()) not in seen:
                seen.add(one)
                todo.extend(self.parents(one))
        return tuple(sorted({tag for above in seen for tag in self._index.tags_of(above)}))

    def parents(self, digest: str) -> list[str]:
        """The manifests that reference the digest."""
        known = (parent for parent in self._graph.parents(digest) if parent in self._graph.facts)
        return sorted({*known, *self._above.get(digest)})


@dataclass
class GraphView:
    """What index.json and the manifests say at one moment."""

    index: Index
    graph: ManifestGraph
    affected: Affected = field(init=False)

    def __post_init__(self) -> None:
        self.affected = Affected(self.index, self.graph)

    def references(self) -> Iterator[tuple[str, Reference]]:
        """Each manifest with each of its references, except non-distributable layers and references that are no
        digests."""
        for digest, part in self._parts():
            for reference in part:
                if not is_nondistributable(reference.media_type) and (part.are_digests or _is_digest(reference.digest)):
                    yield digest, reference

    def _parts(self) -> Iterator[tuple[str, References]]:
        for digest, known in self.graph.facts.items():
            yield digest, known.blobs
            yield digest, known.children

    def bad_digests(self) -> Iterator[tuple[str, str]]:
        """Each manifest with each of its references that is no digest."""
        for digest, part in self._parts():
            for text in () if part.are_digests else part.digests():
                if not _is_digest(text):
                    yield digest, text

    def sizes(self, digest: str) -> set[int]:
        """The sizes that rows and manifests state for a digest, in bytes."""
        rows = {row.size for row in self.index.rows_of(digest)}
        facts = self.graph.facts
        above = [facts[parent] for parent in self.affected.parents(digest) if parent in facts]
        return rows.union(*(part.sizes(digest) for known in above for part in (known.blobs, known.children)))

    def is_manifest(self, digest: str) -> bool:
        """Whether the digest is a manifest, or a row or an index calls it one."""
        if digest in self.graph.leaves:
            return False
        if digest in self.index or digest in self.graph.facts:
            return True
        above = map(self.graph.facts.get, self.graph.parents(digest))
        return any(known.children.has(digest) for known in above if known is not None)


# -- the check ------------------------------------------------------------------------------------


class RepositoryCheck(ABC):
    """The check of one repository. Not safe between threads.

    A caller first iterates over `blobs`, adds the results that are not good to `damaged`, and then asks for `findings`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.present = DigestMap()
        """The size of each blob's file in bytes."""
        self.damaged: list[HashResult] = []

    # -- where it is read -----------------------------------------------------------------------

    @abstractmethod
    def path(self, key: str) -> str:
        """The path by which reports name a file of the repository, whether it exists or not."""

    @abstractmethod
    def listed(self) -> Iterator[tuple[Digest, Info]]:
        """The files whose name is a digest, of any algorithm. Anything else is not a blob."""

    @abstractmethod
    def info(self, digest: Digest) -> Info | None:
        """A blob's file as it is now; None: there is none."""

    @abstractmethod
    def lacks(self, digest: Digest) -> bool:
        """Look for a blob again: whether a request for it would get 404. Content in the trash is not lacking."""

    @abstractmethod
    def view_again(self) -> GraphView | None:
        """What the manifests say now. None: the repository is gone. Raises LayoutInvalid, NotFound, StorageError."""

    # -- what lies in it ------------------------------------------------------------------------

    def blobs(self) -> Iterator[tuple[Digest, Info]]:
        """The blobs that can be hashed. All blobs are added to `present` on the way."""
        for digest, info in self.listed():
            self.present[digest] = info.size
            if digest.algorithm in ALGORITHMS:
                yield digest, info

    def list_all(self) -> None:
        """Fill `present`."""
        for _ in self.blobs():
            pass

    def unclear(self, view: GraphView) -> list[Digest]:
        """Manifests that could not be read, although their blobs are present and not known to be damaged."""
        known = {result.digest for result in self.damaged}
        return [check_digest(digest) for digest in view.graph.faults if digest in self.present and digest not in known]

    # -- content --------------------------------------------------------------------------------

    def damage(self, result: HashResult, view: GraphView | None) -> Finding:
        """The finding for a blob that is not good. `view`: what the manifests say, if that is known."""
        sizes = view.sizes(result.digest) if view is not None else set[int]()
        size = result.info.size if result.info else 0
        figures: dict[str, Any] = {"expected_digest": result.digest, "found_digest": result.found, "found_bytes": size}
        expected: dict[str, Any] = {"expected_bytes": min(sizes)} if sizes else {}
        kind: Kind = "digest_mismatch"
        if result.error is not None:
            kind, reason, details = "unreadable", f"can't be read: {result.error.message}", {}
        elif is_stub(result.digest, size):
            kind, reason, details = "stub", "the file is empty", figures | expected
        elif sizes and size not in sizes:
            said = " or ".join(map(str, sorted(sizes)))
            kind, reason = "size_mismatch", f"the file has {size} bytes, its manifests say {said}"
            details = figures | expected
        elif result.found is None:
            reason, details = "the content was found damaged by an earlier run", figures
        else:
            reason, details = f"the content has the digest {result.found}", figures | expected
        return self._finding(view, result.digest, kind, reason, **details)

    # -- what the manifests say of each other and of the blobs ------------------------------------

    def findings(self, view: GraphView, *, hashed: bool) -> Iterator[Finding]:
        """All findings except damaged blobs. `hashed`: all other blobs were hashed, and are good."""
        damaged = {result.digest for result in self.damaged}
        yield from self._unclear_rows(view)
        for fault in view.graph.faults.values():
            if fault.kind in _REPORTED_AT_ONCE and fault.digest not in damaged and _is_digest(fault.digest):
                tags, path = view.affected.tags(fault.digest), self._path(fault.digest)
                yield Finding.of_fault(self.name, fault, tags, details={"path": path})
        yield from self._read_otherwise(view)
        yield from self._wrong_sizes(view, damaged, "the content is right and" if hashed else "the file")
        yield from self._missing(view)

    def _unclear_rows(self, view: GraphView) -> Iterator[Finding]:
        path = self.path(keys.index(self.name))
        unknown = {
            why_nameless(row): digest for row in view.index.nameless() if (digest := uncomputable(row)) is not None
        }
        for digest in unknown.values():
            reason = f"what it needs can't be known: a row has {not_computed(digest)}"
            yield Finding(self.name, None, "unreadable", reason, details={"path": path})
        if unclear := [reason for reason in view.index.unclear() if reason not in unknown]:
            rest = f", and {len(unclear) - 1} more of the kind" if len(unclear) > 1 else ""
            reason = f"what it needs can't be known: {unclear[0]}{rest}"
            yield Finding(self.name, None, "invalid_index", reason, details={"path": path})

    def _read_otherwise(self, view: GraphView) -> Iterator[Finding]:
        """Manifests that different programs read differently."""
        for digest, reason in view.graph.contradictions():
            yield self._finding(view, digest, "media_type_mismatch", reason)
        for digest, facts in view.graph.facts.items():
            for reason in facts.irregular:
                yield self._finding(view, digest, "invalid_manifest", reason)
        for digest, text in view.bad_digests():
            reason = f"it names {quoted(text)}, which is no digest, so that nothing can have it"
            yield self._finding(view, digest, "invalid_manifest", reason)

    def _wrong_sizes(self, view: GraphView, damaged: set[Digest], what: str) -> Iterator[Finding]:
        """Blobs whose size is not the one that a manifest states, so that clients refuse them."""
        wrong: dict[str, tuple[int, list[str]]] = {}
        said = ((parent, r.digest, r.size) for parent, r in view.references())
        rows = (("index.json", str(row.digest), row.size) for row in view.index.rows() if row.digest)
        for parent, digest, size in chain(said, rows):
            if self.present.get(digest, size) != size and digest not in damaged:
                wrong.setdefault(digest, (size, []))[1].append(parent)
        for digest, (size, parents) in wrong.items():
            had = self.present[digest]
            reason = f"{what} has {had} bytes, but {', '.join(sorted(parents))} says {size}"
            yield self._finding(view, digest, "size_mismatch", reason, expected_bytes=size, found_bytes=had)

    def _missing(self, view: GraphView) -> Iterator[Finding]:
        """What is missing. It is looked for, then the index is read again, then it is looked for again: what was
        deleted or pushed meanwhile is no finding."""
        first = {digest for digest, _ in self._wanted(view) if self.lacks(check_digest(digest))}
        now = self.view_again() if first else None
        if now is None:
            return
        for digest, reason in self._wanted(now):
            if digest in first and self.lacks(check_digest(digest)):
                first.discard(digest)
                kind: Kind = "missing_manifest" if now.is_manifest(digest) else "missing_blob"
                yield self._finding(view, digest, kind, reason)

    def _wanted(self, view: GraphView) -> Iterator[tuple[str, str]]:
        """What must be here and was not listed, with the reason why it must."""
        for fault in view.graph.faults.values():
            # What is no file of its own, such as a link, answers 404 as damaged content does.
            if fault.kind in ("missing_manifest", "digest_mismatch") and fault.digest not in self.present:
                parents = view.affected.parents(fault.digest)
                yield fault.digest, f"{parents[0] if parents else 'index.json'} lists it and it is not there"
        for parent, reference in view.references():
            if reference.digest not in self.present:
                yield reference.digest, f"{parent} needs it and it is not there"

    def orphans(self, view: GraphView) -> Iterator[Finding]:
        """image-layout.md: "The blobs directory MAY contain blobs which are not referenced by any of the refs"."""
        if view.graph.faults or any(True for _ in view.index.unclear()):
            return
        count, size, named = 0, 0, list[str]()
        for digest, its_size in self.present.pairs():
            if not view.graph.reaches(digest):
                count, size = count + 1, size + its_size
                if count <= NAMED_ORPHANS:
                    named.append(digest)
        if count:
            what = f"{counted(count, 'blob')} with {counted(size, 'byte')}"
            details = {"count": count, "size_bytes": size, "digests": named}
            only = named[0] if count == 1 else None
            yield Finding(self.name, only, "orphan", f"{what} that no manifest reaches, for gc to collect",
                          details=details)  # fmt: skip

    # -------------------------------------------------------------------------------------------

    def _finding(self, view: GraphView | None, digest: str, kind: Kind, reason: str, **details: object) -> Finding:
        tags = view.affected.tags(digest) if view is not None else ()
        return Finding(self.name, digest, kind, reason, tags, details={"path": self._path(digest)} | details)

    def _path(self, digest: str) -> str:
        return self.path(keys.blob(self.name, check_digest(digest)))


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except DigestInvalid:
        return False
    return True


# -- of a repository in a root --------------------------------------------------------------------


class StoredCheck(RepositoryCheck):
    """The check of a repository in a root. `single`: the root is one layout, so paths do not contain its name."""

    def __init__(self, root: Root, name: str, *, single: bool = False) -> None:
        super().__init__(name)
        self.root, self._single = root, single

    def path(self, key: str) -> str:
        """The path below the root's label."""
        return self.root.label + key[len(self.name) :] if self._single else path_of(self.root, key)

    def listed(self) -> Iterator[tuple[Digest, Info]]:
        """The regular files in the directories that are named after algorithms."""
        for algorithm in sorted(scan_or_empty(self.root.driver, keys.blobs(self.name))):
            if not algorithm.is_dir:
                continue
            for digest, told in self._listed_in(algorithm.name):
                info = told or self.info(digest)
                if info is not None and info.is_file:  # a link is no blob
                    yield digest, info

    def _listed_in(self, algorithm: str) -> Iterator[tuple[Digest, Info | None]]:
        """In their order, with what the list told of each."""
        told, names = dict[Digest, Info](), Digests()
        for entry in scan_or_empty(self.root.driver, keys.blobs_of(self.name, algorithm)):
            if (digest := digest_named(algorithm, entry.name)) is not None:
                if entry.info is not None:
                    told[digest] = entry.info
                else:
                    names.add_new(digest)  # a directory has each name once
        yield from ((check_digest(name), None) for name in names)
        yield from sorted(told.items())

    def info(self, digest: Digest) -> Info | None:
        """What has the blob's name, even if it is a symbolic link."""
        return self.root.stat(keys.blob(self.name, digest))

    def lacks(self, digest: Digest) -> bool:
        """Asks the storage and no cache. A symbolic link counts as lacking."""
        with suppress(NotFound, Damaged):  # damaged is another finding
            self.root.maintenance.look(self.name, digest)
            return False
        info = self.info(digest)
        return info is None or not info.is_file

    def view_again(self) -> GraphView | None:
        """Raises Unavailable if the root is away: then what seems to be missing may be there."""
        self.root.require()
        if self.root.stat(self.name) is None:
            return None
        return view_of(self.root, self.name)

    def layout_finding(self, error: LayoutInvalid | NotFound) -> Finding | None:
        """The finding for an index.json that could not be read: which of the two files is wrong. None: the repository
        is gone, or is being created."""
        root, name = self.root, self.name
        kind: Kind = "invalid_layout"
        key = keys.layout(name)
        if root.stat(name) is None:
            return None
        try:
            check_layout(read(root.driver, key, 4096))
        except NotFound:
            reason = f"{LAYOUT_FILE} is missing"
        except LayoutInvalid as worse:
            reason = worse.message
        else:
            missing = isinstance(error, NotFound | IndexMissing)
            if missing and (root.stat(keys.index(name)) is not None or self.is_being_made()):
                return None
            kind, key, reason = "invalid_index", keys.index(name), "index.json is missing" if missing else error.message
        return Finding(name, None, kind, f"{reason}; nothing in {name} is served", details={"path": self.path(key)})

    def is_being_made(self) -> bool:
        """Whether a server is creating the repository: it writes `oci-layout` first, then index.json, then blobs."""
        root, name = self.root, self.name
        if root.stat(keys.VERSION) is None or root.stat(keys.layout(name)) is None or root.stat(keys.index(name)):
            return False
        for algorithm in scan_or_empty(root.driver, keys.blobs(name)):
            if not algorithm.is_dir or scan_or_empty(root.driver, keys.blobs_of(name, algorithm.name)):
                return False
        return True

    def leftovers(self) -> Iterator[Finding]:
        """Temporary files of processes that died between write and rename."""
        now = self.root.protocol.now()
        for entry in scan_or_empty(self.root.driver, self.name):
            if entry.name.startswith(keys.INDEX_TEMP_PREFIX):
                key = f"{self.name}/{entry.name}"
                yield from _leftover(self.root.stat(key), now, self.name, self.path(key))


def view_of(root: Root, name: str) -> GraphView:
    """Read what the manifests of a repository say, not from the cache of the root, which would hide rot. Raises
    LayoutInvalid, NotFound."""
    index = root.protocol.indexes.read(name).index
    with RepositoryGraph(root.protocol, name).at(index) as graph:
        return GraphView(index, graph)


def temporaries(root: Root, now: float) -> Iterator[Finding]:
    """Temporary files that dead processes left in the hidden directory of a root. `now`: seconds since 1970."""
    for entry in scan_or_empty(root.driver, keys.TMP):
        key = keys.tmp(entry.name)
        yield from _leftover(root.stat(key), now, "", path_of(root, key))


def path_of(root: Root, key: str) -> str:
    """The path by which reports name a file of a root."""
    return f"{root.label}/{key}"


def _leftover(info: Info | None, now: float, name: str, path: str) -> Iterator[Finding]:
    # A link into tmp leaves the mtime single, and moves the ctime.
    if info is not None and now - max(info.mtime_ns, info.ctime_ns) / 1e9 > LEFTOVER_AGE_S:
        yield Finding(name, None, "orphan", "left over from a process that died; gc removes it", details={"path": path})
