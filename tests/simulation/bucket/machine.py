"""What all processes of a schedule share: a bucket in memory, its server's clock, the trace and the model.

A `Process` is a greenlet with caches of its own. A `Late` is a request whose sender gave up: the server still has it,
and carries it out when the scheduler says so, within the time that docs/design/bucket.md#why-it-is-safe allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.doubles.objects import MemoryObjects
from tests.simulation import scheduler
from tests.simulation.scheduler import SECOND, Script, Violation
from zotctl.errors import StorageError
from zotctl.storage import keys
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, INTENT_LIFETIME_S
from zotctl.storage.bucket.workers import DigestMarks, Mark

if TYPE_CHECKING:
    from tests.simulation.bucket.model import Model

STEP = SECOND // 100
"""Nanoseconds that one request takes."""
LATEST = int((INTENT_LIFETIME_S - DELETES_SIGNED_FOR_S - 2) * SECOND)
"""After so long whatever the server accepted was done. Two seconds less than docs/design/bucket.md#times says: times
are whole seconds."""
LATENESS = (0, 1, 40, 70, 130, 250)
"""Seconds that a request without an answer lies in the server at the least."""
DOZE = 20
"""A process that sleeps for less than a second sleeps for so much longer, which is as right and makes fewer steps."""

Fault = tuple[int, str, str, str]
"""Which one of the requests of a kind ("": all) with something in their key; what befalls it."""
_OWN = (keys.LEASES, keys.VERSION, keys.HISTORY, keys.COLLECTION, keys.CAPABILITIES)


def is_own(request: tuple[str, str, str]) -> bool:
    """Can no other process see or disturb this request?"""
    return request[0] == "begin" or request[1].startswith(_OWN)


class Machine(scheduler.Machine):
    """The storage is a bucket in memory."""

    model: Model

    def __init__(
        self, memory: MemoryObjects, now: int, *,
        dice: Random, faults: Sequence[Fault], delay: float, one_host: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(now)
        self.memory, self.dice, self.delay = memory, dice, delay
        self.faults = list(faults)
        self.had_faults = bool(faults)
        self.one_host, self.deletions, self.lost, self.marked = one_host, Mark(), DigestMarks(), DigestMarks()
        """Are all processes on one host? Then they hear of each other's deletions and losses at once."""
        self._put_back = 0.0
        """Seconds by which the object store's clock alone was put back."""
        memory.clock = self.server_time

    def server_time(self) -> float:
        return self.now / SECOND - self._put_back

    def jump(self, by: float) -> None:
        """By so many seconds; backwards, that of the object store alone."""
        self.note("clock", "TICK", f"{by:g} s")
        if by < 0:
            self._put_back -= by
        else:
            self.advance(self.now + int(by * SECOND))

    def let_time_pass(self, living: Sequence[Process]) -> None:
        """Until the next sleeper wakes up, or the next late request may be carried out."""
        self.advance(min(one.wake for one in (*living, *self.late)))

    def fault(self, method: str, key: str) -> str | None:
        """What befalls this request. Each fault counts those that it is meant for."""
        found = None
        for at, (number, wanted, part, fault) in enumerate(self.faults):
            if wanted in ("", method) and part in key:
                self.faults[at] = (number - 1, wanted, part, fault)
                found = fault if number == 1 else found
        return found

    def advance(self, to: int) -> None:
        """The time goes on, and with it whatever can't be later."""
        while self.late and (first := min(self.late, key=lambda one: one.deadline)).deadline <= to:
            self.now = max(self.now, first.deadline)
            first.go()
        self.now = max(self.now, to)


class SimClock(scheduler.SimClock):
    """That of a host: `now` is wrong by what the process was given, and a suspended host loses `elapsed`."""

    def now(self) -> float:
        return self._machine.now / SECOND + self._process.skew

    def now_ns(self) -> int:
        return self._machine.now + int(self._process.skew * SECOND)

    def elapsed(self) -> float:
        return (self._machine.now - self._process.suspended) / SECOND

    def sleep(self, seconds: float) -> None:
        process = self._process
        process.wake = self._machine.now + int((seconds * DOZE if seconds < 1 else seconds) * SECOND)
        process.turn("sleep", f"{seconds:g}")


class Freeze(NamedTuple):
    """Before the request of this number, of one kind or ("") of all."""

    at: int
    method: str
    seconds: float
    suspended: bool
    """Its host, too: then `elapsed` stands still."""


class Process(scheduler.Process):
    machine: Machine
    freeze: Freeze | None

    def __init__(self, machine: Machine, name: str, script: Script | None = None) -> None:
        from tests.simulation.bucket.requests import Turns

        super().__init__(machine, name, script)
        self.clock, self.objects = SimClock(self), Turns(self)
        self.suspended = self.counted = 0

    def die(self) -> None:
        self.dead = True
        if self.op is not None:
            self.op.ended = self.machine.now

    def pass_step(self) -> None:
        self.machine.advance(max(self.machine.now + STEP, self.wake))

    def maybe_freeze(self, method: str) -> None:
        freeze = self.freeze
        if freeze is None or freeze.method not in ("", method):
            return
        self.counted += 1
        if self.counted != freeze.at:
            return
        self.wake = max(self.wake, self.machine.now + int(freeze.seconds * SECOND))
        self.suspended += int(freeze.seconds * SECOND) if freeze.suspended else 0
        self.machine.note(self.name, "FROZEN", f"{freeze.seconds:g} s", "suspended" if freeze.suspended else "")

    def proceed(self, method: str, key: str, target: str) -> None:
        """`Turns` notes the request with what came of it."""
        self.machine.advance(self.machine.now + STEP)

    def can_run(self) -> bool:
        return not self.done and self.wake <= self.machine.now

    def is_own(self) -> bool:
        return is_own(self.next)


class Late:
    """One request that its sender no longer waits for."""

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

    def is_own(self) -> bool:
        return is_own(self.next)

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
            self.machine.broke(error)
            outcome = "VIOLATION"
        self.machine.note(self.name, self.next[0], self.next[1], outcome)
