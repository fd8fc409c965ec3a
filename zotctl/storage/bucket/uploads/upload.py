"""One upload to a bucket (docs/design/bucket.md#uploads): its states, and the writer that moves it between them.

The blob is verified before it has its name (I2). `Stage` says where its bytes are; who has it is the claim of this
process on it (`sessions.Claim`), and each other process is kept off by If-Match, when the session is stored.

    start, begin                resume: of what this process knows (KnownUpload), or what is stored (StoredUpload)
         |                                                    |
         v                                                    v
     BUFFERED, DIRECT or STAGED   <-- write                 WRITING -- an error --> BROKEN: nothing more is stored
         |                                                    |
         |  more than two parts have arrived (_send)          |  save, close (_keep)
         |                                                    v
     BUFFERED ---- digest known before ----> DIRECT         STORING --> idle: any process may resume it
         |    ---- digest unknown ---------> STAGED
         |                                      |
         |  finish                              |  finish
         |   _put: one PUT of all bytes         |   DIRECT: _complete makes the blob out of its parts
         |                                      |   STAGED: _complete_staged makes staged/ID, and _copy the blob
         v                                      v
      published: the session is discarded, and unknown from now on (DISCARDING)

    In any state: cancel, another digest or no space discards the session. If another request has gone on with it
    (_is_stale, Changed), what came with this one is added to what that one has left (_start_over), or it is a conflict.

What this process knows of a session may be out of date. That costs no request: it is found out where the session is
stored, or where a digest doesn't match.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from zotctl.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    Busy,
    Changed,
    DigestInvalid,
    IoFailed,
    NoSpace,
    NotFound,
    SizeInvalid,
    StorageError,
    UploadConflict,
)
from zotctl.oci.digest import Digest, Hash, digest_of, new_hash
from zotctl.storage import keys
from zotctl.storage.bucket.objects.multipart import (
    MOST_BYTES,
    MOST_PARTS,
    SMALLEST_PART_BYTES,
    Parts,
    digest_of_object,
    replace_object,
)
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.uploads.buffer import UploadBuffer
from zotctl.storage.driver import Buffer, chunks_of
from zotctl.storage.keys import parse_upload_id
from zotctl.storage.protocol import UploadSession

if TYPE_CHECKING:
    from zotctl.storage.bucket.uploads.sessions import BucketUploads


class Stage(Enum):
    """Where the bytes of an upload are."""

    BUFFERED = "in memory, and in the session as far as it is stored"
    DIRECT = "in parts of the blob's own object"
    STAGED = "in parts of an object of the upload, to be copied"


class Phase(Enum):
    """What the writer of an upload may still do."""

    OPEN = "write, save, finish"
    BROKEN = "close: of a part that failed nothing is left to be sent again"
    CLOSED = "nothing"


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """The session of an upload, stored between two requests as the object `uploads/ID`.

    Its metadata say what HEAD has to tell. Its body is the tail, which is the bytes in no part yet, then a trailer of
    lines: the ETags of the parts that were sent (thousands don't fit into 2 KB of metadata), and a random token, for an
    ETag may be a digest of the body alone, and two states must never have the same.

    `offset`, `tail`, `part` in bytes. `digest`: of all bytes up to `offset`, "" if unknown.
    `multipart`: the id of the multipart upload of `target`, "" if there is none. `etag` "": not stored yet.
    """

    id: str
    name: str
    offset: int = 0
    digest: str = ""
    tail: int = 0
    target: str = ""
    multipart: str = ""
    part: int = 0
    etags: tuple[str, ...] = field(default=(), repr=False)
    token: str = ""
    etag: str = ""

    @property
    def stage(self) -> Stage:
        """Where its parts go, if it has any."""
        if not self.multipart:
            return Stage.BUFFERED
        return Stage.STAGED if self.target == keys.staged(self.id) else Stage.DIRECT

    @classmethod
    def parse(cls, found: Object) -> StoredUpload:
        """What a HEAD or GET of it tells, without ETags of parts. Raises BlobUploadUnknown if zotctl has not written
        it."""
        about, upload_id = found.metadata, found.key.rpartition("/")[2]
        try:
            numbers = {key: int(about.get(key, "0")) for key in ("offset", "tail", "part")}
        except ValueError as error:
            raise unknown(upload_id) from error
        words = {key: about.get(key, "") for key in ("name", "digest", "target", "multipart", "token")}
        return cls(upload_id, etag=found.etag, **numbers, **words)  # type: ignore[arg-type]

    def metadata(self) -> dict[str, str]:
        """The other way round."""
        numbers = {"offset": self.offset, "tail": self.tail, "part": self.part}
        words = {"name": self.name, "digest": self.digest, "target": self.target, "multipart": self.multipart}
        return {k: str(v) for k, v in (numbers | words | {"token": self.token}).items() if v}

    def trailer(self) -> bytes:
        """What follows the tail in the body."""
        return "\n".join((*self.etags, self.token)).encode()


@dataclass(slots=True)
class KnownUpload:
    """What this process knows of an upload that is not being written.

    `hash`: of all bytes so far by `algorithm`, which can't be stored; None: parts were sent by another process.
    `idle_since`, seconds by `clock.elapsed`.
    """

    session: StoredUpload
    buffer: UploadBuffer
    algorithm: str
    hash: Hash | None
    idle_since: float = 0.0


class BucketUpload(UploadSession):
    """The writer of one upload; the states are drawn above. For one thread at a time.

    `named`: another request can continue it. `current`: its session was looked at for this request.
    """

    def __init__(self, uploads: BucketUploads, known: KnownUpload, *, named: bool, current: bool) -> None:
        self._uploads, self._objects, self._context = uploads, uploads.context.objects, uploads.context
        self._named, self._current, self._phase = named, current, Phase.OPEN
        self._expected: Digest | None = None
        self._start: int | None = None
        self._sent = False
        """Was a part sent since the last check whether other uploads wait for memory?"""
        self._stored_at = self._context.clock.elapsed()
        self.id, self.algorithm = known.session.id, parse_upload_id(known.session.id).algorithm
        self._adopt(known)

    def _adopt(self, known: KnownUpload) -> None:
        self._session, self._buffer = known.session, known.buffer
        self._hash, self._hashed_by, self._unhashed = known.hash, known.algorithm, 0
        self._kept = len(known.buffer)
        """Bytes of the buffer that the stored session has, too."""
        self._sha256_of_kept = known.hash.copy() if known.hash is not None and known.algorithm == "sha256" else None
        self._parts = self._parts_of(known.session) if known.session.multipart else None
        self.offset = known.session.offset

    def _parts_of(self, session: StoredUpload) -> Parts:
        return Parts(self._objects, session.target, session.multipart, session.etags, self._uploads.senders)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """After an error nothing more is stored."""
        try:
            yield
        except BaseException as error:
            if self._phase is Phase.OPEN:
                self._phase = Phase.BROKEN
            if isinstance(error, NotFound):  # it was ended meanwhile, by another request or by a collector
                raise unknown(self.id) from error
            raise

    # -- bytes ----------------------------------------------------------------------------------

    def expect(self, digest: Digest | None = None, size: int | None = None, start: int | None = None) -> None:
        """What is known before the first byte of a request: digest and size of the whole blob, where these bytes
        start. Raises UploadConflict, SizeInvalid."""
        self._start = start
        if start is not None and start != self.offset:
            raise self._conflict()
        if self._parts is not None:
            return
        if size is not None:
            self._fit(size)
        if digest is not None:
            self._expected = digest
            if digest.algorithm != self._hashed_by:
                self._hash, self._hashed_by = new_hash(digest.algorithm), digest.algorithm
                self._hash.update(self._buffer.content())

    def _fit(self, size: int) -> None:
        """Make parts so large that S3 takes all of them. Raises SizeInvalid for more than any object may have, or than
        fits into parts for which there is memory: whoever announces it would have all of a part kept."""
        largest = self._uploads.budget.largest_part
        if size > (most := min(MOST_BYTES, largest * (MOST_PARTS - 1))):
            way_out = "" if most == MOST_BYTES else "; a larger upload_memory allows more"
            raise SizeInvalid(f"a blob of {size} bytes is announced, and {most} are taken at the most{way_out}")
        part, old = self._buffer.part, self._buffer
        while part * (MOST_PARTS - 1) < size:
            part = min(2 * part, largest)
        if part != old.part:
            self._buffer = UploadBuffer(self._uploads.budget, part)
            content = bytes(old.content())
            old.clear()
            self._buffer.load(memoryview(content))

    @property
    def may_read_ahead(self) -> bool:
        """Has it a part's memory? If not, what is read ahead would wait as well, uncounted."""
        return self._buffer.halves > 0

    def ready(self, count: int) -> bool:
        """Would `write` take so many bytes without waiting for memory? If not, ask again after a while."""
        return self._buffer.ready(min(count, self._buffer.part))

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append and hash. Raises NoSpace (the session is gone), Unavailable (it can be resumed where it
        was stored the last time), BlobUploadUnknown (it was ended meanwhile)."""
        try:
            with self._breaking():
                for buffer in buffers:
                    self._append(memoryview(buffer))
                self._hash_up()
                if self._sent and self._parts is not None and self._uploads.budget.wanted:
                    # Other uploads wait for memory: after a part it is their turn.
                    self._parts.settle()
                    self._buffer.shrink()
                self._sent = False
                self._renew()
        except NoSpace:
            self.cancel()
            raise

    def _append(self, data: memoryview) -> None:
        while len(data):
            added = self._buffer.add(data)
            self.offset += added
            self._unhashed += added
            data = data[added:]
            if len(data) and not self._buffer.grow():
                self._hash_up()
                self._send()

    def _hash_up(self) -> None:
        """Hash what was added, in one call: under load a call costs as much as hashing 100 KiB."""
        count, self._unhashed = self._unhashed, 0
        if self._hash is not None and count:
            with self._buffer.view(self._buffer.end - count, self._buffer.end) as fresh:
                self._hash.update(fresh)

    def _send(self) -> None:
        """Send all that is in memory, which is full, as parts; or find that there is less than was thought."""
        parts = self._begin_parts() if self._parts is None else self._parts
        if parts is None or (not self._current and self._is_stale()):
            self._start_over()
            return
        self._parts, buffer = parts, self._buffer
        for half in range(buffer.start, buffer.end, buffer.part):
            parts.send(half, buffer.view(half, half + buffer.part))
        buffer.in_parts, self._kept, self._sent = True, 0, True
        parts.wait(buffer.next_half(half))

    def _begin_parts(self) -> Parts | None:
        """From BUFFERED to DIRECT or STAGED. The session is stored with the id of the multipart upload before a part is
        sent, so that they can be found after a crash. None: the session is not what it was."""
        target = keys.staged(self.id)
        if self._expected is not None and self._expected.algorithm == self._hashed_by:
            target = self._context.blob(self._session.name, self._expected)
        multipart = self._objects.start_parts(target)
        try:
            self._store(replace(self._session, target=target, multipart=multipart, part=self._buffer.part), self._kept)
        except Changed as error:
            self._objects.abort_parts(target, multipart)
            if self._current:
                raise self._conflict() from error
            return None
        return self._parts_of(self._session)

    # -- the session ----------------------------------------------------------------------------

    def save(self) -> None:
        """What has arrived outlives this process; nothing more comes. Also of no bytes at all, `offset` is that of the
        session. Raises UploadConflict, BlobUploadUnknown, Unavailable."""
        self._store_last()
        if self._named and self._phase is Phase.OPEN and not self._current and self._is_stale():
            self._start_over()

    def _store_last(self) -> None:
        if self._named and self._phase is not Phase.CLOSED:
            self._uploads.storing(self.id)
            with self._breaking():
                if self._phase is Phase.OPEN:
                    self._keep()

    def _keep(self, *, again: bool = False) -> None:
        """Store what has arrived. `again`: even if nothing has, since a copy takes its time."""
        while again or self.offset != self._session.offset:
            try:
                self._fit_chunks()
                whole_parts = len(self._buffer) > 0 and len(self._buffer) % self._buffer.part == 0
                if whole_parts and (self._buffer.in_parts or self._kept):
                    # Of an upload by many requests: stored, they would be sent twice. After the first request it is
                    # unknown yet that there are many, and a small blob needs no parts.
                    self._send()
                etags = self._parts.settle() if self._parts else ()
                digest = self._digest(self._hashed_by)
                session = replace(self._session, offset=self.offset, digest=digest, etags=etags)
                self._store(session, len(self._buffer))
                self._kept, self._sha256_of_kept = len(self._buffer), None
                return
            except Changed as error:
                if self._current:
                    raise self._conflict() from error
                self._start_over()
                again = False

    def _fit_chunks(self) -> None:
        """Make parts as large as the first two chunks, if these are alike: each one that follows is a part then, where
        it would be stored as a tail first, and sent as half of a part with the next one."""
        chunk, part = self._kept, self._buffer.part
        if len(self._buffer) == 2 * chunk and max(part // 2, SMALLEST_PART_BYTES) <= chunk < part:
            self._buffer.divide(chunk)

    def _conflict(self) -> UploadConflict:
        return UploadConflict(f"upload {self.id} was written by another request meanwhile", self.id)

    def _store(self, session: StoredUpload, tail: int) -> None:
        """Store the session with `tail` bytes of the buffer. Raises Changed."""
        session = replace(session, token=self._context.clock.token(), tail=tail)
        trailer = session.trailer()
        with self._buffer.with_trailer(tail, trailer) as body:
            self._session = self._uploads.store(session, body, self._sha256(tail, trailer))
        self._current, self._stored_at = True, self._context.clock.elapsed()

    def _sha256(self, tail: int, trailer: bytes) -> str:
        """Of the first bytes of the blob, `tail` of them, and what follows them in a session; "" if they would have to
        be hashed for it."""
        if self._buffer.in_parts:
            return ""
        known = self._hash if self._hashed_by == "sha256" and tail == self.offset - self._unhashed else None
        known = known or (self._sha256_of_kept if tail == self._kept else None)
        if known is None:
            return ""
        state = known.copy()
        state.update(trailer)
        return state.hexdigest()

    def _renew(self, *, again: bool = False) -> None:
        """Store the session again if it is half a window old, since collectors forget what no client continues."""
        age = self._context.clock.elapsed() - self._stored_at
        if age > self._context.window / 2 and self._session.etag:
            self._keep(again=again)

    def _is_stale(self) -> bool:
        """Has another request continued the upload? Raises BlobUploadUnknown."""
        found = self._uploads.head(self._session.name, self.id)
        self._current = found.etag == self._session.etag
        return not self._current

    def _start_over(self) -> None:
        """Other requests went on with it since this process did: what came with this request follows theirs. It is all
        in the buffer, since no part is sent before the session was looked at."""
        content = bytes(self._buffer.content()[self._kept :])
        self._buffer.clear()
        self._adopt(self._uploads.load(self._session.name, self.id))
        self._current, self._stored_at = True, self._context.clock.elapsed()
        if self._start is not None and self._start != self.offset:
            raise self._conflict()
        self._append(memoryview(content))
        self._hash_up()

    # -- the end --------------------------------------------------------------------------------

    def publish(self, digest: Digest, *, wait: bool = True) -> None:
        """Publish under its digest what has arrived, always with a wait. Raises DigestInvalid if it is something else;
        then, as after success and without space, nothing of the session is left."""
        try:
            with self._breaking():
                self._publish(digest)
        except (DigestInvalid, NoSpace):
            with suppress(StorageError):  # a collector finds what is left
                self.cancel()
            raise
        self._let_go()
        self._uploads.discard_soon(self._session, completed=self._parts is not None and self._parts.completed)
        try:
            self._uploads.blobs.require_reserved(self._session.name, digest)
        except NotFound as error:
            raise Busy(f"{digest} was collected before its upload could be answered; send it again") from error

    def _publish(self, digest: Digest) -> None:
        """Publish by the way that the stage needs, each within the reservation of a push."""
        if self._digest(digest.algorithm) != digest and not self._current and self._is_stale():
            self._start_over()
        if known := self._digest(digest.algorithm):
            _verify(digest, known)
        make = self._put
        stage = self._session.stage if self._buffer.in_parts else Stage.BUFFERED
        if stage is Stage.DIRECT:
            if not known or self._session.target != self._context.blob(self._session.name, digest):
                self.cancel()  # parts under the key of one digest can't become the blob of another
                raise BlobUploadInvalid(f"upload {self.id} was begun for another digest; send it again")
            make = self._complete
        elif stage is Stage.STAGED:
            self._renew(again=True)  # which may send what is left, or find that others have sent more
            if not self._complete_staged(digest):
                return
            make = self._copy
        # Who sends a blob in one request has mostly asked for it before, or knows that it is not here.
        new = not self._named
        self._uploads.blobs.publish(self._session.name, digest, partial(make, digest), new=new)

    def _put(self, digest: Digest, key: str) -> Object:
        """BUFFERED, and verified. The server refuses other bytes, too."""
        sha256 = digest.encoded if digest.algorithm == "sha256" else ""
        etag = self._objects.put(key, self._buffer.content(), sha256=sha256)
        return Object(key, self.offset, etag, 0.0, 0.0)

    def _complete(self, digest: Digest, key: str) -> Object:
        """DIRECT, and verified."""
        assert self._parts is not None
        done = self._parts.complete(self._buffer.content(), self.offset)
        # What is there of this size, after another request has ended the upload, may be older than it.
        if done is None or not (
            self._parts.completed or digest_of_object(self._objects, key, digest.algorithm) == digest
        ):
            raise Busy(f"upload {self.id} was ended, or its blob collected, meanwhile; send it again")
        return done

    def _complete_staged(self, digest: Digest) -> bool:
        """STAGED: verified bytes under `staged/ID`. False: the blob is there, since another request has finished the
        upload, and this one is its repetition. Raises DigestInvalid, BlobUploadUnknown."""
        assert self._parts is not None
        if self._parts.complete(self._buffer.content(), self.offset) is None:
            self._uploads.blobs.find(self._session.name, digest)
            return False
        if not (self._digest(digest.algorithm) == digest and self._parts.completed):
            # Bytes that came to more than one process are read once, and so is what another request may have ended.
            _verify(digest, digest_of_object(self._objects, self._session.target, digest.algorithm))
        return True

    def _copy(self, digest: Digest, key: str) -> Object:
        """A copy that came out wrong may have replaced a good object, so that the right bytes are written over it."""
        found = self._objects.copy(self._session.target, key)
        sha256 = found.metadata.get("sha256", "")
        wrong = digest.algorithm == "sha256" and sha256 and base64.b64decode(sha256).hex() != digest.encoded
        if not wrong and found.size == self.offset:
            return found
        try:
            with self._objects.open(self._session.target) as staged:
                replace_object(self._objects, key, digest, chunks_of(staged))
            return self._objects.head(key)
        except (DigestInvalid, StorageError) as error:
            self._objects.delete(key)
            raise IoFailed(f"{key} came out of its copy with other bytes than were sent; send it again") from error

    def _digest(self, algorithm: str) -> str:
        """The digest of all bytes so far; "" if they would have to be read for it."""
        if self._hash is not None and self._hashed_by == algorithm:
            return f"{algorithm}:{self._hash.hexdigest()}"
        if not self._buffer.in_parts:
            return digest_of(self._buffer.content(), algorithm)
        stored = self._session.digest if self.offset == self._session.offset else ""
        return stored if stored.startswith(f"{algorithm}:") else ""

    def cancel(self) -> None:
        """Forget the session; its bytes are free at once. Raises Unavailable."""
        if self._phase is Phase.CLOSED:
            return
        session = self._session
        with suppress(BlobUploadUnknown):
            if not self._current:  # another process may have begun parts
                session = self._uploads.head(session.name, self.id)
        self._let_go()
        self._uploads.release(self.id)
        self._uploads.discard(session)

    def close(self) -> None:
        """Let go of the session and keep it for the request that continues it. Raises UploadConflict, Unavailable."""
        if self._phase is Phase.CLOSED:
            return
        if not self._named:
            self.cancel()
            return
        try:
            self._store_last()
        finally:
            known = None
            if self._phase is Phase.OPEN:  # what is in memory is what the session has
                known = KnownUpload(self._session, self._buffer, self._hashed_by, self._hash)
            self._let_go(keep=known is not None)
            self._uploads.release(self.id, known)

    def _let_go(self, *, keep: bool = False) -> None:
        """Close, and free the memory unless it is kept."""
        self._phase = Phase.CLOSED
        if self._parts is not None:
            self._parts.abandon()
        if keep:
            self._buffer.settle()
        else:
            self._buffer.clear()


def unknown(upload_id: str) -> BlobUploadUnknown:
    """The error for an upload that is not there."""
    shown = upload_id[:64]
    return BlobUploadUnknown(f"no upload {shown} here: it was finished, cancelled, or never begun", shown)


def lost(upload_id: str) -> BlobUploadUnknown:
    """The error for an upload that only another process could continue (`Stage.DIRECT`)."""
    return BlobUploadUnknown(
        f"upload {upload_id} began with a PUT, whose bytes only the process that got them can add to: begin it again",
        upload_id,
    )


def _verify(digest: Digest, found: str) -> None:
    if found != digest:
        raise DigestInvalid(
            f"the content has the digest {found}, not {digest}; send it again",
            {"expected": digest, "found": found},
        )
