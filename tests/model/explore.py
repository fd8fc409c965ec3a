"""Breadth first through every state that can be reached, so that what is found is a shortest schedule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)

Moves = Callable[[S], Iterable[tuple[str, S]]]
"""What may happen next: a line for the schedule, and the state that it leads to."""


class Result(NamedTuple):
    """`schedule` None: no state that was met is bad. `whole`: all were."""

    states: int
    schedule: list[str] | None
    whole: bool


def explore(start: S, moves: Moves[S], is_damaged: Callable[[S], str | None], most: int) -> Result:
    met: dict[S, tuple[S, str] | None] = {start: None}
    todo = deque([start])
    while todo:
        state = todo.popleft()
        if (what := is_damaged(state)) is not None:
            return Result(len(met), [*_schedule(state, met), what], True)
        if len(met) > most:
            return Result(len(met), None, False)
        for line, following in moves(state):
            if following not in met:
                met[following] = (state, line)
                todo.append(following)
    return Result(len(met), None, True)


def _schedule(state: S, met: dict[S, tuple[S, str] | None]) -> list[str]:
    lines: list[str] = []
    while (before := met[state]) is not None:
        state, line = before
        lines.append(line)
    return lines[::-1]
