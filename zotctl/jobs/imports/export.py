"""`import-layout --to`: writes the layouts of a source into one archive, which `import-layout` takes back whole.

First it is found out what all repositories need, and whether it is there; then their content is read once, hashed, and
written. One repository is the layout itself, which other tools read; of several, each lies below its name, and content
that they share is there once. Nothing in the source is changed, and the archive gets its name when all of it is on the
disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from zotctl.config import S3Config, is_bucket
from zotctl.config.globs import check_glob, matches
from zotctl.errors import Damaged, LayoutInvalid, NameUnknown, NotYetReadable, Unavailable, UsageError, quoted
from zotctl.jobs.files import new_file, refuse_existing
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.imports.distribution import tree_in, tree_of_bucket
from zotctl.jobs.imports.members import INDEX_FILE, below
from zotctl.jobs.imports.needs import Needs, tags_of
from zotctl.jobs.imports.plan import Wanted
from zotctl.jobs.imports.sources import (
    THE_LAYOUT,
    BucketSource,
    Layout,
    bucket_root,
    chunks,
    in_bucket,
    in_directory,
    is_archive,
    other_content,
    read_layout,
    requirement,
    source_reader,
    store_above,
    valid_name,
)
from zotctl.jobs.imports.tar_writer import TarWriter, check_ending, packed
from zotctl.jobs.report import counted
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of_hash, new_hash, parse_digest
from zotctl.oci.layout import LAYOUT_BYTES, LAYOUT_FILE
from zotctl.storage.distribution import is_distribution
from zotctl.storage.driver import Driver
from zotctl.storage.facts import Fault, Unusable
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.index import REPOSITORY
from zotctl.storage.references import Reference

REQUESTS_AT_ONCE, BLOBS_AHEAD, AHEAD_BYTES = 8, 32, 1 << 20
"""Of a bucket: how many small blobs are requested at once, how many wait for their turn, and the largest of them."""


Bodies = Generator[Iterable[bytes], None, None]
"""The pieces of one blob after another."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of `export`.

    `to`: the archive. `only`: globs of the repositories that it gets, by default all. `overwrite`: replace a file that
    is there. `tags`: a file with the tags of a registry that keeps them elsewhere. `s3`: how to reach a bucket.
    """

    to: str
    only: Sequence[str] = ()
    overwrite: bool = False
    tags: str | None = None
    s3: S3Config | None = None


def export(run: Run, source: str, options: ExportOptions) -> None:
    """Write a directory or a bucket into an archive: all of it, or none.

    Raises Damaged if content is missing or is not what it should be, which the findings tell; UsageError, NoSuchStore,
    NameUnknown if no repository matches, HeldElsewhere if another run writes this archive, NoSpace.
    """
    _refuse(source, options)
    with _layouts(run, source, options) as (driver, names):
        exported = _Export(run, source, options, driver)
        exported.plan(names)
        if not run.dry_run:
            exported.write()
        exported.tell()


def _refuse(source: str, options: ExportOptions) -> None:
    """Raise UsageError for what can't be done, before anything is read."""
    for pattern in options.only:
        try:
            check_glob(pattern)
        except ValueError as error:
            raise UsageError(f"--only: {error}") from None
    check_ending(options.to)
    refuse_existing(options.to, replaces=options.overwrite)
    if is_bucket(source):
        return
    if is_archive(source):
        raise UsageError(f"{source} is an archive already; import it into a store, and write that into another one")
    real = os.path.realpath(source)
    if os.path.commonpath([real, os.path.realpath(options.to)]) == real:
        raise UsageError(f"--to {options.to} would lie in {source}, which is written into it; choose another place")


@contextmanager
def _layouts(run: Run, source: str, options: ExportOptions) -> Iterator[tuple[Driver, list[str]]]:
    """Where the layouts of the source are, and their names."""
    passed_over = partial(run.error, root=None)
    if is_bucket(source):
        with bucket_root(run.store, source, options.s3) as root:
            tree = tree_of_bucket(run, root, options.tags)
            yield in_bucket(root, source) if tree is None else (BucketSource(root.protocol, tree), tree.names())
    elif is_distribution(source):
        tree = tree_in(run, source, options.tags)
        yield tree, tree.names()
    else:
        yield in_directory(source, passed_over)


@dataclass
class _Repository:
    """What the archive gets of one repository. `key`: its name for the driver. `contents`: digests and sizes, sorted.
    `manifests`: how many of them are manifests."""

    name: str
    key: str
    layout: Layout
    index: bytes
    contents: dict[Digest, int]
    manifests: int
    tags: int


