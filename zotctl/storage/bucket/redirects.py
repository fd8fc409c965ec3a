"""GET of a large blob: where the client can fetch it from the bucket itself, after the access check."""

from __future__ import annotations

from typing import NamedTuple

from zotctl.oci.digest import Digest
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.reservations import Look, Reservations
from zotctl.storage.cache import Lru
from zotctl.storage.protocol import Elsewhere

LEAST = 64 << 10
"""Bytes. Less is answered sooner than it is asked for twice."""
KNOWN = 100_000


class _Seen(NamedTuple):
    object: Object
    looked: Look


class Redirects:
    """`lifetime`: seconds for which a URL holds; None: bytes pass this server."""

    def __init__(
        self, context: BucketContext, blobs: BucketBlobs, reservations: Reservations, lifetime: float | None
    ) -> None:
        self._context, self._blobs, self._reservations, self._lifetime = context, blobs, reservations, lifetime
        self._seen: Lru[tuple[str, str, Digest], _Seen] = Lru(KNOWN)

    def find(self, name: str, digest: Digest) -> Elsewhere | None:
        """None: not to be redirected. NotFound and Damaged as for the bytes."""
        if self._lifetime is None:
            return None
        found = self._look(name, digest)
        if found.size < LEAST:
            return None
        return Elsewhere(self._context.objects.presign_get(found.key, int(self._lifetime)), found.size)

    def forget(self, name: str, digest: Digest) -> None:
        self._seen.drop((name, self._reservations.now(name).epoch, digest))

    def _look(self, name: str, digest: Digest) -> Object:
        now = self._reservations.now(name)
        if (confirmed := self._reservations.confirmed(name, digest)) is not None:
            return confirmed
        seen, looked = self._seen.get((name, now.epoch, digest)), self._reservations.look(digest)
        if seen is None or not self._reservations.believes(digest, seen.looked):
            seen = _Seen(self._blobs.locate(name, digest), looked)
            self._seen.put((name, now.epoch, digest), seen)
        return seen.object
