"""Each safeguard of the local protocol (docs/design/proof.md#who-guards-the-guards) switched off, in tests only: what
is put in the place of a method. `limit`: within so many schedules of its scenarios the simulation has to see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

from tests.simulation.playing import Off
from zotctl.errors import CannotLink, Exists, NotFound
from zotctl.jobs import gc as collector_module
from zotctl.jobs.ages import Ages
from zotctl.jobs.check.hashing import HashResult, Inspector, Looked
from zotctl.jobs.local import gc as gc_module
from zotctl.jobs.local.gc import Collection
from zotctl.oci.digest import Digest
from zotctl.storage import Repository, history, keys, repository
from zotctl.storage.clock import AHEAD_TOLERANCE_S
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import HeldFile, file_number
from zotctl.storage.index import Index
from zotctl.storage.local import index_file
from zotctl.storage.local.blobs import Copy, Pool, PoolEntry
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.local.history import Here, LocalHistory
from zotctl.storage.local.index_file import IndexFiles
from zotctl.storage.local.protocol import LocalProtocol, LocalTransaction
from zotctl.storage.local.trash import Trash
from zotctl.storage.locks import Held
from zotctl.storage.root import Root


class _NoLock:
    def current(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _not_held(context: LocalContext, name: str) -> Held:
    return Held(name, _NoLock(), context.clock)


def _trash_without_lock(self: Collection, batch: Sequence[Digest], gone: list[Digest]) -> None:
    try:
        marks = self._marker.now()
    except NotFound:
        return
    left = [digest for digest in batch if digest not in marks.reachable]
    if not marks.faults:
        self._local.trash.add(_not_held(self._local.context, self._name), self._run_name, left)


def _trash_by_the_first_marks(self: Collection, batch: Sequence[Digest], gone: list[Digest]) -> None:
    with self._local.context.locks.hold(self._name) as held:
        marks = self._marker._marks
        assert marks is not None
        left = [digest for digest in batch if digest not in marks.reachable]
        self._local.trash.add(held, self._run_name, left)


def _require_what_is_in_place(self: LocalTransaction, digest: Digest) -> Any:
    blobs = self._protocol.blobs
    return blobs._sound(digest, self._protocol.context.driver.stat(keys.blob(self.name, digest)))


_require, _put_manifest = Repository._require, Repository.put_manifest


def _check_before_the_lock(self: Repository, manifest: Any, body: bytes, tags: Sequence[str] = ()) -> None:
    protocol: Any = self.root.protocol
    tx: Any = SimpleNamespace(require=lambda digest: protocol.blobs.find(self.name, digest, fresh=True))
    _require(self, tx, self._snapshot.index if self._snapshot else Index({}, ()), manifest, {})
    _put_manifest(self, manifest, body, tags)


def _commit_without_lock(self: IndexFiles, name: str, changes: Any, transaction: Callable[[Held], Any]) -> Any:
    held = _not_held(self._context, name)
    while (outcomes := self._try_commit(held, changes, transaction(held))) is None:
        pass
    return outcomes


def _delete_name_first(self: Trash, held: Held, digest: Digest) -> None:
    kept = keys.trashed(self._deleted_run(), held.name, digest)
    self._context.make_dirs(keys.parent(kept))
    self._context.discard(kept)
    self._context.driver.rename(keys.blob(held.name, digest), kept)
    for run in self.runs(fresh=True):
        self._context.discard(keys.trashed(run, held.name, digest))


def _delete_over_an_older_name(self: Trash, held: Held, digest: Digest) -> None:
    for run in self.runs(fresh=True):
        self._context.discard(keys.trashed(run, held.name, digest))
    kept = keys.trashed(self._deleted_run(), held.name, digest)
    self._context.make_dirs(keys.parent(kept))
    self._context.driver.rename(keys.blob(held.name, digest), kept)


def _swap_unseen(
    self: LocalContext, name: str, digest: Digest, temp: str, still: Callable[..., bool], locks: Any, held: Any = None
) -> bool:
    with locks.hold(name):
        still(self.driver.stat(temp))
        self.driver.rename(temp, keys.blob(name, digest))
    return True


def _swap_without_lock(
    self: LocalContext, name: str, digest: Digest, temp: str, still: Callable[..., bool], locks: Any, held: Any = None
) -> bool:
    now = self.stat(keys.blob(name, digest))
    if now is None or not still(now):
        return False
    self.driver.rename(temp, keys.blob(name, digest))
    return True


class _LikeAny:
    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


_look = IndexFiles._now


def _look_and_forget(self: IndexFiles, name: str) -> Any:
    _look(self, name)
    return SimpleNamespace(generation=_LikeAny())


def _nothing_late(self: IndexFiles, name: str | None = None) -> list[Any]:
    return []


def _came_out_unseen(self: IndexFiles, held: Held, transaction: Any) -> None:
    self._came_out.clear()


def _renamed_over(self: IndexFiles, name: str, swap: keys.Swap) -> None:
    self._context.driver.rename(swap.key(name), keys.index(name))


def _only_what_is_new(before: Index, after: Index) -> Any:
    return index_file.adopted(list(after.rows()), left_over=True)


def _nothing_is_taken_over(self: LocalProtocol, name: str) -> None:
    return None


def _linked_by_name(self: Pool, digest: Digest, found: PoolEntry, target: str, *, flush: bool) -> bool:
    try:
        if found.copy is Copy.GOOD:
            self._context.driver.link(keys.pool(digest), target)
    except (NotFound, CannotLink):
        return False
    return found.copy is Copy.GOOD


def _linked_while_it_is_there(self: Pool, digest: Digest, found: PoolEntry, target: str, *, flush: bool) -> bool:
    if found.copy is not Copy.GOOD or found.held is None:
        return False
    with self._context.own_name(keys.pool(digest), found.held) as name:
        self._context.driver.link(name, target)
    return True


def _good_unread(self: Inspector, held: HeldFile, reader: Reader, root: Root, name: str, digest: Digest) -> HashResult:
    return HashResult(digest, held.info, digest)


def _stands_by_number_and_time(self: Inspector, root: Root, name: str, result: HashResult, now: Info) -> bool:
    return True


def _let_go(self: Inspector, root: Root, name: str, result: HashResult) -> Any:
    """Looked at again, and not held while it is marked."""
    found = root.stat(keys.blob(name, result.digest))
    same = found is not None and file_number(found) == file_number(result.info or found)
    held = HeldFile.unopened(found) if found is not None and same else None
    return nullcontext(Looked(result if held else HashResult(result.digest), held))


def _appended_unseen(self: LocalHistory, name: str, lines: bytes, *, wait: bool = True) -> None:
    with self._open(keys.history(name), wait) as writer:
        writer.write([lines])


def _compacted_without_a_last_look(
    self: LocalHistory, name: str, here: Callable[[], Here | None], recent: int
) -> None:  # fmt: skip
    key = keys.history(name)
    with self._context.driver.open(key) as old:
        body = old.read_at(0, old.info().size)
        kept = history.lines_of(history.condensed(history.events_of(body), *(here() or ((), ()))))
        if 2 * len(kept) <= len(body):
            self._context.replace(key, [kept])


_told = history._told


def _nothing_told_of_the_one_before(event: Any) -> Any:
    return _told(event | {"tags": dict.fromkeys(event.get("tags") or {})})


def _believed(self: LocalContext, one: Reader, other: str) -> bool:
    return self.stat(other) is not None


_runs = Trash.runs


def _runs_from_memory(self: Trash, *, fresh: bool = False) -> list[str]:
    return _runs(self) if self._runs[0] is None else self._runs[1]


def _mark_whatever_is_there(self: DamagedFiles, digest: Digest, key: str, damaged: HeldFile) -> bool:
    with suppress(NotFound):
        self._context.link_into(key, f"{keys.damaged_links(digest)}/{self._context.clock.token()}")
    return True


def _nothing(*arguments: Any, **more: Any) -> None:
    return None


def _ours(self: LocalContext, name: str) -> bool:
    return True


def _back_into_any(self: Trash, run: str, name: str, digest: Digest) -> bool:
    with suppress(NotFound, Exists):
        self._context.link_into(keys.trashed(run, name, digest), keys.blob(name, digest))
    return self._context.stat(keys.blob(name, digest)) is not None


def _ahead_of_when_it_began(self: Ages, key: str, *stamps: float) -> float:
    if stamps[0] - self.now <= AHEAD_TOLERANCE_S:
        return stamps[0]
    self._driver.touch(key, int(self.now * 1e9))
    return self.now


def _doubts_nothing(*arguments: Any, **more: Any) -> None:
    return None


OFF: dict[str, Off] = {
    "lock in trash": Off([(Collection, "_trash_batch", _trash_without_lock)], ("push gc", "push gc gc"), 500),
    "second look at the index under it": Off(
        [(Collection, "_trash_batch", _trash_by_the_first_marks)], ("push gc", "push gc gc"), 100
    ),
    "link back from the trash in manifest PUT": Off(
        [(LocalTransaction, "require", _require_what_is_in_place)], ("push gc", "push gc gc"), 100
    ),
    "a manifest PUT lists the trash anew": Off([(Trash, "runs", _runs_from_memory)], ("wait", "push gc gc"), 100),
    "trash wait": Off([(gc_module, "_is_due", lambda *_: True)], ("wait", "foreign purge"), 100),
    "re-check before purge": Off([(gc_module, "_needed", lambda marker: set())], ("foreign purge",), 100),
    "manifest checks under the lock": Off(
        [(Repository, "put_manifest", _check_before_the_lock), (Repository, "_require", _nothing)],
        ("push gc", "delete blob"),
        300,
    ),
    "lock on index.json": Off([(IndexFiles, "commit", _commit_without_lock)], ("tags",), 100),
    "trash first, then name, in DELETE blob": Off([(Trash, "delete", _delete_name_first)], ("delete blob",), 1500),
    "an older name goes before a deletion's rename": Off(
        [(Trash, "delete", _delete_over_an_older_name)], ("regret",), 100
    ),
    "dedupe: re-check": Off([(LocalContext, "replace_blob", _swap_unseen)], ("dedupe delete", "dedupe"), 1500),
    "dedupe: re-check under the lock": Off(
        [(LocalContext, "replace_blob", _swap_without_lock)], ("dedupe delete", "dedupe"), 1500
    ),
    "heal: re-check": Off([(LocalContext, "replace_blob", _swap_unseen)], ("scrub delete",), 300),
    "compare before link": Off([(LocalContext, "same_bytes", _believed)], ("bad pool",), 100),
    "generation: look before the rename": Off([(IndexFiles, "_now", _look_and_forget)], ("foreign commit",), 100),
    "generation: look after the rename": Off([(IndexFiles, "late_writes", _nothing_late)], ("foreign commit",), 300),
    "what comes out of the swap is taken in": Off(
        [(IndexFiles, "_take_in", _came_out_unseen)], ("foreign rename commit",), 300
    ),
    "index.json is swapped, not renamed over": Off(
        [(IndexFiles, "_give_name", _renamed_over)], ("foreign rename commit",), 300
    ),
    "a tag that a tool moved by a rename is moved": Off(
        [(index_file, "_merged", _only_what_is_new)], ("foreign rename commit",), 500
    ),
    "gc takes in what a dead process had in its hands": Off(
        [(LocalProtocol, "take_over", _nothing_is_taken_over)], ("foreign rename crash",), 1000
    ),
    "the pool's copy is linked that was compared": Off([(Pool, "link", _linked_by_name)], ("pool swap",), 300),
    "a pool entry may go before it is linked": Off([(Pool, "link", _linked_while_it_is_there)], ("pool sweep",), 300),
    "dedupe reads what it links": Off([(Inspector, "_read", _good_unread)], ("rotten copy",), 100),
    "a result is void when anything has happened to the file": Off(
        [(Inspector, "_stands", _stands_by_number_and_time)], ("replaced",), 500
    ),
    "a result's file is held, not known by its number": Off([(Inspector, "again", _let_go)], ("replaced",), 500),
    "a link out of the store is not ours": Off([(LocalContext, "owns", _ours)], ("linked",), 100),
    "nothing comes back from the trash into a link": Off([(Trash, "restore_from", _back_into_any)], ("linked",), 100),
    "what is written while a run goes on is not ahead": Off(
        [(Ages, "_first", _ahead_of_when_it_began)], ("clocks",), 1500
    ),
    "a clock that is far ahead is doubted": Off(
        [(collector_module, "require_clock", _doubts_nothing)], ("clocks",), 300
    ),
    "an event is written again that went to an older history": Off(
        [(LocalHistory, "_append", _appended_unseen)], ("compaction",), 1000
    ),
    "what came while a history was compacted is taken over": Off(
        [(LocalHistory, "compact", _compacted_without_a_last_look)], ("compaction",), 1000
    ),
    "a compacted history knows who lost a tag": Off(
        [(history, "_told", _nothing_told_of_the_one_before)], ("compaction",), 300
    ),
    "a child without a row brings what it needs": Off([(repository, "_require_kind", _nothing)], ("index gc",), 1000),
    "only the inode that was compared is marked": Off(
        [(DamagedFiles, "mark", _mark_whatever_is_there)], ("bad pool", "scrub"), 500
    ),
}
"""The names are those of the table; the last two are what this simulation has found to be missing."""
