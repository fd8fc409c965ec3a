"""Deduplication of an existing directory, whichever tool wrote it (docs/design/local.md#deduplication).

Only where two files have one digest is anything read, and then both are hashed before one takes the place of
the other: a damaged blob is never spread. What has the pool's inode already is done, so a second run is short
and a killed one is simply run again. Never across roots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from zotctl.errors import CannotLink, Changed, Exists, NoSpace, NotFound, StorageError
from zotctl.jobs.check.hashing import Hasher, HashResult, Inspector, Looked, Workers, cores, measure
from zotctl.jobs.check.outcome import Outcome
from zotctl.jobs.check.repository import StoredCheck
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.run import Run, TimeUp
from zotctl.jobs.stores import Deduplicate
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import FileIdentity, HeldFile, file_number, same_file
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions

POOLED_REMEMBERED = 100_000
"""Copies in the pool whose result is remembered, for the next repository that has the same content."""
POOL_LOCKS = 64


class _Pair(NamedTuple):
    """A blob of which the pool has another copy."""

    root: Root
    name: str
    digest: Digest

    @property
    def blob(self) -> str:
        return keys.blob(self.name, self.digest)


class _Result(NamedTuple):
    """What became of a pair: linked, moved (another process was faster), unlike, damaged, pool_damaged, failed."""

    outcome: str
    saved: int = 0
    result: HashResult | None = None
    error: StorageError | None = None


@contextmanager
def deduplicating(run: Run, roots: Sequence[Root], options: DedupeOptions) -> Iterator[Deduplicate]:
    """Deduplicate `roots`, which are directories."""
    work = _Dedupe(run, roots, options.workers or cores())
    if options.measure and not run.dry_run:
        work.measure()
    with work.going():
        yield work.repository


class _Dedupe:
    def __init__(self, run: Run, roots: Sequence[Root], workers: int) -> None:
        self._run, self._roots, self._hasher, self._workers = run, roots, Hasher(run), Workers(workers)
        self._able: set[str] = set()
        self._inspector = Inspector(run, self._hasher)
        self._first_seen = {root.label: FirstSeen(root, run.clock) for root in roots}
        self._follow = Outcome(run, self._inspector, self._first_seen, None, quick=False)
        self._pooled: Lru[tuple[str, Digest], HashResult] = Lru(POOLED_REMEMBERED)
        self._pool_locks = [Lock() for _ in range(POOL_LOCKS)]
        """One worker at a time for each copy in the pool: each link of ours moves its time of change."""
        self._tally: dict[tuple[str, str], tuple[int, int]] = {}
        self._plan = _Plan(run)

    def measure(self) -> None:
        """Expect to read everything; what turns out to be shared already is taken off the total then."""
        total = 0
        for root in self._roots:
            with suppress(StorageError):  # reported when its turn comes
                names = filter(self._run.covers, root.catalog.everything())
                total += measure(self._run, (StoredCheck(root, name) for name in names))
        self._hasher.total = total

    @contextmanager
    def going(self) -> Iterator[None]:
        try:
            with self._settled():
                self._able = {root.label for root in self._roots if self._is_able(root)}
                yield
                self._workers.drain()
        except TimeUp:
            self._workers.drain()
            raise
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._end()

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """What is replaced may have been safe for years, so what replaces it has to be on the device."""
        with ExitStack() as stack:
            for root in self._roots:
                if not (self._run.dry_run or root.read_only):
                    with self._run.guarded(root.label, root):
                        stack.enter_context(local_of(root).context.durable.settled())
            yield

    def repository(self, root: Root, name: str) -> None:
        if root.label in self._able and self._run.owns(root, name):
            with self._run.guarded(name, root):
                self._repository(root, name)

    def _is_able(self, root: Root) -> bool:
        if not root.driver.capabilities.links:
            none = CannotLink(f"{root.label} has no hard links, so nothing can be shared there")
            self._run.error(root.label, none, root)
        return root.driver.capabilities.links

    def _repository(self, root: Root, name: str) -> None:
        self._run.add("repositories")
        known_damaged, left = set(local_of(root).damaged.digests()), list[HashResult]()
        for digest, info in StoredCheck(root, name).blobs():
            self._run.check()
            self._run.add("blobs")
            if is_stub(digest, info.size) or (digest in known_damaged and local_of(root).damaged.has(digest, info)):
                left.append(HashResult(digest, info))
                self._hasher.expect(-info.size)
            elif not self._consider(root, name, digest, info):
                self._hasher.expect(-info.size)
        self._follow.report_left(root, name, left)
        self._hasher.tell(name)

    def _consider(self, root: Root, name: str, digest: Digest, info: Info) -> bool:
        """Whether the blob has to be read."""
        local_of(root).context.durable.note_settled(info)
        pooled = self._pool(root, name, digest, info)
        if pooled is None or same_file(pooled, info):
            self._run.add("shared", int(info.nlink > 2))
        elif not _alike(pooled, info):
            # An inode has one owner, one group, one mode.
            self._run.add("left_unlike")
            self._run.add("left_unlike_bytes", info.size)
        elif self._run.dry_run:
            self._plan.link(name, digest, info)
        else:
            pair = _Pair(root, name, digest)
            self._workers.put(partial(self._merge, pair), partial(self._done, pair))
            return True
        return False

    def _pool(self, root: Root, name: str, digest: Digest, info: Info) -> Info | None:
        """What others are linked to. None: nothing yet, so this blob is offered."""
        pooled = local_of(root).context.stat(keys.pool(digest))
        if self._run.dry_run:
            return pooled or self._plan.first(root, digest, info)
        if pooled is None:
            self._offer(root, name, digest)
            return None
        local_of(root).context.durable.note_settled(pooled)
        if info.nlink > pooled.nlink and self._is_full(root, name, digest):
            return info
        return pooled

    def _offer(self, root: Root, name: str, digest: Digest) -> None:
        """A name in the pool. It is a hint that is never believed unread, so this blob need not be read now."""
        with suppress(Exists, NotFound, CannotLink):
            local_of(root).context.link_into(keys.blob(name, digest), keys.pool(digest))

    def _is_full(self, root: Root, name: str, digest: Digest) -> bool:
        """Has its inode all the names that it can have? Then it was the pool's once, and all is well."""
        context, temp = local_of(root).context, keys.tmp(local_of(root).context.clock.token())
        try:
            context.driver.link(keys.blob(name, digest), temp)
        except CannotLink:
            return True
        finally:
            context.discard(temp)
        return False

    def _replace_pooled(self, root: Root, name: str, digest: Digest, mine: HeldFile) -> bool:
        """Offer this blob, which was hashed, in place of a copy that takes no more names."""
        try:
            with local_of(root).context.own_name(keys.blob(name, digest), mine) as temp:
                root.driver.rename(temp, keys.pool(digest))
        except (Changed, NotFound, CannotLink):
            return False
        return True

    # -- in a worker ----------------------------------------------------------------------------

    def _merge(self, pair: _Pair) -> _Result:
        """Both are hashed and held until one has taken the place of the other."""
        try:
            with self._inspector.held(pair.root, pair.blob, pair.digest) as mine:
                if mine.held is None or not mine.result.good:
                    return _Result("moved" if mine.result.gone else "damaged", result=mine.result)
                with self._pool_locks[hash(pair.digest) % POOL_LOCKS], self._look_at_pooled(pair) as pooled:
                    return self._share(pair, mine.held, pooled)
        except (NotFound, Changed):
            return _Result("moved")
        except StorageError as error:
            return _Result("failed", error=error)

    @contextmanager
    def _look_at_pooled(self, pair: _Pair) -> Iterator[Looked]:
        """Hashed once in a run, however many repositories have other copies, but for what another process than this
        one has touched meanwhile."""
        key, known = keys.pool(pair.digest), self._pooled.get((pair.root.label, pair.digest))
        if known is not None and known.info is not None:
            with pair.root.driver.open(key) as reader:
                held = HeldFile(reader)
                if FileIdentity.of(known.info).is_untouched(held.info):
                    yield Looked(known, held)
                    return
        if (info := local_of(pair.root).context.stat(key)) is not None:
            self._hasher.expect(info.size)
        with self._inspector.held(pair.root, key, pair.digest) as looked:
            yield looked

    def _share(self, pair: _Pair, mine: HeldFile, pooled: Looked) -> _Result:
        result = pooled.result
        if pooled.held is None or not result.good:
            return _Result("moved" if result.gone else "pool_damaged", result=result)
        if not _are_alike(mine, pooled.held):
            return _Result("unlike")
        try:
            return self._link(pair, mine, pooled.held)
        finally:
            self._remember(pair, result, pooled.held)

    def _remember(self, pair: _Pair, result: HashResult, pooled: HeldFile) -> None:
        """As it is now, after our own link, while it is still held."""
        now = pooled.reader.info() if pooled.reader is not None else None
        if pooled.is_at(now):
            self._pooled.put((pair.root.label, pair.digest), HashResult(pair.digest, now, result.found))

    def _link(self, pair: _Pair, mine: HeldFile, pooled: HeldFile) -> _Result:
        """link(pool, tmp), lock, still the file that was hashed?, rename, unlock."""
        context, replaced = local_of(pair.root).context, list[Info]()

        def still(now: Info) -> bool:
            replaced.append(now)
            return mine.is_at(now)

        try:
            with context.own_name(keys.pool(pair.digest), pooled) as temp:
                if not context.replace_blob(pair.name, pair.digest, temp, still, context.locks):
                    return _Result("moved")
        except CannotLink:
            # EMLINK: from here on the pool has the second inode.
            return _Result("full" if self._replace_pooled(pair.root, pair.name, pair.digest, mine) else "moved")
        return _Result("linked", saved=replaced[0].size if replaced[0].nlink == 1 else 0)

    # -- with the result ------------------------------------------------------------------------

    def _done(self, pair: _Pair, result: _Result) -> None:
        self._hasher.tell(pair.name)
        with self._run.guarded(pair.name, pair.root):
            if result.outcome == "linked":
                self._count(pair, result.saved)
            elif result.outcome == "damaged" and result.result:
                self._follow.report_left(pair.root, pair.name, [result.result])
            elif result.outcome == "pool_damaged" and result.result:
                self._throw_out(pair, result.result)
            elif result.error is not None:
                raise result.error
            else:
                self._run.add(f"left_{result.outcome}")

    def _count(self, pair: _Pair, saved: int) -> None:
        key = (pair.root.label, pair.name)
        linked, bytes_saved = self._tally.get(key, (0, 0))
        self._tally[key] = (linked + 1, bytes_saved + saved)
        self._run.add("linked")
        self._run.add("saved_bytes", saved)

    def _throw_out(self, pair: _Pair, result: HashResult) -> None:
        """The pool's copy is damaged: told for each repository that has it. The good one is offered instead."""
        for name in pair.root.catalog.walk():
            if result.is_about(local_of(pair.root).context.stat(keys.blob(name, pair.digest))):
                self._follow.report_left(pair.root, name, [result])
        if same_file(result.info, local_of(pair.root).context.stat(keys.pool(pair.digest))):
            # A hint: a good one that came in between is no loss.
            local_of(pair.root).context.discard(keys.pool(pair.digest))
        if (now := local_of(pair.root).context.stat(pair.blob)) is not None:
            self._consider(pair.root, pair.name, pair.digest, now)

    def _end(self) -> None:
        for (_, name), (linked, saved) in self._tally.items():
            self._run.item(action="linked", repository=name, blobs=linked, saved_bytes=saved)
        for root in self._roots:
            if not (self._run.dry_run or root.read_only or root.label in self._run.away):
                self._first_seen[root.label].save()


