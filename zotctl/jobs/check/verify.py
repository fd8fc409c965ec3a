"""`verify`: checks stores, layouts and archives by the specifications, and whether their parts agree. Writes nothing.

Stores and single layouts are opened read-only, archives are read as a stream. A damaged layout does not end the check
of others. What changes meanwhile is no finding: what seems wrong is checked again before it is reported (I10, I15).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from zotctl.errors import Damaged, IndexMissing, LayoutInvalid, NameInvalid, NotFound, StorageError, Unavailable
from zotctl.jobs.ages import Ages, uploads
from zotctl.jobs.check.hashing import (
    READ_ATTEMPTS,
    Hasher,
    HashResult,
    InodeResults,
    Inspector,
    Workers,
    cores,
    measure,
)
from zotctl.jobs.check.passes import Passes, note_overrun
from zotctl.jobs.check.repository import GraphView, RepositoryCheck, StoredCheck, path_of, temporaries, view_of
from zotctl.jobs.check.rules import index_findings, manifest_findings
from zotctl.jobs.finding import CONTENT_SPEC, LAYOUT_FILE_SPEC, Finding, Kind
from zotctl.jobs.imports.archives import ArchiveListing, ListedLayout, read_archive
from zotctl.jobs.imports.sources import THE_LAYOUT, opened
from zotctl.jobs.layouts import FoundLayout, lasting, layouts_in
from zotctl.jobs.report import counted
from zotctl.jobs.run import Run, TimeUp
from zotctl.jobs.stores import jobs_of
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, is_stub
from zotctl.oci.layout import check_layout
from zotctl.oci.reference import parse_name
from zotctl.storage import keys
from zotctl.storage.driver import Info, read, scan_or_empty
from zotctl.storage.facts import Content, Read, read_content, understand
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.index import Index
from zotctl.storage.references import Reference
from zotctl.storage.root import Root, no_store

_LINK = "a symbolic link, and none is followed (copy the layout with cp -rL, or take it over with import-layout)"
STALE_UPLOAD_S = 86400.0
"""How long an upload has received nothing when it counts as abandoned."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `verify`. `deep`: hash every blob. `workers`: threads that hash; by default one per core. `measure`:
    add up the sizes first, for a total of the progress. `place`: the directory in which a deep run that is stopped at
    --max-duration notes how far it came, so that the next one goes on; None: each run begins anew."""

    deep: bool = False
    workers: int | None = None
    measure: bool = False
    place: str | None = None


def verify(run: Run, options: VerifyOptions | None = None) -> None:
    """Check every layout in the roots of the run's store, which was opened read-only. Raises TimeUp."""
    options = options or VerifyOptions()
    passes = Passes(run, options.place if options.deep else None)
    blobs = _StoredBlobs(run, passes, deep=options.deep, workers=options.workers)
    try:
        check = _Verify(run, blobs, passes)
        if options.deep and options.measure:
            blobs.expect(check.measure())
        check.go_through()
    finally:
        blobs.close()
        passes.save()


def verify_archive(run: Run, source: str) -> None:
    """Check the layout in an archive, a file or a pipe ("-"). All of it has to be read, so it is hashed, too."""
    label = "standard input" if source == "-" else source

    def took(size: int) -> None:
        run.add("hashed_bytes", size)
        run.progress(run.report.summary.get("hashed_bytes", 0), None, "bytes", label)

    try:
        with opened(source) as stream:
            content = read_archive(run, stream, label, ArchiveListing(took))
    except LayoutInvalid as error:
        _tell(run, Finding("", None, "invalid_layout", error.message, details={"path": source}))
        return
    _tell_all(run, content.findings)
    for place, problem in content.problems.items():
        _tell(run, Finding(place, None, "invalid_layout", problem.message, details={"path": f"{source}/{place}"}))
    for place, layout in content.layouts.items():
        name = place if content.is_tree and place else THE_LAYOUT
        for finding in layout.findings:
            _tell(run, replace(finding, repository=name, action="none"))
        check = _ArchiveCheck(layout, name)
        for digest, info in check.blobs():
            blob = layout.blobs.present[digest]
            if digest in layout.damaged:
                check.damaged.append(HashResult(digest, info, blob.found or blob.digest))
        _ContentCheck(run, check).tell(*_strict_view(check, layout.index, check.content))


