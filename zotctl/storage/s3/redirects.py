"""GET of a large blob: where the client can fetch it from the bucket itself, after the access check (s3.md 7)."""

from __future__ import annotations

from typing import NamedTuple

from zotctl.oci.digest import Digest
from zotctl.storage.cache import Lru
from zotctl.storage.objects import Object
from zotctl.storage.protocol import Elsewhere
from zotctl.storage.s3.blobs import Blobs
from zotctl.storage.s3.promises import BELIEVED, Promises
from zotctl.storage.s3.site import Site

LEAST = 64 << 10
"""Bytes. Less is answered sooner than it is asked for twice."""
KNOWN = 100_000


class _Seen(NamedTuple):
    object: Object
    until: float


class Redirects:
    """`lifetime`: seconds for which a URL holds; None: bytes pass this server."""

    def __init__(self, site: Site, blobs: Blobs, promises: Promises, lifetime: float | None) -> None:
        self._site, self._blobs, self._promises, self._lifetime = site, blobs, promises, lifetime
        self._seen: Lru[tuple[str, str, Digest], _Seen] = Lru(KNOWN)

    def find(self, name: str, digest: Digest) -> Elsewhere | None:
        """None: not to be redirected. NotFound and Damaged as for the bytes."""
        if self._lifetime is None:
            return None
        found = self._look(name, digest)
        if found.size < LEAST:
            return None
        return Elsewhere(self._site.objects.presign_get(found.key, int(self._lifetime)), found.size)

    def forget(self, name: str, digest: Digest) -> None:
        self._seen.drop((name, self._promises.now(name).epoch, digest))

    def _look(self, name: str, digest: Digest) -> Object:
        now = self._promises.now(name)
        if (confirmed := self._promises.confirmed(name, digest)) is not None:
            return confirmed
        seen = self._seen.get((name, now.epoch, digest))
        if seen is None or now.at >= seen.until or digest in self._site.bad:
            seen = _Seen(self._blobs.locate(name, digest), now.at + BELIEVED)
            self._seen.put((name, now.epoch, digest), seen)
        return seen.object
