"""Checks the clock before anything expires by it.

A clock that is a year ahead for one run would delete every tag that a policy keeps for a time, and empty the trash. So
each run, and `serve` when it starts, notes in each root what the clock said and how long the machine had been running,
and the next run compares:

    on the machine that has been running since: more time has gone by than it was running
    else: more time than any registry is left alone (`LONGEST_PAUSE_S`)
    the storage's own clock and this machine's, where both count, or nothing else is known

What is far beyond the usual ends the run in that root, with a reason and a way out. The operator has nothing to do: a
clock that says the same a day later is believed. A clock that is behind only keeps things for longer.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zotctl.errors import ClockDoubtful, NotFound, StorageError
from zotctl.jobs.report import time_of
from zotctl.jobs.stores import jobs_of
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.clock import DAY_S, Clock
from zotctl.storage.root import Root

MAX_JUMP_S = DAY_S
"""How far two clocks may disagree: more than any time zone."""
LONGEST_PAUSE_S = 100 * DAY_S
"""The longest time between two runs on different machines, or with a reboot in between."""
BELIEVED_AFTER_S = DAY_S
"""How long a doubted clock must have gone on steadily until it is believed."""
_MAX_BYTES = 4096


@dataclass(frozen=True)
class Moment:
    """What the clocks said at one moment.

    `at`: the clock by which content expires, in seconds since 1970. `up`: how many seconds the machine has been running
    since the reboot that `boot` identifies ("": unknown).
    """

    at: float
    boot: str
    up: float

    def since(self, other: Moment) -> float:
        """Seconds since `other`: by the uptime if the machine has been running all the time, or else by the clock."""
        return self.up - other.up if self.boot and self.boot == other.boot else self.at - other.at

    def doubt(self, last: Moment | None) -> str | None:
        """Why this moment can't plausibly follow `last`; None: it can."""
        if last is None:
            return None
        gone = self.at - last.at
        if self.boot and self.boot == last.boot:
            ran = self.up - last.up
            if gone - ran > MAX_JUMP_S:
                return f"{_days(gone)} after it was looked at last, and this machine ran for {_days(ran)} since"
        elif gone > LONGEST_PAUSE_S:
            return f"{_days(gone)} after it was looked at last"
        return None


def require_clock(root: Root, clock: Clock, *, trusted: bool, dry_run: bool) -> None:
    """Compare the clock with what earlier runs noted in this root, and note what it says now.

    Raises ClockDoubtful if it is far from where it should be, StorageError if the note cannot be read. `trusted`: the
    operator says that the clock is right. `dry_run`: nothing is written.
    """
    last, doubted = _read(root)
    now = _moment(root, clock)
    reason = None if trusted else _reason(root, clock, now, last, doubted, dry_run)
    if not dry_run:
        _write(root, now if reason is None else last, None if reason is None else _first(now, doubted))
    if reason is not None:
        raise ClockDoubtful(
            f"{root.label}: the clock says {time_of(now.at)}, {reason}. Nothing expires by such a clock: put it right, "
            "or, if it is right, run `zotctl gc --trust-clock` once"
        )


def note_clock(root: Root, clock: Clock) -> None:
    """Note what the clock says, for the next run to compare.

    Does nothing if there is already a note since this reboot, if the clock contradicts an earlier note, or if the root
    is away. Raises StorageError if the note cannot be read.
    """
    if root.state() is not None:
        return
    last, doubted = _read(root)
    now = _moment(root, clock)
    if doubted is None and (last is None or last.boot != now.boot) and now.doubt(last) is None:
        _write(root, now, None)


def boot_id() -> str:
    """What identifies the last reboot of this machine; "" where the kernel does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _moment(root: Root, clock: Clock) -> Moment:
    return Moment(root.protocol.now(), boot_id(), clock.boottime())


def _reason(
    root: Root, clock: Clock, now: Moment, last: Moment | None, doubted: Moment | None, dry_run: bool
) -> str | None:
    """Why the clock is not believed; None: it is."""
    other = jobs_of(root).other_clock(clock, dry_run=dry_run)
    differs = (
        f"and that of {other.whose} {time_of(other.at)}" if other and abs(other.at - now.at) > MAX_JUMP_S else None
    )
    if other is not None and other.refutes and differs:
        return differs
    reason = now.doubt(last)
    if reason is None and not (last is not None and now.boot == last.boot):
        reason = differs
    if reason is None or (
        doubted is not None and now.doubt(doubted) is None and now.since(doubted) >= BELIEVED_AFTER_S
    ):
        return None
    return reason


def _first(now: Moment, doubted: Moment | None) -> Moment:
    """The moment since which the clock has been doubted: an earlier one only if the clock has gone on steadily
    since."""
    return doubted if doubted is not None and now.doubt(doubted) is None and now.at >= doubted.at else now


def _read(root: Root) -> tuple[Moment | None, Moment | None]:
    with suppress(NotFound, ValueError, TypeError, AttributeError):
        found = load_json(root.maintenance.read(keys.CLOCK, _MAX_BYTES))
        return _parse(found.get("last")), _parse(found.get("doubted"))
    return None, None


def _parse(found: Any) -> Moment | None:
    with suppress(ValueError, TypeError, KeyError):
        return Moment(float(found["at"]), str(found["boot"]), float(found["up"]))
    return None


def _write(root: Root, last: Moment | None, doubted: Moment | None) -> None:
    """A full disk, on which the note can't be written, must not keep a run from freeing space."""
    found = {"last": asdict(last) if last else None, "doubted": asdict(doubted) if doubted else None}
    with suppress(StorageError):
        root.maintenance.write(keys.CLOCK, [json.dumps(found).encode()])


def _days(seconds: float) -> str:
    days = seconds / DAY_S
    return f"{days:.1f} days" if days < 10 else f"{days:.0f} days"
