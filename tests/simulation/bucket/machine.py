"""What all processes of a schedule share: a bucket in memory, its server's clock, the trace and the ghost.

A `Process` is a greenlet with caches of its own. A `Late` is a request whose sender gave up: the server still has it,
and carries it out when the scheduler says so, within the time that docs/design/bucket.md#why-it-is-safe allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from greenlet import greenlet  # type: ignore[import-untyped]

from tests.doubles.objects import MemoryObjects
from tests.faults import Crash
from tests.simulation.baton import SECOND, Violation
from zotctl.errors import StorageError
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, INTENT_LIFETIME_S
from zotctl.storage.bucket.workers import DigestMarks, Mark
from zotctl.storage.clock import Clock

if TYPE_CHECKING:
    from tests.simulation.bucket.ghost import Ghost, Op

STEP = SECOND // 100
"""Nanoseconds that one request takes."""
LATEST = int((INTENT_LIFETIME_S - DELETES_SIGNED_FOR_S - 2) * SECOND)
"""After so long whatever the server accepted was done. Two seconds less than docs/design/bucket.md#times says: times
are whole seconds."""
LATENESS = (0, 1, 40, 70, 130, 250)
"""Seconds that a request without an answer lies in the server at the least."""
DOZE = 20
"""Who sleeps for less than a second sleeps for so much longer, which is as right and makes fewer steps."""

Fault = tuple[int, str, str, str]
"""Which one of the requests of a kind ("": all) with something in their key; what befalls it."""
Made = tuple[str, str, str, str]
"""Who, what, of which key, and what came of it."""


class Machine:
    def __init__(
        self, memory: MemoryObjects, now: int, *,
        dice: Random, faults: Sequence[Fault], delay: float, one_host: bool = True,
    ) -> None:  # fmt: skip
        self.memory, self.now, self.dice, self.delay = memory, now, dice, delay
        self.faults = [[*fault] for fault in faults]
        self.had_faults = bool(faults)
        self.one_host, self.deletions, self.lost, self.marked = one_host, Mark(), DigestMarks(), DigestMarks()
        """Are all processes on one host? Then they hear of each other's deletions and losses at once."""
        self.ghost: Ghost
        self.processes: list[Process] = []
        self.late: list[Late] = []
        self.trace: list[Made] = []
        self.steps = self.tokens = 0
        self.hub: Any = None
        """The greenlet of the scheduler; None: requests are made at once, by whoever makes them."""
        self.violation: BaseException | None = None
        memory.clock = self.server_time

    def server_time(self) -> float:
        return self.now / SECOND

    def fault(self, method: str, key: str) -> str | None:
        """What befalls this request. Each fault counts those that it is meant for."""
        found = None
        for fault in self.faults:
            if fault[1] in ("", method) and fault[2] in key:
                fault[0] -= 1
                found = fault[3] if fault[0] == 0 else found
        return found

    def note(self, who: str, method: str, key: str = "", outcome: str = "") -> None:
        self.trace.append((who, method, key, outcome))

    def advance(self, to: int) -> None:
        """The time goes on, and with it whatever can't be later."""
        while self.late and (first := min(self.late, key=lambda one: one.deadline)).deadline <= to:
            self.now = max(self.now, first.deadline)
            first.go()
        self.now = max(self.now, to)


class SimClock(Clock):
    """That of a host: `now` is wrong by what the process was given, and a suspended host loses `elapsed`."""

    def __init__(self, process: Process) -> None:
        self._process, self._machine = process, process.machine

    def now(self) -> float:
        return self._machine.now / SECOND + self._process.skew

    def now_ns(self) -> int:
        return self._machine.now + int(self._process.skew * SECOND)

    def elapsed(self) -> float:
        return (self._machine.now - self._process.suspended) / SECOND

    def boottime(self) -> float:
        return self._machine.now / SECOND

    def sleep(self, seconds: float) -> None:
        process = self._process
        process.wake = self._machine.now + int((seconds * DOZE if seconds < 1 else seconds) * SECOND)
        process.turn("sleep", f"{seconds:g}")

    def jitter(self) -> float:
        return 1.0

    def token(self) -> str:
        self._machine.tokens += 1
        return f"{self._machine.tokens:08x}00000000"


