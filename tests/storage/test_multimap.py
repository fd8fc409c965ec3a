"""Values by key."""

from __future__ import annotations

import sys

from zotctl.storage.multimap import Multimap
from zotctl.storage.references import Reference


def test_each_value_once_in_the_order_in_which_they_came() -> None:
    values = Multimap[str, int]()
    for value in (3, 1, 3, 2, 1):
        values.add("many", value)
    values.add("one", 7)
    assert list(values.get("many")) == [3, 1, 2] and list(values.get("one")) == [7] and not list(values.get("none"))
    assert list(values) == ["many", "one"] and "one" in values and "none" not in values


def test_a_value_that_is_alone_takes_no_container() -> None:
    """A million of them have to fit into the memory of a job."""
    values = Multimap[str, int]()
    for number in range(1000):
        values.add(f"key {number}", number)
    assert all(type(value) is int for value in values._first.values()) and not values._more
    assert sys.getsizeof(Reference("", 0, "")) <= 40
