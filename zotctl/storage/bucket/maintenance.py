"""What jobs do to a bucket and requests do not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

from zotctl.errors import Changed, Damaged, NotFound
from zotctl.oci.digest import CANONICAL, Digest, digest_of_hash, is_stub, new_hash
from zotctl.storage import keys
from zotctl.storage.bucket.lease import lease
from zotctl.storage.bucket.objects.multipart import replace_object
from zotctl.storage.bucket.objects.seam import Object, info_of
from zotctl.storage.bucket.objects.wrappers import FirstWriteGate
from zotctl.storage.bucket.probe import Abilities, Probe, probe_deletes, require_collection
from zotctl.storage.driver import CHUNK_BYTES, Info, read
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.protocol import Gathering

if TYPE_CHECKING:
    from zotctl.storage.bucket.protocol import BucketProtocol

SPOOLED_BYTES = 8 << 20
"""What waits for its digest lies in memory up to here, and beyond it in a temporary file."""


class BucketMaintenance:
    """`Maintenance` on a bucket. Each method may raise what a request raises."""

    durable = True

    def __init__(self, protocol: BucketProtocol) -> None:
        self._protocol, self._context = protocol, protocol.context
        self._blobs, self._damaged, self._grants = protocol.blobs, protocol.damaged, protocol.grants

    def stat(self, key: str) -> Info | None:
        """As the tree shows it: one or two HEADs; a LIST for a directory."""
        try:
            return self._protocol.driver.stat(key)
        except NotFound:
            return None

    def look(self, name: str, digest: Digest) -> Info:
        """No reservation, so that a job that only looks writes nothing."""
        found = self._blobs.copy_of(name, digest)
        if found is None:
            raise NotFound(f"no {digest} in {name}")
        if is_stub(digest, found.size) or self._damaged.has(digest, found):
            raise Damaged(f"{digest} is damaged in {name}")
        return info_of(found)

    def is_trashed(self, name: str, digest: Digest) -> bool:
        """False: a bucket has no trash."""
        return False

    def readers(self, digest: Digest, info: Info) -> int:
        """As the list of reservations had it; the pool's own name is no repository."""
        return max(1, info.nlink - 1)

    def copies(self, digest: Digest) -> Iterator[str]:
        """The pool's copy, then that of each repository, by a walk."""
        yield keys.shared(digest)
        for name in self._protocol.catalog.everything():
            yield keys.blob(name, digest)

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        """By a LIST of all marks."""
        self._damaged.refresh(now=True)
        return set(self._context.damaged)

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        """No request where no copy of the digest is marked."""
        if digest not in self._context.damaged:
            return False
        found = self._same(name, digest, info)
        return found is not None and self._damaged.has(digest, found)

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        """Writes the mark of the object that was hashed. False: another object is in its place by now."""
        if (found := self._same(name, digest, damaged.info)) is None:
            return False
        self._damaged.mark(digest, found)
        return True

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        """Removes the mark, if it is about the object that was hashed."""
        found = self._same(name, digest, good.info)
        if found is None or not self._damaged.has(digest, found):
            return False
        self._damaged.clear(digest, found.key)
        return True

    def _same(self, name: str, digest: Digest, info: Info) -> Object | None:
        """The object that was meant, if the repository still reads it. Without a name: the pool's."""
        found = self._blobs.copy_of(name, digest) if name else self._context.head(keys.shared(digest))
        return found if found is not None and same_file(info_of(found), info) else None

    def sweep(self, before: float) -> int:
        """The bytes lie where they lay, for the collector to find; what was replaced needs no mark."""
        for digest, key in list(self._damaged.marks()):
            found = self._context.head(key)
            if found is None or not self._damaged.is_marked(digest, found):
                self._damaged.clear(digest, key)
        return 0

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        """In its own place, so that its readers are healed, and only over the damaged object: what a client deleted
        meanwhile stays deleted (I7)."""
        if (found := self._same(name, digest, damaged.info)) is None:
            return []
        try:
            replace_object(self._context.objects, found.key, digest, chunks, match=found.etag)
        except (Changed, NotFound):
            if self._same(name, digest, damaged.info) is not None:
                raise  # it is the source that is gone
            return []
        self._damaged.clear(digest, found.key)
        if found.key != keys.shared(digest):
            return [name]
        return sorted({name, *self._grants.of_digest(digest)})

    def lasting_damage(self) -> int:
        """By a LIST of all marks."""
        return len(self.damaged())

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> AbstractContextManager[Gathering]:
        """Nothing is gathered: each request is answered when its object is stored."""
        return nullcontext(_AtOnce())

    def flush(self, name: str, digests: Collection[str]) -> None:
        """Nothing is said to be stored before the store has confirmed it."""

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """M3, and its reservation; before that, index.json."""
        self._protocol.indexes.ensure(name)
        self._blobs.publish_manifest(name, digest, body)

    def take(self, place: str, digest: Digest | None, chunks: Iterable[bytes]) -> Digest:
        """One PUT, or a multipart upload that is completed when the hash has matched. What has no digest yet has no
        key either, so it waits in a temporary file of this machine."""
        if digest is None:
            with SpooledTemporaryFile(SPOOLED_BYTES) as spool:
                state = new_hash(CANONICAL)
                for data in chunks:
                    state.update(data)
                    spool.write(data)
                spool.seek(0)
                return self.take(place, digest_of_hash(CANONICAL, state), iter(lambda: spool.read(CHUNK_BYTES), b""))
        replace_object(self._context.objects, keys.blob(place, digest), digest, chunks)
        return digest

    def open_uploads(self) -> int:
        """By a LIST of the sessions."""
        return sum(1 for _ in self._context.objects.list(keys.below(keys.UPLOADS)))

    def discard(self, place: str) -> None:
        """One request for each object."""
        for found in list(self._context.objects.list(f"{place}/")):
            self._context.objects.delete(found.key)

    def read(self, key: str, most_bytes: int) -> bytes:
        """By GET."""
        return read(self._protocol.driver, key, most_bytes)

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """One PUT, of all parts joined in memory."""
        self._context.objects.put(key, b"".join(parts))

    def try_out(self) -> Abilities:
        """What the object store can do, tried anew, also where nothing else is written. Nothing is left there."""
        objects = self._context.objects
        trial = Probe(objects.inner if isinstance(objects, FirstWriteGate) else objects, self._context.clock)
        return trial.abilities()._replace(signed_deletes=trial.signed_deletes())

    def require_collection(self) -> None:
        """Before anything is deleted under an intent: a GET, once a day some seconds. Raises ConfigError, by name,
        where a collector that was frozen could delete late, beside writers."""
        context = self._context
        if not context.single_writer:
            found = probe_deletes(context.objects, context.clock, context.server)
            require_collection(context.objects.label, found, single_writer=False)

    def lease(self, job: str) -> AbstractContextManager[None]:
        """An object that is renewed every `JOB_RENEWAL_S`; a holder that was frozen may lose it."""
        return lease(self._context, job)


class _AtOnce:
    """Each request is answered for itself."""

    def here(self) -> AbstractContextManager[None]:
        return nullcontext()

    def flush(self) -> None:
        pass
