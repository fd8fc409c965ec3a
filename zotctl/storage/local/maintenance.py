"""`Maintenance` on a file system."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

from zotctl.errors import DigestInvalid, NotEmpty, NotFound
from zotctl.oci.digest import Digest, digest_named, new_hash
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.local.gathering import LocalGathering
from zotctl.storage.local.lease import lease
from zotctl.storage.local.pool import Copy, PoolEntry

if TYPE_CHECKING:
    from zotctl.storage.local.protocol import LocalProtocol


class LocalMaintenance:
    def __init__(self, protocol: LocalProtocol) -> None:
        self._protocol = protocol

    @property
    def _context(self) -> LocalContext:
        return self._protocol.context

    @property
    def _damaged(self) -> DamagedFiles:
        return self._protocol.damaged

    @property
    def durable(self) -> bool:
        return self._context.commit

    def stat(self, key: str) -> Info | None:
        return self._context.stat(key)

    def look(self, name: str, digest: Digest) -> Info:
        """Content in the trash comes back when it is asked for."""
        return self._protocol.blobs.find(name, digest, fresh=True)

    def is_trashed(self, name: str, digest: Digest) -> bool:
        runs = self._protocol.trash.runs(fresh=True)
        return any(self._context.stat(keys.trashed(run, name, digest)) for run in runs)

    def readers(self, digest: Digest, info: Info) -> int:
        """The pool's name is no repository."""
        return info.nlink if info.nlink == 1 else info.nlink - self._is_pooled(digest, info)

    def _is_pooled(self, digest: Digest, info: Info) -> bool:
        return same_file(self._context.stat(keys.pool(digest)), info)

    def copies(self, digest: Digest) -> Iterator[str]:
        yield keys.pool(digest)
        for name in self._protocol.catalog.walk():
            yield keys.blob(name, digest)

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        return set(self._damaged.digests())

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        return self._damaged.has(digest, info)

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        """Keep the damaged inode aside."""
        self.drop_from_pool(digest, damaged)
        return self._damaged.mark(digest, keys.blob(name, digest), damaged)

    def drop_from_pool(self, digest: Digest, damaged: HeldFile) -> None:
        """A damaged copy helps no push. The pool is a hint, so if a good one came in between, that is no loss."""
        if self._is_pooled(digest, damaged.info):
            self._context.discard(keys.pool(digest))

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        return self._damaged.clear(digest, good)

    def sweep(self, before: float) -> int:
        return sum(self._damaged.sweep(digest, int(before * 1e9)) for digest in self._damaged.digests())

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        protocol, staged, blob = self._protocol, keys.tmp(self._context.clock.token()), keys.blob(name, digest)
        try:
            self._stage(staged, digest, chunks)
            if not self._damaged.mark(digest, blob, damaged):
                return []
            self.drop_from_pool(digest, damaged)
            protocol.pool.offer(digest, staged, PoolEntry(Copy.ABSENT))
            # Set aside, where it can't be linked. Else a client has deleted it meanwhile (I7).
            if not self._damaged.has(digest, damaged.info) and self._context.stat(blob) is None:
                protocol.blobs.publish(name, digest, staged)
                return [name]
            return protocol.blobs.healing.spread(digest, staged)
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
        return self._damaged.lasting()

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> LocalGathering:
        return LocalGathering(self._context, partial(self._protocol.blobs.publish, manifest=True))

    def flush(self, name: str, digests: Collection[Digest]) -> None:
        self._protocol.blobs.flush(name, digests)
        self._context.durable.names(name)

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """Flushed, but for who postpones it: index.json must never lead to a may_truncate manifest (I3)."""
        staged = self._protocol.stage(body)
        try:
            self._protocol.blobs.publish(name, digest, staged, manifest=True)
        finally:
            self._protocol.unstage(staged)

    def take(self, place: str, digest: Digest, chunks: Iterable[bytes]) -> None:
        """By an upload, which takes the pool's copy where there is one. Not flushed before it is somewhere else."""
        upload = self._protocol.resume_upload(place, self._protocol.start_upload(place, digest.algorithm))
        try:
            with self._context.durable.postponing():
                for data in chunks:
                    upload.write([data])
                upload.finish(digest)
        except BaseException:
            upload.cancel()
            raise

    def open_uploads(self) -> int:
        return self._protocol.uploads.count()

    def discard(self, place: str) -> None:
        if self._context.stat(place) is None:
            return
        for algorithm in self._names(keys.blobs(place)):
            for encoded in self._names(keys.blobs_of(place, algorithm)):
                self._context.discard(f"{keys.blobs_of(place, algorithm)}/{encoded}")
                if (digest := digest_named(algorithm, encoded)) is not None:
                    self._protocol.pool.release(digest)
            self._rmdir(keys.blobs_of(place, algorithm))
        self._rmdir(keys.blobs(place))
        for name in self._names(place):
            self._context.discard(f"{place}/{name}")
        self._rmdir(place)

    def _names(self, directory: str) -> list[str]:
        try:
            return [entry.name for entry in self._context.driver.scan(directory)]
        except NotFound:
            return []

    def _rmdir(self, directory: str) -> None:
        with suppress(NotFound, NotEmpty):
            self._context.driver.rmdir(directory)

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        self._context.replace(key, parts)

    def lease(self, job: str) -> AbstractContextManager[None]:
        return lease(self._context, job)