def probe(run: Run) -> None:
    """Try what the storage can do, and report an item for each ability of each root, and one that sums them up.

    The trial files lie in the hidden directory, or in a directory of their own where a root has none, and are removed.
    The store is opened read-only, since a probe must not make a directory a root. Raises StorageError.
    """
    for root in run.roots:
        root.require()
        found, said = jobs_of(root).probe()
        for ability, answer in found.items():
            run.item(root=root.label, ability=ability, answer=answer)
        run.item(root=root.label, ability="verdict", answer=said)


# -- the store ------------------------------------------------------------------------------------


class _Verify:
    def __init__(self, run: Run, blobs: _StoredBlobs, passes: Passes) -> None:
        self._run, self._blobs, self._passes = run, blobs, passes
        self._first: dict[str, str] = {}
        """The root of each name."""

    def go_through(self) -> None:
        only = self._run.store.only
        self._finish_stopped()
        for root in self._run.roots:
            with self._run.guarded(root.label, root):
                root.require()
                if only is not None:
                    _LayoutCheck(self._run, StoredCheck(root, only, single=True), self._blobs).check()
                else:
                    self._root(root)
                root.require()  # one that was unmounted midway has looked empty since
                if root.label not in self._run.away:
                    self._passes.end(root)
        if only is None:
            self._run.walked()

    def _finish_stopped(self) -> None:
        """Begin with the blobs in which the last run was stopped, as `scrub` does."""
        again = list[tuple[StoredCheck, Digest]]()
        for root in self._run.roots:
            with self._run.guarded(root.label, root):
                for name, digest in self._passes.stopped(root):
                    check = StoredCheck(root, name, single=self._run.store.only is not None)
                    info = check.info(digest)
                    if info is not None and info.is_file and self._passes.found(root, digest, info) is None:
                        again.append((check, digest))
                        self._blobs.finish(check, digest)
        self._blobs.drain()
        if again and self._run.is_over:  # or it is reported with the rest of its repository
            for check, digest in again:
                note_overrun(self._run, check.name, digest)
                _LayoutCheck(self._run, check, self._blobs).tell_so_far()
        self._blobs.stop_in_time()

    def measure(self) -> int:
        """The bytes to read, of a file with several names once. What can't be listed is reported when it is checked."""
        total = 0
        for root in self._run.roots:
            with suppress(StorageError):
                pooled = int(root.stat(keys.VERSION) is not None)
                total += measure(self._run, self._stored(root), pooled)
        return total

    def _stored(self, root: Root) -> Iterator[StoredCheck]:
        if (only := self._run.store.only) is not None:
            yield StoredCheck(root, only, single=True)
        else:
            places = layouts_in(root.driver, lambda *_: None)
            wanted = (place.name for place in places if self._run.covers(place.name))
            yield from (StoredCheck(root, name) for name in wanted if not self._passes.is_done(root, name))

    def _root(self, root: Root) -> None:
        found = root.by_requests or root.stat(keys.VERSION) is not None
        places = layouts_in(root.driver, lambda name, error: self._run.error(name or root.label, error, root))
        for place in lasting(root, places):
            found = True
            self._run.check()
            if root.label in self._run.away:
                return
            if self._run.covers(place.name):
                if self._passes.is_done(root, place.name):
                    self._first.setdefault(place.name, root.label)
                    self._run.add("skipped_repositories")
                    continue
                self._run.begins(place.name)
                with self._run.guarded(place.name, root):
                    self._place(root, place)
                    self._passes.done(root, place.name)
        if not found and not self._run.report.errors:
            self._run.refuse(root, no_store(root.label))
        elif self._run.whole:
            self._hidden(root)

    def _place(self, root: Root, place: FoundLayout) -> None:
        for finding in (*self._name_findings(root, place.name), *_unwritable_findings(root, place)):
            path = {"path": path_of(root, place.name)}
            _tell(self._run, replace(finding, details=path | finding.details))
        _LayoutCheck(self._run, StoredCheck(root, place.name), self._blobs).check()

    def _name_findings(self, root: Root, name: str) -> Iterator[Finding]:
        try:
            parse_name(name)
        except NameInvalid as error:
            yield Finding(name, None, "bad_name", f"{error.message}; nothing in it is served")
        first = self._first.setdefault(name, root.label)
        if first != root.label:
            yield Finding(name, None, "two_roots", f"it is in {first} too, and served from there")

    def _hidden(self, root: Root) -> None:
        """Report what dead processes have left in the hidden directory, and wrong modes of the directories."""
        now, modes = root.protocol.now(), _modes_of(root)
        for key in ("", keys.HIDDEN):
            info = root.stat(key)
            if info is not None:
                modes.look(path_of(root, key).rstrip("/"), info)
        _tell_all(self._run, modes.findings(""))
        _tell_all(self._run, temporaries(root, now))
        ages = Ages(root.driver, now, self._run.clock, dry_run=True)
        dead = [upload for upload in uploads(root, ages) if ages.is_old(upload.moved, STALE_UPLOAD_S)]
        if dead:
            size = sum(upload.size for upload in dead)
            what = f"{counted(len(dead), 'upload')} with {counted(size, 'byte')}"
            details = {"path": path_of(root, keys.UPLOADS), "size_bytes": size}
            reason = f"{what} that no client continues, for gc to remove"
            _tell(self._run, Finding("", None, "orphan", reason, details=details))


