"""Deduplication of a bucket (docs/design/bucket.md#the-tree): configs and layers into the pool, or back into each
repository.

First everything is copied and proven, then, when the pool has had it for long enough, the copies of the repositories
go. zot's empty objects, which it leaves where another repository has the content, go with them, or are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from zotctl.config.model import S3Config
from zotctl.errors import ConfigError, LayoutInvalid, NotFound
from zotctl.jobs.check.hashing import Hasher, HashResult, Inspector, Workers
from zotctl.jobs.check.outcome import Outcome
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.finding import Finding
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Deduplicate
from zotctl.oci.digest import Digest, check_digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.pool import POOL_SETTLED_S
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.cache import Lru
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions

BLOBS_AT_ONCE = 8
SOUND_REMEMBERED = 200_000
"""Digests whose copy in the pool was hashed in this run."""


@contextmanager
def deduplicating(run: Run, roots: Sequence[Root], options: DedupeOptions) -> Iterator[Deduplicate]:
    """For `roots`, which are buckets, each as a whole before the run walks through its repositories."""
    for root in roots:
        if not root.read_only:
            with run.guarded(root.label, root):
                if options.undo:
                    undo_bucket(run, root)
                else:
                    dedupe_bucket(run, root, measured=options.measure)
    yield lambda root, name: None


def dedupe_bucket(run: Run, root: Root, *, measured: bool = False) -> None:
    """Refused where a copy could be deleted so late that it is the only one by then. `measured`: the sizes are added up
    first, for a total of the progress. Raises TimeUp, Unavailable."""
    try:
        if not run.dry_run:
            bucket_of(root).maintenance.require_collection()
    except ConfigError as refusal:
        run.refuse(root, refusal)
    else:
        _Pooling(run, root).all(measured=measured and not run.dry_run)


def undo_bucket(run: Run, root: Root) -> None:
    """Each repository gets what it may read in the pool; that is then the collector's."""
    _Spreading(run, root).all()


class _Conversion:
    def __init__(self, run: Run, root: Root) -> None:
        self._run, self._root = run, root
        bucket = bucket_of(root)
        self._context, self._reservations, self._steps = bucket.context, bucket.reservations, bucket.conversion
        self._hasher = Hasher(run)
        self._first_seen = {root.label: FirstSeen(root, run.clock)}
        self._follow = Outcome(run, Inspector(run, self._hasher), self._first_seen, None, quick=False)
        self._sound: Lru[Digest, bool] = Lru(SOUND_REMEMBERED)
        self._marked = root.maintenance.damaged()
        self._left: set[tuple[str, Digest]] = set()
        self._names = [name for name in root.catalog.everything() if run.covers(name)]
        self._workers = Workers(1 if self._context.threads is None else BLOBS_AT_ONCE)

    def _there(self) -> Iterator[str]:
        """The repositories of the run, as long as the bucket is there."""
        yield from (name for name in self._names if self._root.label not in self._run.away)

    def _blobs(self, name: str) -> Set[str]:
        """The configs and layers of a repository that are not manifests too. Manifests stay where they are."""
        try:
            index = self._root.protocol.indexes.read(name).index
        except (NotFound, LayoutInvalid):
            return set()
        with self._root.graphs.of(name).at(index) as graph:
            manifests = {*graph.facts, *graph.faults, *(index.digests.keys() - graph.leaves.keys())}
            return graph.reachable() - manifests

    def _own(self, name: str) -> Iterator[tuple[Digest, Object]]:
        """Those of its blobs that lie in the repository."""
        wanted = self._blobs(name)
        return ((digest, found) for digest, found in self._context.own_blobs(name) if digest in wanted)

    def _stubs(self, name: str) -> set[Digest]:
        """The stubs in a repository, reachable or not: other tools take them for the blobs."""
        return {digest for digest, found in self._context.own_blobs(name) if is_stub(digest, found.size)}

    def _look(self, key: str, digest: Digest) -> HashResult:
        """The very object under this key, whatever the repository would read."""
        try:
            with self._context.objects.open(key) as reader:
                return HashResult(digest, reader.info(), self._hasher.digest(reader, digest.algorithm))
        except NotFound:
            return HashResult(digest)

    def _origins(self) -> dict[Digest, str]:
        """Where the content of zot's empty objects is: in one repository, whichever."""
        stubs = {digest for name in self._names for digest in self._stubs(name)}
        if not stubs:
            return {}
        everywhere = (one for name in self._root.catalog.everything() for one in self._context.own_blobs(name))
        return {digest: found.key for digest, found in everywhere if digest in stubs and found.size}

    def _is_sound(self, key: str, digest: Digest) -> bool:
        """Reads it, and reports nothing."""
        return self._look(key, digest).good

    def _prove(self, size: int, key: str, digest: Digest) -> bool:
        """Read a copy as well."""
        self._hasher.expect(size)
        return self._is_sound(key, digest)

    def _pool_is_sound(self, digest: Digest) -> bool:
        """Hashed once in a run."""
        known = self._sound.get(digest)
        if known is None:
            known = self._is_sound(keys.shared(digest), digest)
            self._sound.put(digest, known)
        return known

    def _tell_stub(self, name: str, digest: Digest, found: Object) -> None:
        path = f"{self._root.label}/{found.key}"
        reason = "the object is empty, and no repository has its content"
        self._run.finding(Finding(name, digest, "stub", reason, details={"path": path}))

    def _tell_damage(self, name: str, *damaged: HashResult) -> None:
        left = [result for result in damaged if (name, result.digest) not in self._left]
        self._left |= {(name, result.digest) for result in left}
        with self._run.guarded(name, self._root):
            self._follow.report_left(self._root, name, left)

    def _tell_known(self, name: str) -> set[Digest]:
        """What an earlier run has found damaged, of all that this repository reads."""
        if not self._marked:
            return set()
        own = {digest for digest, found in self._context.own_blobs(name) if not is_stub(digest, found.size)}
        mine = self._marked & (own | {check_digest(text) for text in self._blobs(name)})
        looks = {digest: self._root.stat(keys.blob(name, digest)) for digest in sorted(mine)}
        known = [HashResult(digest, info) for digest, info in looks.items()
                 if info is not None and self._root.maintenance.is_marked(name, digest, info)]  # fmt: skip
        self._tell_damage(name, *known)
        return {result.digest for result in known}

    def _save(self) -> None:
        if not self._run.dry_run and self._root.label not in self._run.away:
            self._first_seen[self._root.label].save()


