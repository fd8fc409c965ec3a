"""A seed from its number to its verdict, and a failure made short enough to be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.simulation.bucket.ending import look
from tests.simulation.bucket.scheduler import Actor, Failure, Plan, plan_of, run

TRIES = 60
"""Schedules for each actor that might not be needed."""
SHOWN = 400
"""Lines of a trace."""


def play_seed(seed: int, scene: str | None = None) -> Failure | None:
    return play_plan(plan_of(seed, scene))


def play_plan(plan: Plan) -> Failure | None:
    return run(plan, at_the_end=look)


def first_failure(seeds: Iterable[int], scenes: tuple[str, ...] = ()) -> tuple[int, Failure] | None:
    """The first failure and how many schedules it took. `scenes`: only these, in turn."""
    for count, seed in enumerate(seeds, 1):
        failure = play_seed(seed, scenes[seed % len(scenes)] if scenes else None)
        if failure is not None:
            return count, failure
    return None


def shorten(failure: Failure) -> Failure:
    """The same invariant broken by fewer actors, without faults, crash or freeze where they are not needed."""
    best, fewer = failure, True
    while fewer:
        fewer = False
        for plan in _simpler(best.plan):
            found = _still_fails(plan, best)
            if found is not None:
                best, fewer = found, True
                break
    return best


def _simpler(plan: Plan) -> Iterator[Plan]:
    if len(plan.actors) > 1:
        yield from (plan.without(actor.name) for actor in plan.actors)
    for fault in plan.faults:
        yield replace(plan, faults=tuple(one for one in plan.faults if one != fault))
    for actor in plan.actors:
        if actor.crash_at or actor.freeze:
            calm = Actor(actor.name, actor.script)
            yield replace(plan, actors=tuple(calm if one is actor else one for one in plan.actors))


def _still_fails(plan: Plan, failure: Failure) -> Failure | None:
    """The shortest trace of some schedules."""
    found = (play_plan(replace(plan, salt=salt)) for salt in range(TRIES))
    same = [one for one in found if one is not None and one.invariant == failure.invariant]
    return min(same, key=lambda one: len(one.trace), default=None)


def told(failure: Failure, *, short: bool = True) -> str:
    """What a person needs: how to play it again, what is broken, and who did what."""
    best = shorten(failure) if short else failure
    lines = best.lines()
    hidden = [f"... {len(lines) - SHOWN} lines before"] if len(lines) > SHOWN else []
    plan = failure.plan
    return "\n".join(
        [
            f"ZOTCTL_SEED='{plan.seed} {plan.scene}' pytest -k test_a_bucket_seed tests/simulation",
            f"scene {plan.scene!r}, mode {plan.mode!r}: {failure.error!r}",
            f"shortened to {[actor.name for actor in best.plan.actors]}, {best.plan.faults}: {best.error!r}",
            *hidden,
            *lines[-SHOWN:],
        ]
    )