def _unwritable_findings(root: Root, place: FoundLayout) -> Iterator[Finding]:
    """A repository that is a symbolic link or another mount is served, but takes no push
    (docs/design/local.md#the-tree)."""
    info, what = root.stat(place.name), ""
    if place.is_link:
        what = "a symbolic link"
    elif info is not None and info.dev != root.driver.stat("").dev:
        what = "on another file system than its root"
    if what:
        yield Finding(place.name, None, "mode", f"it is {what}: served, but nothing can be pushed to it")


# -- one layout -----------------------------------------------------------------------------------


class _ContentCheck:
    """Reports whether index.json, the manifests and the blobs of one repository agree, wherever they are read from."""

    def __init__(self, run: Run, check: RepositoryCheck) -> None:
        self._run, self._check, self._name = run, check, check.name

    def tell(self, view: GraphView | None, strict: Iterable[Finding]) -> None:
        """Report all findings, and count. `view` None: index.json can't be read. `strict`: findings of `rules`."""
        for result in self._check.damaged:
            if self._is_current(result):
                _tell(self._run, self._check.damage(result, view))
        if view is not None:
            _tell_all(self._run, index_findings(self._name, view.index, view.affected.tags))
            _tell_all(self._run, strict)
            for finding in self._check.findings(view, hashed=False):
                # `index_findings` reports rows without a digest.
                if finding.digest is not None and (still := self._still(finding)) is not None:
                    _tell(self._run, still)
            if uncomputed := sum(one.partition(":")[0] not in ALGORITHMS for one in self._check.present):
                reason = f"{uncomputed} blobs have digests of algorithms that can't be computed here"
                _tell(self._run, Finding(self._name, None, "unreadable", reason))
            _tell_all(self._run, self._check.orphans(view))
            self._run.add("manifests", len(view.graph.facts))
        self._run.add("repositories")
        self._run.add("blobs", len(self._check.present))

    def _is_current(self, result: HashResult) -> bool:
        return True

    def _still(self, finding: Finding) -> Finding | None:
        return finding