class _Plan:
    """What a dry run would do. Nothing is read: that the two are equal is only assumed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._firsts: dict[tuple[str, Digest], Info] = {}
        self._left: dict[tuple[int, int], int] = {}

    def first(self, root: Root, digest: Digest, info: Info) -> Info:
        """The first blob of a digest would be the pool's."""
        return self._firsts.setdefault((root.label, digest), info)

    def link(self, name: str, digest: Digest, info: Info) -> None:
        """The last name of an inode saves its bytes."""
        inode = file_number(info)
        self._left[inode] = self._left.get(inode, info.nlink) - 1
        saved = 0 if self._left[inode] else info.size
        self._run.item(action="link", repository=name, digest=str(digest), size_bytes=info.size, saved_bytes=saved)
        self._run.add("linked")
        self._run.add("saved_bytes", saved)


def _alike(one: Info, other: Info) -> bool:
    return (one.uid, one.gid, one.mode, one.dev) == (other.uid, other.gid, other.mode, other.dev)


def _are_alike(one: HeldFile, other: HeldFile) -> bool:
    """Also in what a list of names does not tell."""
    if one.reader is None or other.reader is None or not _alike(one.info, other.info):
        return False
    return one.reader.labels() == other.reader.labels()


# -- undo -----------------------------------------------------------------------------------------


