"""The verbs of `storage.protocol` on a bucket, by the steps of s3.md."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TypeVar

from zotctl.errors import LayoutInvalid, NotFound, StorageError
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Generation, Info, Reader
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.graphs import AllGraphs
from zotctl.storage.index import Index
from zotctl.storage.protocol import Change, Elsewhere, Outcome, Snapshot, no_answer
from zotctl.storage.s3.bad import Bad
from zotctl.storage.s3.blobs import Blobs
from zotctl.storage.s3.budget import Budget
from zotctl.storage.s3.converting import Converting
from zotctl.storage.s3.history import BucketHistory
from zotctl.storage.s3.holdings import Holdings
from zotctl.storage.s3.index_object import IndexObjects
from zotctl.storage.s3.layouts import Layouts
from zotctl.storage.s3.names import Listed
from zotctl.storage.s3.promises import Promises
from zotctl.storage.s3.recall import Recall, recall
from zotctl.storage.s3.redirects import Redirects
from zotctl.storage.s3.sentences import Sentences
from zotctl.storage.s3.site import Site
from zotctl.storage.s3.stubs import Stubs
from zotctl.storage.s3.tree import Tree
from zotctl.storage.s3.upkeep import BucketUpkeep
from zotctl.storage.s3.upload import Upload
from zotctl.storage.s3.uploads import Uploads

T = TypeVar("T")

LOOK_EVERY = 30.0
"""Seconds after which is looked up whether somebody has begun a pool."""


class BucketTransaction:
    """What a change may do between the GET and the PUT of an index.json."""

    def __init__(self, protocol: BucketProtocol, name: str) -> None:
        self._protocol, self.name = protocol, name

    def require(self, digest: Digest) -> Info:
        promised = self._protocol.promises.promise_all(self.name, [digest])
        if digest not in promised:
            raise NotFound(f"no {digest} in {self.name}")
        return self._protocol.blobs.sound(self.name, digest, promised[digest])

    def publish_manifest(self, digest: Digest, staged: str) -> None:
        self._protocol.blobs.publish_manifest(self.name, digest, self._protocol.staged(staged))


class BucketProtocol:
    """One bucket, or one prefix of it. Its parts are open to the jobs, which work on the same steps."""

    torn = False
    deferred = True

    def __init__(self, site: Site, budget: Budget | None = None, redirect: float | None = None) -> None:
        """`redirect`: seconds for which the URL of a blob in the bucket is signed; None: none is told."""
        self.site = site
        self.catalog = Listed(site)
        self.bad = Bad(site)
        self.layouts = Layouts(site)
        self.sentences = Sentences(site)
        self.promises = Promises(site, self.sentences, self._has_right)
        self.indexes = IndexObjects(site, self.layouts, self.promises.epoch)
        self.history = BucketHistory(site, self.indexes.read)
        self.stubs = Stubs(site, self.catalog)
        self.blobs = Blobs(site, self.bad, self.stubs, self.indexes, self.promises, self.sentences)
        self.holdings = Holdings(site)
        self.converting = Converting(site, self.promises, self.sentences)
        self.driver = Tree(site, self.holdings, self.blobs.lying, self._reached)
        self.redirects = Redirects(site, self.blobs, self.promises, redirect)
        self.uploads = Uploads(site, self.blobs, budget or Budget())
        self.graphs = AllGraphs(self)
        self.upkeep = BucketUpkeep(self)
        self._staged: dict[str, bytes] = {}
        self._mutex = threading.Lock()
        self._looked = site.clock.elapsed()

    @property
    def clock(self) -> Clock:
        return self.site.clock

    @property
    def label(self) -> str:
        return self.site.objects.label

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        return self.site.each(calls)

    def recall(self, name: str, manifests: int) -> Recall | None:
        return recall(self.site, name, manifests)

    def find(self, name: str, digest: Digest) -> Info:
        return self.blobs.find(name, digest)

    def open(self, name: str, digest: Digest) -> Reader:
        return self.blobs.open(name, digest)

    def redirect(self, name: str, digest: Digest) -> Elsewhere | None:
        return self.redirects.find(name, digest)

    def open_manifest(self, name: str, digest: Digest) -> Reader:
        return self.blobs.open_manifest(name, digest)

    def still_has(self, name: str, digest: Digest, size: int) -> bool:
        return self.blobs.has_manifest(name, digest, size)

    def generation(self, name: str, digest: Digest) -> Generation | None:
        try:
            found = self.site.head(keys.blob(name, digest))
        except StorageError:
            return None
        return f"{found.etag} {found.modified}" if found else None

    def mount(self, source: str, name: str, digest: Digest) -> bool:
        return self.blobs.mount(source, name, digest)

    def distrust(self, name: str, digest: Digest) -> bool:
        return self.blobs.distrust(name, digest)

    def doubt(self, name: str, digest: Digest) -> None:
        self.promises.forget(name, digest)
        self.redirects.forget(name, digest)

    def read_index(self, name: str, *, wait: bool = True) -> Snapshot:
        return self.indexes.read(name)

    # -- changing -------------------------------------------------------------------------------

    def stage(self, body: bytes) -> str:
        token = self.site.clock.token()
        with self._mutex:
            self._staged[token] = body
        return token

    def staged(self, token: str) -> bytes:
        return self._staged[token]

    def unstage(self, staged: str) -> None:
        with self._mutex:
            self._staged.pop(staged, None)

    def prepare(self, name: str, needs: Iterable[Digest], digest: Digest, staged: str) -> None:
        """M2 and M3 of one push, side by side with those of others: its commit then finds all promises made."""
        needs = list(needs)
        promise = partial(self.promises.promise_all, name, needs, fresh=True)
        publish = partial(self.blobs.publish_manifest, name, digest, self.staged(staged))
        glance = partial(self.indexes.glance, name)
        if all(self.promises.since(name, need) is not None for need in needs):
            steps: list[Callable[[], object]] = [promise, publish, glance]
            self.site.each(steps)  # hardly anything is missing
        elif promise().keys() >= set(needs):
            self.site.each([publish, glance])

    def turn(self, name: str) -> AbstractContextManager[None]:
        return self.site.turn(name)

    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        return self.indexes.commit(name, changes, BucketTransaction(self, name))

    def delete(self, name: str, digest: Digest, check: Change) -> None:
        self.blobs.delete(name, digest, lambda: self._void_promises(name, check))

    def _void_promises(self, name: str, check: Change) -> None:
        """Nothing needs it as index.json stands, and whoever is about to change that begins again."""
        done = False
        while not done:
            try:
                before = self.indexes.read(name)
            except NotFound:
                return  # not even an index: nobody can commit on what was there
            check(BucketTransaction(self, name), before.index)
            done = self.indexes.touch(name, before)

    def _has_right(self, name: str, digest: Digest) -> bool:
        """What a repository reaches it may read. Without a pool, what lies in it too."""
        if not self.site.dedupe and self.site.head(keys.blob(name, digest)) is not None:
            return True
        return self.site.pooled and self._reaches(name, digest)

    def _reached(self, name: str) -> set[str]:
        """What its manifests name; nothing of a layout that can't be read."""
        return self._ask(name, lambda _, graph: graph.reachable()) or set()

    def _reaches(self, name: str, digest: Digest) -> bool:
        return bool(self._ask(name, lambda index, graph: digest in index or graph.reaches(digest)))

    def _ask(self, name: str, question: Callable[[Index, ManifestGraph], T]) -> T | None:
        """None: there is no layout that could be read."""
        try:
            index = self.indexes.read(name).index
        except (NotFound, LayoutInvalid):
            return None
        with self.graphs.of(name).at(index) as graph:
            return question(index, graph)

    # -- uploads --------------------------------------------------------------------------------

    def start_upload(self, name: str, algorithm: str) -> str:
        return self.uploads.start(name, algorithm)

    def begin_upload(self, name: str, algorithm: str) -> Upload:
        return self.uploads.begin(name, algorithm)

    def upload_offset(self, name: str, upload_id: str) -> int:
        return self.uploads.offset(name, upload_id)

    def resume_upload(self, name: str, upload_id: str) -> Upload:
        return self.uploads.resume(name, upload_id)

    # -- the root -------------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        return True

    def state(self) -> StorageError | None:
        """None: the bucket answers. By GET, for a HEAD doesn't tell a bucket that is missing from an object."""
        try:
            (self.site.direct or self.site.objects).get(keys.VERSION)
        except NotFound:
            return None
        except StorageError as error:
            return no_answer(self.label, error)
        return None

    def maintain(self) -> None:
        """Learn what others have begun meanwhile. A bucket that is away is looked at again later."""
        self.bad.refresh()
        self.uploads.maintain()
        self.history.maintain()
        if self.site.clock.elapsed() - self._looked >= LOOK_EVERY:
            self._looked = self.site.clock.elapsed()
            with suppress(StorageError):
                self.site.look_for_pool()

    def close(self) -> None:
        self.history.flush()
        self.uploads.close()
        if self.site.threads is not None:
            self.site.threads.shutdown(wait=False)
        self.site.objects.close()
