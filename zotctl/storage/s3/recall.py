"""What was read of the manifests of a repository is kept in the bucket, `gc/facts/KEY`, for those who come later.

A list of the repository, a request for a thousand, tells which manifests still lie there as they lay when they were
read. Those need not be read again; what is missing, was replaced, or is known to be damaged, is.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress

from zotctl.errors import NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.graph import Known
from zotctl.storage.objects import Object
from zotctl.storage.recalled import LARGEST, Lying, Remembered, read_back, write_down
from zotctl.storage.s3.site import Site

WORTH = 16
"""Manifests of which a repository has so few that they are read sooner than what is remembered of them."""
NEWS = 8
"""One in so many was read anew: then it is written down again."""


class Recall:
    """One repository, as it was listed before its manifests are read: what is written down of them was true then, and
    a list that came later might tell of another object than the one that was read."""

    def __init__(self, site: Site, name: str) -> None:
        """Raises what a list raises."""
        self.absent: Set[str] = frozenset()
        self._site, self._name, self._key = site, name, keys.facts(name)
        written = self._read()
        self._lying = {str(digest): _lying(found) for digest, found in site.own(name)}
        self.known: Mapping[str, Known] = {
            digest: Known(one.facts.size, one.facts)
            for digest, one in written.items()
            if self._is_as_it_was(digest, one)
        }

    def _read(self) -> dict[str, Remembered]:
        with suppress(NotFound), self._site.objects.open(self._key) as reader:
            return read_back(self._name, reader.read_at(0, reader.size)) if reader.size <= LARGEST else {}
        return {}

    def _is_as_it_was(self, digest: str, one: Remembered) -> bool:
        return self._lying.get(digest) == one.lying and digest not in self._site.bad

    def keep(self, known: Mapping[str, Known]) -> None:
        """All manifests were read. Never raises."""
        found = {
            digest: Remembered(self._lying[digest], one.facts)
            for digest, one in known.items()
            if one.facts is not None and digest in self._lying
        }
        news = len(found.keys() - self.known.keys())
        if news * NEWS < len(found) or self._site.read_only or not self._site.writes():
            return
        body = write_down(self._name, found)
        with suppress(StorageError):
            if body is not None:
                self._site.objects.put(self._key, body)


def _lying(found: Object) -> Lying:
    return Lying(found.etag, found.size, int(found.modified))


def recall(site: Site, name: str, manifests: int) -> Recall | None:
    """`manifests`: how many rows name. None: they are read sooner, or the bucket is away, which reading them will
    tell."""
    if manifests < WORTH:
        return None
    try:
        return Recall(site, name)
    except StorageError:
        return None
