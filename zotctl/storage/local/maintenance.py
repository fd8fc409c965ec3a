"""`Maintenance` on a directory; and the lease of a job: one byte of a file, locked while the process lives
(docs/design/local.md#locks)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from zotctl.errors import DigestInvalid, HeldElsewhere, NoSpace, NotEmpty, NotFound, StorageError
from zotctl.oci.digest import CANONICAL, Digest, digest_named, digest_of_hash, new_hash
from zotctl.storage import keys
from zotctl.storage.driver import Info, Lock, read
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.local.blobs import Copy, PoolEntry
from zotctl.storage.local.context import in_the_way, open_own
from zotctl.storage.local.durable import LocalGathering
from zotctl.storage.locks import describe_holder, read_holder

if TYPE_CHECKING:
    from zotctl.storage.local.protocol import LocalProtocol


LEASES_BEYOND_BYTE = 1 << 62
"""Bytes of the lock file that no repository has (`locks.lock_byte`)."""


class LocalMaintenance:
    """What jobs do to one root. Safe between threads and processes."""

    def __init__(self, protocol: LocalProtocol) -> None:
        self._protocol, self._context, self._damaged = protocol, protocol.context, protocol.damaged

    @property
    def durable(self) -> bool:
        """With `commit`, every push is flushed before it is answered."""
        return self._context.commit

    def stat(self, key: str) -> Info | None:
        """lstat(2); None: there is none."""
        return self._context.stat(key)

    def look(self, name: str, digest: Digest) -> Info:
        """Lists the trash afresh, from which content comes back."""
        return self._protocol.blobs.find(name, digest, fresh=True)

    def is_trashed(self, name: str, digest: Digest) -> bool:
        """Is it in a run that reads look into?"""
        runs = self._protocol.trash.runs(fresh=True)
        return any(self._context.stat(keys.trashed(run, name, digest)) for run in runs)

    def readers(self, digest: Digest, info: Info) -> int:
        """The link count, without the pool's own name."""
        return info.nlink if info.nlink == 1 else info.nlink - self._is_pooled(digest, info)

    def _is_pooled(self, digest: Digest, info: Info) -> bool:
        return same_file(self._context.stat(keys.pool(digest)), info)

    def copies(self, digest: Digest) -> Iterator[str]:
        """The pool's key, then that of each repository."""
        yield keys.pool(digest)
        for name in self._protocol.catalog.walk():
            yield keys.blob(name, digest)

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        """Every digest below `damaged/`."""
        return set(self._damaged.digests())

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        """Has `damaged/` a link of this inode?"""
        return self._damaged.has(digest, info)

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        """Keep the damaged inode aside."""
        self.drop_from_pool(digest, damaged)
        return self._damaged.mark(digest, keys.blob(name, digest), damaged)

    def drop_from_pool(self, digest: Digest, damaged: HeldFile) -> None:
        """Remove a damaged copy from the pool. The pool is a hint: if a good copy came in between, nothing is lost."""
        if self._is_pooled(digest, damaged.info):
            self._context.discard(keys.pool(digest))

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        """Remove the links of this inode from `damaged/`."""
        return self._damaged.clear(digest, good)

    def sweep(self, before: float) -> int:
        """Remove links from `damaged/` that are the last of their inode since `before` (seconds since 1970). Bytes
        freed."""
        return sum(self._damaged.sweep(digest, int(before * 1e9)) for digest in self._damaged.digests())

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        """Links to one copy in `tmp`, which is written and hashed once. Raises NoSpace, DigestInvalid; nothing has
        changed then."""
        protocol, staged, blob = self._protocol, keys.tmp(self._context.clock.token()), keys.blob(name, digest)
        try:
            self._stage(staged, digest, chunks)
            if not self._damaged.mark(digest, blob, damaged):
                return []
            self.drop_from_pool(digest, damaged)
            protocol.pool.offer(digest, staged, PoolEntry(Copy.ABSENT))
            # A file that can't be linked was moved aside; otherwise a client has deleted it meanwhile (I7).
            if not self._damaged.has(digest, damaged.info) and self._context.stat(blob) is None:
                protocol.blobs.publish(name, digest, staged)
                return [name]
            return protocol.blobs.healing.heal_all(digest, staged)
        finally:
            self._context.discard(staged)

    def _stage(self, staged: str, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Write and hash. Raises DigestInvalid."""
        state = new_hash(digest.algorithm)
        with self._context.driver.create(staged) as writer:
            for chunk in chunks:
                self._protocol.reserve.check()
                state.update(chunk)
                writer.write([chunk])
            writer.sync()
        if state.hexdigest() != digest.encoded:
            raise DigestInvalid(f"these bytes are not {digest}", digest)

    def lasting_damage(self) -> int:
        """Digests of which a damaged inode has a name outside `damaged/`."""
        return self._damaged.lasting()

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> LocalGathering:
        """One flush for many blobs."""
        publish = partial(self._protocol.blobs.publish, manifest=True)
        return LocalGathering(self._context.durable, self._context.driver, self._context.clock, publish)

    def flush(self, name: str, digests: Collection[str]) -> None:
        """Flush blobs of a repository, and the names in it. Raises NotFound if one was deleted meanwhile."""
        self._protocol.blobs.flush(name, digests)
        self._context.durable.flush_names(name)

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """Flushed, unless the caller gathers: index.json must never lead to a manifest that is truncated (I3)."""
        staged = self._protocol.stage(body)
        try:
            self._protocol.blobs.publish(name, digest, staged, manifest=True)
        finally:
            self._protocol.unstage(staged)

    def take(self, place: str, digest: Digest | None, chunks: Iterable[bytes]) -> Digest:
        """By an upload, which links the pool's copy if there is one. Flushed only when it gets another place."""
        algorithm = digest.algorithm if digest else CANONICAL
        upload = self._protocol.uploads.resume(place, self._protocol.uploads.start(place, algorithm))
        state = new_hash(algorithm)
        try:
            with self._context.durable.postponing():
                for data in chunks:
                    if digest is None:
                        state.update(data)
                    upload.write([data])
                digest = digest or digest_of_hash(algorithm, state)
                upload.finish(digest)
        except BaseException:
            upload.cancel()
            raise
        return digest

    def open_uploads(self) -> int:
        """The number of files in `uploads/`."""
        return self._protocol.uploads.count()

    def discard(self, place: str) -> None:
        """Remove a directory in `tmp` that was filled by `take`, and what the pool has of it alone."""
        if self._context.stat(place) is None:
            return
        for algorithm in self._context.scan(keys.blobs(place)):
            folder = keys.blobs_of(place, algorithm.name)
            for entry in self._context.scan(folder):
                self._context.discard(f"{folder}/{entry.name}")
                if (digest := digest_named(algorithm.name, entry.name)) is not None:
                    self._protocol.pool.release(digest)
            self._rmdir(folder)
        self._rmdir(keys.blobs(place))
        for entry in self._context.scan(place):
            self._context.discard(f"{place}/{entry.name}")
        self._rmdir(place)

    def _rmdir(self, directory: str) -> None:
        with suppress(NotFound, NotEmpty):
            self._context.driver.rmdir(directory)

    def read(self, key: str, most_bytes: int) -> bytes:
        """Also while an NFS client replaces it by two requests, and when it has died between them."""
        with open_own(self._context.driver, key) as reader:
            return reader.read_at(0, min(reader.size, most_bytes + 1))

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Replace a file of our own as a whole, flushed."""
        self._context.replace(key, parts, "" if self._context.driver.capabilities.local else keys.renewed(key))

    # -- leases ---------------------------------------------------------------------------------

    @contextmanager
    def lease(self, job: str) -> Iterator[None]:
        """Raises HeldElsewhere; Damaged where something else has the name of its file."""
        label, holder = self._context.driver.label, keys.lease(f"{job}.holder")
        if not self._context.driver.capabilities.locks:
            raise HeldElsewhere(f"{label} has no file locks: {job} can't tell whether another process is writing")
        lock = self._try_lease(job)
        if lock is None:
            who = ""
            with suppress(StorageError):
                who = read_holder(read(self._context.driver, holder, 4096))
            raise HeldElsewhere(f"{job} is already running on {label}{who}")
        try:
            self._note_holder(holder)
            yield
        finally:
            try:
                with suppress(StorageError):  # the note is for people; the lock must go
                    self._context.discard(holder)
            finally:
                lock.release()

    def _try_lease(self, job: str) -> Lock | None:
        """The lock of the lease; None: another run has it."""

        def take() -> Lock | None:
            self._context.make_dirs(keys.LEASES)
            try:
                return self._context.driver.lock(keys.lease(job), 0)
            except NotFound:
                if self._context.stat(key := keys.lease(job)) is None:
                    raise
                raise in_the_way(self._context.driver.label, key) from None

        try:
            return self._context.with_room(take)
        except NoSpace:
            # On a disk without an inode what frees one may need none: a byte of a file that is there. Who has a file
            # of its own does not see that, which costs work and no data.
            return self._context.driver.lock(keys.LOCK, LEASES_BEYOND_BYTE + zlib.crc32(job.encode()))

    def _note_holder(self, key: str) -> None:
        temp = keys.tmp(self._context.clock.token())
        with suppress(StorageError):
            try:
                with self._context.driver.create(temp) as writer:
                    writer.write([json.dumps(describe_holder(self._context.clock)).encode()])
                self._context.driver.rename(temp, key)
            finally:
                self._context.discard(temp)  # a full disk is a reason to run gc: no rest of this may stay there
