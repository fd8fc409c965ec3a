"""`StoreProtocol` on a bucket: its parts, and its verbs by the steps of docs/design/bucket.md."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from zotctl.errors import LayoutInvalid, NotFound, StorageError, Unsupported
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.catalog import BucketCatalog
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.damage import DamagedObjects
from zotctl.storage.bucket.facts import recall
from zotctl.storage.bucket.history import BucketHistory
from zotctl.storage.bucket.index import IndexObjects
from zotctl.storage.bucket.intents import DeletionIntents
from zotctl.storage.bucket.maintenance import BucketMaintenance
from zotctl.storage.bucket.pool import Grants, PoolConversion, ZotStubs
from zotctl.storage.bucket.reservations import Reservations
from zotctl.storage.bucket.tree import BucketTree
from zotctl.storage.bucket.uploads.buffer import MemoryBudget
from zotctl.storage.bucket.uploads.sessions import BucketUploads
from zotctl.storage.driver import Info
from zotctl.storage.graph import AllGraphs, ManifestGraph
from zotctl.storage.index import Index
from zotctl.storage.protocol import Change, Outcome, Recalled, Snapshot, StoreProtocol, no_answer

if TYPE_CHECKING:
    from zotctl.storage.root import Root

T = TypeVar("T")

POOL_LOOK_INTERVAL_S = 30.0
"""Between two looks for a pool that another server has begun."""


class BucketTransaction:
    """What a change may do between the GET and the PUT of an index.json."""

    def __init__(self, protocol: BucketProtocol, name: str) -> None:
        self._protocol, self.name = protocol, name

    def require(self, digest: Digest) -> Info:
        """P1 to P3 for one digest, unless it is confirmed. Raises NotFound, Damaged."""
        reserved = self._protocol.reservations.reserve_all(self.name, [digest])
        if digest not in reserved and self._lies_here(digest):
            self._protocol.reservations.ensure(self.name, digest)
            reserved = self._protocol.reservations.reserve_all(self.name, [digest])
        if digest not in reserved:
            raise NotFound(f"no {digest} in {self.name}")
        return self._protocol.blobs.require_sound(self.name, digest, reserved[digest])

    def _lies_here(self, digest: Digest) -> bool:
        """Whether it is a manifest that was put so long ago that its own time stamp reserves it no more (M3)."""
        context = self._protocol.context
        return context.dedupe and context.head(keys.blob(self.name, digest)) is not None

    def publish_manifest(self, digest: Digest, staged: str) -> None:
        """M3, unless it was done before this commit (`prepare`)."""
        self._protocol.blobs.publish_manifest(self.name, digest, self._protocol._staged[staged])


class BucketProtocol(StoreProtocol):
    """One bucket, or one prefix of it. Its parts are open to the jobs, which take the same steps. Safe between
    threads."""

    kind = "bucket"
    may_truncate = False
    index_costs_request = True
    indexes: IndexObjects
    blobs: BucketBlobs
    uploads: BucketUploads
    catalog: BucketCatalog
    history: BucketHistory
    maintenance: BucketMaintenance
    driver: BucketTree

    def __init__(
        self, context: BucketContext, budget: MemoryBudget | None = None, redirect_lifetime_s: float | None = None
    ) -> None:
        """`redirect_lifetime_s`: the lifetime of the signed URL of a blob; None: clients read blobs through this
        server."""
        self.context = context
        self.label, self.clock = context.objects.label, context.clock
        self.catalog = BucketCatalog(context)
        self.damaged = DamagedObjects(context)
        self.intents = DeletionIntents(context)
        self.reservations = Reservations(context, self.intents, self._has_right)
        self.indexes = IndexObjects(context, self.reservations.note_epoch)
        self.history = BucketHistory(context, self.indexes.read)
        self.stubs = ZotStubs(context, self.catalog)
        self.blobs = BucketBlobs(
            context, self.damaged, self.stubs, self.indexes, self.reservations, self.intents, redirect_lifetime_s
        )
        self.grants = Grants(context)
        self.conversion = PoolConversion(context, self.damaged, self.reservations, self.intents)
        self.driver = BucketTree(context, self.grants, self.blobs.copy_of, self._reached)
        self.uploads = BucketUploads(context, self.blobs, budget or MemoryBudget())
        self.graphs = AllGraphs(self)
        self.maintenance = BucketMaintenance(self)
        self._staged: dict[str, bytes] = {}
        self._mutex = threading.Lock()
        self._looked = context.clock.elapsed()

    def now(self) -> float:
        """By the server's clock. Costs a request only before any other was answered."""
        return self.context.objects.date()

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Side by side in the threads of the context; without any, one after the other."""
        return self.context.each(calls)

    def read_for(self, name: str, reference: str) -> Snapshot:
        """With it comes, beside it, a look whether the manifest is there that had this name when it was read the last
        time: mostly it is the one that is wanted."""
        known = self.indexes.known(name)
        row = known.index.find(reference) if known is not None else None
        if row is None or row.digest is None or self.blobs.believes(name, row.digest):
            return self.indexes.read(name)
        found: list[Snapshot] = []
        look = partial(self.blobs.still_has, name, row.digest, row.size)
        calls: list[Callable[[], object]] = [lambda: found.append(self.indexes.read(name)), look]
        self.context.each(calls)
        return found[0]

    def recall(self, name: str, manifests: int) -> Recalled | None:
        """What is kept in `.zotctl/gc/facts/`, by a GET and a LIST; None for a repository of few manifests."""
        return recall(self.context, name, manifests)

    # -- changing -------------------------------------------------------------------------------

    def stage(self, body: bytes) -> str:
        """In the memory of this process, until M3."""
        token = self.context.clock.token()
        with self._mutex:
            self._staged[token] = body
        return token

    def unstage(self, staged: str) -> None:
        """Frees that memory."""
        with self._mutex:
            self._staged.pop(staged, None)

    def prepare(self, name: str, needs: Iterable[Digest], digest: Digest, staged: str) -> None:
        """M2 and M3 of one push, side by side with those of others: its commit then finds all reservations made."""
        needs = list(needs)
        if not needs:
            self.indexes.ensure(name)  # what is needed would have come after it; content never comes before it
        reservation = partial(self.reservations.reserve_all, name, needs, fresh=True)
        publish = partial(self.blobs.publish_manifest, name, digest, self._staged[staged])
        glance = partial(self.indexes.glance, name)
        if all(self.reservations.since(name, need) is not None for need in needs):
            steps: list[Callable[[], object]] = [reservation, publish, glance]
            self.context.each(steps)  # hardly anything is missing
        elif reservation().keys() >= set(needs):
            self.context.each([publish, glance])

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Between the workers of this server; other servers lose their swap and begin again."""
        return self.context.turn(name)

    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        """M1 to M4. Raises Busy if other processes win the swap for `COMMIT_TIMEOUT_S`."""
        return self.indexes.commit(name, changes, BucketTransaction(self, name))

    def delete(self, name: str, digest: Digest, check: Change) -> None:
        """As docs/design/bucket.md#deleting-by-a-client has it. Raises NotFound, Busy, and what `check` raises."""
        self.blobs.delete(name, digest, lambda: self._void_reservations(name, check))

    def _void_reservations(self, name: str, check: Change) -> None:
        """Check that nothing needs the blob, and fence: a writer that is about to change that starts again."""
        done = False
        while not done:
            try:
                before = self.indexes.read(name)
            except NotFound:
                return  # not even an index: no writer can commit on what was there
            check(BucketTransaction(self, name), before.index)
            done = self.indexes.touch(name, before)

    def _has_right(self, name: str, digest: Digest) -> bool:
        """May a repository without a reservation read this digest? Yes if its manifests reach it or, without a pool, if
        it lies there."""
        if not self.context.dedupe and self.context.head(keys.blob(name, digest)) is not None:
            return True
        if not self.context.pooled:
            return False
        return bool(self._ask(name, lambda index, graph: digest in index or graph.reaches(digest)))

    def _reached(self, name: str) -> Set[str]:
        """What the manifests of a repository reach; nothing if its layout can't be read."""
        return self._ask(name, lambda _, graph: graph.reachable()) or set()

    def _ask(self, name: str, question: Callable[[Index, ManifestGraph], T]) -> T | None:
        """The answer to a question about the graph; None: there is no readable layout."""
        try:
            index = self.indexes.read_any(name).index
        except (NotFound, LayoutInvalid):
            return None
        with self.graphs.of(name).at(index) as graph:
            return question(index, graph)

    # -- the root -------------------------------------------------------------------------------

    def state(self) -> StorageError | None:
        """One GET, since a HEAD doesn't tell a missing bucket from a missing object."""
        try:
            (self.context.direct or self.context.objects).get(keys.VERSION)
        except NotFound:
            return None
        except StorageError as error:
            return no_answer(self.label, error)
        return None

    def on_conflict(self, told: Callable[[], None]) -> None:
        """`told` is called for each swap of an index.json that another process won."""
        self.context.conflict = told

    def maintain(self) -> None:
        """Learn what other processes have marked, and whether there is a pool by now; write the history, and free
        memory of uploads. A bucket that is away is looked at again later."""
        self.damaged.refresh()
        self.uploads.maintain()
        self.history.maintain()
        if self.context.clock.elapsed() - self._looked >= POOL_LOOK_INTERVAL_S:
            self._looked = self.context.clock.elapsed()
            with suppress(StorageError):
                self.context.look_for_pool()

    def close(self) -> None:
        """Writes the history that is in memory; raises nothing for a bucket that is away."""
        self.history.flush()
        self.uploads.close()
        if self.context.threads is not None:
            self.context.threads.shutdown(wait=False)
        self.context.objects.close()


def bucket_of(root: Root) -> BucketProtocol:
    """The protocol of a bucket, for its own jobs. Raises Unsupported for a root of another kind."""
    if not isinstance(root.protocol, BucketProtocol):
        raise Unsupported(f"{root.label} is no bucket: this can't be done there")
    return root.protocol
