"""`StoreProtocol` on a file system: its parts, and its verbs by the steps of docs/design/local.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from zotctl.errors import NotFound, StorageError, Unavailable, Unsupported, ZotctlError
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Generation, Info
from zotctl.storage.file_identity import same_file
from zotctl.storage.graph import AllGraphs
from zotctl.storage.local.blobs import LocalBlobs, Pool
from zotctl.storage.local.catalog import LocalCatalog
from zotctl.storage.local.context import LocalContext, settle_s
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.local.history import LocalHistory
from zotctl.storage.local.index_file import IndexFiles, adopted
from zotctl.storage.local.maintenance import LocalMaintenance
from zotctl.storage.local.reserve import Reserve
from zotctl.storage.local.trash import Trash
from zotctl.storage.local.uploads import LocalUploads
from zotctl.storage.locks import Held
from zotctl.storage.protocol import Change, Outcome, Sighting, StoreProtocol, Transaction, no_answer

if TYPE_CHECKING:
    from zotctl.storage.root import Root

T = TypeVar("T")

WITNESSING_REPOSITORIES = 100
"""Repositories, those read last, of which one shows that a directory in the place of a root has the same tree."""

log = logging.getLogger("zotctl.storage")


class LocalTransaction:
    """What a change may do under the lock of its repository."""

    def __init__(self, protocol: LocalProtocol, held: Held) -> None:
        self._protocol, self._held = protocol, held

    @property
    def name(self) -> str:
        """The repository."""
        return self._held.name

    def require(self, digest: Digest) -> Info:
        """Its blob, with the trash listed afresh."""
        return self._protocol.blobs.find(self._held.name, digest, fresh=True)

    def publish_manifest(self, digest: Digest, staged: str) -> None:
        """Link the staged file to its name, flushed."""
        if self._protocol.context.stat(staged) is None:
            self.require(digest)  # renamed into its place in an earlier round of this commit
            return
        self._protocol.blobs.publish(self._held.name, digest, staged, self._held)


class LocalProtocol(StoreProtocol):
    """One root directory. Its parts are open to the jobs, which take the same steps. Safe between threads.

    `marker` is the key that shows that the storage is there: its `version` file. "" is for a read-only directory
    without one: then the directory itself must be the one of the start, or hold the repositories that were read.
    """

    kind = "local"
    may_truncate = True
    index_costs_request = False
    indexes: IndexFiles
    blobs: LocalBlobs
    uploads: LocalUploads
    catalog: LocalCatalog
    history: LocalHistory
    maintenance: LocalMaintenance

    def __init__(self, context: LocalContext, min_free: int | None = None, *, marker: str = keys.VERSION) -> None:
        self.context, self.marker = context, marker
        self.label, self.driver, self.clock = context.driver.label, context.driver, context.clock
        self._first = None if marker else context.driver.stat("")
        self.history = LocalHistory(context)
        self.graphs = AllGraphs(self)
        self.catalog = LocalCatalog(context.driver, context.clock)
        self.damaged = DamagedFiles(context)
        self.trash = Trash(context)
        self.pool = Pool(context, self.damaged)
        self.reserve = Reserve(context, min_free)
        context.make_room = self.reserve.release
        self.blobs = LocalBlobs(context, self.trash, self.pool, self.damaged)
        self.indexes = IndexFiles(context, self.reserve)
        self.uploads = LocalUploads(context, self.blobs, self.reserve)
        self.maintenance = LocalMaintenance(self)
        self._untaken: dict[str, float] = {}
        """Since when late writes of a repository can't be merged, which was logged then."""

    def state(self) -> StorageError | None:
        """None: `marker` is there. Unavailable, or why it can't be read, else."""
        try:
            info = self.driver.stat(self.marker)
        except StorageError as error:
            return no_answer(self.label, error)
        if self._first is None or same_file(info, self._first):
            return None
        if not (info.is_dir and self._has_what_was_served()):
            return Unavailable(f"the storage root {self.label} is away: another directory is in its place")
        self._first = info
        return None

    def _has_what_was_served(self) -> bool:
        """A share that was mounted again has another device, a tree that was replaced another inode. An empty mount
        point, or what lies below it, has none of the repositories that were read here. Before any was read, every
        directory that is not empty counts, as at the start."""
        names = self.indexes.served(WITNESSING_REPOSITORIES)
        try:
            return any(map(self._is_layout, names)) if names else bool(self.driver.scan(""))
        except StorageError:
            return False

    def _is_layout(self, name: str) -> bool:
        return all(self.context.stat(key) is not None for key in (keys.layout(name), keys.index(name)))

    def sighting(self, name: str, digest: Digest, size: int, index: Generation) -> Sighting | None:
        """A file that is marked as damaged gets one more link, or loses its name. A mark that is half made is a link
        too, in whose place the other comes in the same tick: what was changed just now is not remembered."""
        now = self.now()
        info = self.blobs.find(name, digest)
        if info.size != size or now - info.ctime_ns / 1e9 <= settle_s(info):
            return None
        return Sighting(self.driver, (keys.index(name), index), (keys.blob(name, digest), info))

    def now(self) -> float:
        """By the file system's clock, as well as it is known: see `StorageClock`."""
        return self.context.storage_clock.now()

    def owns(self, name: str) -> bool:
        """Not if it is a link, another mount or another store: see `LocalContext.owns`."""
        return self.context.owns(name)

    def on_conflict(self, told: Callable[[], None]) -> None:
        """`told` is called when a foreign tool came between a read and a swap."""
        self.context.conflict = told

    def maintain(self) -> None:
        """Merge late writes of foreign tools, put back each index.json that a commit has taken away and died, and make
        the reserve again."""
        self.merge_late_writes()
        for name in self.indexes.unfinished():
            try:
                self._finish_swap(name)
            except ZotctlError as error:
                log.warning(f"{name}: index.json can't be put back: {error.message}")
        self.reserve.keep()

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Between the workers of this server; every other process waits for the lock alone."""
        return self.context.turn(name)

    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        """Under one lock, by one swap; then heal other repositories and merge late writes, without the lock."""
        outcomes = self.indexes.commit(name, changes, self._transaction)
        self.blobs.healing.heal_waiting()
        self.merge_late_writes(name)
        return outcomes

    def make_whole(self, name: str) -> None:
        """Without this, what is pushed next would be content of a layout that has lost its index.json."""
        if self.context.stat(keys.layout(name)) is not None and self.owns(name):
            self.indexes.commit(name, [], self._transaction)

    def merge_late_writes(self, name: str | None = None) -> None:
        """Merge what foreign tools wrote into an index.json that they had opened before our rename: of one repository
        (a commit waits for no other lock), or of all. Never raises: the commit before it is done. What can't be merged
        now, as on a full disk, is merged the next time, except what was removed here since.
        """
        for written, rows in self.indexes.late_writes(name):
            since = self._untaken.get(written)
            now = self.now()
            try:
                self.driver.stat(keys.index(written))
                gone = self.history.removed_since(written, since) if since is not None else set[str]()
                rows = [row for row in rows if not {row.tag, row.alias, row.digest} & gone]
                self.indexes.commit(written, [adopted(rows)], self._transaction)
                self._untaken.pop(written, None)
            except ZotctlError as error:
                if is_gone := isinstance(error, NotFound):
                    self._untaken.pop(written, None)
                else:
                    self._untaken.setdefault(written, now)
                    self.indexes.put_back(written, rows)
                if is_gone or since is None:
                    tags = [row.tag or row.alias or row.digest for row in rows]
                    log.warning(f"{written}: {tags}, written by another program, can't be taken over: {error.message}")

    def take_over(self, name: str) -> None:
        """Before a collection, take over an index.json of another program that a process left when it died, and put
        ours back if a commit has taken it away. Raises IndexMissing if that can't be done."""
        self._finish_swap(name)
        try:
            unmerged = self.indexes.unmerged(name)
        except NotFound:
            return
        if unmerged and self.owns(name):
            self.indexes.take_over(name, self._transaction, self.history.removed_since)

    def _finish_swap(self, name: str) -> None:
        """By a commit that changes nothing."""
        if self.indexes.is_missing(name) and self.owns(name):
            self.indexes.commit(name, [], self._transaction)

    def _transaction(self, held: Held) -> Transaction:
        return LocalTransaction(self, held)

    def stage(self, body: bytes) -> str:
        """A manifest in `tmp/`, flushed with `commit` and without: index.json must never lead to a truncated
        manifest."""
        staged = keys.tmp(self.context.clock.token())
        try:
            with self.driver.create(staged) as writer:
                writer.write([body])
                if not self.context.durable.postponed:
                    writer.sync()
        except BaseException:
            self.context.discard(staged)
            raise
        return staged

    def unstage(self, staged: str) -> None:
        """Remove the staged name."""
        self.context.discard(staged)

    def delete(self, name: str, digest: Digest, check: Change) -> None:
        """Under the lock: check, flush index.json, then move the blob to the trash. NotFound."""
        with self.context.locks.hold(name) as held:
            self._require_name(name, digest)
            check(LocalTransaction(self, held), self.indexes.read(name).index)
            self.context.durable.flush_index(name)
            self.trash.delete(held, digest)
        self.pool.release(digest)  # on a full disk the blob is unlinked, and the pool must not keep its bytes
        self.context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))

    def _require_name(self, name: str, digest: Digest) -> None:
        """Require that the blob is there, even damaged or in the trash. Raises NotFound."""
        try:
            self.driver.stat(keys.blob(name, digest))
        except NotFound:
            if not self.trash.restore(name, digest, fresh=True):
                raise

    def close(self) -> None:
        """Merge late writes, and close the files that were watched."""
        self.merge_late_writes()
        self.indexes.close()


def local_of(root: Root) -> LocalProtocol:
    """The protocol of a directory, for its own jobs. Raises Unsupported for a root of another kind."""
    if not isinstance(root.protocol, LocalProtocol):
        raise Unsupported(f"{root.label} is no directory: this can't be done there")
    return root.protocol
