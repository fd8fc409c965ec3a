"""Every schedule of two actors, but for those that switch more often than `switches` times where nobody has to
(Musuvathi and Qadeer, 2007: most bugs need two). A clock that jumps counts as a switch; so does a crash.

A process is left alone before calls that no other can see or disturb: its own temporary files, uploads, notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.simulation.baton import Machine, Process
from tests.simulation.ending import pulls_whole
from tests.simulation.scheduler import Actor, Failure, Plan, run, tick
from zotctl.storage import keys

_OWN = (keys.TMP, keys.UPLOADS, keys.HISTORY, keys.VERSION, keys.LEASES)
_DULL = ("fstat", "unlock", "begin")


def _is_own(process: Process) -> bool:
    method, key, target = process.next
    return method in _DULL or (key.startswith(_OWN) and not target) or keys.INDEX_TEMP_PREFIX in key


G = TypeVar("G", bound="Guided")


@dataclass
class Choice:
    chosen: int
    options: int


class Guided:
    """Follows a path of choices, then the first at each place; notes how many there were."""

    own = staticmethod(_is_own)
    tick = staticmethod(tick)

    def __init__(self, path: list[int], switches: int, ticks: tuple[float, ...]) -> None:
        self._path, self._switches, self._ticks = path, switches, list(ticks)
        self.choices: list[Choice] = []
        self._current = ""

    def pick(self, able: list[Process], machine: Machine) -> Process | None:
        current = next((process for process in able if process.name == self._current), None)
        if current is not None and (self._switches == 0 or self.own(current)):
            return current
        options: list[Process | None] = [current] if current is not None else []
        options += [process for process in able if process is not current]
        if self._ticks and self._switches:
            options.append(None)
        found = options[self._choose(len(options))]
        if found is None:
            self._switches -= 1
            self.tick(machine, self._ticks.pop(0))
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


def all_schedules(
    world: str, actors: list[Actor], *, switches: int = 2, ticks: tuple[float, ...] = ()
) -> Iterator[Failure | None]:
    """Depth first."""
    plan = Plan(-1, "exhaustive", world, tuple(actors), coarse=True)
    for guided in all_paths(Guided, switches, ticks):
        yield run(plan, guided, at_the_end=pulls_whole)


def all_paths(kind: type[G], switches: int, ticks: tuple[float, ...]) -> Iterator[G]:
    """Each is to be played before the next one is asked for."""
    path: list[int] = []
    while True:
        guided = kind(path, switches, ticks)
        yield guided
        choices = guided.choices
        while choices and choices[-1].chosen + 1 >= choices[-1].options:
            choices.pop()
        if not choices:
            return
        path = [*(choice.chosen for choice in choices[:-1]), choices[-1].chosen + 1]