class _LayoutCheck(_ContentCheck):
    """The check of one layout in a root, from its directory to its blobs."""

    def __init__(self, run: Run, check: StoredCheck, blobs: _StoredBlobs) -> None:
        super().__init__(run, check)
        self._stored, self._blobs, self._root, self._modes = check, blobs, check.root, _modes_of(check.root)

    def check(self) -> None:
        """Report all that is wrong. Raises StorageError if the directory can't be read."""
        structure = list(self._structure())
        if self._root.stat(self._name) is None:
            return self._root.require()  # it was removed, unless the whole root is away
        if structure and self._stored.is_being_made():
            return None
        _tell_all(self._run, structure)
        try:
            try:
                self._list()
            finally:
                self._blobs.drain()
            self._blobs.require_time()
        except (TimeUp, StorageError):
            self.tell_so_far()
            raise
        view, strict = None, list[Finding]()
        try:
            index = self._root.protocol.indexes.read(self._name).index
            view, strict = _strict_view(self._stored, index, partial(self._blobs.content, self._stored))
        except (LayoutInvalid, NotFound) as error:
            self._root.require()
            if not structure and (finding := self._stored.layout_finding(error)) is not None:
                _tell(self._run, finding)
        self.tell(view, strict)
        _tell_all(self._run, self._modes.findings(self._name))
        _tell_all(self._run, self._stored.leftovers())
        return None

    def tell_so_far(self) -> None:
        """Report the damage that was found before time was up, or before something could not be listed."""
        if not self._stored.damaged:
            return
        view = None
        with suppress(StorageError, LayoutInvalid):
            view = view_of(self._root, self._name)
        for result in self._stored.damaged:
            if self._is_current(result):
                _tell(self._run, self._stored.damage(result, view))

    # -- files ----------------------------------------------------------------------------------

    def _structure(self) -> Iterator[Finding]:
        """image-layout.md, "Content"; a symbolic link could lead out of the store (I14)."""
        yield from self._file(keys.layout(self._name), "invalid_layout", LAYOUT_FILE_SPEC)
        yield from self._file(keys.index(self._name), "invalid_index", CONTENT_SPEC)
        with suppress(NotFound):
            try:
                check_layout(read(self._root.driver, keys.layout(self._name), 4096))
            except LayoutInvalid as error:
                yield self._refused(keys.layout(self._name), "invalid_layout", error.message, None)
        for key in (keys.blobs(self._name), *(keys.blobs_of(self._name, algorithm) for algorithm in ALGORITHMS)):
            info, what = self._root.stat(key), key[len(self._name) + 1 :]
            if info is not None and not info.is_dir:
                reason = f"{what} is {_LINK if info.is_link else 'a file, not a directory'}"
                yield self._refused(key, "invalid_layout", reason, CONTENT_SPEC)
            elif info is None and key == keys.blobs(self._name):
                reason, details = f"the directory {what} is missing", {"path": self._check.path(key)}
                yield Finding(self._name, None, "invalid_layout", reason, details=details, spec=CONTENT_SPEC)

    def _file(self, key: str, kind: Kind, spec: str) -> Iterator[Finding]:
        info, what = self._root.stat(key), key.rpartition("/")[2]
        if info is not None and info.is_file:
            self._modes.look(self._check.path(key), info)
        elif info is None:
            if key != keys.index(self._name) or self._has_no_index():
                yield self._refused(key, kind, f"{what} is missing", spec)
        else:
            rest = _LINK if info.is_link else "no regular file"
            yield self._refused(key, kind, f"{what} is {rest}", spec)

    def _has_no_index(self) -> bool:
        """Is index.json missing for longer than a commit takes it away on a network? Raises NotYetReadable."""
        try:
            self._root.protocol.indexes.read(self._name)
        except (NotFound, IndexMissing):
            return True
        except LayoutInvalid:
            pass  # which is told when it is read
        return False

    def _refused(self, key: str, kind: Kind, reason: str, spec: str | None) -> Finding:
        """A finding because of which a registry serves nothing of the repository."""
        reason = f"{reason}; nothing in {self._name} is served"
        return Finding(self._name, None, kind, reason, details={"path": self._check.path(key)}, spec=spec)

    def _list(self) -> None:
        """Check each blob, and the modes of files and directories."""
        folders = [self._name, keys.blobs(self._name)]
        found = sorted(scan_or_empty(self._root.driver, keys.blobs(self._name)))
        folders += [keys.blobs_of(self._name, entry.name) for entry in found if entry.is_dir]
        for folder in folders:
            with suppress(NotFound):
                self._modes.look(self._check.path(folder), self._root.driver.stat(folder))
        for digest, info in self._check.listed():
            self._run.check()
            self._check.present[digest] = info.size
            self._modes.look(self._check.path(keys.blob(self._name, digest)), info)
            if digest.algorithm in ALGORITHMS:
                self._blobs.look(self._stored, digest, info)

    # -- second looks ---------------------------------------------------------------------------

    def _is_current(self, result: HashResult) -> bool:
        return result.error is not None or result.is_about(self._check.info(result.digest))

    def _still(self, finding: Finding) -> Finding | None:
        """Check again what is missing or has a wrong size. None: it is right now, or in the trash, from which a request
        brings it back."""
        if finding.digest is None or finding.kind not in ("size_mismatch", "missing_blob", "missing_manifest"):
            return finding
        digest = check_digest(finding.digest)
        if finding.kind == "size_mismatch":
            now = self._check.info(digest)
            return finding if now is not None and now.size == self._check.present.get(digest) else None
        if self._root.maintenance.is_trashed(self._name, digest):
            self._run.item(action="note", repository=self._name, digest=digest,
                           reason="needed and in the trash: it comes back when a registry is asked for it")  # fmt: skip
            return None
        now = self._check.info(digest)  # after the look into the trash, out of which it may just have come
        if now is None:
            return finding
        what = _LINK if now.is_link else "no regular file"
        return replace(finding, reason=f"{finding.reason}: what has its name is {what}") if not now.is_file else None


