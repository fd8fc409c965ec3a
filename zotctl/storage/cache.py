"""A bounded cache: least recently used goes first. Safe between threads.

A look takes no lock: each of its steps is one call of the interpreter's own, which no other thread comes between as
long as keys are compared without Python code.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
        try:
            self._items.move_to_end(key)
        except KeyError:  # dropped meanwhile
            return item[0]
        return item[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep a value in place of the one under this key, and drop the least recently used until the weights fit."""
        with self._mutex:
            self._drop(key)
            self._items[key] = (value, weight)
            self._weight += weight
            while self._weight > self._capacity and len(self._items) > 1:
                self._weight -= self._items.popitem(last=False)[1][1]

    def latest(self, count: int) -> list[K]:
        """The keys that were used last."""
        return list(self._items)[: -count - 1 : -1]

    def drop(self, key: K) -> None:
        """Forget a key, if it is there."""
        with self._mutex:
            self._drop(key)

    def _drop(self, key: K) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._weight -= item[1]
