"""Deduplication undone: each repository gets files of its own. Blocks are shared where the file system can
(reflinks), otherwise there must be room for all copies before the first is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from zotctl.errors import NoSpace, NotFound, StorageError
from zotctl.jobs.check.damage import HashResult, Inspector
from zotctl.jobs.check.hashing import Hasher
from zotctl.jobs.check.outcome import Outcome
from zotctl.jobs.check.repository import RepositoryCheck
from zotctl.jobs.check.scrub_state import FirstSeen
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Deduplicate
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import HeldFile, file_number, same_file
from zotctl.storage.local.heal import swap
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root


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
        self._run, self._roots, self._inspector = run, roots, Inspector(run, Hasher(run))
        self._first_seen = {root.label: FirstSeen(root, run.clock) for root in roots}
        self._follow = Outcome(run, self._inspector, self._first_seen, None, quick=False)
        self._left: dict[tuple[int, int], int] = {}

    # -- room -----------------------------------------------------------------------------------

    def require_room(self, root: Root) -> None:
        """Raises NoSpace, with the figures."""
        needed, free = self._needed(root), root.driver.space().free
        if needed <= free or _shares_blocks(root):
            return
        raise NoSpace(f"{root.label}: copies of its own for each repository take {needed} bytes, {free} are free")

    def _needed(self, root: Root) -> int:
        """All names but one of each inode. What can't be looked at gets no copies, and is told when its turn comes."""
        total = 0.0
        for name in filter(self._run.covers, root.catalog.everything()):
            with suppress(StorageError):
                for digest, info in RepositoryCheck(root, name).blobs():
                    names = info.nlink - _is_pooled(root, digest, info)
                    total += info.size * (names - 1) / max(1, names)
        return int(total)

    # -- one repository -------------------------------------------------------------------------

    def separate(self, root: Root, name: str) -> None:
        self._run.add("repositories")
        left = list[HashResult]()
        for digest, info in RepositoryCheck(root, name).blobs():
            self._run.check()
            if is_stub(digest, info.size) or local_of(root).damaged.has(digest, info):
                left.append(HashResult(digest, info))
            elif self._is_shared(root, digest, info):
                self._give_own(root, name, digest, info)
        self._follow.of_left(root, name, left)

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
        self._run.progress(self._run.report.summary["copied_bytes"], None, "bytes", name)

    def _copy(self, root: Root, name: str, digest: Digest) -> bool:
        """Copy, hash the copy, and then as `dedupe` does: lock, the file that was copied?, rename, unlock."""
        context, temp = local_of(root).context, keys.tmp(local_of(root).context.clock.token())
        try:
            with root.driver.open(keys.blob(name, digest)) as reader:
                mine = HeldFile(reader)
                if not self._write(root, reader, temp, digest, mine.info):
                    self._tell(root, name, digest)
                    return False
                done = swap(context, context.locks, name, digest, temp, mine.is_at)
        except NotFound:
            return False
        finally:
            context.discard(temp)
        context.flush_names(keys.blobs_of(name, digest.algorithm))
        return done

    def _write(self, root: Root, reader: Reader, temp: str, digest: Digest, like: Info) -> bool:
        with root.driver.create(temp) as writer:
            writer.copy(reader)
            if not self._inspector.look(root, temp, digest).good:
                return False
            writer.dress(like, like.mtime_ns)
        return True

    def _tell(self, root: Root, name: str, digest: Digest) -> None:
        """The copy is not right: is it the blob?"""
        result = self._inspector.look(root, keys.blob(name, digest), digest)
        if not result.good and not result.gone:
            self._follow.of_left(root, name, [result])

    def end(self) -> None:
        for root in self._roots:
            if not (self._run.dry_run or root.read_only):
                self._first_seen[root.label].save()


def _is_pooled(root: Root, digest: Digest, info: Info) -> bool:
    return same_file(local_of(root).context.stat(keys.pool(digest)), info)


def _shares_blocks(root: Root) -> bool:
    """Tried with a file of one byte."""
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
