"""Resumable uploads to a directory: one file each, `uploads/ID.KEY` (docs/design/local.md#upload).

The id tells when the upload began and how it is hashed (`keys.UploadId`). Another worker, another server on the same
root, or the same one after a restart goes on where the last one stopped. No descriptor is held for an idle upload, and
only the state of the hash is kept in memory, for the most recent ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zotctl.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    NoSpace,
    NotFound,
    StorageError,
    UploadConflict,
)
from zotctl.oci.digest import Digest, new_hash
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Buffer, Writer, chunks_of, hash_of
from zotctl.storage.keys import UploadId, make_upload_id, parse_upload_id
from zotctl.storage.local.blobs import LocalBlobs
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.reserve import Reserve
from zotctl.storage.protocol import UploadSession, WouldBlock

SPACE_CHECKED_EVERY_BYTES = 16 << 20
REMEMBERED_HASHES = 1024


class LocalUploads:
    """The uploads of one root. Safe between threads and processes."""

    def __init__(self, context: LocalContext, blobs: LocalBlobs, reserve: Reserve) -> None:
        self.context, self.blobs, self.reserve = context, blobs, reserve
        self.hashes: Lru[str, tuple[int, Any]] = Lru(REMEMBERED_HASHES)

    def start(self, name: str, algorithm: str, owner: str = "") -> str:
        """A new session; its id is a UUID (distribution-spec, "POST then PUT")."""
        self.reserve.check()
        upload_id = make_upload_id(algorithm, self.context.storage_clock.now(), owner)
        self.context.driver.create(keys.upload(name, upload_id)).close()
        return upload_id

    def begin(self, name: str, algorithm: str) -> LocalUpload:
        """A new session, taken for writing at once."""
        return self.resume(name, self.start(name, algorithm))

    def offset(self, name: str, upload_id: str) -> int:
        """Bytes that arrived so far."""
        info = self.context.stat(keys.upload(name, _parsed(upload_id).text))
        if info is None or info.nlink > 1:
            raise _unknown(upload_id)
        return info.size

    def count(self) -> int:
        """The number of sessions in all repositories, abandoned ones included."""
        return len(self.context.scan(keys.UPLOADS))

    def resume(self, name: str, upload_id: str, *, wait: bool = True) -> LocalUpload:
        """Take a session for writing; what another process wrote is read to hash it. With `wait` false, WouldBlock
        instead."""
        known = _parsed(upload_id)
        try:
            writer = self.context.driver.append(keys.upload(name, upload_id), create=False)
        except NotFound as error:
            raise _unknown(upload_id) from error
        except NoSpace:
            self.remove(name, upload_id)
            raise
        locks, process_locks = self.context.driver.capabilities.locks, self.context.locks.process_locks
        try:
            if not (writer.try_lock() if locks else process_locks.take(upload_id) is not None):
                raise UploadConflict(f"upload {upload_id} is being written by another request", upload_id)
            info = writer.info()
            if info.nlink > 1:
                # Published, and killed before its name went: one more byte would go into the blob.
                self.remove(name, upload_id)
                raise _unknown(upload_id)
            hasher = self._hash_on(name, upload_id, known.algorithm, info.size, wait=wait)
        except BaseException as error:
            writer.close()
            if not isinstance(error, UploadConflict):
                process_locks.give_back(upload_id)
            raise
        return LocalUpload(self, name, known, writer, info.size, hasher)

    def _hash_on(self, name: str, upload_id: str, algorithm: str, size: int, *, wait: bool) -> Any:
        """A hash of all that has arrived. Only what this process has not hashed is read, for bytes are only added: else
        chunks that reach several workers in turn would cost the square of their number."""
        hashed, hasher = self.hashes.get(upload_id) or (0, new_hash(algorithm))
        if hashed != size and not wait:
            raise WouldBlock(upload_id)
        self.hashes.drop(upload_id)  # it is changed from now on, and of so many bytes again when the session is closed
        if hashed > size:
            hashed, hasher = 0, new_hash(algorithm)
        if hashed < size:
            with self.context.driver.open(keys.upload(name, upload_id)) as reader:
                for chunk in chunks_of(reader, size, hashed):
                    hasher.update(chunk)
        return hasher

    def hash_file(self, name: str, upload_id: str, algorithm: str) -> Any:
        """A hash of all that has arrived, from the file."""
        with self.context.driver.open(keys.upload(name, upload_id)) as reader:
            return hash_of(reader, algorithm)

    def remove(self, name: str, upload_id: str) -> None:
        """Free the bytes of a session and forget it."""
        self.hashes.drop(upload_id)
        self.context.discard(keys.upload(name, upload_id))


class LocalUpload(UploadSession):
    """One session, locked for one writer. Closing it keeps what has arrived."""

    def __init__(
        self, uploads: LocalUploads, name: str, upload_id: UploadId, writer: Writer, offset: int, hasher: Any
    ) -> None:
        self._uploads, self._name, self._writer, self._hasher = uploads, name, writer, hasher
        self.id, self.algorithm, self.offset = upload_id.text, upload_id.algorithm, offset
        self._unchecked = SPACE_CHECKED_EVERY_BYTES
        self._open = True

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append and hash. Raises NoSpace (the session is gone, its bytes free at once), IoFailed
        (cut back to what is hashed, resumable)."""
        size = sum(len(buffer) for buffer in buffers)
        self._unchecked += size
        try:
            if self._unchecked >= SPACE_CHECKED_EVERY_BYTES:
                self._uploads.reserve.check()
                self._unchecked = 0
            self._writer.write(buffers)
        except NoSpace:
            self.cancel()
            raise
        except StorageError:
            self._writer.truncate(self.offset)
            raise
        for buffer in buffers:
            self._hasher.update(buffer)
        self.offset += size

    def publish(self, digest: Digest, *, wait: bool = True) -> None:
        """Publish what has arrived under its digest. Raises DigestInvalid if it has another one; then, as after success
        and on a full disk, nothing of the session is left. With `wait` false, WouldBlock before a flush, before the
        bytes are read, and where the name is not free."""
        if not wait and (self._uploads.context.durable.waits or digest.algorithm != self.algorithm):
            raise WouldBlock(self.id)
        try:
            self._verify(digest)
            if self._uploads.context.durable.waits:
                try:
                    self._writer.sync()
                except StorageError:
                    # fsync(2): after an error the next one may report success for bytes that never arrived.
                    self.cancel()
                    raise
            self._uploads.blobs.publish(self._name, digest, keys.upload(self._name, self.id), wait=wait)
        except (DigestInvalid, NoSpace):
            self.cancel()
            raise
        self.cancel()

    def _verify(self, digest: Digest) -> None:
        if self._writer.info().size != self.offset:
            raise BlobUploadInvalid(f"upload {self.id} was changed by another process while it was being written")
        hasher = self._hasher
        if digest.algorithm != self.algorithm:
            hasher = self._uploads.hash_file(self._name, self.id, digest.algorithm)
        found = hasher.hexdigest()
        if found != digest.encoded:
            raise DigestInvalid(
                f"the content has the digest {digest.algorithm}:{found}, not {digest}; send it again",
                {"expected": digest, "found": f"{digest.algorithm}:{found}"},
            )

    def cancel(self) -> None:
        """Forget the session; its bytes are free at once."""
        self._release()
        self._uploads.remove(self._name, self.id)

    def close(self) -> None:
        """Let go of the session and keep it for the request that continues it."""
        if self._open:
            self._uploads.hashes.put(self.id, (self.offset, self._hasher))
        self._release()

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._writer.close()
            self._uploads.context.locks.process_locks.give_back(self.id)


def _parsed(upload_id: str) -> UploadId:
    try:
        return parse_upload_id(upload_id)
    except ValueError as error:
        raise _unknown(upload_id) from error


def _unknown(upload_id: str) -> BlobUploadUnknown:
    shown = upload_id[:64]
    return BlobUploadUnknown(f"no upload {shown} here: it was finished, cancelled, or never begun", shown)