@contextmanager
def undoing(run: Run, roots: Sequence[Root]) -> Iterator[Deduplicate]:
    """A repository that has the last name of an inode keeps it. Run again after a kill, it goes on."""
    work = _Undo(run, roots)
    for root in roots:
        if not (root.read_only or run.dry_run) and root.state() is None:
            with run.sparing(root):
                work.require_room(root)

    def separate(root: Root, name: str) -> None:
        if run.owns(root, name):
            with run.guarded(name, root):
                work.separate(root, name)

    yield separate
    work.end()


class _Undo:
    def __init__(self, run: Run, roots: Sequence[Root]) -> None:
        self._run, self._roots, self._hasher = run, roots, Hasher(run)
        self._hasher.total = 0
        self._inspector = Inspector(run, self._hasher)
        self._first_seen = {root.label: FirstSeen(root, run.clock) for root in roots}
        self._follow = Outcome(run, self._inspector, self._first_seen, None, quick=False)
        self._left: dict[tuple[int, int], int] = {}

    # -- room -----------------------------------------------------------------------------------

    def require_room(self, root: Root) -> None:
        """Raises NoSpace, with the figures."""
        needed, free = self._needed(root), root.driver.space().free
        self._hasher.expect(needed)
        if needed <= free or _shares_blocks(root):
            return
        raise NoSpace(f"{root.label}: copies of its own for each repository take {needed} bytes, {free} are free")

    def _needed(self, root: Root) -> int:
        """All names but one of each inode. What can't be looked at gets no copies, and is told when its turn comes."""
        total = 0.0
        for name in filter(self._run.covers, root.catalog.everything()):
            with suppress(StorageError):
                for digest, info in StoredCheck(root, name).blobs():
                    names = info.nlink - _is_pooled(root, digest, info)
                    total += info.size * (names - 1) / max(1, names)
        return int(total)

    # -- one repository -------------------------------------------------------------------------

    def separate(self, root: Root, name: str) -> None:
        self._run.add("repositories")
        left = list[HashResult]()
        for digest, info in StoredCheck(root, name).blobs():
            self._run.check()
            if is_stub(digest, info.size) or local_of(root).damaged.has(digest, info):
                left.append(HashResult(digest, info))
            elif self._is_shared(root, digest, info):
                self._give_own(root, name, digest, info)
        self._follow.report_left(root, name, left)

    def _is_shared(self, root: Root, digest: Digest, info: Info) -> bool:
        """Has another repository a name of it? The pool's goes first: it would link the next push again."""
        names = info.nlink - _is_pooled(root, digest, info)
        if self._run.dry_run:
            left = self._left.get(file_number(info), names)
            self._left[file_number(info)] = left - 1
            return left > 1
        if names < info.nlink:
            local_of(root).context.discard(keys.pool(digest))
        return names > 1

    def _give_own(self, root: Root, name: str, digest: Digest, info: Info) -> None:
        if self._run.dry_run:
            self._run.item(action="copy", repository=name, digest=str(digest), size_bytes=info.size)
        elif not self._copy(root, name, digest):
            return
        self._run.add("copied")
        self._run.add("copied_bytes", info.size)
        self._hasher.tell(name)

    def _copy(self, root: Root, name: str, digest: Digest) -> bool:
        """Copy, hash the copy, and then as `dedupe` does: lock, the file that was copied?, rename, unlock."""
        context, temp = local_of(root).context, keys.tmp(local_of(root).context.clock.token())
        try:
            with root.driver.open(keys.blob(name, digest)) as reader:
                mine = HeldFile(reader)
                if not self._write(root, reader, temp, digest, mine.info):
                    self._tell(root, name, digest)
                    return False
                done = context.replace_blob(name, digest, temp, mine.is_at, context.locks)
        except NotFound:
            return False
        finally:
            context.discard(temp)
        context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))
        return done

    def _write(self, root: Root, reader: Reader, temp: str, digest: Digest, like: Info) -> bool:
        with root.driver.create(temp) as writer:
            writer.copy(reader)
            if not self._inspector.look(root, temp, digest).good:
                return False
            writer.set_attributes(like, like.mtime_ns)
        return True

    def _tell(self, root: Root, name: str, digest: Digest) -> None:
        """The copy is not right: is it the blob?"""
        result = self._inspector.look(root, keys.blob(name, digest), digest)
        if not result.good and not result.gone:
            self._follow.report_left(root, name, [result])

    def end(self) -> None:
        for root in self._roots:
            if not (self._run.dry_run or root.read_only):
                self._first_seen[root.label].save()


def _is_pooled(root: Root, digest: Digest, info: Info) -> bool:
    return same_file(local_of(root).context.stat(keys.pool(digest)), info)


def _shares_blocks(root: Root) -> bool:
    """Whether copies share their blocks (reflinks), tried with a file of one byte."""
    context = local_of(root).context
    one, other = (keys.tmp(context.clock.token()) for _ in range(2))
    try:
        with root.driver.create(one) as writer:
            writer.write([b"x"])
        with root.driver.open(one) as reader, root.driver.create(other) as writer:
            return writer.copy(reader)
    except NoSpace:
        return False
    finally:
        for name in (one, other):
            context.discard(name)
