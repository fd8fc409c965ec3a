"""References: what a manifest or a row of index.json names. Those of a manifest are packed, for a repository may have
millions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from sys import intern
from typing import overload

import msgspec

from zotctl.storage.digests import RAW_BYTES, Digests, aligned, raw_of, text_of

_RECORD = Struct("<32sq")
_SIZE = Struct("<q")


class Reference(msgspec.Struct, frozen=True, gc=False):
    """One edge: what a manifest, or a row of index.json, names, with the size and the media type that it says."""

    digest: str
    size: int
    media_type: str


class References(Sequence[Reference]):
    """The references of one manifest, in its order, in forty-eight bytes each. What is no SHA-256, or has no size of 64
    bits, is kept as it is. Immutable."""

    __slots__ = ("_packed", "_plain", "_types")

    def __init__(self, some: Iterable[Reference] = ()) -> None:
        listed = tuple(some)
        self._types: tuple[str, ...] = ()
        self._plain: tuple[Reference, ...] = ()
        packed = [_pack(one) for one in listed]
        if None in packed:
            self._packed, self._plain = b"", listed
        else:
            self._packed = b"".join(one for one in packed if one is not None)
            # Of each media type one copy is enough, where millions say the same.
            self._types = tuple(intern(one.media_type) for one in listed)

    def __len__(self) -> int:
        return len(self._types) or len(self._plain)

    def __iter__(self) -> Iterator[Reference]:
        if self._plain:
            return iter(self._plain)
        records = zip(_RECORD.iter_unpack(self._packed), self._types, strict=True)
        return (Reference(text_of(raw), size, media_type) for (raw, size), media_type in records)

    @overload
    def __getitem__(self, at: int) -> Reference: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Reference, ...]: ...
    def __getitem__(self, at: int | slice) -> Reference | tuple[Reference, ...]:
        if self._plain or isinstance(at, slice):
            return tuple(self)[at]
        raw, size = _RECORD.unpack_from(self._packed, range(len(self))[at] * _RECORD.size)
        return Reference(text_of(raw), size, self._types[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self._packed, self._types, self._plain))

    def __repr__(self) -> str:
        return f"References({list(self)})"

    @property
    def are_digests(self) -> bool:
        """Is each of them known to be a digest? Others may be any text."""
        return not self._plain

    def raws(self) -> Iterator[bytes]:
        """The 32 bytes of each digest; nothing if `texts` has them."""
        packed = self._packed
        return (packed[at : at + RAW_BYTES] for at in range(0, len(packed), _RECORD.size))

    def texts(self) -> Iterator[str]:
        """The digests that are not in `raws`."""
        return (one.digest for one in self._plain)

    def digests(self) -> Iterator[str]:
        """All digests."""
        return (one.digest for one in self._plain) if self._plain else map(text_of, self.raws())

    def has(self, digest: str) -> bool:
        """Is it among them?"""
        return next(self.sizes(digest), None) is not None

    def put_into(self, digests: Digests) -> None:
        """Add all digests."""
        for raw in self.raws():
            digests.add_raw(raw)
        for text in self.texts():
            digests.add(text)

    def sizes(self, digest: str) -> Iterator[int]:
        """What it says of a digest; several if it names it several times, nothing if not at all."""
        if self._plain:
            yield from (one.size for one in self._plain if one.digest == digest)
        elif (raw := raw_of(digest)) is not None:
            yield from self.sizes_of(raw)

    def has_raw(self, raw: bytes) -> bool:
        """Is it in `raws`?"""
        return aligned(self._packed, raw, _RECORD.size) >= 0

    def sizes_of(self, raw: bytes) -> Iterator[int]:
        """The same of what is in `raws`, by the 32 bytes of its digest."""
        at = aligned(self._packed, raw, _RECORD.size)
        while at >= 0:
            yield _SIZE.unpack_from(self._packed, at + RAW_BYTES)[0]
            at = aligned(self._packed, raw, _RECORD.size, at + _RECORD.size)


NONE = References()
"""That of a manifest that names nothing."""


def _pack(one: Reference) -> bytes | None:
    raw = raw_of(one.digest)
    return _RECORD.pack(raw, one.size) if raw is not None and 0 <= one.size < 1 << 63 else None
