"""What was read of the manifests of a repository is kept in the bucket, `gc/facts/KEY`, for those who come later.

A list of the repository, a request for a thousand, tells which manifests still lie there as they lay when they were
read. Those need not be read again; what is missing, was replaced, or is known to be damaged, is.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress

from zotctl.errors import NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.graph import KnownFacts
from zotctl.storage.recalled import LARGEST, Stamp, StampedFacts, read_back, write_down

WORTH = 16
"""Manifests of which a repository has so few that they are read sooner than what is remembered of them."""
NEWS = 8
"""One in so many was read anew: then it is written down again."""


class KeptFacts:
    """One repository, as it was listed before its manifests are read: what is written down of them was true then, and
    a list that came later might tell of another object than the one that was read."""

    def __init__(self, context: BucketContext, name: str) -> None:
        """Raises what a list raises."""
        self.absent: Set[str] = frozenset()
        self._context, self._name, self._key = context, name, keys.facts(name)
        written = self._read()
        self._lying = {str(digest): _lying(found) for digest, found in context.own(name)}
        self.known: Mapping[str, KnownFacts] = {
            digest: KnownFacts(one.facts.size, one.facts)
            for digest, one in written.items()
            if self._is_as_it_was(digest, one)
        }

    def _read(self) -> dict[str, StampedFacts]:
        with suppress(NotFound), self._context.objects.open(self._key) as reader:
            return read_back(self._name, reader.read_at(0, reader.size)) if reader.size <= LARGEST else {}
        return {}

    def _is_as_it_was(self, digest: str, one: StampedFacts) -> bool:
        return self._lying.get(digest) == one.lying and digest not in self._context.damaged

    def keep(self, known: Mapping[str, KnownFacts]) -> None:
        """All manifests were read. Never raises."""
        found = {
            digest: StampedFacts(self._lying[digest], one.facts)
            for digest, one in known.items()
            if one.facts is not None and digest in self._lying
        }
        news = len(found.keys() - self.known.keys())
        if news * NEWS < len(found) or self._context.read_only or not self._context.writes():
            return
        body = write_down(self._name, found)
        with suppress(StorageError):
            if body is not None:
                self._context.objects.put(self._key, body)


def _lying(found: Object) -> Stamp:
    return Stamp(found.etag, found.size, int(found.modified))


def recall(context: BucketContext, name: str, manifests: int) -> KeptFacts | None:
    """`manifests`: how many rows name. None: they are read sooner, or the bucket is away, which reading them will
    tell."""
    if manifests < WORTH:
        return None
    try:
        return KeptFacts(context, name)
    except StorageError:
        return None
