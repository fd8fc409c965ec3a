"""The checker of histories finds what no register does, and takes what one may do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.registers import Call, is_linearisable, why_not


def history(*calls: tuple[str, str | None, float, float]) -> list[Call]:
    return [Call("c", kind, value, began, ended) for kind, value, began, ended in calls]


NEVER = math.inf


@pytest.mark.parametrize(
    "calls",
    [
        history(),
        history(("read", None, 0, 1)),
        history(("put", "a", 0, 1), ("read", "a", 2, 3)),
        history(("put", "a", 0, 1), ("put", "b", 2, 9), ("read", "a", 3, 4), ("read", "b", 5, 6)),
        history(("put", "a", 0, NEVER), ("read", None, 1, 2), ("read", "a", 3, 4)),
        history(("put", "a", 0, NEVER), ("read", None, 5, 6)),
        history(("put", "a", 0, 1), ("delete", None, 2, NEVER), ("read", "a", 3, 4), ("listed", None, 5, 6)),
        history(
            ("put", "a", 0, 1), ("drop", "b", 2, 3), ("read", "a", 4, 5), ("drop", "a", 6, 7), ("read", None, 8, 9)
        ),
        history(("delete", None, 0, 9), ("put", "a", 1, 2), ("listed", None, 3, 4)),
    ],
)
def test_what_a_register_may_do(calls: list[Call]) -> None:
    assert why_not(calls) == []


@pytest.mark.parametrize(
    "calls",
    [
        history(("put", "a", 0, 1), ("read", None, 2, 3)),
        history(("put", "a", 0, 1), ("put", "b", 2, 3), ("read", "a", 4, 5)),
        history(("put", "a", 0, 1), ("put", "b", 2, 9), ("read", "b", 3, 4), ("read", "a", 5, 6)),
        history(("put", "a", 0, NEVER), ("read", "a", 1, 2), ("read", None, 3, 4)),
        history(("put", "a", 0, 1), ("delete", None, 2, 3), ("read", "a", 4, 5)),
        history(("put", "a", 0, 1), ("drop", "a", 2, 3), ("listed", "a", 4, 5)),
        history(("delete", None, 0, 1)),
        history(("put", "a", 0, 1), ("delete", None, 2, 5), ("delete", None, 3, 6)),
        history(("read", "a", 0, 1), ("put", "a", 2, 3)),
    ],
)
def test_what_no_register_does(calls: list[Call]) -> None:
    assert why_not(calls)


def test_the_history_of_a_failure_ends_where_it_becomes_one() -> None:
    good = history(("put", "a", 0, 1), ("read", "a", 2, 3))
    bad = history(("read", None, 4, 5))
    assert why_not([*good, *bad, *history(("put", "c", 6, 7), ("read", "c", 8, 9))]) == [*good, *bad]


def test_clients_that_time_out_make_no_history_too_long_to_be_checked() -> None:
    lost = history(*((kind, f"{at}", at, NEVER) for at in range(30) for kind in ("put", "delete", "drop")))
    assert is_linearisable([*lost, *history(("read", "7", 31, 32), ("read", None, 33, 34), ("read", "9", 35, 36))])
    assert not is_linearisable([*lost, *history(("read", "7", 31, 32), ("read", "9", 33, 34), ("read", "7", 35, 36))])


def brute_force(calls: Sequence[Call]) -> bool:
    answered = [call for call in calls if call.answered]
    others = [call for call in calls if not call.answered]
    for count in range(len(others) + 1):
        for some in itertools.combinations(others, count):
            for order in itertools.permutations([*answered, *some]):
                if all(late.ended >= early.began for early, late in itertools.combinations(order, 2)) and _runs(order):
                    return True
    return False


def _runs(order: Sequence[Call]) -> bool:
    value: str | None = None
    for call in order:
        if (left := call.after(value)) is None:
            return False
        value = left[0]
    return True


@st.composite
def call(draw: st.DrawFn) -> Call:
    kind = draw(st.sampled_from(("put", "read", "listed", "delete", "drop")))
    value = draw(st.sampled_from("ab" if kind in ("put", "drop") else ("a", "b", None)))
    began = draw(st.integers(0, 8))
    lasts = draw(st.sampled_from((0.5, 2.5, 4.5, NEVER) if kind in ("put", "delete", "drop") else (0.5, 2.5, 4.5)))
    return Call("c", kind, value, began, began + lasts)


@given(st.lists(call(), max_size=5))
def test_it_agrees_with_trying_every_order(calls: list[Call]) -> None:
    assert is_linearisable(calls) == brute_force(calls)
    assert bool(why_not(calls)) != is_linearisable(calls)
