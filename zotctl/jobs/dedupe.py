"""Deduplication of a store that is there already, whoever wrote it (local.md, "Deduplication").

Only where two files have one digest is anything read, and then both are hashed before one takes the place of
the other: a damaged blob is never spread. What has the pool's inode already is done, so a second run is short
and a killed one is simply run again. Never across roots.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from zotctl.errors import CannotLink, Exists, NotFound, StorageError
from zotctl.jobs.consequences import Consequences
from zotctl.jobs.damage import Inspector, Verdict
from zotctl.jobs.dedupe_bucket import dedupe_bucket, undo_bucket
from zotctl.jobs.examination import Examined
from zotctl.jobs.hashing import Hasher, Workers, cores
from zotctl.jobs.run import Run, TimeUp
from zotctl.jobs.scrub_state import FirstSeen
from zotctl.jobs.undo import undo
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Info
from zotctl.storage.local.heal import swap
from zotctl.storage.root import Root

REMEMBERED = 100_000
"""Copies in the pool whose verdict is remembered, for the next repository that has the same content."""


@dataclass(frozen=True)
class DedupeOptions:
    """`undo`: give each repository its own copy again. `workers`: threads; one for each core by default."""

    undo: bool = False
    workers: int | None = None


def dedupe(run: Run, options: DedupeOptions | None = None) -> None:
    """Store each content once for each root. Raises HeldElsewhere while another run does, TimeUp; for `undo`
    NoSpace before anything is copied, where there is not the room for all."""
    options = options or DedupeOptions()
    run.refuse_read_only()
    with run.leases():
        for root in run.roots:
            if root.is_bucket and not root.read_only:
                with run.guarded(root.label):
                    (undo_bucket if options.undo else dedupe_bucket)(run, root)
        if options.undo:
            undo(run)
        else:
            _Dedupe(run, options.workers or cores()).all()


class _Pair(NamedTuple):
    """A blob, and the pool's copy of the same digest, which is another file."""

    root: Root
    name: str
    digest: Digest
    info: Info
    pooled: Info

    @property
    def blob(self) -> str:
        return keys.blob(self.name, self.digest)


class _Result(NamedTuple):
    """What became of a pair: linked, moved (somebody was faster), unlike, damaged, pool_damaged, failed."""

    outcome: str
    saved: int = 0
    verdict: Verdict | None = None
    error: StorageError | None = None


