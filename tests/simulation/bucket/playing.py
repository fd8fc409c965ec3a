"""A seed from its number to its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.simulation import shortening
from tests.simulation.bucket.ending import look
from tests.simulation.bucket.scheduler import Failure, Plan, plan_of, run


def play_seed(seed: int, scene: str | None = None) -> Failure | None:
    return play_plan(plan_of(seed, scene))


def play_plan(plan: Plan) -> Failure | None:
    return run(plan, at_the_end=look)


def first_failure(seeds: Iterable[int], scenes: tuple[str, ...] = ()) -> tuple[int, Failure] | None:
    return shortening.first_failure(play_seed, seeds, scenes)


def _simpler(plan: Plan) -> Iterator[Plan]:
    yield from shortening.with_fewer_actors(plan)
    for fault in plan.faults:
        yield replace(plan, faults=tuple(one for one in plan.faults if one != fault))
    yield from shortening.with_calm_actors(plan)


def told(failure: Failure, *, short: bool = True) -> str:
    """What a person needs: how to play it again, what is broken, and who did what."""
    best, plan = shortening.shorten(failure, play_plan, _simpler) if short else failure, failure.plan
    return "\n".join(
        [
            f"ZOTCTL_SEED='{plan.seed} {plan.scene}' pytest -k test_a_bucket_seed tests/simulation",
            f"scene {plan.scene!r}, mode {plan.mode!r}: {failure.error!r}",
            f"shortened to {[actor.name for actor in best.plan.actors]}, {best.plan.faults}: {best.error!r}",
            *shortening.last_of(best.lines()),
        ]
    )
