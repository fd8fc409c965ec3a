"""One image layout under a root: everything that its files say of each other, as findings. Nothing is written,
and what changes meanwhile is no finding: whatever seems wrong is looked at again before it is told (I10, I15).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from zotctl.errors import Damaged, LayoutInvalid, NotFound
from zotctl.jobs.check.damage import ATTEMPTS, HashResult, Inspector, judge
from zotctl.jobs.check.hashing import Hasher, Workers, cores
from zotctl.jobs.check.repository import GraphView, RepositoryCheck, Trouble, is_being_made, layout_trouble, path_of
from zotctl.jobs.check.rules import CONTENT, LAYOUT_FILE_SPEC, Remark, index_remarks, manifest_remarks
from zotctl.jobs.report import Finding, Kind, counted
from zotctl.jobs.run import Run
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, digest_named, is_stub
from zotctl.oci.layout import check_layout
from zotctl.storage import keys
from zotctl.storage.driver import Entry, Info, read
from zotctl.storage.facts import Content, Reference, read_content, understand
from zotctl.storage.file_identity import FileIdentity
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.index import Index
from zotctl.storage.root import Root

REMEMBERED = 1_000_000
"""Inodes of several names that are remembered as good; beyond that some are hashed twice."""
NAMED = 10
"""Of many blobs without a use, so many are named."""


# -- blobs ----------------------------------------------------------------------------------------


class LayoutBlobs(Protocol):
    """How blobs are looked at."""

    def look(self, repo: RepositoryCheck, digest: Digest, info: Info) -> None:
        """Put a result that is not good into `repo.damaged`, now or by `drain`."""

    def drain(self) -> None: ...
    def content(self, repo: RepositoryCheck, digest: Digest, whole: bool) -> Content:
        """As a `Read` of a graph. What is damaged is put into `repo.damaged`, too."""


class StoredBlobs:
    """LayoutBlobs in files. Without `deep` only what their sizes and an earlier scrub say; with it each inode is
    hashed once, on all cores, however many names it has."""

    def __init__(self, run: Run, *, deep: bool, workers: int | None = None) -> None:
        self._run, self._deep = run, deep
        self._hasher = Hasher(run)
        self._inspector = Inspector(run, self._hasher)
        self._workers = Workers((workers or cores()) if deep else 1)
        self._good: set[int] = set()
        self._damaged: dict[int, HashResult] = {}
        self._known: dict[str, set[Digest]] = {}

    def look(self, repo: RepositoryCheck, digest: Digest, info: Info) -> None:
        key = hash((FileIdentity.of(info).content, digest)) if info.nlink > 1 else None
        if not self._deep:
            self._take(repo, self._by_size(repo, HashResult(digest, info, digest)), None)
        elif key in self._damaged:
            repo.damaged.append(self._damaged[key])
        elif key not in self._good:
            self._workers.put(
                lambda: self._inspector.blob(repo.root, repo.name, digest), lambda found: self._take(repo, found, key)
            )

    def drain(self) -> None:
        self._workers.drain()

    def content(self, repo: RepositoryCheck, digest: Digest, whole: bool) -> Content:
        """What is being written in place is waited for."""
        for _ in range(ATTEMPTS):
            with suppress(Damaged), repo.root.driver.open(keys.blob(repo.name, digest)) as reader:
                return read_content(reader, digest, whole)
            result = self._inspector.blob(repo.root, repo.name, digest)
            if not result.good and not result.gone:
                repo.damaged.append(result)
                break
        raise Damaged(f"{digest} is damaged")

    def close(self) -> None:
        self._hasher.stopped.set()
        self._workers.close()

    def _take(self, repo: RepositoryCheck, result: HashResult, key: int | None) -> None:
        if self._deep:
            result = self._by_size(repo, result)
            self._run.add("hashed_bytes", result.info.size if result.info else 0)
            self._run.progress(self._hasher.done, None, "bytes", repo.name)
        if result.good and key is not None:
            self._remember(key)
        elif not result.good and not result.gone:
            repo.damaged.append(result)
            if key is not None and result.error is None:
                self._damaged[key] = result

    def _remember(self, key: int) -> None:
        if len(self._good) >= REMEMBERED:
            self._good.clear()
        self._good.add(key)

    def _by_size(self, repo: RepositoryCheck, result: HashResult) -> HashResult:
        """A stub is damage, and so is what a scrub has marked: both are answered with 404."""
        info = result.info
        if info is None or not result.good:
            return result
        known = result.digest in self._marked(repo.root)
        marked = known and repo.root.maintenance.is_marked(repo.name, result.digest, info)
        return HashResult(result.digest, info, None) if marked or is_stub(result.digest, info.size) else result

    def _marked(self, root: Root) -> set[Digest]:
        if root.label not in self._known:
            with suppress(NotFound):
                self._known[root.label] = root.maintenance.damaged()
        return self._known.setdefault(root.label, set())


# -- modes ----------------------------------------------------------------------------------------


@dataclass
class Modes:
    """Who may read and write the files of one layout. `uid`, `gid`: who owns the store."""

    uid: int
    gid: int
    _seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def look(self, path: str, info: Info) -> None:
        what = "directories" if info.is_dir else "files"
        if info.mode & stat.S_IWOTH and not info.is_link:
            self._count(f"{what} that anybody may write", path)
        if not self._readable(info):
            self._count(f"{what} that the owner of the store (uid {self.uid}) can't read", path)

    def remarks(self) -> Iterator[Remark]:
        for what, (count, first) in self._seen.items():
            where = first if count == 1 else f"{count}, {first} first"
            yield Remark("mode", f"{what}: {where}", details={"count": count, "path": first})

    def _readable(self, info: Info) -> bool:
        needed = 0o5 if info.is_dir else 0o4
        if info.uid == self.uid:
            return info.mode >> 6 & needed == needed
        if self.uid == 0:
            return True
        return info.mode >> (3 if info.gid == self.gid else 0) & needed == needed

    def _count(self, what: str, path: str) -> None:
        count, first = self._seen.get(what, (0, path))
        self._seen[what] = count + 1, first


def modes_of(root: Root) -> Modes:
    """The owner of the hidden directory owns the store; without one, the owner of the root."""
    info = root.stat(keys.HIDDEN) or root.driver.stat("")
    return Modes(info.uid, info.gid)


# -- manifests ------------------------------------------------------------------------------------


class LayoutManifests:
    """The manifests that the rows of one index lead to: each is read, hashed and checked once."""

    def __init__(self, repo: RepositoryCheck, blobs: LayoutBlobs) -> None:
        self._repo, self._blobs = repo, blobs
        self.remarks: list[Remark] = []

    def walk(self, index: Index) -> GraphView:
        graph = ManifestGraph(self._read)
        graph.add(Reference(str(row.digest), row.size, row.media_type) for row in index.rows() if row.digest)
        for fault in graph.faults.values():
            if fault.kind == "unreadable":
                self.remarks.append(Remark("unreadable", f"can't be read: {fault.reason}", fault.digest))
        return GraphView(index, graph)

    def _read(self, digest: Digest, whole: bool) -> Content:
        if any(result.digest == digest for result in self._repo.damaged):
            raise Damaged(f"{digest} is damaged")
        content = self._blobs.content(self._repo, digest, whole)
        facts = understand(content, digest).facts
        if facts is not None and content.body is not None:
            self.remarks += manifest_remarks(content.body, facts, digest)
        return content


# -- a layout -------------------------------------------------------------------------------------


class LayoutCheck:
    """One layout, from its directory to its blobs. `alone`: the root is this layout and nothing else."""

    def __init__(self, run: Run, root: Root, name: str, blobs: LayoutBlobs, *, alone: bool = False) -> None:
        self._run, self._root, self._name, self._blobs, self._alone = run, root, name, blobs, alone
        self._repo, self._modes = RepositoryCheck(root, name), modes_of(root)
        self._uncomputed = 0

    def check(self) -> None:
        """Tell all that is wrong. Raises StorageError when the directory can't be looked at."""
        structure = list(self._structure())
        if self._root.stat(self._name) is None or (structure and is_being_made(self._root, self._name)):
            return
        self._tell_all(structure, None)
        try:
            self._list()
        finally:
            self._blobs.drain()
        manifests = LayoutManifests(self._repo, self._blobs)
        view = self._view(manifests, told=bool(structure))
        self._tell_damage(view)
        if view is not None:
            self._tell_all(index_remarks(view.index), view)
            self._tell_all(manifests.remarks, view)
            self._tell_all(self._troubles(view), view)
            self._tell_all(self._orphans(view), view)
            self._run.add("manifests", len(view.facts))
        self._tell_all(self._modes.remarks(), None)
        self._tell_all(self._leftovers(), None)
        self._run.add("repositories")
        self._run.add("blobs", len(self._repo.present))

    # -- files ----------------------------------------------------------------------------------

    def _structure(self) -> Iterator[Remark]:
        """image-layout.md, "Content"; a symbolic link could lead out of the store (I14)."""
        yield from self._file(keys.layout(self._name), "invalid_layout")
        yield from self._file(keys.index(self._name), "invalid_index")
        yield from self._version()
        yield from self._folder(keys.blobs(self._name), must=True)
        for algorithm in ALGORITHMS:
            yield from self._folder(keys.blobs_of(self._name, algorithm), must=False)

    def _file(self, key: str, kind: Kind) -> Iterator[Remark]:
        info, what = self._root.stat(key), key.rpartition("/")[2]
        if info is not None and info.is_file:
            self._modes.look(self._path(key), info)
            return
        reason = f"{what} is missing" if info is None else f"{what} is a symbolic link, and none is followed"
        if info is not None and not info.is_link:
            reason = f"{what} is no regular file"
        spec = LAYOUT_FILE_SPEC if kind == "invalid_layout" else CONTENT
        reason += f"; nothing in {self._name} is served"
        yield Remark(kind, reason, spec=spec, details={"path": self._path(key)})

    def _version(self) -> Iterator[Remark]:
        key = keys.layout(self._name)
        with suppress(NotFound):
            try:
                check_layout(read(self._root.driver, key, 4096))
            except LayoutInvalid as error:
                reason = f"{error.message}; nothing in {self._name} is served"
                yield Remark("invalid_layout", reason, details={"path": self._path(key)})

    def _folder(self, key: str, *, must: bool) -> Iterator[Remark]:
        info, what = self._root.stat(key), key[len(self._name) + 1 :]
        if info is not None and info.is_dir:
            return
        details = {"path": self._path(key)}
        if info is not None:
            kind = "a symbolic link" if info.is_link else "not a directory"
            reason = f"{what} is {kind}; nothing in {self._name} is served"
            yield Remark("invalid_layout", reason, spec=CONTENT, details=details)
        elif must:
            yield Remark("invalid_layout", f"the directory {what} is missing", spec=CONTENT, details=details)

    def _list(self) -> None:
        """Every blob, and who may read and write what."""
        folders = [self._name, keys.blobs(self._name)]
        folders += [keys.blobs_of(self._name, entry.name) for entry in self._scan(folders[1]) if entry.is_dir]
        for folder in folders:
            with suppress(NotFound):
                self._modes.look(self._path(folder), self._root.driver.stat(folder))
        for folder in folders[2:]:
            for entry in self._scan(folder):
                self._run.check()
                self._blob(folder.rpartition("/")[2], entry)

    def _blob(self, algorithm: str, entry: Entry) -> None:
        """What has no digest for a name is not ours, and a link is no blob."""
        digest = digest_named(algorithm, entry.name)
        if digest is None:
            return
        info = entry.info or self._root.stat(keys.blob(self._name, digest))
        if info is None or not info.is_file:
            return
        self._repo.present[digest] = info.size
        self._modes.look(self._path(keys.blob(self._name, digest)), info)
        if algorithm in ALGORITHMS:
            self._blobs.look(self._repo, digest, info)
        else:
            self._uncomputed += 1

    def _scan(self, key: str) -> list[Entry]:
        try:
            return sorted(self._root.driver.scan(key))
        except NotFound:
            return []

    # -- what they say --------------------------------------------------------------------------

    def _view(self, manifests: LayoutManifests, *, told: bool) -> GraphView | None:
        try:
            return manifests.walk(self._root.protocol.read_index(self._name).index)
        except (LayoutInvalid, NotFound) as error:
            self._root.require()
            trouble = None if told else layout_trouble(self._root, self._name, error)
            self._tell_all([_remark(trouble)] if trouble else [], None)
        return None

    def _troubles(self, view: GraphView) -> Iterator[Remark]:
        """Sizes, missing content, unknown types; rows without a digest are told one by one elsewhere."""
        for trouble in self._repo.troubles(view, hashed=False):
            if trouble.digest is not None and not self._is_over(trouble, trouble.digest):
                yield self._linked(trouble)
        if self._uncomputed:
            reason = f"{self._uncomputed} blobs have digests of algorithms that can't be computed here"
            yield Remark("unreadable", reason)

    def _is_over(self, trouble: Trouble, digest: str) -> bool:
        """It was so a moment ago, or it is in the trash, from where a request brings it back."""
        root, blob = self._root, keys.blob(self._name, check_digest(digest))
        if trouble.kind == "size_mismatch":
            now = root.stat(blob)
            return now is None or now.size != self._repo.present.get(digest)
        if trouble.kind not in ("missing_blob", "missing_manifest"):
            return False
        if root.maintenance.is_trashed(self._name, check_digest(digest)):
            self._run.item(action="note", repository=self._name, digest=digest,
                           reason="needed and in the trash: it comes back when a registry is asked for it")  # fmt: skip
            return True
        now = root.stat(blob)
        return now is not None and now.is_file

    def _linked(self, trouble: Trouble) -> Remark:
        remark = _remark(trouble)
        if trouble.kind in ("missing_blob", "missing_manifest") and trouble.digest is not None:
            info = self._root.stat(keys.blob(self._name, check_digest(trouble.digest)))
            if info is not None:
                what = "a symbolic link, and none is followed" if info.is_link else "no regular file"
                return remark._replace(reason=f"{trouble.reason}: what has its name is {what}")
        return remark

    def _orphans(self, view: GraphView) -> Iterator[Remark]:
        """image-layout.md: "The blobs directory MAY contain blobs which are not referenced by any of the refs"."""
        if view.faults or any(True for _ in view.index.unclear()):
            return
        unused = sorted(self._repo.present.keys() - view.graph.reachable())
        size = sum(self._repo.present[digest] for digest in unused)
        if unused:
            what = f"{counted(len(unused), 'blob')} with {counted(size, 'byte')}"
            reason = f"{what} that no manifest reaches, for gc to collect"
            details = {"count": len(unused), "size_bytes": size, "digests": unused[:NAMED]}
            yield Remark("orphan", reason, unused[0] if len(unused) == 1 else None, (), details=details)

    def _leftovers(self) -> Iterator[Remark]:
        for trouble in self._repo.leftovers(self._run.clock.now()):
            yield _remark(trouble)

    # -- telling --------------------------------------------------------------------------------

    def _tell_damage(self, view: GraphView | None) -> None:
        for result in self._repo.damaged:
            key = keys.blob(self._name, result.digest)
            now = self._root.stat(key)
            if result.error is not None or result.is_about(now):
                kind, reason, details = judge(result, view.sizes(result.digest) if view else set())
                self._tell(Remark(kind, reason, result.digest, details=details | {"path": self._path(key)}), view)

    def _tell_all(self, remarks: Iterator[Remark] | list[Remark], view: GraphView | None) -> None:
        for remark in remarks:
            self._tell(remark, view)

    def _tell(self, remark: Remark, view: GraphView | None) -> None:
        tags = remark.tags
        if tags is None:
            tags = view.affected.tags(remark.digest) if view and remark.digest else ()
        details = dict(remark.details)
        if "path" in details:
            details["path"] = self._shown(str(details["path"]))
        tell(self._run, self._name, remark, tags, details)

    def _path(self, key: str) -> str:
        return self._shown(path_of(self._root, key))

    def _shown(self, path: str) -> str:
        """A lone layout has a name here that is in no path."""
        inner = f"{self._root.label}/{self._name}"
        alone = self._alone and (path == inner or path.startswith(f"{inner}/"))
        return self._root.label + path[len(inner) :] if alone else path


def tell(run: Run, name: str, remark: Remark, tags: tuple[str, ...], details: dict[str, object]) -> None:
    """A remark as a finding, with its rule. What can't be read makes exit code 5."""
    if remark.kind == "unreadable":
        run.report.codes.append(5)
    spec = {"spec": remark.rule} if remark.rule else {}
    run.finding(Finding(name, remark.digest, remark.kind, remark.text, tags, details=spec | details))
    run.add("findings")


def _remark(trouble: Trouble) -> Remark:
    figures = {"expected_bytes": trouble.wanted, "found_bytes": trouble.had} if trouble.wanted >= 0 else {}
    return Remark(trouble.kind, trouble.reason, trouble.digest, details={"path": trouble.path, **figures})
