"""The bounded cache, whose looks take no lock."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from zotctl.storage.cache import Lru


@contextmanager
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_what_was_looked_at_last_stays() -> None:
    kept: Lru[str, int] = Lru(3)
    for number, key in enumerate("abc"):
        kept.put(key, number)
    assert kept.get("a") == 0
    kept.put("d", 3)
    assert (kept.get("b"), kept.get("a")) == (None, 0)
    assert kept.latest(2) == ["a", "d"]
    assert kept.latest(9) == ["a", "d", "c"]


def test_weights_add_up_to_the_capacity_and_one_value_stays() -> None:
    kept: Lru[str, str] = Lru(10)
    for key, weight in {"a": 4, "b": 4, "c": 4}.items():
        kept.put(key, key, weight)
    assert kept.latest(3) == ["c", "b"]
    kept.put("b", "again", 1)
    kept.put("d", "d", 5)
    assert kept.latest(3) == ["d", "b", "c"]
    kept.put("heavy", "heavy", 99)
    assert kept.latest(3) == ["heavy"]


class Dropping(OrderedDict[str, tuple[int, int]]):
    """Loses each key between a look and its being used last, as if another thread had dropped it."""

    def move_to_end(self, key: str, last: bool = True) -> None:
        self.pop(key, None)
        super().move_to_end(key, last)


def test_a_value_that_is_dropped_during_the_look_is_found() -> None:
    kept: Lru[str, int] = Lru(3)
    kept._items = Dropping({"a": (1, 1)})
    assert kept.get("a") == 1
    assert kept.get("a") is None


def test_looks_beside_writers_find_only_what_was_put() -> None:
    kept: Lru[str, str] = Lru(8)
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for step in range(3000):
                key = str((step * seed) % 17)
                match step % 5:
                    case 0:
                        kept.put(key, key, 1 + step % 3)
                    case 1 if step % 50 == 1:
                        kept.drop(key)
                    case 2:
                        wrong.extend(key for key in kept.latest(4) if not key.isdigit())
                    case _:
                        wrong.extend([found] if (found := kept.get(key)) not in (None, key) else [])
        except Exception as error:
            wrong.append(error)

    with many_switches():
        threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert kept._weight == sum(weight for _, weight in kept._items.values()) <= 8
