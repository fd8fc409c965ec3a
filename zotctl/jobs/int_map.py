"""Small numbers by numbers of 64 bits, in twelve bytes each: what a job notes of each of a million files."""

from __future__ import annotations

from array import array
from bisect import bisect_left

MERGE_AT = 50_000
"""New entries that a dictionary holds, until they are merged into the sorted ones."""


class IntMap:
    """Values of 32 bits by keys of 64 bits, none of them negative. Not safe between threads."""

    def __init__(self, keys: array[int] | None = None, values: array[int] | None = None) -> None:
        """`keys`, of typecode Q, are sorted, and `values`, of typecode I, are theirs."""
        self._keys, self._values = keys or array("Q"), values or array("I")
        self._new: dict[int, int] = {}

    def get(self, key: int) -> int | None:
        """The value of a key; None: it has none."""
        if (value := self._new.get(key)) is not None:
            return value
        place = bisect_left(self._keys, key)
        return self._values[place] if place < len(self._keys) and self._keys[place] == key else None

    def put(self, key: int, value: int) -> None:
        """Give a key a value, in place of the one that it has."""
        self._new[key] = value
        if len(self._new) >= MERGE_AT:
            self._merge()

    def arrays(self) -> tuple[array[int], array[int]]:
        """All keys, sorted, and their values. Not to be changed."""
        self._merge()
        return self._keys, self._values

    def drop_below(self, least: int) -> None:
        """Forget the keys whose value is smaller."""
        keys, values = self.arrays()
        kept = [place for place, value in enumerate(values) if value >= least]
        self._keys = array("Q", (keys[place] for place in kept))
        self._values = array("I", (values[place] for place in kept))

    def _merge(self) -> None:
        if not self._new:
            return
        keys, values, done = array("Q"), array("I"), 0
        for key, value in sorted(self._new.items()):
            place = bisect_left(self._keys, key, done)
            keys.extend(self._keys[done:place])
            values.extend(self._values[done:place])
            keys.append(key)
            values.append(value)
            done = place + (place < len(self._keys) and self._keys[place] == key)
        keys.extend(self._keys[done:])
        values.extend(self._values[done:])
        self._keys, self._values, self._new = keys, values, {}


def number_of(what: object) -> int:
    """64 bits that stand for something hashable, for a key, within one process."""
    return hash(what) & 0xFFFF_FFFF_FFFF_FFFF