class _Export:
    """One archive in the making. Used by one thread."""

    def __init__(self, run: Run, source: str, options: ExportOptions, driver: Driver) -> None:
        self._run, self._source, self._options, self._driver = run, source, options, driver
        self._require = requirement(driver, source)
        self._repositories: list[_Repository] = []
        self._faults: list[Finding] = []
        """Why no archive can be written."""
        self._done = 0
        self._size: int | None = None
        """Of the archive in bytes, once it is written."""

    # -- what it gets -----------------------------------------------------------------------------

    def plan(self, keys_of: Sequence[str]) -> None:
        """Find out what belongs to each layout. Raises Damaged if some of it can't be had."""
        chosen = [(key, name) for key, name in self._names(keys_of) if self._is_wanted(name)]
        if not chosen and self._options.only:
            raise NameUnknown(f"no repository of {self._source} matches --only {' or '.join(self._options.only)}")
        self._repositories = [self._planned(key, name, alone=len(chosen) == 1) for key, name in chosen]
        if self._faults:
            self._refuse_faults()

    def _names(self, keys_of: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The layouts with the names of their repositories, "" if there is none."""
        if list(keys_of) == [THE_LAYOUT]:
            store = None if is_bucket(self._source) else store_above(os.path.realpath(self._source))
            name = os.path.relpath(os.path.realpath(self._source), store) if store else ""
            yield THE_LAYOUT, valid_name(name) or ""
            return
        for key in keys_of:
            if valid_name(key) is None:
                reason = f"{quoted(key)} is no repository name; write its layout into an archive of its own"
                self._leave_out(Finding(key, None, "bad_name", reason, action="skip"))
            else:
                yield key, key

    def _is_wanted(self, name: str) -> bool:
        return not self._options.only or matches(name, self._options.only)

    def _leave_out(self, finding: Finding) -> None:
        self._run.report.codes.append(5)
        self._run.finding(finding)

    def _planned(self, key: str, name: str, *, alone: bool) -> _Repository:
        self._run.check()
        layout, needs, rows = self._read(key)
        gone = self._missing_rows(name, layout, needs, rows)
        needed = needs.of([row for row in rows if row.digest not in gone])
        index = layout.index.copy()
        for digest in gone:
            index.drop(digest)
        index.forget_ours()
        if alone and name:
            index.annotate(REPOSITORY, name)
        contents = {parse_digest(text): size for text, size in sorted(needed.pairs())} if not self._faults else {}
        manifests = len(contents.keys() & needs.graph.facts.keys())
        return _Repository(name, key, layout, index.render(), contents, manifests, len(index.tags()))

    def _read(self, key: str) -> tuple[Layout, Needs, list[Wanted]]:
        layout = read_layout(self._driver, key, self._source if key == THE_LAYOUT else f"{self._source}/{key}")
        layout.require = self._require
        for row in layout.index.rows():
            layout.embedded.note(row.raw)
        rows = [Wanted(row, row.digest, row.tag or row.alias) for row in layout.index.rows() if row.digest is not None]
        graph = ManifestGraph(source_reader(layout), each=layout.each)
        graph.add(Reference(row.digest, row.row.size, row.row.media_type) for row in rows)
        return layout, Needs(layout, graph), rows

    def _missing_rows(self, name: str, layout: Layout, needs: Needs, rows: list[Wanted]) -> set[Digest]:
        """The rows that the archive does without, since what they need is not known; faults are told."""
        for reason in layout.index.unclear():
            self._tell_fault(Finding(name, None, "invalid_index", f"{layout.label}: {reason}"))
        needed = needs.faults(needs.of(rows))
        faults = needed | needs.graph.faults
        left_out: set[Digest] = set()
        for digest, costly in needs.costs(rows, faults).items():
            finding = Finding.of_fault(name, faults[digest], tags_of(costly), details={"source": layout.label})
            if finding.kind in DAMAGE_KINDS or faults[digest].may_pass:
                layout.require()
                self._tell_fault(finding)
            else:
                self._leave_out(Finding.of_fault(name, faults[digest], finding.tags, action="skip"))
                left_out |= {row.digest for row in costly} if digest in needed else set()
        return left_out

    def _tell_fault(self, finding: Finding) -> None:
        self._faults.append(finding)
        self._run.finding(finding)

    def _refuse_faults(self) -> None:
        way_out = "heal it with `zotctl scrub --repair` or a push, or choose other repositories with --only"
        error = Damaged if any(finding.kind in DAMAGE_KINDS for finding in self._faults) else Unavailable
        found = counted(len(self._faults), "finding")
        raise error(f"no archive was written, since it would not be whole ({found}): {way_out}")

    # -- writing ----------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the archive. Raises Damaged if content is not what its digest says, NotYetReadable if the source
        was changed; there is no archive then."""
        path = os.path.realpath(self._options.to)
        with new_file(path, replaces=self._options.overwrite) as file:
            with packed(self._options.to, file) as out:  # as its name says, not that of the file a link leads to
                tar = TarWriter(out)
                self._write_all(tar)
                tar.end()
            self._size = file.tell()

    def _write_all(self, tar: TarWriter) -> None:
        seen: dict[Digest, str] = {}
        total = self._total()
        with closing(self._bodies()) as bodies:
            for one in self._repositories:
                self._run.begins(one.name or self._source)
                place = one.name if len(self._repositories) > 1 else ""
                tar.file(below(place, LAYOUT_FILE), len(LAYOUT_BYTES), [LAYOUT_BYTES])
                tar.file(below(place, INDEX_FILE), len(one.index), [one.index])
                if not one.contents:
                    tar.directory(below(place, "blobs"))
                for digest, size in one.contents.items():
                    path = below(place, f"blobs/{digest.algorithm}/{digest.encoded}")
                    if digest in seen:
                        tar.link(path, seen[digest])
                    else:
                        self._run.check()
                        self._write_blob(tar, one, path, digest, size, bodies, total)
                        seen[digest] = path

    def _write_blob(
        self, tar: TarWriter, one: _Repository, path: str, digest: Digest, size: int, bodies: Bodies, total: int
    ) -> None:
        try:
            tar.file(path, size, self._hashed(one, digest, next(bodies), total))
        except Unusable as error:
            self._stop(one, Fault(digest, error.kind, str(error)))

    def _contents(self) -> dict[Digest, tuple[_Repository, int]]:
        """All blobs, in the order of the archive, each with the first repository that has it, and its size."""
        found: dict[Digest, tuple[_Repository, int]] = {}
        for one in self._repositories:
            for digest, size in one.contents.items():
                found.setdefault(digest, (one, size))
        return found

    def _total(self) -> int:
        return sum(size for _, size in self._contents().values())

    def _bodies(self) -> Bodies:
        """The pieces of each blob, in the order of the archive. Where each is a request, the next small ones are
        requested side by side meanwhile."""
        contents = self._contents().items()
        opened = (partial(chunks, one.layout, digest, size) for digest, (one, size) in contents)
        if self._driver.capabilities.local:
            yield from (open_one() for open_one in opened)
            return
        threads = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        ahead: deque[Callable[[], Iterable[bytes]]] = deque()
        try:
            for open_one in opened:
                size = open_one.args[2]
                ahead.append(threads.submit(list, open_one()).result if size <= AHEAD_BYTES else open_one)
                if len(ahead) > BLOBS_AHEAD:
                    yield ahead.popleft()()
            yield from (take() for take in ahead)
        finally:
            threads.shutdown(cancel_futures=True)

    def _hashed(self, one: _Repository, digest: Digest, pieces: Iterable[bytes], total: int) -> Iterator[bytes]:
        """The bytes of a blob. Raises Unusable at their end if they have another digest."""
        state = new_hash(digest.algorithm)
        for data in pieces:
            self._run.throttle.take(len(data))
            state.update(data)
            yield data
            self._done += len(data)
            self._run.progress(self._done, total, "bytes", one.name or self._source)
        if digest_of_hash(digest.algorithm, state) != digest:
            raise other_content(one.layout, digest)

    def _stop(self, one: _Repository, fault: Fault) -> None:
        """Report what could not be read. If nothing in the source needs it any more, that is no damage."""
        self._require()
        try:
            _, needs, rows = self._read(one.key)
        except LayoutInvalid:
            costly = []  # the whole repository has gone
        else:
            costly = needs.costs(rows, {fault.digest: fault}).get(fault.digest, [])
        if not costly:
            reason = f"{fault.digest} was removed from {one.layout.label} while that was being read"
            raise NotYetReadable(f"no archive was written: {reason}; run it again")
        self._tell_fault(Finding.of_fault(one.name, fault, tags_of(costly), details={"source": one.layout.label}))
        self._refuse_faults()

    # -- telling ----------------------------------------------------------------------------------

    def tell(self) -> None:
        """Report each repository, and the whole."""
        for one in self._repositories:
            self._run.item(
                action="export", repository=one.name or None, tags=one.tags, manifests=one.manifests,
                blobs=len(one.contents) - one.manifests, size_bytes=sum(one.contents.values()),
            )  # fmt: skip
        self._run.add("repositories", len(self._repositories))
        self._run.add("blobs", len(self._contents()))
        self._run.add("blobs_bytes", self._total())
        if self._size is not None:
            self._run.add("archive_bytes", self._size)
