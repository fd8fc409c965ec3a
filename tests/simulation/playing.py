"""A seed from its number to its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.simulation import shortening
from tests.simulation.baton import Machine
from tests.simulation.ending import is_freed, is_remembered, pulls_whole
from tests.simulation.scenes import ALL
from tests.simulation.scheduler import Failure, Plan, plan_of, run


def play_seed(seed: int, scene: str | None = None) -> Failure | None:
    return play_plan(plan_of(seed, scene))


def play_plan(plan: Plan) -> Failure | None:
    def look(machine: Machine) -> None:
        pulls_whole(machine)
        if not ALL[plan.scene].crashes:
            is_remembered(machine)
        if plan.to_the_end:
            is_freed(machine)

    return run(plan, at_the_end=look)


def first_failure(seeds: Iterable[int], scenes: tuple[str, ...] = ()) -> tuple[int, Failure] | None:
    return shortening.first_failure(play_seed, seeds, scenes)


def _simpler(plan: Plan) -> Iterator[Plan]:
    yield from shortening.with_fewer_actors(plan)
    yield from shortening.with_calm_actors(plan)


def told(failure: Failure) -> str:
    """What a person needs: how to play it again, what is broken, and who did what."""
    short, plan = shortening.shorten(failure, play_plan, _simpler), failure.plan
    return "\n".join(
        [
            f"ZOTCTL_SEED={plan.seed} pytest -k test_a_seed tests/simulation",
            f"scene {plan.scene!r}, world {plan.world!r}: {failure.error}",
            f"shortened to {[actor.name for actor in short.plan.actors]}: {short.error}",
            *shortening.last_of(short.lines()),
        ]
    )
