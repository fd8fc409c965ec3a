"""Deterministic scheduling: a process that calls the store, asks for a lock or sleeps gives the turn away first.

The frame of both simulations. A store brings its world: a `Machine` with what all processes share, a `Process` whose
calls of the store are its steps, a model that checks each of them, and a `Plan` that a seed becomes. `run` plays one
plan to its end, or to the first broken invariant. Same code as in production, no hooks.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from tests.faults import Crash
from tests.simulation.choosing import Strategy
from tests.simulation.content import readable
from zotctl.storage.clock import Clock

SECOND = 1_000_000_000
MOST_STEPS = 20_000
"""More than any schedule takes: beyond it a process is waiting for ever."""

Step = tuple[str, str, str, str]
"""Who, what, of which key, and its target or what came of it."""
Script = Callable[[Any], None]
"""What a process does, or what a client of it does."""


class Violation(BaseException):
    """An invariant is broken. Not an Exception, so that no handler of the code under test swallows it."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Machine(abc.ABC):
    """What all processes share: the storage, the time, the trace and the model. `now` in nanoseconds."""

    model: Any

    def __init__(self, now: int) -> None:
        self.now = now
        self.processes: list[Any] = []
        self.late: list[Any] = []
        """Requests whose sender gave up, and which the store may still carry out."""
        self.trace: list[Step] = []
        self.steps = self.tokens = 0
        self.hub: Any = None
        """The greenlet of the scheduler; None: calls are made at once, without a switch."""
        self.violation: BaseException | None = None

    def note(self, who: str, method: str, key: str = "", more: str = "") -> None:
        self.trace.append((who, method, key, more))

    def broke(self, error: BaseException) -> None:
        """The first one counts, for a handler on the way may raise another."""
        self.violation = self.violation or error

    @abc.abstractmethod
    def jump(self, by: float) -> None:
        """The clock jumps, by the measure of the plan."""

    @abc.abstractmethod
    def let_time_pass(self, living: Sequence[Any]) -> None:
        """None of these can do anything now."""


class SimClock(Clock):
    """That of one process."""

    def __init__(self, process: Any) -> None:
        self._process, self._machine = process, process.machine

    def boottime(self) -> float:
        return self._machine.now / SECOND

    def jitter(self) -> float:
        return 1.0

    def token(self) -> str:
        self._machine.tokens += 1
        return f"{self._machine.tokens:08x}00000000"


class Process(abc.ABC):
    """One process with its own caches, and a greenlet. `crash_at`: it dies before that call."""

    def __init__(self, machine: Any, name: str, script: Script | None = None) -> None:
        self.machine, self.name, self.script = machine, name, script
        self.calls = self.wake = self.crash_at = 0
        self.freeze: Any = None
        self.skew = 0.0
        self.dead = self.done = False
        self.next: tuple[str, str, str] = ("begin", "", "")
        self.op: Any = None
        """What it is about, for the model."""
        self.store: Any = None
        self.greenlet = greenlet(self._run)
        machine.processes.append(self)

    def _run(self) -> None:
        try:
            if self.script is not None:
                self.script(self)
        except Crash:
            pass
        except Violation as error:
            self.machine.broke(error)
        except Exception as error:
            if not self.dead:
                self.machine.broke(error)
        self.die()
        self.done = True

    def turn(self, method: str, key: str, target: str = "") -> None:
        """Before a call: others may go first, and this process may die or freeze here."""
        machine = self.machine
        if self.dead:
            raise Crash
        if machine.hub is None:
            self.pass_step()
            return
        self.calls += 1
        self.next = (method, key, target)
        self.maybe_freeze(method)
        if self.calls == self.crash_at:
            machine.note(self.name, "CRASH before", method, key)
            self.dead = True
            raise Crash
        self.give_way()
        self.proceed(method, key, target)

    def give_way(self) -> None:
        if self.machine.hub is not None:
            self.machine.hub.switch()
        if self.dead:
            raise Crash

    def go(self) -> None:
        self.greenlet.switch()

    def kill(self) -> None:
        """Unwind what is left of it."""
        self.dead = True
        if self.greenlet:
            self.greenlet.switch()
        elif not self.greenlet.dead:
            self.die()

    def again(self) -> Process:
        """A process that died is started again, as a new one."""
        process = type(self)(self.machine, f"{self.name}'", self.script)
        process.greenlet.parent = self.machine.hub
        return process

    def die(self) -> None:
        """What becomes of what it has."""
        self.dead = True

    @abc.abstractmethod
    def pass_step(self) -> None:
        """A call takes its time while nothing is scheduled."""

    @abc.abstractmethod
    def maybe_freeze(self, method: str) -> None:
        """Is it to stand still before this call?"""

    @abc.abstractmethod
    def proceed(self, method: str, key: str, target: str) -> None:
        """It has the turn: the call takes its time, and is noted."""

    @abc.abstractmethod
    def can_run(self) -> bool: ...

    @abc.abstractmethod
    def is_own(self) -> bool:
        """Can no other process see or disturb the call that comes next?"""