class _Dedupe:
    def __init__(self, run: Run, workers: int) -> None:
        self._run, self._hasher, self._workers = run, Hasher(run), Workers(workers)
        self._inspector = Inspector(run, self._hasher)
        self._first_seen = {root.label: FirstSeen(root, run.clock) for root in run.roots}
        self._follow = Consequences(run, self._inspector, self._first_seen, None, quick=False)
        self._pooled: Lru[tuple[str, int, Digest], Verdict] = Lru(REMEMBERED)
        self._tally: dict[tuple[str, str], tuple[int, int]] = {}
        self._plan = _Plan(run)

    def all(self) -> None:
        try:
            for root, name in self._repositories():
                self._run.check()
                with self._run.guarded(name):
                    self._repository(root, name)
            self._workers.drain()
        except TimeUp:
            self._workers.drain()
            raise
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._end()

    def _repositories(self) -> Iterator[tuple[Root, str]]:
        able = {root.label for root in self._run.roots if not root.is_bucket and self._is_able(root)}
        for root, name in self._run.repositories():
            if root.label in able and root.owns(name):
                yield root, name

    def _is_able(self, root: Root) -> bool:
        if not root.driver.capabilities.links:
            self._run.error(root.label, CannotLink(f"{root.label} has no hard links, so nothing can be shared there"))
        return root.driver.capabilities.links

    def _repository(self, root: Root, name: str) -> None:
        self._run.add("repositories")
        known_bad, left = set(root.local.bad.digests()), list[Verdict]()
        for digest, info in Examined(root, name).blobs():
            self._run.check()
            self._run.add("blobs")
            if is_stub(digest, info.size) or (digest in known_bad and root.local.bad.holds(digest, info)):
                left.append(Verdict(digest, info))
            else:
                self._consider(root, name, digest, info)
        self._follow.of_left(root, name, left)

    def _consider(self, root: Root, name: str, digest: Digest, info: Info) -> None:
        pooled = self._pool(root, name, digest, info)
        if pooled is None or _same(pooled, info):
            self._run.add("shared", int(info.nlink > 2))
        elif not _alike(pooled, info):
            # An inode has one owner, one group, one mode.
            self._run.add("left_unlike")
            self._run.add("left_unlike_bytes", info.size)
        elif self._run.dry_run:
            self._plan.link(name, digest, info)
        else:
            pair = _Pair(root, name, digest, info, pooled)
            self._workers.put(partial(self._merge, pair), partial(self._done, pair))

    def _pool(self, root: Root, name: str, digest: Digest, info: Info) -> Info | None:
        """What others are linked to. None: nothing yet, so this blob is offered."""
        pooled = root.local.site.stat(keys.pool(digest))
        if self._run.dry_run:
            return pooled or self._plan.first(root, digest, info)
        if pooled is None:
            self._offer(root, name, digest)
        elif info.nlink > pooled.nlink and self._is_full(root, name, digest):
            return info
        return pooled

    def _offer(self, root: Root, name: str, digest: Digest) -> None:
        """A name in the pool. It is a hint that nobody believes unread, so this blob need not be read now."""
        with suppress(Exists, NotFound, CannotLink):
            root.local.site.link_into(keys.blob(name, digest), keys.pool(digest))

    def _is_full(self, root: Root, name: str, digest: Digest) -> bool:
        """Has its inode all the names that it can have? Then it was the pool's once, and all is well."""
        site, temp = root.local.site, keys.tmp(root.local.site.clock.token())
        try:
            site.driver.link(keys.blob(name, digest), temp)
        except CannotLink:
            return True
        finally:
            site.discard(temp)
        return False

    def _replace_pooled(self, root: Root, name: str, digest: Digest, info: Info) -> bool:
        """Offer this blob, which was hashed, in place of a copy that takes no more names."""
        site, temp = root.local.site, keys.tmp(root.local.site.clock.token())
        try:
            site.driver.link(keys.blob(name, digest), temp)
            if not _same(site.stat(temp), info):
                return False
            site.driver.rename(temp, keys.pool(digest))
        except (NotFound, CannotLink):
            return False
        finally:
            site.discard(temp)
        return True

    # -- in a worker ----------------------------------------------------------------------------

    def _merge(self, pair: _Pair) -> _Result:
        try:
            mine = self._inspector.look(pair.root, pair.blob, pair.digest)
            if not mine.good:
                return _Result("moved" if mine.gone else "damaged", verdict=mine)
            pooled = self._look_at_pooled(pair)
            if not pooled.good:
                return _Result("moved" if pooled.gone else "pool_damaged", verdict=pooled)
            if not self._have_like_labels(pair):
                return _Result("unlike")
            return self._link(pair, mine, pooled)
        except NotFound:
            return _Result("moved")
        except StorageError as error:
            return _Result("failed", error=error)

    def _look_at_pooled(self, pair: _Pair) -> Verdict:
        """Hashed once in a run, however many repositories have other copies."""
        key = (pair.root.label, pair.pooled.ino, pair.digest)
        known = self._pooled.get(key)
        if known is None:
            known = self._inspector.look(pair.root, keys.pool(pair.digest), pair.digest)
            if known.is_about(pair.pooled):
                self._pooled.put(key, known)
        return known

    def _have_like_labels(self, pair: _Pair) -> bool:
        driver = pair.root.driver
        with driver.open(pair.blob) as mine, driver.open(keys.pool(pair.digest)) as pooled:
            return mine.labels() == pooled.labels()

    def _link(self, pair: _Pair, mine: Verdict, pooled: Verdict) -> _Result:
        """link(pool, tmp), lock, still the inode that was hashed?, rename, unlock."""
        site, temp = pair.root.local.site, keys.tmp(pair.root.local.site.clock.token())
        replaced: list[Info] = []

        def still(now: Info) -> bool:
            replaced.append(now)
            return _unchanged(mine.info, now)

        try:
            site.driver.link(keys.pool(pair.digest), temp)
            if not pooled.is_about(site.stat(temp)):
                return _Result("moved")
            self._flush(pair)
            if not swap(site, site.locks, pair.name, pair.digest, temp, still):
                return _Result("moved")
        except CannotLink:
            # EMLINK: from here on the pool has the second inode.
            return _Result("full" if self._replace_pooled(pair.root, pair.name, pair.digest, pair.info) else "moved")
        finally:
            site.discard(temp)
        site.flush_names(keys.blobs_of(pair.name, pair.digest.algorithm))
        return _Result("linked", saved=replaced[0].size if replaced[0].nlink == 1 else 0)

    def _flush(self, pair: _Pair) -> None:
        """[commit] What takes the place of flushed bytes is flushed; who wrote it may not have done so."""
        if pair.root.local.site.commit:
            with pair.root.driver.append(keys.pool(pair.digest)) as writer:
                writer.sync()

    # -- with the result ------------------------------------------------------------------------

    def _done(self, pair: _Pair, result: _Result) -> None:
        self._hasher.tell(pair.name)
        with self._run.guarded(pair.name):
            if result.outcome == "linked":
                self._count(pair, result.saved)
            elif result.outcome == "damaged" and result.verdict:
                self._follow.of_left(pair.root, pair.name, [result.verdict])
            elif result.outcome == "pool_damaged" and result.verdict:
                self._throw_out(pair, result.verdict)
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

    def _throw_out(self, pair: _Pair, verdict: Verdict) -> None:
        """The pool's copy is damaged: told for each repository that has it. The good one is offered instead."""
        for name in pair.root.catalog.walk():
            if verdict.is_about(pair.root.local.site.stat(keys.blob(name, pair.digest))):
                self._follow.of_left(pair.root, name, [verdict])
        self._drop_from_pool(pair, verdict)
        if (now := pair.root.local.site.stat(pair.blob)) is not None:
            self._consider(pair.root, pair.name, pair.digest, now)

    def _drop_from_pool(self, pair: _Pair, verdict: Verdict) -> None:
        if verdict.info is not None:
            pair.root.local.upkeep.drop_from_pool(pair.digest, verdict.info)

    def _end(self) -> None:
        for (_, name), (linked, saved) in self._tally.items():
            self._run.item(action="linked", repository=name, blobs=linked, saved_bytes=saved)
        for root in self._run.roots:
            if not (self._run.dry_run or root.read_only or root.is_bucket):
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
        inode = (info.ino, info.dev)
        self._left[inode] = self._left.get(inode, info.nlink) - 1
        saved = 0 if self._left[inode] else info.size
        self._run.item(action="link", repository=name, digest=str(digest), size_bytes=info.size, saved_bytes=saved)
        self._run.add("linked")
        self._run.add("saved_bytes", saved)


def _same(one: Info | None, other: Info) -> bool:
    return one is not None and (one.ino, one.dev) == (other.ino, other.dev)


def _unchanged(before: Info | None, now: Info) -> bool:
    return before is not None and _same(before, now) and (before.size, before.mtime_ns) == (now.size, now.mtime_ns)


def _alike(one: Info, other: Info) -> bool:
    return (one.uid, one.gid, one.mode, one.dev) == (other.uid, other.gid, other.mode, other.dev)
