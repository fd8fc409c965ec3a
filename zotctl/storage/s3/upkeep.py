"""`storage.upkeep` on a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from zotctl.errors import Damaged, NotFound
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.objects import Object
from zotctl.storage.s3.infos import info_of
from zotctl.storage.s3.lease import lease
from zotctl.storage.s3.probe import Abilities, Probe, probe_deletes, require_collection
from zotctl.storage.s3.replacing import replace
from zotctl.storage.s3.threshold import Threshold
from zotctl.storage.upkeep import Gathering

if TYPE_CHECKING:
    from zotctl.storage.s3.protocol import BucketProtocol


class BucketUpkeep:
    durable = True

    def __init__(self, protocol: BucketProtocol) -> None:
        self._protocol, self._site = protocol, protocol.site
        self._blobs, self._bad, self._holdings = protocol.blobs, protocol.bad, protocol.holdings

    def stat(self, key: str) -> Info | None:
        try:
            return self._protocol.driver.stat(key)
        except NotFound:
            return None

    def look(self, name: str, digest: Digest) -> Info:
        """No promise, so that a job that only looks writes nothing."""
        found = self._blobs.lying(name, digest)
        if found is None:
            raise NotFound(f"no {digest} in {name}")
        if is_stub(digest, found.size) or self._bad.holds(digest, found):
            raise Damaged(f"{digest} is damaged in {name}")
        return info_of(found)

    def is_condemned(self, name: str, digest: Digest) -> bool:
        return False

    def readers(self, digest: Digest, info: Info) -> int:
        """As the list of holds had it; the pool's own name is no repository."""
        return max(1, info.nlink - 1)

    def copies(self, digest: Digest) -> Iterator[str]:
        yield keys.shared(digest)
        for name in self._protocol.catalog.everything():
            yield keys.blob(name, digest)

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        self._bad.refresh(now=True)
        return set(self._site.bad)

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        if digest not in self._site.bad:
            return False
        found = self._same(name, digest, info)
        return found is not None and self._bad.holds(digest, found)

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        if (found := self._same(name, digest, damaged.info)) is None:
            return False
        self._bad.mark(digest, found)
        return True

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        found = self._same(name, digest, good.info)
        if found is None or not self._bad.holds(digest, found):
            return False
        self._bad.clear(digest, found.key)
        return True

    def _same(self, name: str, digest: Digest, info: Info) -> Object | None:
        """The object that was meant, if the repository still reads it. Without a name: the pool's."""
        found = self._blobs.lying(name, digest) if name else self._site.head(keys.shared(digest))
        return found if found is not None and same_file(info_of(found), info) else None

    def sweep(self, before: float) -> int:
        """The bytes lie where they lay, for the collector to find; what was replaced needs no mark."""
        for digest, key in list(self._bad.marks()):
            found = self._site.head(key)
            if found is None or not self._bad.holds(digest, found):
                self._bad.clear(digest, key)
        return 0

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        """In its own place, so that whoever reads that is healed."""
        if (found := self._same(name, digest, damaged.info)) is None:
            return []
        replace(self._site.objects, found.key, digest, chunks)
        self._bad.clear(digest, found.key)
        if found.key != keys.shared(digest):
            return [name]
        return sorted({name, *self._holdings.of_digest(digest)})

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> AbstractContextManager[Gathering]:
        return nullcontext(_AtOnce())

    def flush(self, name: str, digests: Collection[Digest]) -> None:
        """Nothing is said to be stored before the store has confirmed it."""

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        self._blobs.publish_manifest(name, digest, body)

    def take(self, place: str, digest: Digest, chunks: Iterable[bytes]) -> None:
        replace(self._site.objects, keys.blob(place, digest), digest, chunks)

    def discard(self, place: str) -> None:
        for found in list(self._site.objects.list(f"{place}/")):
            self._site.objects.delete(found.key)

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        self._site.objects.put(key, b"".join(parts))

    def try_out(self) -> Abilities:
        """What the object store can do, tried anew, also where nothing else is written. Nothing is left there."""
        objects = self._site.objects
        trial = Probe(objects.inner if isinstance(objects, Threshold) else objects, self._site.clock)
        return trial.abilities()._replace(signed_deletes=trial.signed_deletes())

    def require_collection(self) -> None:
        """Before anything is deleted under a sentence: a GET, once a day some seconds. Raises ConfigError, by name,
        where a collector that was frozen could delete late, beside writers."""
        site = self._site
        if not site.single_writer:
            found = probe_deletes(site.objects, site.clock, site.server)
            require_collection(site.objects.label, found, single_writer=False)

    def lease(self, job: str) -> AbstractContextManager[None]:
        return lease(self._site, job)


class _AtOnce:
    """Each request is answered for itself."""

    def here(self) -> AbstractContextManager[None]:
        return nullcontext()

    def flush(self) -> None:
        pass
