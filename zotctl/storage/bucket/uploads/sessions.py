"""The uploads to one bucket (docs/design/bucket.md#uploads): any process goes on where another one stopped.

Of an upload that is not being written, this process keeps the state of the hash, which can't be stored, and the bytes
in memory while there is room for them. Both may be out of date, since other processes write sessions, too. The states
of an upload are drawn in `upload`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from zotctl.errors import BlobUploadUnknown, Changed, NotFound, StorageError, Unavailable, UploadConflict
from zotctl.oci.digest import new_hash
from zotctl.storage import keys
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.objects.states import MOST_READS, note_put, read_state
from zotctl.storage.bucket.uploads.buffer import MemoryBudget, UploadBuffer
from zotctl.storage.bucket.uploads.upload import BucketUpload, KnownUpload, Stage, StoredUpload, lost, unknown
from zotctl.storage.driver import Buffer
from zotctl.storage.keys import make_upload_id, parse_upload_id

KNOWN_UPLOADS = 1024
"""Uploads whose hash is kept, at most."""
IDLE_S = 30.0
"""How long the bytes of an upload that no client continues stay in memory; the session has them, too."""
SENDER_THREADS = 8
STORE_WAIT_S = 5.0
"""How long a request waits for the one before it, whose client is gone, to store what has arrived."""
STORE_POLL_S = 0.02


class Claim(Enum):
    """Who of this process has an upload. Without a claim, any request may resume it."""

    WRITING = "a request, and another one is refused"
    STORING = "a request that is about to let go of it; a client may see already what is being stored"
    DISCARDING = "no request any more: it was published, and what it has stored is being removed"


class Purged(NamedTuple):
    """An upload that was forgotten; `size` in bytes."""

    id: str
    name: str
    size: int


class BucketUploads:
    """Begins, resumes and forgets uploads. Thread-safe."""

    def __init__(self, context: BucketContext, blobs: BucketBlobs, budget: MemoryBudget) -> None:
        self.context, self.blobs, self.budget = context, blobs, budget
        budget.evict = self._evict
        self.senders = ThreadPoolExecutor(SENDER_THREADS, "parts") if context.threads is not None else None
        self._idle: OrderedDict[str, KnownUpload] = OrderedDict()
        self._claims: dict[str, Claim] = {}
        self._mutex = threading.Lock()

    # -- the verbs ------------------------------------------------------------------------------

    def start(self, name: str, algorithm: str, owner: str = "") -> str:
        """A new session; its id is a UUID (distribution-spec, "POST then PUT")."""
        known = self._fresh(name, algorithm, owner)
        session = replace(known.session, token=self.context.clock.token())
        known.session = self.blobs.begin(name, partial(self.store, session, session.trailer()))
        self._keep(known)
        return session.id

    def begin(self, name: str, algorithm: str) -> BucketUpload:
        """An upload within one request: its name is never told, so nothing is stored for other requests to continue."""
        return BucketUpload(self, self._fresh(name, algorithm), named=False, current=True)

    def _fresh(self, name: str, algorithm: str, owner: str = "") -> KnownUpload:
        session = StoredUpload(make_upload_id(algorithm, self.context.clock.now(), owner), name)
        return KnownUpload(session, UploadBuffer(self.budget, self.budget.part), algorithm, new_hash(algorithm))

    def offset(self, name: str, upload_id: str) -> int:
        """Bytes that arrived so far, at any server. Raises BlobUploadUnknown, also where it can't go on."""
        if self._claims.get(upload_id) is Claim.DISCARDING:
            raise unknown(upload_id)
        session = self.head(name, _parsed(upload_id))
        with self._mutex:
            known, here = self._idle.get(upload_id), upload_id in self._claims
            if known is not None:
                if known.session.etag == session.etag:
                    return session.offset
                del self._idle[upload_id]
        if known is not None:
            known.buffer.clear()
        if session.stage is Stage.DIRECT and not here:
            raise lost(upload_id)
        return session.offset

    def resume(self, name: str, upload_id: str, *, wait: bool = True) -> BucketUpload:
        """Open a session for writing, always with a wait. Raises BlobUploadUnknown, UploadConflict, Busy."""
        known = self._claim(name, _parsed(upload_id))
        try:
            if known is not None and len(known.buffer) == known.session.tail:
                return BucketUpload(self, known, named=True, current=False)
            return BucketUpload(self, self.load(name, upload_id, known), named=True, current=True)
        except BaseException:
            self.release(upload_id)
            raise

    # -- the object of a session ----------------------------------------------------------------

    def head(self, name: str, upload_id: str) -> StoredUpload:
        """As it is stored now, without ETags of parts. Raises BlobUploadUnknown."""
        try:
            found = self.context.objects.head(keys.session(upload_id))
        except NotFound as error:
            raise unknown(upload_id) from error
        return _owned(found, name)

    def load(self, name: str, upload_id: str, known: KnownUpload | None = None) -> KnownUpload:
        """As it is stored now. Its hash is that of `known`, if no request has continued it since then. Raises
        BlobUploadUnknown, Busy."""
        session, content = self._read(name, upload_id)
        same = known is not None and known.session.etag == session.etag
        if session.stage is Stage.DIRECT and not same:
            # The request that completes it must have hashed every part of it: begin again.
            self.discard(session)
            raise lost(upload_id)
        part = session.part if session.multipart else self.budget.part
        while not session.multipart and 2 * part < session.tail:
            part *= 2
        buffer = UploadBuffer(self.budget, part, in_parts=bool(session.etags))
        buffer.load(content)
        if known is not None and same:
            return KnownUpload(session, buffer, known.algorithm, known.hash)
        algorithm = parse_upload_id(upload_id).algorithm
        if session.etags:
            return KnownUpload(session, buffer, algorithm, None)
        hashed = new_hash(algorithm)
        hashed.update(content)
        return KnownUpload(session, buffer, algorithm, hashed)

    def _read(self, name: str, upload_id: str) -> tuple[StoredUpload, memoryview]:
        """The session and its tail, of one state: some gateways answer a read beside a write with the metadata of
        another one than the bytes and their ETag (`states`). The token is in both."""
        for _ in range(MOST_READS):
            try:
                got = read_state(self.context.objects, keys.session(upload_id))
            except NotFound as error:
                raise unknown(upload_id) from error
            assert got is not None
            session, body = _owned(got[0], name), memoryview(got[1])
            *etags, token = bytes(body[session.tail :]).decode(errors="replace").split("\n")
            if token == session.token:
                return replace(session, etags=tuple(etags)), body[: session.tail]
        raise Unavailable(f"upload {upload_id}: the object store answers with metadata of another state; try again")

    def store(self, session: StoredUpload, body: Buffer, sha256: str = "") -> StoredUpload:
        """Replace what is there, which must be what `session` was read from, so that two requests never write one
        session. `sha256` of `body`, if it is known. Raises Changed, Unavailable, and BlobUploadUnknown if it is purged
        by now."""
        key, match = keys.session(session.id), session.etag
        try:
            etag = self.context.objects.put(
                key, body, match=match, absent=not match, metadata=session.metadata(), sha256=sha256
            )
        except Changed:
            if (ours := self._etag_of(session)) is not None:
                return replace(session, etag=ours)
            if not match:  # no other request knows its id: it was stored, and purged while this process was frozen
                raise unknown(session.id) from None
            raise
        note_put(self.context.objects, etag, body)
        return replace(session, etag=etag)

    def _etag_of(self, session: StoredUpload) -> str | None:
        """Its ETag, if it is what is stored: a proxy on the way may have repeated the write, and told the second
        answer. None: something else is, or nothing."""
        with suppress(NotFound, BlobUploadUnknown):
            found = StoredUpload.parse(self.context.objects.head(keys.session(session.id)))
            return found.etag if found.token == session.token else None
        return None

    # -- claims ---------------------------------------------------------------------------------

    def _claim(self, name: str, upload_id: str) -> KnownUpload | None:
        until = self.context.clock.elapsed() + STORE_WAIT_S
        while True:
            with self._mutex:
                claim = self._claims.get(upload_id)
                if claim is Claim.DISCARDING:
                    raise unknown(upload_id)
                if claim is None:
                    known = self._idle.get(upload_id)
                    if known is not None and known.session.name != name:
                        raise unknown(upload_id)
                    self._claims[upload_id] = Claim.WRITING
                    return self._idle.pop(upload_id, None)
                if claim is not Claim.STORING or self.context.clock.elapsed() > until:
                    raise UploadConflict(f"upload {upload_id} is being written by another request", upload_id)
            self.context.clock.sleep(STORE_POLL_S)

    def storing(self, upload_id: str) -> None:
        """Note that the writer is about to close: a request that comes now waits for it."""
        with self._mutex:
            self._claims[upload_id] = Claim.STORING

    def release(self, upload_id: str, known: KnownUpload | None = None) -> None:
        """Give up the claim. `known`: keep this for the request that continues the upload."""
        if known is not None:
            self._keep(known)
        with self._mutex:
            self._claims.pop(upload_id, None)

    def _keep(self, known: KnownUpload) -> None:
        if self.budget.wanted:
            known.buffer.clear()
        known.idle_since = self.context.clock.elapsed()
        with self._mutex:
            self._idle[known.session.id] = known
            old = self._idle.popitem(last=False)[1] if len(self._idle) > KNOWN_UPLOADS else None
        if old is not None:
            old.buffer.clear()

    # -- memory ---------------------------------------------------------------------------------

    def _evict(self, before: float = float("inf")) -> bool:
        """Drop the bytes of the upload that has been idle the longest, if that is since before `before`."""
        with self._mutex:
            found = next((known for known in self._idle.values() if len(known.buffer)), None)
            if found is None or found.idle_since >= before:
                return False
            buffer = found.buffer
            found.buffer = UploadBuffer(self.budget, buffer.part, in_parts=buffer.in_parts)
        buffer.clear()
        return True

    def maintain(self) -> None:
        """Free the memory of uploads that no client has continued. Called now and then."""
        while self._evict(self.context.clock.elapsed() - IDLE_S):
            pass

    def close(self) -> None:
        """End the threads that send parts."""
        if self.senders is not None:
            self.senders.shutdown(wait=False)

    # -- forgetting -----------------------------------------------------------------------------

    def purge(self, older_than: float, age: Callable[[Object], float] = attrgetter("age")) -> Iterator[Purged]:
        """Forget what no client has continued for so many seconds, by the server's clock. A request that writes a
        session renews it in half of a window, so that one which is being written is never so old."""
        for found in self._of_uploads(keys.UPLOADS):
            if age(found) >= older_than:
                with suppress(NotFound, BlobUploadUnknown):
                    session = StoredUpload.parse(found := self.context.objects.head(found.key))
                    if age(found) >= older_than and session.id not in self._claims:
                        self.discard(session)
                        yield Purged(session.id, session.name, session.offset)
        for found in self._of_uploads(keys.STAGED):
            upload_id = found.key.rpartition("/")[2]
            # A session goes last, so that without one its bytes are not needed.
            if age(found) >= older_than and self.context.head(keys.session(upload_id)) is None:
                self.context.objects.delete(found.key)

    def _of_uploads(self, directory: str) -> Iterator[Object]:
        """The objects in a directory that are named after an upload."""
        for found in self.context.objects.list(f"{directory}/"):
            with suppress(ValueError):
                parse_upload_id(found.key.removeprefix(f"{directory}/"))
                yield found

    def discard_soon(self, session: StoredUpload, *, completed: bool = False) -> None:
        """Discard a published upload in a thread, so that no client waits. Never raises: a collector finds what is
        left. From now on the upload is unknown in this process."""
        with self._mutex:
            self._claims[session.id] = Claim.DISCARDING

        def discard() -> None:
            try:
                with suppress(StorageError):
                    self.discard(session, completed=completed)
            finally:
                self.release(session.id)

        if self.context.threads is None:
            discard()
        else:
            self.context.threads.submit(discard)

    def discard(self, session: StoredUpload, *, completed: bool = False) -> None:
        """Free what it has stored; the session last, so that a crash leaves something to find the rest by. `completed`:
        by this process, so that there are no parts to abort."""
        if session.multipart and not completed:
            self.context.objects.abort_parts(session.target, session.multipart)
        if session.stage is Stage.STAGED:
            self.context.objects.delete(session.target)
        if session.etag:
            self.context.objects.delete(keys.session(session.id))


def _parsed(upload_id: str) -> str:
    try:
        return parse_upload_id(upload_id).text
    except ValueError as error:
        raise unknown(upload_id) from error


def _owned(found: Object, name: str) -> StoredUpload:
    """A session is found through its own repository only (I7)."""
    session = StoredUpload.parse(found)
    if session.name != name:
        raise unknown(session.id)
    return session
