"""A failure made short enough to be read, whatever it happened on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

TRIES = 60
"""Schedules for each actor that might not be needed."""
SHOWN = 400
"""Lines of a trace."""

Play = Callable[[Any], Any]
"""A plan to its failure, or None."""
Simpler = Callable[[Any], Iterator[Any]]
"""Plans that do without something."""


def first_failure(
    play_seed: Callable[[int, str | None], Any], seeds: Iterable[int], scenes: tuple[str, ...] = ()
) -> tuple[int, Any] | None:
    """The first failure and how many schedules it took. `scenes`: only these, in turn."""
    for count, seed in enumerate(seeds, 1):
        failure = play_seed(seed, scenes[seed % len(scenes)] if scenes else None)
        if failure is not None:
            return count, failure
    return None


def shorten(failure: Any, play: Play, simpler: Simpler) -> Any:
    """The same invariant broken by less, as long as there is less."""
    best, fewer = failure, True
    while fewer:
        fewer = False
        for plan in simpler(best.plan):
            found = _still_fails(plan, best, play)
            if found is not None:
                best, fewer = found, True
                break
    return best


def _still_fails(plan: Any, failure: Any, play: Play) -> Any:
    """The shortest trace of some schedules."""
    found = (play(replace(plan, salt=salt)) for salt in range(TRIES))
    same = [one for one in found if one is not None and one.invariant == failure.invariant]
    return min(same, key=lambda one: len(one.trace), default=None)


def with_fewer_actors(plan: Any) -> Iterator[Any]:
    if len(plan.actors) > 1:
        yield from (plan.without(actor.name) for actor in plan.actors)


def with_calm_actors(plan: Any) -> Iterator[Any]:
    """Without a crash or a freeze."""
    for actor in plan.actors:
        if actor.crash_at or actor.freeze:
            calm = type(actor)(actor.name, actor.script)
            yield replace(plan, actors=tuple(calm if one is actor else one for one in plan.actors))


def last_of(lines: list[str]) -> list[str]:
    hidden = [f"... {len(lines) - SHOWN} lines before"] if len(lines) > SHOWN else []
    return [*hidden, *lines[-SHOWN:]]