Script = Callable[["Process"], None]


class Freeze(NamedTuple):
    """Before the request of this number, of one kind or ("") of all."""

    at: int
    method: str
    seconds: float
    suspended: bool
    """Its host, too: then `elapsed` stands still."""


class Process:
    """`crash_at`: it dies before that request."""

    def __init__(self, machine: Machine, name: str, script: Script | None = None) -> None:
        from tests.simulation.bucket.requests import Turns

        self.machine, self.name, self.script = machine, name, script
        self.clock, self.objects = SimClock(self), Turns(self)
        self.calls = self.wake = self.suspended = 0
        self.skew = 0.0
        self.crash_at = 0
        self.freeze: Freeze | None = None
        self.counted = 0
        self.dead = self.done = False
        self.next: tuple[str, str, str] = ("begin", "", "")
        self.op: Op | None = None
        self.store: Any = None
        self.greenlet = greenlet(self._run)
        machine.processes.append(self)

    def _run(self) -> None:
        machine = self.machine
        try:
            if self.script is not None:
                self.script(self)
        except Crash:
            pass
        except Violation as error:
            machine.violation = machine.violation or error
        except Exception as error:
            if not self.dead:
                machine.violation = machine.violation or error
        self.dead = self.done = True
        if self.op is not None:
            self.op.ended = machine.now

    def turn(self, method: str, key: str) -> None:
        """Before a request: others may go first, and this process may die or freeze here."""
        machine = self.machine
        if self.dead:
            raise Crash
        if machine.hub is None:
            machine.advance(max(machine.now + STEP, self.wake))
            return
        self.calls += 1
        self.next = (method, key, "")
        if self.freeze is not None and self.freeze.method in ("", method):
            self._freeze(self.freeze)
        if self.calls == self.crash_at:
            machine.note(self.name, "CRASH before", method, key)
            self.dead = True
            raise Crash
        self.give_way()
        machine.advance(machine.now + STEP)

    def _freeze(self, freeze: Freeze) -> None:
        self.counted += 1
        if self.counted != freeze.at:
            return
        self.wake = max(self.wake, self.machine.now + int(freeze.seconds * SECOND))
        self.suspended += int(freeze.seconds * SECOND) if freeze.suspended else 0
        self.machine.note(self.name, "FROZEN", f"{freeze.seconds:g} s", "suspended" if freeze.suspended else "")

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
        if self.greenlet and not self.greenlet.dead:
            self.greenlet.switch()

    def can_run(self) -> bool:
        return not self.done and self.wake <= self.machine.now


class Late:
    """One request that nobody waits for any more."""

    def __init__(self, process: Process, method: str, key: str, call: Callable[[], Any]) -> None:
        machine = process.machine
        self.machine, self._process, self._op, self._call = machine, process, process.op, call
        self.name = f"late {process.name} {len(machine.trace)}"
        self.next, self.done = (method, key, ""), False
        self.wake = machine.now + machine.dice.choice(LATENESS) * SECOND
        self.deadline = machine.now + LATEST
        machine.late.append(self)

    def can_run(self) -> bool:
        return self.wake <= self.machine.now

    def go(self) -> None:
        if self.done:
            return
        self.done = True
        self.machine.late.remove(self)
        try:
            self._call()
            outcome = "done"
        except StorageError as error:
            outcome = type(error).__name__
        except Violation as error:
            self.machine.violation = self.machine.violation or error
            outcome = "VIOLATION"
        self.machine.note(self.name, self.next[0], self.next[1], outcome)
