"""Every schedule of two actors, but for those that switch more often than `switches` times where none has to
(Musuvathi and Qadeer, 2007: most bugs need two). A clock that jumps counts as a switch; so does a crash.

A process is left alone before calls that no other can see or disturb: its own temporary files, uploads, notes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.simulation.scheduler import Failure, Plan, run

VERY_DEEP = int(os.environ.get("ZOTCTL_SCHEDULES", "0")) > 20_000
DEEP = bool(os.environ.get("CI")) or VERY_DEEP
"""Is there time for more than an ordinary run has?"""


@dataclass
class Choice:
    chosen: int
    options: int


class Guided:
    """Follows a path of choices, then the first at each place; notes how many there were."""

    def __init__(self, path: list[int], switches: int, jumps: tuple[float, ...]) -> None:
        self._path, self._switches, self._jumps = path, switches, list(jumps)
        self.choices: list[Choice] = []
        self._current = ""

    def pick(self, able: list[Any], machine: Any) -> Any:
        current = next((process for process in able if process.name == self._current), None)
        if current is not None and (self._switches == 0 or current.is_own()):
            return current
        options: list[Any] = [current] if current is not None else []
        options += [process for process in able if process is not current]
        if self._jumps and self._switches:
            options.append(None)
        found = options[self._choose(len(options))]
        if found is None:
            self._switches -= 1
            machine.jump(self._jumps.pop(0))
            return None
        if current is not None and found is not current:
            self._switches -= 1
        self._current = found.name
        return found

    def _choose(self, options: int) -> int:
        at = len(self.choices)
        chosen = self._path[at] if at < len(self._path) else 0
        self.choices.append(Choice(chosen, options))
        return chosen


def all_schedules(plan: Plan, switches: int, jumps: tuple[float, ...] = ()) -> Iterator[Failure | None]:
    """Depth first. `jumps` of the clock, by the measure of the plan."""
    path: list[int] = []
    while True:
        guided = Guided(path, switches, jumps)
        yield run(plan, guided)
        choices = guided.choices
        while choices and choices[-1].chosen + 1 >= choices[-1].options:
            choices.pop()
        if not choices:
            return
        path = [*(choice.chosen for choice in choices[:-1]), choices[-1].chosen + 1]


def hold(failures: Iterable[Failure | None]) -> None:
    """None of them failed."""
    for failure in failures:
        assert failure is None, "\n".join([str(failure.error), *failure.lines()])
