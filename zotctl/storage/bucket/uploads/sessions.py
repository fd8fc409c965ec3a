"""The uploads to one bucket (docs/design/bucket.md#uploads): any process goes on where another one stopped.

What this process knows of an upload that is not being written, it keeps: the state of the hash, which can't be
stored, and the tail, while there is memory for it. It may be out of date, since other processes write sessions, too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from zotctl.errors import BlobUploadUnknown, NotFound, StorageError, UploadConflict
from zotctl.oci.digest import Hash, new_hash
from zotctl.storage import keys
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.uploads import state as sessions
from zotctl.storage.bucket.uploads.buffer import UploadBuffer
from zotctl.storage.bucket.uploads.memory_budget import MemoryBudget
from zotctl.storage.bucket.uploads.state import UploadSessionState, unknown
from zotctl.storage.bucket.uploads.upload import BucketUpload, UploadState
from zotctl.storage.keys import make_upload_id, parse_upload_id

REMEMBERED = 1024
"""BucketUploads whose hash is kept."""
IDLE_FOR = 30.0
"""Seconds after which the tail of an upload that no client continues is dropped; the session has it, too."""
SENDERS = 8
SAVED_WITHIN = 5.0
"""Seconds that the next request waits for the last one, whose client is gone, to store what has arrived."""
LOOK_EVERY = 0.02


@dataclass(slots=True)
class Idle:
    """`since` by `clock.elapsed`."""

    state: UploadState
    since: float


class Purged(NamedTuple):
    id: str
    name: str
    size: int


class BucketUploads:
    def __init__(self, context: BucketContext, blobs: BucketBlobs, budget: MemoryBudget) -> None:
        self.context, self.blobs, self.budget = context, blobs, budget
        budget.evict = self._evict
        self.senders = ThreadPoolExecutor(SENDERS, "parts") if context.threads is not None else None
        self._idle: OrderedDict[str, Idle] = OrderedDict()
        self._claims: set[str] = set()
        self._saving: set[str] = set()
        """Of the claims: nothing more is written, and a client may see already what is being stored."""
        self._ended: set[str] = set()
        """Published; what they have stored is being removed."""
        self._mutex = threading.Lock()

    # -- the verbs ------------------------------------------------------------------------------

    def start(self, name: str, algorithm: str) -> str:
        """A new session; its id is a UUID (distribution-spec, "POST then PUT")."""
        state = self._fresh(name, algorithm)
        session, token = state.session, self.context.clock.token()
        state.session = sessions.store(
            self.context.objects, session.moved(token=token), sessions.trailer(session, token)
        )
        self._remember(state)
        return session.id

    def begin(self, name: str, algorithm: str) -> BucketUpload:
        """An upload within one request: its name is never told, so nothing is stored for other requests to continue."""
        return BucketUpload(self, self._fresh(name, algorithm), named=False, current=True)

    def offset(self, name: str, upload_id: str) -> int:
        """Bytes that arrived so far, at any server. Raises BlobUploadUnknown."""
        if upload_id in self._ended:
            raise unknown(upload_id)
        session = sessions.head(self.context.objects, name, _parsed(upload_id))
        with self._mutex:
            idle = self._idle.get(upload_id)
            if idle is None or idle.state.session.etag == session.etag:
                return session.offset
            del self._idle[upload_id]
        idle.state.tail.clear()
        return session.offset

    def resume(self, name: str, upload_id: str) -> BucketUpload:
        """Take a session for writing. Raises BlobUploadUnknown, UploadConflict, Busy."""
        idle = self._claim(name, _parsed(upload_id))
        try:
            if idle is not None and idle.state.whole:
                return BucketUpload(self, idle.state, named=True, current=False)
            return BucketUpload(
                self, self.load(name, upload_id, idle.state if idle else None), named=True, current=True
            )
        except BaseException:
            self.release(upload_id)
            raise

    # -- what is known --------------------------------------------------------------------------

    def _fresh(self, name: str, algorithm: str) -> UploadState:
        upload_id = make_upload_id(algorithm, self.context.clock.now())
        tail = UploadBuffer(self.budget, self.budget.part)
        return UploadState(UploadSessionState(upload_id, name), tail, algorithm, new_hash(algorithm))

    def load(self, name: str, upload_id: str, known: UploadState | None = None) -> UploadState:
        """As it is stored now. Its hash is that of `known`, if no request has continued it since then."""
        session, content = sessions.load(self.context.objects, name, upload_id)
        same = known is not None and known.session.etag == session.etag
        if session.direct and not same:
            # The request that completes it must have hashed every part of it: begin again.
            self.discard(session)
            raise unknown(upload_id)
        tail = UploadBuffer(self.budget, self._part(session), cut=bool(session.etags))
        tail.load(content)
        if known is not None and same:
            return UploadState(session, tail, known.algorithm, known.hash)
        algorithm = parse_upload_id(upload_id).algorithm
        return UploadState(session, tail, algorithm, None if session.etags else _hash(algorithm, content))

    def _part(self, session: UploadSessionState) -> int:
        if session.multipart:
            return session.part
        part = self.budget.part
        while 2 * part < session.tail:
            part *= 2
        return part

    def _claim(self, name: str, upload_id: str) -> Idle | None:
        until = self.context.clock.elapsed() + SAVED_WITHIN
        while True:
            with self._mutex:
                if upload_id in self._ended:
                    raise unknown(upload_id)
                if upload_id not in self._claims:
                    idle = self._idle.get(upload_id)
                    if idle is not None and idle.state.session.name != name:
                        raise unknown(upload_id)
                    self._claims.add(upload_id)
                    return self._idle.pop(upload_id, None)
                if upload_id not in self._saving or self.context.clock.elapsed() > until:
                    raise UploadConflict(f"upload {upload_id} is being written by another request", upload_id)
            self.context.clock.sleep(LOOK_EVERY)

    def saving(self, upload_id: str) -> None:
        """The last that its writer does: a request that comes now waits for its end."""
        with self._mutex:
            self._saving.add(upload_id)

    def release(self, upload_id: str, state: UploadState | None = None) -> None:
        """It is not being written any more; `state`: another request may continue it."""
        if state is not None:
            self._remember(state)
        with self._mutex:
            self._claims.discard(upload_id)
            self._saving.discard(upload_id)

    def _remember(self, state: UploadState) -> None:
        if self.budget.wanted:
            state.tail.clear()
        with self._mutex:
            self._idle[state.session.id] = Idle(state, self.context.clock.elapsed())
            old = self._idle.popitem(last=False)[1] if len(self._idle) > REMEMBERED else None
        if old is not None:
            old.state.tail.clear()

    # -- memory ---------------------------------------------------------------------------------

    def _evict(self, before: float = float("inf")) -> bool:
        """Drop the tail of the upload that waits the longest, and since earlier than `before`."""
        with self._mutex:
            found = next((idle for idle in self._idle.values() if len(idle.state.tail)), None)
            if found is None or found.since >= before:
                return False
            tail, part = found.state.tail, found.state.tail.part
            found.state.tail = UploadBuffer(self.budget, part, cut=tail.cut)
        tail.clear()
        return True

    def maintain(self) -> None:
        """Now and then: memory of uploads that no client came back for is free."""
        while self._evict(self.context.clock.elapsed() - IDLE_FOR):
            pass

    def close(self) -> None:
        if self.senders is not None:
            self.senders.shutdown(wait=False)

    # -- leftovers ------------------------------------------------------------------------------

    def purge(self, older_than: float, age: Callable[[Object], float] = attrgetter("age")) -> Iterator[Purged]:
        """Forget what no client has continued for so many seconds, by the server's clock. A request that writes a
        session renews it in half of a window, so that one which is being written is never so old."""
        for found in self._of_uploads(keys.UPLOADS):
            if age(found) >= older_than and (purged := self._purge(found.key, older_than, age)) is not None:
                yield purged
        for found in self._of_uploads(keys.STAGED):
            upload_id = found.key.rpartition("/")[2]
            # A session goes last, so that without one its bytes are not needed.
            if age(found) >= older_than and self.context.head(keys.session(upload_id)) is None:
                self.context.objects.delete(found.key)

    def _of_uploads(self, directory: str) -> Iterator[Object]:
        """What is named by an upload."""
        for found in self.context.objects.list(f"{directory}/"):
            with suppress(ValueError):
                parse_upload_id(found.key.removeprefix(f"{directory}/"))
                yield found

    def _purge(self, key: str, older_than: float, age: Callable[[Object], float]) -> Purged | None:
        with suppress(NotFound, BlobUploadUnknown):
            found = self.context.objects.head(key)
            session = sessions.read_head(found)
            if age(found) < older_than or session.id in self._claims:
                return None
            self.discard(session)
            return Purged(session.id, session.name, session.offset)
        return None

    def discard_soon(self, session: UploadSessionState, *, completed: bool = False) -> None:
        """The same of an upload that is published, and no client waits for it. Never raises: a collector finds what is
        left. From now on this process knows nothing of it."""
        self._ended.add(session.id)

        def discard() -> None:
            try:
                with suppress(StorageError):
                    self.discard(session, completed=completed)
            finally:
                self._ended.discard(session.id)

        if self.context.threads is None:
            discard()
        else:
            self.context.threads.submit(discard)

    def discard(self, session: UploadSessionState, *, completed: bool = False) -> None:
        """Free what it has stored; the session last, so that a crash leaves something to find the rest by."""
        if session.multipart and not completed:
            self.context.objects.abort_parts(session.target, session.multipart)
        if session.multipart and not session.direct:
            self.context.objects.delete(session.target)
        if session.etag:
            self.context.objects.delete(keys.session(session.id))


def _parsed(upload_id: str) -> str:
    try:
        return parse_upload_id(upload_id).text
    except ValueError as error:
        raise unknown(upload_id) from error


def _hash(algorithm: str, content: memoryview) -> Hash:
    made = new_hash(algorithm)
    made.update(content)
    return made
