"""Who goes next on a bucket. `run` plays one plan to its end, or to the first broken invariant."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from greenlet import getcurrent  # type: ignore[import-untyped]

from tests.simulation.baton import SECOND, Violation
from tests.simulation.bucket.actors import Script, script
from tests.simulation.bucket.ghost import DELAY
from tests.simulation.bucket.machine import Fault, Freeze, Late, Machine, Made, Process
from tests.simulation.bucket.requests import WRITES
from tests.simulation.bucket.scenes import FAULTY, SCENES, SLEEPY
from tests.simulation.bucket.worlds import PART, new_world
from tests.simulation.choosing import Strategy, mixed
from tests.simulation.ghost import readable
from zotctl.storage import keys

MOST_STEPS = 20_000
"""More than any schedule takes: beyond it somebody is waiting for ever."""
JUMPS = (2, 31, 61, 299, 301, 0.26 * DELAY, 0.4 * DELAY, 0.7 * DELAY, 1.01 * DELAY, 1.3 * DELAY)
"""Seconds: a signature expires after 30, an intent after 300, a window is 300."""
PAUSES = (5, 31, 61, 290, 310, 0.5 * DELAY, 1.1 * DELAY, 2.6 * DELAY, 30 * DELAY)
SKEWS = (0.0, 0.0, 3600.0, -3600.0, 1e6, -1e6)
FAULTS = ("slow", "away", "lost", "lost", "never", "late", "late", "late")

AIMS = (
    *(("", ""),) * 6, ("put", "/index.json"), ("put", "/index.json"), ("execute", ""), ("execute", ""),
    ("put", keys.RESERVATIONS), ("put", keys.INTENTS), ("delete", keys.INTENTS), ("put", "blobs/"), ("copy", ""),
    ("complete_parts", ""),
)  # fmt: skip

Able = Process | Late


def tick(machine: Machine, seconds: float) -> None:
    machine.note("clock", "TICK", f"{seconds:g} s")
    machine.advance(machine.now + int(seconds * SECOND))


@dataclass(frozen=True)
class Actor:
    """`skew`: by how many seconds its host's clock is wrong."""

    name: str
    script: Script
    crash_at: int = 0
    freeze: Freeze | None = None
    skew: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything about one schedule. `mode`: "own", or "pool" with dedupe. `faults`: by the number of a request."""

    seed: int
    scene: str
    mode: str
    actors: tuple[Actor, ...]
    faults: tuple[Fault, ...] = ()
    part: int = PART
    salt: int = 0
    to_the_end: bool = False
    one_host: bool = False

    def strategy(self) -> Strategy:
        rng = random.Random(f"{self.seed} {self.salt}")
        return mixed(rng, [30, 60, 120, 250], JUMPS, WRITES, tick)

    def without(self, name: str) -> Plan:
        return replace(self, actors=tuple(actor for actor in self.actors if actor.name != name))


def plan_of(seed: int, scene: str | None = None) -> Plan:
    """What a seed means."""
    rng = random.Random(seed)
    chosen = rng.choice(list(SCENES))
    chosen = scene or chosen
    actors = [Actor(name, body, skew=rng.choice(SKEWS)) for name, body in SCENES[chosen](rng)]
    fate, victim = rng.random(), rng.randrange(len(actors))
    if fate < 0.2:
        actors[victim] = replace(actors[victim], crash_at=rng.randrange(1, 60))
    elif fate < 0.5 or chosen in SLEEPY:
        victim = 0 if chosen in SLEEPY else victim
        actors[victim] = replace(actors[victim], freeze=_freeze(rng, SLEEPY.get(chosen)))
    faults: tuple[Fault, ...] = ()
    if chosen in FAULTY:
        method, key, kinds = FAULTY[chosen]
        faults = tuple((rng.randrange(1, 3), method, key, rng.choice(kinds)) for _ in range(rng.choice([1, 1, 2])))
    elif rng.random() < 0.5:
        faults = tuple(_fault(rng) for _ in range(rng.choice([1, 1, 2, 8])))
    part = rng.choice([PART, PART, PART, 8])
    mode = rng.choice(["own", "pool"])
    to_the_end, one_host = rng.random() < 0.15, rng.random() < 0.3
    return Plan(seed, chosen, mode, tuple(actors), faults, part, to_the_end=to_the_end, one_host=one_host)


def _fault(rng: random.Random) -> Fault:
    """Of any request, or of one of those that the protocol turns on."""
    method, key = rng.choice(AIMS)
    return rng.randrange(1, 6 if method else 120), method, key, rng.choice(FAULTS)


def _freeze(rng: random.Random, wanted: tuple[str, tuple[float, ...]] | None) -> Freeze:
    """Anywhere, or before one of the first requests of a kind: between a look and what is done about it."""
    kind = wanted[0] if wanted else rng.choice(["", "", "put", "list", "execute", "delete"])
    at = rng.randrange(1, 60) if not kind else rng.randrange(1, 2 if kind == "execute" else 8)
    pauses = [pause * DELAY for pause in wanted[1]] if wanted else PAUSES
    return Freeze(at, kind, rng.choice(pauses), rng.random() < 0.5)


@dataclass
class Failure:
    plan: Plan
    error: BaseException
    trace: Sequence[Made]

    @property
    def invariant(self) -> str:
        return self.error.invariant if isinstance(self.error, Violation) else type(self.error).__name__

    def lines(self) -> list[str]:
        """One line a request."""
        numbered = enumerate(self.trace)
        return [
            readable(f"t={t} {who} {method} {key}" + (f": {outcome}" if outcome else ""))
            for t, (who, method, key, outcome) in numbered
        ]


Look = Callable[[Machine, Plan], None]


def run(plan: Plan, strategy: Any = None, at_the_end: Look | None = None) -> Failure | None:
    """Play a plan. `at_the_end` looks at the world when all are done, and raises Violation."""
    machine = new_world(plan.mode, random.Random(plan.seed), plan.faults, one_host=plan.one_host)
    for actor in plan.actors:
        start(machine, actor, plan)
    try:
        play(machine, strategy or plan.strategy())
        if machine.violation is None and at_the_end is not None:
            at_the_end(machine, plan)
    except Violation as error:
        machine.violation = machine.violation or error
    finally:
        machine.hub = getcurrent()
        for process in machine.processes:
            process.kill()
    if machine.violation is None:
        return None
    return Failure(plan, machine.violation, machine.trace)


def start(machine: Machine, actor: Actor, plan: Plan) -> Process:
    process = Process(machine, actor.name, script(actor.script, dedupe=plan.mode == "pool", part=plan.part))
    process.crash_at, process.freeze, process.skew = actor.crash_at, actor.freeze, actor.skew
    return process


def play(machine: Machine, strategy: Any) -> None:
    machine.hub = getcurrent()
    for process in machine.processes:
        process.greenlet.parent = machine.hub
    living = list(machine.processes)
    while (living or machine.late) and machine.violation is None:
        able: list[Able] = [one for one in (*living, *machine.late) if one.can_run()]
        if not able:
            machine.advance(min(one.wake for one in (*living, *machine.late)))
            continue
        found = able[0] if len(able) == 1 == len(living) else strategy.pick(able, machine)
        if found is None:
            continue
        machine.steps += 1
        found.go()
        if found.done and isinstance(found, Process):
            living.remove(found)
            if found.crash_at and found.calls >= found.crash_at:
                living.append(_again(machine, found))
        if machine.steps > MOST_STEPS:
            raise Violation("I10", "somebody waits for ever")
    machine.hub = None


def _again(machine: Machine, dead: Process) -> Process:
    """Who died is started again, as a new process."""
    process = Process(machine, f"{dead.name}'", dead.script)
    process.greenlet.parent = machine.hub
    return process
