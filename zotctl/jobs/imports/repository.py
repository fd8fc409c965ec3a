"""Imports rows of a layout into one repository: copies and hashes missing blobs, then manifests, each after what it
lists, and then adds all rows by one commit of index.json."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from zotctl.errors import (
    Damaged,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    NotFound,
    ReadOnly,
)
from zotctl.jobs.check.hashing import Workers
from zotctl.jobs.check.repository import StoredCheck
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.imports.needs import Needed, Needs, tags_of
from zotctl.jobs.imports.plan import ImportOptions, Wanted, push_times
from zotctl.jobs.imports.sources import (
    Layout,
    StoredLayout,
    chunks,
    other_content,
    pieces,
    source_reader,
)
from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.oci.digest import Digest, digest_of_hash, new_hash, parse_digest
from zotctl.storage import keys
from zotctl.storage.digests import DigestMap, Digests
from zotctl.storage.driver import chunks_of
from zotctl.storage.facts import Content, Fault, Read, Unusable
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.graph import ManifestGraph, reader_of
from zotctl.storage.index import Index, empty_index
from zotctl.storage.protocol import Gathering, Transaction
from zotctl.storage.references import Reference
from zotctl.storage.root import Root

COPIES_AT_ONCE = 8
"""How many copies run in parallel where they go over a network."""
COMMIT_ROUNDS = 3
"""How often the copy is repeated if something vanishes before the commit."""


@dataclass
class RepositoryImport:
    """Imports some rows of a layout into one repository. Used by one thread, which starts others for copies."""

    run: Run
    layout: Layout
    source_graph: ManifestGraph
    name: str
    rows: list[Wanted]
    options: ImportOptions
    verified: Digests = field(default_factory=Digests)
    """Content that is in the repository and, for a move, was hashed there or while it was copied."""
    before: Index = field(default_factory=empty_index)
    """The rows that the repository had when the run came to it."""
    take_fields: bool = False
    """Whether a new repository also gets the fields of index.json beside its rows: it then is the whole layout."""
    _brought: Digests = field(default_factory=Digests)
    """Content that was copied or linked in this run."""
    _faults: dict[str, Fault] = field(default_factory=dict)
    _left_out: int = 0
    _can_link: bool = False
    _listed: DigestMap | None = None
    """The sizes of the blobs that were in the repository, listed where each look is a request; others are not looked
    for."""
    _total: int = 0
    _done: int = 0

    def __post_init__(self) -> None:
        self.repository = self.run.store.repository_for_push(self.name)
        self.root = self.repository.root
        self.needs = Needs(self.layout, self.source_graph)
        self._can_link = self.options.link and not self.run.dry_run
        if self.root.protocol.index_costs_request:
            (check := StoredCheck(self.root, self.name)).list_all()
            self._listed = check.present

    def run_all(self) -> bool:
        """Import the rows. True: everything that was wanted is in the repository now. Raises ReadOnly, StorageError."""
        self.run.begins(self.name)
        self.before = before = self.index()
        # Existing tags stay, unless they are to be moved. This is checked again under the lock.
        self._set_aside({row.tag for row in self.rows if self._is_kept(before, row)}, before)
        self._fall_back()
        self._faults = self.needs.faults(self._needed(), self._has)
        self._drop_incomplete()
        self._leave_subjects_out()
        self._report_contradictions()
        if self.run.dry_run:
            index, missing = self.index(), self._missing(self._needed())
            self._count(len(missing.blobs) + len(missing.manifests), sum(size for _, size in missing.pairs()))
            self._report_rows(index)
        elif self.repository.read_only:
            raise ReadOnly(f"{self.name} takes no writes: in {self.root.label} it is only read", self.name)
        elif self.rows:
            self._fill()
        return not self._left_out

    # -- what is wanted, and what is there --------------------------------------------------------

    @property
    def graph(self) -> ManifestGraph:
        """What the rows lead to, as the source or, where it lacks something, the repository says it."""
        return self.needs.graph

    def has_all(self) -> bool:
        """Whether the repository has every row that was imported."""
        index = self.index()
        return all(row.digest in index for row in self.rows)

    def _set_aside(self, tags: set[str | None], index: Index) -> None:
        kept = [row for row in self.rows if row.tag in tags]
        self.rows = [row for row in self.rows if row.tag not in tags]
        for row in kept:
            there = index.find(row.tag or "")
            self._left_out += 1
            self.run.add("tags_kept")
            self.run.item(
                action="keep", repository=self.name, tag=row.tag, digest=there.digest if there else None,
                source_digest=row.digest, reason="the tag is there already; --overwrite moves it",
            )  # fmt: skip

    def index(self) -> Index:
        """The index of the repository now. Raises LayoutInvalid, StorageError."""
        return index_now(self.root, self.name)

    def _is_kept(self, index: Index, row: Wanted) -> bool:
        there = index.find(row.tag) if row.tag and not self.options.moves_tags else None
        return there is not None and there.digest != row.digest

    def _fall_back(self) -> None:
        """Read what the source lacks from the repository: an earlier run or a push may have brought it."""
        if not self.source_graph.faults:
            return
        self.needs = Needs(self.layout, ManifestGraph(self._reader(), each=self.layout.each))
        self.graph.add(Reference(row.digest, row.row.size, row.row.media_type) for row in self.rows)

    def _reader(self) -> Read:
        of_source, of_ours = source_reader(self.layout), reader_of(self.root.protocol, self.name)

        def read(digest: Digest, whole: bool) -> Content:
            try:
                return of_source(digest, whole)
            except Unusable:
                with suppress(NotFound, Damaged, ManifestInvalid):
                    return of_ours(digest, whole)
                raise

        return read

    def _has(self, digest: Digest, size: int) -> bool:
        """Whether the repository has the blob. Finding it reserves it (I6), which may bring it back from the trash, so
        a dry run only looks."""
        if self._listed is not None and self._listed.get(digest) != size:
            return False
        if self.run.dry_run:
            info = self.root.stat(keys.blob(self.name, digest))
            return info is not None and info.size == size
        try:
            return self.root.protocol.blobs.find(self.name, digest).size == size
        except (NotFound, Damaged):  # what is damaged here is copied anew, which heals it
            return False

    def _needed(self) -> Needed:
        return self.needs.of(self.rows)

    def _drop_incomplete(self) -> None:
        """Leave out rows that lead to a fault. Each fault becomes a finding with the tags that are left out for it."""
        costs = self.needs.costs(self.rows, self._faults)
        broken = {row.digest for rows in costs.values() for row in rows}
        self._left_out += sum(row.digest in broken for row in self.rows)
        self.rows = [row for row in self.rows if row.digest not in broken]
        for digest, rows in costs.items():
            self._report_fault(self._faults[digest], tags_of(rows))

    def _leave_subjects_out(self) -> None:
        """Report subjects that can't be imported. They cost no row, since a subject may be missing, but a move then
        leaves the source in place."""
        done: set[str] = set()
        below = (digest for row in self.rows for digest in self.graph.below(row.digest, done))
        for digest in [one for one in below if one in self.graph.faults and not self.graph.is_needed(one)]:
            self._left_out += 1
            self._report_fault(self.graph.faults[digest], ())

    def _report_contradictions(self) -> None:
        """Report what a row or an index calls something else than its bytes say. It comes as it is, since the bytes
        decide, but `verify` and some clients go by the row."""
        done: set[str] = set()
        below = (digest for row in self.rows for digest in self.graph.below(row.digest, done))
        wrong = {
            digest: Fault(digest, "media_type_mismatch", reason)
            for digest in below
            if (reason := self.graph.contradiction(digest)) is not None
        }
        for digest, rows in self.needs.costs(self.rows, wrong).items():
            details = {"source": self.layout.label}
            self.run.finding(Finding.of_fault(self.name, wrong[digest], tags_of(rows), details=details))

    def _report_fault(self, fault: Fault, tags: tuple[str, ...]) -> None:
        self.layout.require()
        self.root.require()
        if fault.kind not in DAMAGE_KINDS:  # it may be intact, but is left out
            self.run.report.codes.append(5)
        details = {"source": self.layout.label}
        self.run.finding(Finding.of_fault(self.name, fault, tags, action="skip", details=details))

    def _missing(self, needed: Needed) -> Needed:
        missing = Needed()
        for digest, size in needed.pairs():
            if not self._is_there(parse_digest(digest), size):
                (missing.manifests if digest in needed.manifests else missing.blobs)[digest] = size
        return missing

    def _is_there(self, digest: Digest, size: int) -> bool:
        if digest in self.verified and self._has(digest, size):
            return True
        there = self._has(digest, size) and (not self.options.move or self._is_sound(digest, size))
        if there:
            self.verified.add(digest)
        return there

    def _is_sound(self, digest: Digest, size: int) -> bool:
        """Whether the copy in the repository has the right bytes, before the other one is removed."""
        with self.root.protocol.blobs.open(self.name, digest) as reader:
            return self._hash(chunks_of(reader, size), digest) == digest

    def _hash(self, pieces: Iterable[bytes], digest: Digest) -> Digest:
        """The digest of `pieces`, by the algorithm of `digest`."""
        state = new_hash(digest.algorithm)
        for data in pieces:
            self.run.throttle.take(len(data))
            state.update(data)
        return digest_of_hash(digest.algorithm, state)

    # -- copying ----------------------------------------------------------------------------------

    def _fill(self) -> None:
        before = self.index()
        for _ in range(COMMIT_ROUNDS):
            try:
                with self.root.maintenance.gathering() as gathering:
                    self._copy(self._missing(self._needed()), gathering)
                    gathering.flush()
                self.verified.update(self._brought)  # not before: until then another file may have its name
                self._drop_incomplete()
                self._flush(before)
                self._commit()
            except (NotFound, ManifestBlobUnknown) as error:
                vanished = error
            else:
                return self._report_rows(before)
        raise vanished

    def _flush(self, before: Index) -> None:
        """Flush together what a push flushes one by one: what new rows lead to, and what was copied for existing ones.
        Without `commit` only manifests are flushed."""
        needed = Digests(self._brought)
        if any(row.digest not in before for row in self.rows):
            needed.update(self._needed())
        maintenance = self.root.maintenance
        if not maintenance.durable:
            needed = Digests(digest for digest in needed if digest in self.graph.facts)
        maintenance.flush(self.name, needed)

    def _copy(self, missing: Needed, gathering: Gathering) -> None:
        """Copy all blobs, then manifests; several in parallel where each is a request."""
        self._total, self._done = sum(size for _, size in missing.pairs()), 0
        far = isinstance(self.layout, StoredLayout) and not self.layout.driver.capabilities.local
        for some in (missing.blobs.pairs(), missing.manifests.items()):
            workers = Workers(COPIES_AT_ONCE if self.root.protocol.index_costs_request or far else 1)
            try:
                for digest, size in some:
                    self.run.check()
                    workers.put(partial(self._try_to_copy, parse_digest(digest), size, gathering), self._note_copied)
                workers.drain()
            finally:
                workers.close()

    def _try_to_copy(self, digest: Digest, size: int, gathering: Gathering) -> tuple[Digest, int, bool]:
        """In a worker. The last: it is here now."""
        try:
            with gathering.here():
                self._copy_one(digest, size)
            return digest, size, True
        except Unusable as error:
            self._faults[digest] = Fault(digest, error.kind, error.reason)
        except DigestInvalid:
            wrong = other_content(self.layout, digest)
            self._faults[digest] = Fault(digest, wrong.kind, wrong.reason)
        return digest, size, False

    def _note_copied(self, copied: tuple[Digest, int, bool]) -> None:
        digest, size, is_here = copied
        if is_here:
            self._brought.add(digest)
            if self._listed is not None:
                self._listed[digest] = size
        self._done += size
        self.run.progress(self._done, self._total, "bytes", self.name)

    def _copy_one(self, digest: Digest, size: int) -> None:
        if digest in self.graph.facts:
            self._copy_manifest(digest, size)
        elif not (self._mount(digest, size) or self._link(digest, size)):
            self._copy_blob(digest, size)
            self._count(1, size)

    def _count(self, blobs: int, size: int) -> None:
        self.run.add("blobs", blobs)
        self.run.add("copied_bytes", size)

    def _copy_manifest(self, digest: Digest, size: int) -> None:
        """Store a manifest, which has no row yet, so no reader sees it."""
        body = source_reader(self.layout)(digest, True).body or b""
        self.root.maintenance.put_manifest(self.name, digest, body)
        self._count(1, size)

    def _copy_blob(self, digest: Digest, size: int) -> None:
        upload = self.repository.begin_upload(digest.algorithm)
        upload.expect(digest, size)
        try:
            for data in chunks(self.layout, digest, size):
                self.run.throttle.take(len(data))
                upload.write([data])
            upload.finish(digest)
        except BaseException:
            upload.cancel()
            raise

    def _mount(self, digest: Digest, size: int) -> bool:
        """Link a blob that an archive has staged in this root, where it was hashed. False: that is not possible."""
        layout = self.layout
        if not isinstance(layout, StoredLayout) or layout.driver is not self.root.driver:
            return False
        if not (self.root.protocol.blobs.mount(layout.name, self.name, digest) and self._has(digest, size)):
            return False
        self._count(1, size)
        return True

    # -- hard links -------------------------------------------------------------------------------

    def _link(self, digest: Digest, size: int) -> bool:
        if not self._can_link or self.layout.embedded.get(self.layout, digest) is not None:
            return False
        try:
            return self._link_hashed(digest, size)
        except OSError as error:
            self._can_link = False
            reason = f"copied instead of linked: {error.strerror}"
            self.run.item(action="note", repository=self.name, source=self.layout.label, reason=reason)
            return False

    def _link_hashed(self, digest: Digest, size: int) -> bool:
        """Hash an open file, and link that very file, wherever its name leads by now."""
        with self.layout.open(digest) as reader:
            fd, held = reader.fileno(), HeldFile(reader)
            if fd is None:
                return False
            jobs = jobs_of(self.root)
            jobs.require_linkable(os.fstat(fd))
            # Hash the open file, since its name may lead elsewhere, and one byte more than it should have.
            if (found := self._hash(pieces(reader, size + 1), digest)) != digest:
                raise Unusable("digest_mismatch", f"{digest} in {self.layout.label} has the digest {found.encoded}")
            if not jobs.link(self.name, digest, held, fd):
                raise Unusable("digest_mismatch", f"{digest} in {self.layout.label} was changed while it was read")
        self.run.add("blobs")
        self.run.add("linked_bytes", size)
        return True

    # -- the commit -------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Add all rows by one commit, if everything that they need is there under the lock (I5)."""
        needed = self._needed()
        kept: set[str | None] = set()
        moved: list[tuple[Wanted, str]] = []
        times = push_times(self.layout, self.rows, self.graph.facts, self.root.protocol.now())

        def change(tx: Transaction, draft: Index) -> None:
            _require(self.name, tx, needed)
            kept.clear()
            kept.update(row.tag for row in self.rows if self._is_kept(draft, row))
            if self.take_fields and not len(draft):
                draft.adopt_fields(self.layout.index)
            moved.clear()
            for row in self.rows:
                if row.tag not in kept:
                    if before := self._note(row, draft, times):
                        moved.append((row, before))
                    draft.put_row(row.row.raw, row.tag)
            self._put_children(draft, kept)

        self.root.committer.commit(self.name, change)
        for row, before in moved:
            reason = f"import-layout: {self.layout.label}"
            self.run.changed("move", self.name, reason, tag=row.tag, before=before, after=row.digest)
        self._set_aside(kept, self.index())

    def _put_children(self, draft: Index, kept: set[str | None]) -> None:
        """Add a row for each child of an index, after all others: some tools find a manifest only by its row."""
        done: set[str] = set()
        for row in (row for row in self.rows if row.tag not in kept):
            for digest in self.graph.below(row.digest, done):
                facts, media_type = self.graph.facts.get(digest), self.graph.media_type(digest)
                if facts and digest not in draft and digest != row.digest and self.graph.parents(digest):
                    draft.put(parse_digest(digest), facts.size, media_type or facts.media_type)

    def _note(self, row: Wanted, draft: Index, times: dict[str, float]) -> str | None:
        """Note the push of a new tag; a row without a tag is not noted, so it is kept. The digest that the tag led to
        before, if it is another one.

        This comes before the rename, as for a push: a collector must not see the new tag and decide by the history of
        an older one.
        """
        there, before = draft.find(row.tag) if row.tag else None, None
        if row.tag and (there is None or there.digest != row.digest):
            before = str(there.digest) if there and there.digest else None
            when, history = times.get(row.tag), self.root.history
            history.note(self.name, "push", row.digest, {row.tag: before}, when, by="import-layout")
            if self.layout.past and (pulled := self.layout.past.pulled.get(row.digest)) is not None:
                self.root.history.note(self.name, "pull", row.digest, None, pulled)
        return before

    # -- telling ----------------------------------------------------------------------------------

    def _report_rows(self, before: Index) -> None:
        self.run.add("repositories")
        for row in self.rows:
            there = before.find(row.tag) if row.tag else before.find(row.digest)
            action = "unchanged" if there is not None and there.digest == row.digest else "import"
            self.run.add("unchanged" if action == "unchanged" else "imported")
            self.run.item(
                action=action, repository=self.name, tag=row.tag, digest=row.digest,
                media_type=row.row.media_type, size_bytes=self._size(row), source=self.layout.label,
            )  # fmt: skip

    def _size(self, row: Wanted) -> int:
        """The size of everything that the row leads to, copied or not."""
        sizes: dict[str, int] = {}
        if row.digest in self.graph.leaves:
            sizes[row.digest] = row.row.size
        for digest in self.graph.below(row.digest, set()):
            if (facts := self.graph.facts.get(digest)) is not None:
                sizes |= {digest: facts.size} | {blob.digest: blob.size for blob in self.needs.blobs_of(facts)}
        return sum(sizes.values())


def index_now(root: Root, name: str) -> Index:
    """The index of a repository now; empty if there is none yet. Raises LayoutInvalid, StorageError."""
    try:
        return root.protocol.indexes.read(name).index
    except NotFound:
        return empty_index()


def _require(name: str, tx: Transaction, needed: Needed) -> None:
    gone = [digest for digest, size in needed.pairs() if not _is_there(tx, parse_digest(digest), size)]
    if gone:
        raise ManifestBlobUnknown(f"{name}: {len(gone)} blobs were removed while they were being imported", gone)


def _is_there(tx: Transaction, digest: Digest, size: int) -> bool:
    try:
        return tx.require(digest).size == size
    except (NotFound, Damaged):
        return False