class _Pooling(_Conversion):
    def all(self, *, measured: bool) -> None:
        try:
            if measured:
                self._measure()
            for name in self._there():
                self._run.check()
                self._run.add("repositories")
                with self._run.guarded(name, self._root):
                    self._take(name)
            self._workers.drain()
            if not self._run.dry_run and self._root.label not in self._run.away:
                self._take_origins()
                for name in self._there():
                    with self._run.guarded(name, self._root):
                        self._let_go(name)
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._save()

    def _measure(self) -> None:
        """Expect to read everything. What needs no reading is taken off the total when that is known."""
        total = 0
        for name in self._there():
            self._run.check()
            with self._run.guarded(name, self._root):
                total += sum(found.size for _, found in self._context.own_blobs(name))
        self._hasher.total = total

    # -- into the pool --------------------------------------------------------------------------

    def _take(self, name: str) -> None:
        everything = dict(self._context.own_blobs(name))
        wanted = self._blobs(name)
        own = {digest: found for digest, found in everything.items()
               if digest in wanted and not is_stub(digest, found.size)}  # fmt: skip
        self._hasher.expect(-sum(found.size for digest, found in everything.items() if digest not in own))
        known = self._tell_known(name)
        if self._run.dry_run:
            return self._preview(name, {digest: found for digest, found in own.items() if digest not in known})
        for digest in self._reservations.reserve_all(name, own):
            self._run.check()
            self._workers.put(partial(self._pool, name, digest, own[digest]), lambda _: self._hasher.tell(name))
        return None

    def _take_origins(self) -> None:
        """Content that zot has left in a repository which doesn't need it itself any more."""
        for digest, key in self._origins().items():
            self._run.check()
            if (found := self._context.head(key)) is not None:
                self._pool(keys.repository_of(key), digest, found)

    def _preview(self, name: str, own: dict[Digest, Object]) -> None:
        for digest, found in own.items():
            there = self._sound.get(digest) or self._context.head(keys.shared(digest)) is not None
            saved = found.size if there else 0
            self._sound.put(digest, True)
            self._run.item(action="pool", repository=name, digest=str(digest), size_bytes=found.size, saved_bytes=saved)
            self._run.add("pooled")
            self._run.add("saved_bytes", saved)

    def _pool(self, name: str, digest: Digest, found: Object) -> None:
        """Hash what the pool has, or what it gets."""
        with self._run.guarded(name, self._root):
            there, known = self._context.head(keys.shared(digest)), self._sound.get(digest)
            if there is not None and self._pool_is_sound(digest):
                self._hasher.expect(-found.size if known else 0)
                return
            result = self._look(found.key, digest)
            if not result.good:
                if not result.gone:
                    self._tell_damage(name, result)
                return
            if self._steps.copy(found.key, keys.shared(digest), digest, partial(self._prove, found.size)):
                self._sound.put(digest, True)
                self._run.add("pooled")
                self._run.add("pooled_bytes", found.size)

    # -- out of the repositories ----------------------------------------------------------------

    def _let_go(self, name: str) -> None:
        own = dict(self._own(name))
        self._reserve_stubs(name, own)
        waiting = dict(self._steps.droppable(name, own, self._age))
        self._wait(name, max(waiting.values(), default=0.0))
        sound = [digest for digest in waiting if self._pool_is_sound(digest)]
        gone = self._steps.drop(name, self._age, sound)
        saved = sum(own[digest].size for digest in gone)
        if gone:
            self._run.item(action="dropped", repository=name, blobs=len(gone), bytes=saved)
        self._run.add("dropped", len(gone))
        self._run.add("dropped_bytes", saved)
        for digest in own.keys() - waiting.keys():
            self._tell_left(name, digest, own[digest])

    def _reserve_stubs(self, name: str, own: dict[Digest, Object]) -> None:
        """What zot has left here is the right to content that lies elsewhere."""
        for digest, found in own.items():
            if is_stub(digest, found.size):
                self._reservations.ensure(name, digest)

    def _tell_left(self, name: str, digest: Digest, found: Object) -> None:
        if is_stub(digest, found.size):
            self._tell_stub(name, digest, found)
        else:
            self._run.add("left")

    @property
    def _age(self) -> float:
        """A client that was given a URL of the old place has read it by then."""
        s3 = (self._root.config.s3 if self._root.config is not None else None) or S3Config()
        return max(POOL_SETTLED_S, s3.redirect_lifetime if s3.redirect else 0.0)

    def _wait(self, name: str, seconds: float) -> None:
        until = self._run.clock.elapsed() + seconds
        if seconds:
            self._run.progress(0, None, "bytes", f"{name}: waiting until no client reads the old copies")
        while (left := until - self._run.clock.elapsed()) > 0:
            self._run.check()
            self._run.clock.sleep(min(1.0, left))


