"""Which repository holds what in the pool: reservations are listed by digest, jobs go by repository.

One pass over the two sorted lists, the pool and the reservations, is kept for a while: about a hundred bytes a
reservation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby

from zotctl.errors import DigestInvalid
from zotctl.oci.digest import Digest, check_digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object, info_of
from zotctl.storage.driver import Info

KEPT_FOR = 60.0
"""Seconds, or ten times what the lists took."""


class Grants:
    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._mutex = threading.Lock()
        self._held: dict[str, bytearray] = {}
        self._until = float("-inf")

    def of(self, name: str) -> Iterator[tuple[Digest, Info]]:
        """What this repository holds and the pool has, as it was when it was listed."""
        if not (self._context.pooled or self._context.dedupe):
            return
        with self._mutex:
            if self._context.clock.elapsed() >= self._until:
                self._list()
            lines = bytes(self._held.get(name, b""))
        for line in lines.splitlines():
            text, size, etag, modified, names = line.decode().split(" ")
            digest = check_digest(text)
            found = Object(keys.shared(digest), int(size), etag, float(modified), 0.0)
            yield digest, info_of(found, int(names))

    def forget(self) -> None:
        """Something was changed: list again when it is asked for."""
        with self._mutex:
            self._until = float("-inf")

    def _list(self) -> None:
        began = self._context.clock.elapsed()
        self._held = {}
        for digest, holders, found in self._pooled():
            line = f"{digest} {found.size} {found.etag} {int(found.modified)} {len(holders) + 1}\n".encode()
            for name in holders:
                self._held.setdefault(name, bytearray()).extend(line)
        now = self._context.clock.elapsed()
        self._until = now + max(KEPT_FOR, 10 * (now - began))

    def _pooled(self) -> Iterator[tuple[Digest, list[str], Object]]:
        """The pool's objects that are reserved, with the repositories."""
        pool = self._context.objects.list(keys.below(keys.SHARED))
        found = next(pool, None)
        for text, holders in self.holders():
            while found is not None and _digest_in(found.key) < text:
                found = next(pool, None)
            if found is None:
                return
            if _digest_in(found.key) == text:
                with suppress(DigestInvalid):
                    yield parse_digest(text.replace("/", ":", 1)), holders, found

    def holders(self) -> Iterator[tuple[str, list[str]]]:
        """ALG/ENC and the repositories that hold it, in the order of the former."""
        reservations = (
            found.key.removeprefix(keys.below(keys.RESERVATIONS))
            for found in self._context.objects.list(keys.below(keys.RESERVATIONS))
        )
        for text, group in groupby(reservations, lambda key: key.rpartition("/")[0]):
            yield text, [name for key in group if (name := keys.reserved_for(key))]

    def of_digest(self, digest: Digest) -> list[str]:
        """Who holds it now: one LIST."""
        reservations = self._context.objects.list(keys.reservations(digest))
        return [name for found in reservations if (name := keys.reserved_for(found.key))]


def _digest_in(key: str) -> str:
    return key.removeprefix(keys.below(keys.SHARED))
