"""Which process goes next: the strategies of every simulation, whatever its machine is made of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol


class Strategy(Protocol):
    def pick(self, able: list[Any], machine: Any) -> Any:
        """The process that makes the next call; None: the strategy has moved the clock, ask again."""


class Pct:
    """Random priorities, and d - 1 places at which the first of all becomes the last: a bug that takes d
    steps in order is found with a probability of at least 1 / (n k^(d-1)) (Burckhardt and others, 2010).

    `writes`: the places are before calls of these kinds, of which there are fewer: between a look and what is done
    about it.
    """

    def __init__(
        self, rng: random.Random, length: int, depth: int = 3, *, writes: frozenset[str] = frozenset()
    ) -> None:
        self._rng, self._priorities, self._writes, self._count = rng, dict[str, float](), writes, 0
        self._changes = sorted((rng.randrange(length) for _ in range(depth - 1)), reverse=True)

    def pick(self, able: list[Any], machine: Any) -> Any:
        found = max(able, key=self._priority)
        self._count += not self._writes or found.next[0] in self._writes
        while self._changes and self._count >= self._changes[-1]:
            self._changes.pop()
            self._priorities[found.name] = -float(machine.steps)
            found = max(able, key=self._priority)
        return found

    def _priority(self, process: Any) -> float:
        known = self._priorities.get(process.name)
        if known is None:
            known = self._priorities[process.name] = self._rng.random()
        return known


class Uniform:
    """Plain random, with some inertia or none."""

    def __init__(self, rng: random.Random, inertia: float) -> None:
        self._rng, self._inertia, self._last = rng, inertia, ""

    def pick(self, able: list[Any], machine: Any) -> Any:
        if self._inertia and self._rng.random() < self._inertia:
            for process in able:
                if process.name == self._last:
                    return process
        found = self._rng.choice(able)
        self._last = found.name
        return found


class Jumping:
    """The clock jumps at some steps."""

    def __init__(self, inner: Strategy, jumps: list[tuple[int, float]]) -> None:
        self._inner, self._jumps = inner, sorted(jumps, reverse=True)

    def pick(self, able: list[Any], machine: Any) -> Any:
        if self._jumps and machine.steps >= self._jumps[-1][0]:
            machine.jump(self._jumps.pop()[1])
            return None
        return self._inner.pick(able, machine)


def mixed(rng: random.Random, lengths: Sequence[int], jumps: Sequence[float], writes: frozenset[str]) -> Strategy:
    """One of them all. `lengths`: steps of a schedule, about; `jumps` of the clock."""
    length = rng.choice(lengths)
    count = rng.choice([0, 1, 1, 2, 3])
    ticks = [(rng.randrange(length), rng.choice(jumps)) for _ in range(count)]
    kind = rng.random()
    inner: Strategy
    if kind < 0.5:
        inner = Pct(rng, length)
    elif kind < 0.9:
        inner = Pct(rng, rng.choice([6, 15, 40]), writes=writes)
    else:
        inner = Uniform(rng, 0.0 if kind < 0.95 else 0.9)
    return Jumping(inner, ticks)
