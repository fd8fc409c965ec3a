"""Which manifests name a digest, in some fifteen bytes for each reference, by the first eight bytes of a SHA-256.

What was found by them is looked up in the manifest itself, so the answer is exact.
"""

from __future__ import annotations

from collections.abc import Iterator

from zotctl.storage.digests import Digests, Records, raw_of
from zotctl.storage.multimap import Multimap
from zotctl.storage.references import References

_KEY_BYTES, _NUMBER_BYTES = 8, 4
"""A record: the first bytes of the digest, and the number of the manifest."""


class Citations:
    """The blobs and children of manifests, by digest. Reads are safe beside one thread that enters."""

    def __init__(self) -> None:
        self._manifests: list[tuple[str, tuple[References, ...]]] = []
        self._records = Records(_KEY_BYTES + _NUMBER_BYTES)
        self._others = Multimap[str, int]()

    def enter(self, manifest: str, *parts: References) -> None:
        """Note what a manifest names. One that was entered before is the same again."""
        number = len(self._manifests)
        self._manifests.append((manifest, parts))
        last, add = number.to_bytes(_NUMBER_BYTES), self._records.add
        for part in parts:
            for raw in part.raws():
                add(raw[:_KEY_BYTES] + last)
            for text in part.texts():
                self._others.add(text, number)

    def __contains__(self, digest: str) -> bool:
        if (raw := raw_of(digest)) is not None:
            for last in self._records.each(raw[:_KEY_BYTES]):
                for part in self._manifests[int.from_bytes(last)][1]:
                    if part.has_raw(raw):
                        return True
        return digest in self._others

    def of(self, digest: str) -> Iterator[tuple[str, int]]:
        """Each manifest that names it, and the size that it says: as often as it does."""
        if (raw := raw_of(digest)) is not None:
            yield from self._of_raw(raw)
        for number in self._others.get(digest):
            manifest, parts = self._manifests[number]
            yield from ((manifest, size) for part in parts for size in part.sizes(digest))

    def _of_raw(self, raw: bytes) -> Iterator[tuple[str, int]]:
        seen = b""
        for last in self._records.each(raw[:_KEY_BYTES]):
            if last != seen:  # those of one manifest come one after the other
                manifest, parts = self._manifests[int.from_bytes(last)]
                for part in parts:
                    for size in part.sizes_of(raw):
                        yield manifest, size
            seen = last

    def put_into(self, digests: Digests) -> None:
        """Add everything that is named."""
        for _, parts in self._manifests:
            for part in parts:
                part.put_into(digests)
