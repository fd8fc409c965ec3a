"""Values by key, where most keys have one: a million references of a repository fit into the memory of a job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Multimap(Generic[K, V]):
    """Each value of a key once, in the order in which they came. The only value of a key takes no container of its own,
    which would be most of the memory. Not for several threads."""

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first: dict[K, V] = {}
        self._more: dict[K, dict[V, None]] = {}

    def add(self, key: K, value: V) -> None:
        """Add a value, unless the key has it."""
        first = self._first.setdefault(key, value)
        if first is not value and first != value:
            self._more.setdefault(key, {})[value] = None

    def get(self, key: K) -> Iterator[V]:
        """All values of a key; none if it is not there."""
        if key in self._first:
            yield self._first[key]
            yield from self._more.get(key, ())

    def __contains__(self, key: K) -> bool:
        return key in self._first

    def __iter__(self) -> Iterator[K]:
        return iter(self._first)
