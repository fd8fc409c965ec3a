"""Sets of digests, and numbers by digest, in some forty bytes each: a job keeps what it knows of a million blobs.

A SHA-256 is kept as its 32 bytes, in one of so many buckets that each has a few. A digest of another algorithm, and a
text that is no digest, is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, MutableSet
from heapq import merge
from operator import itemgetter
from struct import Struct
from typing import TypeVar

V = TypeVar("V")

RAW_BYTES = 32
"""Bytes of a SHA-256."""
_PREFIX = "sha256:"
_TEXT_LENGTH = len(_PREFIX) + 2 * RAW_BYTES
_SPREAD_BYTES = 4
_FULL = 32
"""Records in a bucket, on average, above which there are to be more buckets."""
_NUMBER_BYTES = 8


def raw_of(digest: str) -> bytes | None:
    """The 32 bytes of a SHA-256 digest in its text form; None: it is no such digest."""
    # Upper case, and the blanks that `fromhex` takes, make another text.
    if len(digest) == _TEXT_LENGTH and digest.startswith(_PREFIX) and digest.islower():
        try:
            raw = bytes.fromhex(digest[len(_PREFIX) :])
        except ValueError:
            return None
        return raw if len(raw) == RAW_BYTES else None
    return None


def text_of(raw: bytes) -> str:
    """The text form of a SHA-256 digest."""
    return _PREFIX + raw.hex()


def aligned(bucket: bytearray | bytes, key: bytes, width: int, start: int = 0) -> int:
    """Where the first record from `start` on that begins with `key` is in records of `width` bytes; -1: nowhere."""
    at = bucket.find(key, start)
    while at > 0 and at % width:
        at = bucket.find(key, at + 1)
    return at


class Records:
    """Records of one width, each of which begins with its key: evenly spread bytes, such as a hash. Reads are safe
    beside one thread that adds."""

    __slots__ = ("_count", "_table", "_width")

    def __init__(self, width: int) -> None:
        """`width` in bytes, at least four."""
        self._width, self._count = width, 0
        self._table: tuple[int, list[bytearray | None]] = (8 * _SPREAD_BYTES, [None])
        """How far the first four bytes of a key are shifted to find its bucket, and the buckets."""

    def __len__(self) -> int:
        return self._count

    def find(self, key: bytes) -> tuple[bytearray, int] | None:
        """The bucket, and the place of the first record in it that begins so; None: there is none."""
        shift, buckets = self._table
        bucket = buckets[int.from_bytes(key[:_SPREAD_BYTES]) >> shift]
        if bucket is None or (at := aligned(bucket, key, self._width)) < 0:
            return None
        return bucket, at

    def has(self, key: bytes) -> bool:
        """Does a record begin so?"""
        shift, buckets = self._table
        bucket = buckets[int.from_bytes(key[:_SPREAD_BYTES]) >> shift]
        return bucket is not None and aligned(bucket, key, self._width) >= 0

    def each(self, key: bytes) -> Iterator[bytes]:
        """What comes after the key in each record that begins so, in the order in which they were added."""
        (shift, buckets), at, width = self._table, 0, self._width
        bucket = buckets[int.from_bytes(key[:_SPREAD_BYTES]) >> shift]
        while bucket is not None and (at := aligned(bucket, key, width, at)) >= 0:
            yield bytes(bucket[at + len(key) : at + width])
            at += width

    def add(self, record: bytes) -> None:
        """Add a record, whether one with its key is there or not."""
        shift, buckets = self._table
        at = int.from_bytes(record[:_SPREAD_BYTES]) >> shift
        if (bucket := buckets[at]) is None:
            buckets[at] = bytearray(record)
        else:
            bucket += record
        self._count += 1
        if self._count > _FULL * len(buckets):
            self._spread()

    def _spread(self) -> None:
        """Four times as many buckets."""
        shift, old = self._table
        shift, buckets = shift - 2, list[bytearray | None]()
        for bucket in old:
            four: list[bytearray | None] = [None] * 4
            for record in self._split(bucket or b""):
                at = int.from_bytes(record[:_SPREAD_BYTES]) >> shift & 3
                if (part := four[at]) is None:
                    four[at] = bytearray(record)
                else:
                    part += record
            buckets += four
        self._table = shift, buckets

    def drop(self, key: bytes) -> bool:
        """Remove a record. False: there was none."""
        if (found := self.find(key)) is None:
            return False
        bucket, at = found
        del bucket[at : at + self._width]
        self._count -= 1
        return True

    def in_order(self) -> Iterator[bytes]:
        """All records, sorted."""
        for bucket in self._table[1]:
            if bucket is not None:
                yield from sorted(self._split(bucket))

    def _split(self, bucket: bytearray | bytes) -> Iterator[bytes]:
        width = self._width
        return (bytes(bucket[at : at + width]) for at in range(0, len(bucket), width))


class _Keys(Collection[str]):
    """The digests, and other texts, of a set or a table. It iterates in their order."""

    __slots__ = ("_others", "_records")
    _others: Collection[str]
    _records: Records
    """Each begins with the bytes of a digest."""

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, str):
            return False
        raw = raw_of(digest)
        return digest in self._others if raw is None else self._records.has(raw)

    def __iter__(self) -> Iterator[str]:
        ours = (text_of(record[:RAW_BYTES]) for record in self._records.in_order())
        return merge(ours, sorted(self._others)) if self._others else ours

    def __len__(self) -> int:
        return len(self._records) + len(self._others)


class Digests(_Keys, MutableSet[str]):
    """A set of digests, and of other texts. It iterates in their order. Not for several threads."""

    __slots__ = ()
    _others: set[str]

    def __init__(self, some: Iterable[str] = ()) -> None:
        self._records, self._others = Records(RAW_BYTES), set[str]()
        self.update(some)

    def add_new(self, digest: str) -> None:
        """Add one that is known not to be there."""
        if (raw := raw_of(digest)) is None:
            self._others.add(digest)
        else:
            self._records.add(raw)

    def update(self, some: Iterable[str]) -> None:
        """Add all of them."""
        for digest in some:
            self.add(digest)

    def add(self, digest: str) -> None:
        """Add one, unless it is there."""
        if (raw := raw_of(digest)) is None:
            self._others.add(digest)
        else:
            self.add_raw(raw)

    def add_raw(self, raw: bytes) -> None:
        """Add a SHA-256 by its 32 bytes."""
        if not self._records.has(raw):
            self._records.add(raw)

    def discard(self, digest: str) -> None:
        """Remove one, if it is there."""
        if (raw := raw_of(digest)) is None:
            self._others.discard(digest)
        else:
            self._records.drop(raw)


class DigestTable(_Keys, MutableMapping[str, V]):
    """Values of a few integers by digests, and by other texts. It iterates in the order of its keys. Not for several
    threads."""

    __slots__ = ("_fields", "_make", "_shape")
    _others: dict[str, V]

    def __init__(self, shape: str, fields: Callable[[V], Iterable[int]], make: Callable[..., V]) -> None:
        """`shape`: of the integers that are the `fields` of a value, from which `make` makes it again; see `struct`."""
        self._shape, self._fields, self._make = Struct("<" + shape), fields, make
        self._records, self._others = Records(RAW_BYTES + self._shape.size), dict[str, V]()

    def __setitem__(self, digest: str, value: V) -> None:
        if (raw := raw_of(digest)) is None:
            self._others[digest] = value
            return
        fields = self._shape.pack(*self._fields(value))
        if (found := self._records.find(raw)) is None:
            self._records.add(raw + fields)
        else:
            bucket, at = found
            bucket[at + RAW_BYTES : at + RAW_BYTES + len(fields)] = fields

    def __getitem__(self, digest: str) -> V:
        if (raw := raw_of(digest)) is None:
            return self._others[digest]
        if (found := self._records.find(raw)) is None:
            raise KeyError(digest)
        bucket, at = found
        return self._make(*self._shape.unpack_from(bucket, at + RAW_BYTES))

    def __delitem__(self, digest: str) -> None:
        if (raw := raw_of(digest)) is None:
            del self._others[digest]
        elif not self._records.drop(raw):
            raise KeyError(digest)

    def pairs(self) -> Iterator[tuple[str, V]]:
        """Each digest with its value, in the order of the digests: `items` looks each one up."""
        records, make, fields = self._records.in_order(), self._make, self._shape.unpack_from
        ours = ((text_of(record[:RAW_BYTES]), make(*fields(record, RAW_BYTES))) for record in records)
        if not self._others:
            return ours
        others = ((digest, self._others[digest]) for digest in sorted(self._others))
        return merge(ours, others, key=itemgetter(0))


class DigestMap(DigestTable[int]):
    """Integers of 64 bits by digests."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("q", lambda value: (value,), int)


class Numbers:
    """A set of numbers of 64 bits, in some thirteen bytes each. Not for several threads."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records = Records(_NUMBER_BYTES)

    def add(self, number: int) -> None:
        """Add one, unless it is there."""
        record = number.to_bytes(_NUMBER_BYTES)
        if not self._records.has(record):
            self._records.add(record)

    def __contains__(self, number: int) -> bool:
        return self._records.has(number.to_bytes(_NUMBER_BYTES))
