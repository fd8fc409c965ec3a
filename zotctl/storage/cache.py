"""A bounded cache: least recently used goes first. Safe between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Keeps values whose weights add up to `capacity` at most; one that is heavier alone is kept, too. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._weight = capacity, 0
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, which then counts as used last; None if there is none."""
        item = self._items.get(key)
        if item is None:
            return None
        with self._mutex:
            if key in self._items:
                self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep a value in place of the one under this key, and drop the least recently used until the weights fit."""
        with self._mutex:
            self._drop(key)
            self._items[key] = (value, weight)
            self._weight += weight
            while self._weight > self._capacity and len(self._items) > 1:
                self._drop(next(iter(self._items)))

    def latest(self, count: int) -> list[K]:
        """The keys that were used last."""
        with self._mutex:
            return list(islice(reversed(self._items), count))

    def drop(self, key: K) -> None:
        """Forget a key, if it is there."""
        with self._mutex:
            self._drop(key)

    def _drop(self, key: K) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._weight -= item[1]
