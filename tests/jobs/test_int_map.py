"""Numbers by number."""

from __future__ import annotations

import random
import sys

import pytest

from zotctl.jobs import int_map
from zotctl.jobs.int_map import IntMap


def test_it_is_a_dictionary_in_twelve_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int_map, "MERGE_AT", 7)
    numbers, known, found = random.Random(1), dict[int, int](), IntMap()
    for _ in range(500):
        key, value = numbers.choice([numbers.randrange(100), numbers.getrandbits(64)]), numbers.getrandbits(32)
        known[key] = value
        found.put(key, value)
        assert all(found.get(one) == known.get(one) for one in (key, key + 1, 0, 50, 2**64 - 1))
    keys, values = found.arrays()
    assert list(zip(keys, values, strict=True)) == sorted(known.items())
    assert sys.getsizeof(keys) + sys.getsizeof(values) < 12 * len(known) * 1.2 + 200
    found.drop_below(2**31)
    assert list(found.arrays()[0]) == sorted(key for key, value in known.items() if value >= 2**31)
