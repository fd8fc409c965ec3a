"""One upload, held by one writer (docs/design/bucket.md#uploads). Its blob is verified before it has its name (I2):

    up to two parts, in memory      one PUT under the final key, with the digest
    digest known at the beginning   parts of the final object, completed when the hash has matched
    otherwise                       parts of a staged object; completed, and copied on the server's side

What this process remembers of a session may be out of date. That costs no request: it is found out where the session
is swapped, or where a digest doesn't match, and what came with this request is then added to what the others have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zotctl.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    Busy,
    Changed,
    DigestInvalid,
    NoSpace,
    NotFound,
    StorageError,
    UploadConflict,
)
from zotctl.oci.digest import Digest, Hash, digest_of, new_hash
from zotctl.storage import keys
from zotctl.storage.bucket.objects.multipart import MOST_PARTS, Parts
from zotctl.storage.bucket.uploads import state as sessions
from zotctl.storage.bucket.uploads.buffer import UploadBuffer
from zotctl.storage.bucket.uploads.finishing import Finishing, verify
from zotctl.storage.bucket.uploads.state import UploadSessionState, unknown
from zotctl.storage.driver import Buffer
from zotctl.storage.keys import parse_upload_id

if TYPE_CHECKING:
    from zotctl.storage.bucket.uploads.sessions import BucketUploads


@dataclass(slots=True)
class UploadState:
    """`hash`: of all bytes so far by `algorithm`; None: parts were sent by another process."""

    session: UploadSessionState
    tail: UploadBuffer
    algorithm: str
    hash: Hash | None

    @property
    def whole(self) -> bool:
        """Is the tail here, too?"""
        return len(self.tail) == self.session.tail


class BucketUpload:
    """`named`: another request can continue it. `current`: its session was looked at for this request."""

    def __init__(self, uploads: BucketUploads, state: UploadState, *, named: bool, current: bool) -> None:
        self._uploads, self._objects, self._context = uploads, uploads.context.objects, uploads.context
        self._named, self._current = named, current
        self._expected: Digest | None = None
        self._start: int | None = None
        self._open, self._broken, self._sent = True, False, False
        self._stored_at = self._context.clock.elapsed()
        self.id, self.algorithm = state.session.id, parse_upload_id(state.session.id).algorithm
        self._adopt(state)

    def _adopt(self, state: UploadState) -> None:
        session = state.session
        self._session, self._tail, self._hash, self._hashed_by = session, state.tail, state.hash, state.algorithm
        self._unhashed = 0
        self._kept = len(state.tail)
        """Bytes of the tail that the session has, too."""
        self._parts = self._parts_of(session) if session.multipart else None
        self.offset = session.offset

    def _parts_of(self, session: UploadSessionState) -> Parts:
        return Parts(self._objects, session.target, session.multipart, session.etags, self._uploads.senders)

    # -- bytes ----------------------------------------------------------------------------------

    def expect(self, digest: Digest | None = None, size: int | None = None, start: int | None = None) -> None:
        """What is known before the first byte of a request: digest and size of the whole blob, where these bytes
        start. Raises UploadConflict."""
        self._start = start
        if start is not None and start != self.offset:
            raise self._conflict()
        if self._parts is not None:
            return
        if size is not None:
            self._fit(size)
        if digest is not None:
            self._expected = digest
            self._hash_by(digest.algorithm)

    def _fit(self, size: int) -> None:
        """Parts so large that there are not too many of them."""
        part, old = self._tail.part, self._tail
        while part * (MOST_PARTS - 1) < size:
            part *= 2
        if part != old.part:
            self._tail = UploadBuffer(self._uploads.budget, part)
            content = bytes(old.content())
            old.clear()
            self._tail.load(memoryview(content))

    def _hash_by(self, algorithm: str) -> None:
        if algorithm != self._hashed_by:
            self._hash, self._hashed_by = new_hash(algorithm), algorithm
            self._hash.update(self._tail.content())

    @property
    def ahead(self) -> bool:
        """Has it a part's memory? Else what is read ahead would wait with it, and not be counted."""
        return self._tail.halves > 0

    def ready(self, count: int) -> bool:
        """Would `write` take so many bytes without waiting for memory? If not, ask again after a while."""
        return self._tail.ready(min(count, self._tail.part))

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append and hash. Raises NoSpace (the session is gone), Unavailable (it can be resumed where it
        was stored the last time), BlobUploadUnknown (it was ended meanwhile)."""
        try:
            for buffer in buffers:
                self._append(memoryview(buffer))
            self._hash_up()
            self._make_way()
            self._renew()
        except NotFound as error:
            self._broken = True
            raise unknown(self.id) from error
        except NoSpace:
            self.cancel()
            raise
        except BaseException:
            self._broken = True
            raise

    def _append(self, data: memoryview) -> None:
        while len(data):
            added = self._tail.add(data)
            self.offset += added
            self._unhashed += added
            data = data[added:]
            if len(data) and not self._tail.grow():
                self._hash_up()
                self._send()

    def _hash_up(self) -> None:
        """What was added, in one go: each call costs threads that wait for each other as much as 100 KiB."""
        count, self._unhashed = self._unhashed, 0
        if self._hash is not None and count:
            with self._tail.view(self._tail.end - count, self._tail.end) as fresh:
                self._hash.update(fresh)

    def _send(self) -> None:
        """All that is in memory, which is full, as parts; or it turns out to be less than was thought."""
        parts = self._begin_parts() if self._parts is None else self._parts
        if parts is None or (not self._current and self._is_stale()):
            self._start_over()
            return
        self._parts, tail = parts, self._tail
        for half in range(tail.start, tail.end, tail.part):
            parts.send(half, tail.view(half, half + tail.part))
        tail.cut, self._kept, self._sent = True, 0, True
        parts.wait(tail.turn(half))

    def _begin_parts(self) -> Parts | None:
        """The session knows their id before there is one, so that they can be found after a crash. None: the
        session is not what it was."""
        target = self._target()
        multipart = self._objects.start_parts(target)
        session = self._session.moved(target=target, multipart=multipart, part=self._tail.part)
        try:
            self._store(session, self._kept)
        except Changed as error:
            self._objects.abort_parts(target, multipart)
            if self._current:
                raise self._conflict() from error
            return None
        return self._parts_of(self._session)

    def _make_way(self) -> None:
        """Others wait for memory: after a part it is their turn."""
        if self._sent and self._parts is not None and self._uploads.budget.wanted:
            self._parts.settle()
            self._tail.shrink()
        self._sent = False

    def _target(self) -> str:
        if self._expected is None or self._expected.algorithm != self._hashed_by:
            return keys.staged(self.id)
        return self._context.blob(self._session.name, self._expected)

    # -- the session ----------------------------------------------------------------------------

    def save(self) -> None:
        """What has arrived outlives this process; nothing more comes. Also of no bytes at all, `offset` is that of the
        session. Raises UploadConflict, BlobUploadUnknown, Unavailable."""
        self._store_last()
        if self._named and self._open and not (self._current or self._broken) and self._is_stale():
            self._start_over()

    def _store_last(self) -> None:
        self._uploads.saving(self.id)
        try:
            if self._named and self._open and not self._broken:
                self._keep()
        except BaseException as error:
            self._broken = True  # of a part that failed nothing is left to be sent again
            if isinstance(error, NotFound):
                raise unknown(self.id) from error
            raise

    def _keep(self, *, again: bool = False) -> None:
        if self.offset == self._session.offset and not again:
            return
        try:
            self._save()
        except Changed as error:
            if self._current:
                raise self._conflict() from error
            self._start_over()
            self._keep()

    def _conflict(self) -> UploadConflict:
        return UploadConflict(f"upload {self.id} was written by another request meanwhile", self.id)

    def _save(self) -> None:
        self._send_whole()
        etags = self._parts.settle() if self._parts else ()
        session = self._session.moved(offset=self.offset, digest=self._known(self._hashed_by), etags=etags)
        self._store(session, len(self._tail))
        self._kept = len(self._tail)

    def _send_whole(self) -> None:
        """Whole parts of an upload by many requests are not stored, for then they would be sent twice. After the
        first request it is unknown yet that there are many, and a small blob needs no parts."""
        if self._tail.whole and (self._tail.cut or self._kept):
            self._send()

    def _store(self, session: UploadSessionState, size: int) -> None:
        """With so many bytes of the tail."""
        token = self._context.clock.token()
        with self._tail.trailed(size, sessions.trailer(session, token)) as body:
            self._session = sessions.store(self._objects, session.moved(token=token, tail=size), body)
        self._current, self._stored_at = True, self._context.clock.elapsed()

    def _renew(self, *, again: bool = False) -> None:
        """Half a window at the most, for collectors forget what no client continues. `again`: even if it is the
        same, since a copy takes its time."""
        age = self._context.clock.elapsed() - self._stored_at
        if age > self._context.window / 2 and self._session.etag:
            self._keep(again=again)

    def _is_stale(self) -> bool:
        """Raises BlobUploadUnknown."""
        found = sessions.head(self._objects, self._session.name, self.id)
        self._current = found.etag == self._session.etag
        return not self._current

    def _start_over(self) -> None:
        """Others went on with it since this process did: what came with this request follows theirs. It is all
        in the tail, since no part is sent before the session was looked at."""
        content = bytes(self._tail.content()[self._kept :])
        self._tail.clear()
        self._adopt(self._uploads.load(self._session.name, self.id))
        self._current, self._stored_at = True, self._context.clock.elapsed()
        if self._start is not None and self._start != self.offset:
            raise self._conflict()
        self._append(memoryview(content))
        self._hash_up()

    # -- the end --------------------------------------------------------------------------------

    def finish(self, digest: Digest) -> None:
        """Publish under its digest what has arrived. Raises DigestInvalid if it is something else; then, as
        after success and without space, nothing of the session is left."""
        try:
            self._finish(digest)
        except (DigestInvalid, NoSpace):
            with suppress(StorageError):  # a collector finds what is left
                self.cancel()
            raise
        except NotFound as error:  # it took so long that a collector has ended it
            self._broken = True
            raise unknown(self.id) from error
        except BaseException:
            self._broken = True
            raise
        self._end(keep=False)
        self._uploads.discard_soon(self._session, completed=self._parts is not None and self._parts.completed)
        try:
            self._uploads.blobs.still_reserved(self._session.name, digest)
        except NotFound as error:
            raise Busy(f"{digest} was collected before its upload could be answered; send it again") from error

    def _finish(self, digest: Digest) -> None:
        if self._known(digest.algorithm) != digest and not self._current and self._is_stale():
            self._start_over()
        if known := self._known(digest.algorithm):
            verify(digest, known)
        if self._parts is None or not self._tail.cut:
            self._way().whole(digest)
        elif self._session.direct:
            self._require_target(digest, known)
            self._way().direct(self._parts, digest)
        else:
            self._renew(again=True)  # which may send what is left, or find that others have sent more
            self._way().staged(self._parts, digest, verified=self._known(digest.algorithm) == digest)

    def _way(self) -> Finishing:
        return Finishing(self._context, self._uploads.blobs, self._session, self._tail.content(), self.offset)

    def _require_target(self, digest: Digest, known: str) -> None:
        """Parts under the key of one digest can't become the blob of another."""
        if not known or self._session.target != self._context.blob(self._session.name, digest):
            self.cancel()
            raise BlobUploadInvalid(f"upload {self.id} was begun for another digest; send it again")

    def _known(self, algorithm: str) -> str:
        """The digest of all bytes so far; "" if they have to be read for it."""
        if self._hash is not None and self._hashed_by == algorithm:
            return f"{algorithm}:{self._hash.hexdigest()}"
        if not self._tail.cut:
            return digest_of(self._tail.content(), algorithm)
        saved = self._session.digest if self.offset == self._session.offset else ""
        return saved if saved.startswith(f"{algorithm}:") else ""

    def cancel(self) -> None:
        """Forget the session; its bytes are free at once."""
        if not self._open:
            return
        session = self._session
        with suppress(BlobUploadUnknown):
            if not self._current:  # another process may have begun parts
                session = sessions.head(self._objects, session.name, self.id)
        self._end(keep=False)
        self._uploads.discard(session)

    def close(self) -> None:
        """Let go of the session and keep it for the request that continues it. Raises UploadConflict, Unavailable."""
        if not self._open:
            return
        if not self._named:
            self.cancel()
            return
        try:
            self._store_last()
        finally:
            self._end(keep=not self._broken)

    def _end(self, *, keep: bool) -> None:
        """`keep`: what is in memory is what the session has."""
        self._open = False
        if self._parts is not None:
            self._parts.abandon()
        self._tail.rest() if keep else self._tail.clear()
        state = UploadState(self._session, self._tail, self._hashed_by, self._hash)
        self._uploads.release(self.id, state if keep else None)

    def __enter__(self) -> BucketUpload:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