def _strict_view(check: RepositoryCheck, index: Index, content: Read) -> tuple[GraphView, list[Finding]]:
    """Read all manifests that the rows of an index lead to; each is hashed and checked by the strict rules once."""
    strict: list[Finding] = []

    def read_strictly(digest: Digest, whole: bool) -> Content:
        if any(result.digest == digest for result in check.damaged):
            raise Damaged(f"{digest} is damaged")
        found = content(digest, whole)
        facts = understand(found, digest).facts
        if facts is not None and found.body is not None:
            strict.extend(manifest_findings(check.name, found.body, facts, digest))
        return found

    graph = ManifestGraph(read_strictly)
    graph.add(Reference(str(row.digest), row.size, row.media_type) for row in index.rows() if row.digest)
    for fault in graph.faults.values():
        if fault.kind == "unreadable":
            strict.append(Finding(check.name, fault.digest, "unreadable", f"can't be read: {fault.reason}"))
    view = GraphView(index, graph)
    return view, [replace(one, tags=view.affected.tags(one.digest or "")) for one in strict]


class _ArchiveCheck(RepositoryCheck):
    """A layout in an archive that was read from front to end and hashed on the way."""

    def __init__(self, layout: ListedLayout, name: str) -> None:
        super().__init__(name)
        self._layout = layout

    def path(self, key: str) -> str:
        return self._layout.label + key[len(self.name) :]

    def listed(self) -> Iterator[tuple[Digest, Info]]:
        for digest, blob in sorted(self._layout.blobs.present.items()):
            yield digest, Info(0, blob.size, 0, 0, 1, stat.S_IFREG | 0o444, 0, 0, 0)

    def info(self, digest: Digest) -> Info | None:
        return None

    def lacks(self, digest: Digest) -> bool:
        return digest not in self._layout.blobs.present

    def view_again(self) -> GraphView:
        return _strict_view(self, self._layout.index, self.content)[0]

    def content(self, digest: Digest, whole: bool) -> Content:
        """A `Read` for a graph. Raises Damaged, NotFound, Unavailable."""
        if digest in self._layout.damaged:
            raise Damaged(f"{digest} is damaged")
        if digest in self._layout.listing.not_kept:
            where = f"{self._layout.label}: {keys.blob(self.name, digest)}"
            raise Unavailable(f"{where} is too large to be kept, or does not look like a manifest")
        return self._layout.content(digest, whole)


# -- blobs ----------------------------------------------------------------------------------------


