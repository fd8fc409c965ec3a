"""A seed from its number to its result, and a failure made short enough to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tests.simulation.scheduler import Failure, Plan, run

TRIES = 60
"""Schedules for each actor that might not be needed."""
SHOWN = 400
"""Lines of a trace."""


class Off(NamedTuple):
    """A safeguard that is switched off: (owner, name, instead); in which scenarios; how soon it is seen."""

    patches: Sequence[tuple[Any, str, Any]]
    scenarios: tuple[str, ...]
    limit: int


class Simulated(NamedTuple):
    """A kind of store: what a seed means on it, in one scenario or (None) its own; its scenarios and safeguards."""

    plan_of: Callable[[int, str | None], Plan]
    scenarios: Iterable[str]
    off: Mapping[str, Off]

    def play(self, seed: int, scenario: str | None = None) -> Failure | None:
        return run(self.plan_of(seed, scenario))

    def first_failure(self, seeds: Iterable[int], scenarios: tuple[str, ...] = ()) -> tuple[int, Failure] | None:
        """The first failure and how many schedules it took. `scenarios`: only these, in turn."""
        for count, seed in enumerate(seeds, 1):
            failure = self.play(seed, scenarios[seed % len(scenarios)] if scenarios else None)
            if failure is not None:
                return count, failure
        return None


def shorten(failure: Failure) -> Failure:
    """The same invariant broken by less, as long as there is less."""
    best, fewer = failure, True
    while fewer:
        fewer = False
        for plan in best.plan.simpler():
            found = _still_fails(plan, best)
            if found is not None:
                best, fewer = found, True
                break
    return best


def _still_fails(plan: Plan, failure: Failure) -> Failure | None:
    """The shortest trace of some schedules."""
    found = (run(replace(plan, salt=salt)) for salt in range(TRIES))
    same = [one for one in found if one is not None and one.invariant == failure.invariant]
    return min(same, key=lambda one: len(one.trace), default=None)


def told(failure: Failure) -> str:
    """What a person needs: how to play it again, what is broken, and who did what."""
    short, plan = shorten(failure), failure.plan
    lines = short.lines()
    hidden = [f"... {len(lines) - SHOWN} lines before"] if len(lines) > SHOWN else []
    return "\n".join(
        [
            f"ZOTCTL_SEED='{plan.seed} {plan.scenario}' pytest -k test_a_seed tests/simulation",
            f"scenario {plan.scenario!r}, world {plan.world!r}: {failure.error!r}",
            f"shortened to {[actor.name for actor in short.plan.actors]}: {short.error!r}",
            *hidden,
            *lines[-SHOWN:],
        ]
    )