class _ByRepository(Hasher):
    """Tells how many repositories are done: how many bytes have to be copied is only known with each of them."""

    def __init__(self, run: Run, names: list[str]) -> None:
        super().__init__(run)
        self._places = {name: number for number, name in enumerate(names)}
        self._at = 0

    def tell(self, what: str = "") -> None:
        """Report that the repositories before `what` are done."""
        self._at = max(self._at, self._places.get(what, 0))
        self._run.progress(self._at, len(self._places), "repositories", what)


class _Spreading(_Conversion):
    def __init__(self, run: Run, root: Root) -> None:
        super().__init__(run, root)
        self._hasher = _ByRepository(run, self._names)
        self._hashed: Lru[Digest, HashResult] = Lru(SOUND_REMEMBERED)

    def all(self) -> None:
        try:
            origins = self._origins()
            for name in self._there():
                self._run.check()
                self._run.add("repositories")
                with self._run.guarded(name, self._root):
                    self._give(name, origins)
            self._workers.drain()
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._save()

    def _give(self, name: str, origins: dict[Digest, str]) -> None:
        own = dict(self._context.own_blobs(name))
        wanted = {digest for digest, _ in bucket_of(self._root).grants.of(name)}
        wanted |= {check_digest(text) for text in self._blobs(name)}
        wanted |= self._stubs(name)
        for digest in sorted(wanted - self._tell_known(name)):
            there = own.get(digest)
            if there is None or is_stub(digest, there.size):
                self._run.check()
                work = partial(self._fill, name, digest, origins.get(digest), there)
                self._workers.put(work, lambda _: self._hasher.tell(name))

    def _fill(self, name: str, digest: Digest, origin: str | None, stub: Object | None) -> None:
        with self._run.guarded(name, self._root):
            source = self._source(digest, origin)
            if source is None:
                if stub is not None:
                    self._tell_stub(name, digest, stub)
                return
            if self._run.dry_run:
                self._run.item(action="copy", repository=name, digest=str(digest), size_bytes=source.size)
            elif not self._copy(name, digest, source):
                return
            self._run.add("copied")
            self._run.add("copied_bytes", source.size)

    def _source(self, digest: Digest, origin: str | None) -> Object | None:
        for key in (keys.shared(digest), origin):
            found = self._context.head(key) if key else None
            if found is not None and not is_stub(digest, found.size):
                return found
        return None

    def _copy(self, name: str, digest: Digest, source: Object) -> bool:
        """Hashed once a run, and each copy of it proven."""
        result = self._hashed.get(digest)
        if result is None:
            self._hashed.put(digest, result := self._look(source.key, digest))
        if not result.good:
            if not result.gone:
                self._tell_damage(name, result)
            return False
        self._steps.prepare(name, digest)
        return self._steps.copy(source.key, keys.blob(name, digest), digest, self._is_sound)