class _StoredBlobs:
    """Checks the blobs of a store. Without `deep` only by their sizes and by what a scrub has marked; with it each
    inode is hashed once, on all cores. A result that is not good is added to the check, at once or by `drain`. Used by
    one thread."""

    def __init__(self, run: Run, passes: Passes, *, deep: bool, workers: int | None = None) -> None:
        self._run, self._passes, self._deep = run, passes, deep
        self._hasher = Hasher(run)
        self._inspector = Inspector(run, self._hasher)
        self._workers = Workers((workers or cores()) if deep else 1)
        self._shared = InodeResults()
        self._left_to_next = False
        if deep:
            run.add("checked_blobs", 0)
        self._marked: dict[str, set[Digest]] = {}
        """The digests of which a scrub has marked copies, by root."""

    def look(self, check: StoredCheck, digest: Digest, info: Info) -> None:
        key = InodeResults.key_of(digest, info) if info.nlink > 1 else None
        known = self._shared.known(key, digest, info) if key is not None else None
        if not self._deep:
            self._take(check, self._by_size(check, HashResult(digest, info, digest)))
        elif known is not None:
            self._run.add("checked_blobs")
            if not known.good:
                check.damaged.append(known)
        elif (found := self._passes.found(check.root, digest, info)) is None:
            self._workers.put(partial(self._hash, check, digest), lambda result: self._took(check, result, key, info))
        elif found == digest:
            self._run.add("skipped_blobs")
            self._hasher.expect(-info.size // max(1, info.nlink - 1))
        else:
            check.damaged.append(HashResult(digest, info, found))

    def finish(self, check: StoredCheck, digest: Digest) -> None:
        """Read a blob in which the last run was stopped."""
        self._workers.put(partial(self._hash, check, digest), lambda result: self._took(check, result))

    def _hash(self, check: StoredCheck, digest: Digest) -> HashResult | None:
        """In a worker. None: time is up."""
        if self._hasher.begins_no_more:
            return None
        return self._inspector.blob_in_time(check.root, check.name, digest)

    def _took(
        self, check: StoredCheck, result: HashResult | None, key: int | None = None, listed: Info | None = None
    ) -> None:
        if result is None:
            self._left_to_next = True
            return
        self._run.add("checked_blobs")
        self._passes.note(check.root, result)
        # Where another file has the name by now, nothing is known of the other names of the first.
        self._take(check, result, key if result.is_about(listed) else None)

    def stop_in_time(self) -> None:
        """From now on, end a run within a blob, too, if the next one can go on."""
        self._hasher.stops_in_blobs = self._passes.are_kept

    def require_time(self) -> None:
        """Raise TimeUp if something was not read, or not to its end."""
        if self._left_to_next:
            raise TimeUp

    def expect(self, total: int) -> None:
        """How many bytes are to be read."""
        self._hasher.total = total

    def drain(self) -> None:
        self._workers.drain()

    def content(self, check: StoredCheck, digest: Digest, whole: bool) -> Content:
        """A `Read` for a graph. Waits for what is being written in place. Raises Damaged, NotFound."""
        for _ in range(READ_ATTEMPTS):
            with suppress(Damaged), check.root.driver.open(keys.blob(check.name, digest)) as reader:
                return read_content(reader, digest, whole)
            result = self._inspector.blob(check.root, check.name, digest)
            if not result.good and not result.gone:
                check.damaged.append(result)
                break
        raise Damaged(f"{digest} is damaged")

    def close(self) -> None:
        self._hasher.stopped.set()
        self._workers.close()
        for root, name, digest in self._inspector.cut:
            self._passes.cut(root, name, digest)

    def _take(self, check: StoredCheck, result: HashResult, key: int | None = None) -> None:
        if self._deep:
            result = self._by_size(check, result)
            self._run.add("hashed_bytes", result.info.size if result.info else 0)
            self._hasher.tell(check.name)
        if not result.good and not result.gone:
            check.damaged.append(result)
        if key is not None and result.error is None and not result.gone:
            self._shared.keep(key, result)

    def _by_size(self, check: StoredCheck, result: HashResult) -> HashResult:
        """The result, but not good for a stub and for what a scrub has marked: servers answer 404 for both."""
        info, root = result.info, check.root
        if info is None or not result.good:
            return result
        if root.label not in self._marked:
            with suppress(NotFound):
                self._marked[root.label] = root.maintenance.damaged()
        known = result.digest in self._marked.setdefault(root.label, set())
        marked = known and root.maintenance.is_marked(check.name, result.digest, info)
        return HashResult(result.digest, info, None) if marked or is_stub(result.digest, info.size) else result


# -- modes ----------------------------------------------------------------------------------------


@dataclass
class _Modes:
    """Collects files of one layout with wrong modes. `uid`, `gid`: the owner of the store."""

    uid: int
    gid: int
    _seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def look(self, path: str, info: Info) -> None:
        what = "directories" if info.is_dir else "files"
        if info.mode & stat.S_IWOTH and not info.is_link:
            self._count(f"{what} that anybody may write", path)
        if not self._readable(info):
            self._count(f"{what} that the owner of the store (uid {self.uid}) can't read", path)

    def findings(self, name: str) -> Iterator[Finding]:
        """One finding for each kind of wrong mode, with the count and the first path."""
        for what, (count, first) in self._seen.items():
            where = first if count == 1 else f"{count}, {first} first"
            yield Finding(name, None, "mode", f"{what}: {where}", details={"count": count, "path": first})

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


def _modes_of(root: Root) -> _Modes:
    """Modes are judged for the owner of the hidden directory, or, where there is none, of the root."""
    info = root.stat(keys.HIDDEN) or root.driver.stat("")
    return _Modes(info.uid, info.gid)


# -- telling --------------------------------------------------------------------------------------


def _tell(run: Run, finding: Finding) -> None:
    """Report a finding with its rule. One that can't be read ends the run with 5."""
    if finding.kind == "unreadable":
        run.report.codes.append(5)
    run.finding(finding.with_rule())
    run.add("findings")


def _tell_all(run: Run, findings: Iterable[Finding]) -> None:
    for finding in findings:
        _tell(run, finding)