@dataclass(frozen=True)
class Actor:
    """`crash_at`: the call before which it dies. `freeze`: as its process has it. `skew`: by how many seconds its
    host's clock is wrong."""

    name: str
    script: Script
    crash_at: int = 0
    freeze: Any = None
    skew: float = 0.0


@dataclass(frozen=True)
class Plan(abc.ABC):
    """Everything about one schedule."""

    seed: int
    scenario: str
    world: str
    actors: tuple[Actor, ...]
    salt: int = 0
    to_the_end: bool = False
    """Until all is collected that can be."""

    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {self.salt}")

    def without(self, name: str) -> Plan:
        return replace(self, actors=tuple(actor for actor in self.actors if actor.name != name))

    @abc.abstractmethod
    def begin(self) -> Machine:
        """Its world."""

    @abc.abstractmethod
    def start(self, machine: Any, actor: Actor) -> Process: ...

    @abc.abstractmethod
    def strategy(self) -> Strategy: ...

    @abc.abstractmethod
    def look(self, machine: Any) -> None:
        """When all are done. Raises Violation."""

    def simpler(self) -> Iterator[Plan]:
        """Plans that do without something."""
        if len(self.actors) > 1:
            yield from (self.without(actor.name) for actor in self.actors)
        yield from self.with_less()
        for actor in self.actors:
            if actor.crash_at or actor.freeze:
                calm = Actor(actor.name, actor.script)
                yield replace(self, actors=tuple(calm if one is actor else one for one in self.actors))

    def with_less(self) -> Iterator[Plan]:
        """What else can be left out."""
        yield from ()


@dataclass
class Failure:
    plan: Any
    error: BaseException
    trace: Sequence[Step]

    @property
    def invariant(self) -> str:
        return self.error.invariant if isinstance(self.error, Violation) else type(self.error).__name__

    def lines(self) -> list[str]:
        """One line a call."""
        numbered = enumerate(self.trace)
        return [
            readable(f"t={t} {who} {method} {key}" + (f" -> {more}" if more else ""))
            for t, (who, method, key, more) in numbered
        ]


def run(plan: Plan, strategy: Strategy | None = None) -> Failure | None:
    """Play a plan, and look at the world when all are done."""
    machine = plan.begin()
    for actor in plan.actors:
        process = plan.start(machine, actor)
        process.crash_at, process.freeze, process.skew = actor.crash_at, actor.freeze, actor.skew
    try:
        play(machine, strategy or plan.strategy())
        if machine.violation is None:
            plan.look(machine)
    except Violation as error:
        machine.broke(error)
    finally:
        machine.hub = getcurrent()
        for process in machine.processes:
            process.kill()
    if machine.violation is None:
        return None
    return Failure(plan, machine.violation, machine.trace)


def play(machine: Machine, strategy: Strategy) -> None:
    machine.hub = getcurrent()
    for process in machine.processes:
        process.greenlet.parent = machine.hub
    living = list(machine.processes)
    while (living or machine.late) and machine.violation is None:
        able = [one for one in (*living, *machine.late) if one.can_run()]
        if not able:
            machine.let_time_pass(living)
            continue
        found = able[0] if len(able) == 1 == len(living) else strategy.pick(able, machine)
        if found is None:
            continue
        machine.steps += 1
        found.go()
        if found.done and isinstance(found, Process):
            living.remove(found)
            if found.crash_at and found.calls >= found.crash_at:
                living.append(found.again())
        if machine.steps > MOST_STEPS:
            raise Violation("I10", "a process waits for ever")
    machine.hub = None
