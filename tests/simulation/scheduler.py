"""Who goes next. `run` plays one plan to its end, or to the first broken invariant."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from greenlet import getcurrent  # type: ignore[import-untyped]

from tests.simulation.actors import Script, script
from tests.simulation.baton import SECOND, Machine, Process, Violation
from tests.simulation.choosing import Strategy, mixed
from tests.simulation.ghost import DELAY, readable
from tests.simulation.scenes import ALL, LATER, SCENES
from tests.simulation.worlds import new_world

WRITES = frozenset(("link", "rename", "exchange", "unlink", "lock", "rmdir"))
JUMPS = (0.4, 0.7, 1.01, 1.2)
"""Delays."""
MOST_STEPS = 20_000
"""More than any schedule takes: beyond it somebody is waiting for ever."""


def tick(machine: Machine, delays: float) -> None:
    machine.now += int(delays * DELAY * SECOND)
    machine.note("clock", "TICK", f"{delays:g} delays")


@dataclass(frozen=True)
class Actor:
    name: str
    script: Script
    crash_at: int = 0
    freeze: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything about one schedule."""

    seed: int
    scene: str
    world: str
    actors: tuple[Actor, ...]
    coarse: bool
    salt: int = 0
    to_the_end: bool = False
    commit: bool = False

    def strategy(self) -> Strategy:
        rng = random.Random(f"{self.seed} {self.salt}")
        return mixed(rng, [30, 80, 200, 200, 500], JUMPS, WRITES, tick)

    def without(self, name: str) -> Plan:
        return replace(self, actors=tuple(actor for actor in self.actors if actor.name != name))


def plan_of(seed: int, scene: str | None = None) -> Plan:
    """What a seed means."""
    rng, apart = random.Random(seed), random.Random(f"{seed} later")
    chosen = rng.choice(list(SCENES))
    if apart.random() < 0.25:
        chosen = apart.choice(list(LATER))
    chosen = scene or chosen
    actors = [Actor(name, body) for name, body in ALL[chosen].cast(rng)]
    fate = rng.random()
    victim = rng.randrange(len(actors))
    if actors[victim].name != "skopeo" and ALL[chosen].crashes:
        if fate < 0.2:
            actors[victim] = replace(actors[victim], crash_at=rng.randrange(1, 80))
        elif fate < 0.3:
            actors[victim] = replace(actors[victim], freeze=(rng.randrange(1, 80), rng.choice([100, 1000, 100_000])))
    coarse, to_the_end = rng.random() < 0.3, rng.random() < 0.25 or ALL[chosen].to_the_end
    return Plan(seed, chosen, ALL[chosen].world, tuple(actors), coarse, to_the_end=to_the_end, commit=seed % 3 == 0)


@dataclass
class Failure:
    plan: Plan
    error: BaseException
    trace: Sequence[tuple[str, str, str, str]]

    @property
    def invariant(self) -> str:
        return self.error.invariant if isinstance(self.error, Violation) else type(self.error).__name__

    def lines(self) -> list[str]:
        """One line a call."""
        numbered = enumerate(self.trace)
        return [
            readable(f"t={t} {who} {method} {key}" + (f" -> {target}" if target else ""))
            for t, (who, method, key, target) in numbered
        ]


Look = Callable[[Machine], None]


def run(plan: Plan, strategy: Strategy | None = None, at_the_end: Look | None = None) -> Failure | None:
    """Play a plan. `at_the_end` looks at the world when all are done, and raises Violation."""
    machine = new_world(plan.world, coarse=plan.coarse, commit=plan.commit)
    for actor in plan.actors:
        start(machine, actor)
    try:
        play(machine, strategy or plan.strategy())
        if machine.violation is None and at_the_end is not None:
            at_the_end(machine)
    except Violation as error:
        machine.violation = machine.violation or error
    finally:
        machine.hub = getcurrent()
        for process in machine.processes:
            process.kill()
    if machine.violation is None:
        return None
    return Failure(plan, machine.violation, machine.trace)


def start(machine: Machine, actor: Actor) -> Process:
    process = Process(machine, actor.name, script(actor.script))
    process.crash_at, process.freeze = actor.crash_at, actor.freeze
    return process


def play(machine: Machine, strategy: Strategy) -> None:
    machine.hub = getcurrent()
    for process in machine.processes:
        process.greenlet.parent = machine.hub
    living = list(machine.processes)
    while living and machine.violation is None:
        able = [process for process in living if process.can_run()]
        if not able:
            _let_time_pass(machine, living)
            continue
        process = able[0] if len(able) == 1 == len(living) else strategy.pick(able, machine)  # type: ignore[assignment]
        if process is None:
            continue
        machine.steps += 1
        process.greenlet.switch()
        if process.done:
            living.remove(process)
            if process.crash_at and process.calls >= process.crash_at:
                living.append(_again(machine, process))
        if machine.steps > MOST_STEPS:
            raise Violation("I10", "somebody waits for ever")
    machine.hub = None


def _again(machine: Machine, dead: Process) -> Process:
    """Who died is started again, as a new process."""
    process = Process(machine, f"{dead.name}'", dead.script)
    process.greenlet.parent = machine.hub
    return process


def _let_time_pass(machine: Machine, living: list[Process]) -> None:
    """Nobody can do anything now: sleepers wake up, those who wait for a lock get tired, the frozen thaw."""
    sleepers = [p.wake for p in living if p.waits is None and p.thaw <= machine.steps]
    if sleepers:
        machine.now = max(machine.now, min(sleepers))
        return
    waiting = [p for p in living if p.waits is not None and p.thaw <= machine.steps]
    if waiting:
        machine.now += 5 * SECOND
        for process in waiting:
            process.waits, process.wake = None, machine.now
        return
    for process in living:
        process.thaw = 0
