"""What clients did to tags that they share, and whether a register that does one thing at a time could have told it.

Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of Lowe, "Testing for linearizability"
(2017): a state that was reached once is not tried again. Each tag is a register of its own, so each is checked alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.images import Image
from zotctl.oci.digest import Digest


@dataclass(frozen=True)
class Call:
    """`put` of a digest; `read` of one, or of none; `listed` or not; `delete` of a tag that is there; `drop`, the
    delete of a manifest with its tags. Without an answer (`ended` infinite) it happens at any time from `began` on, or
    never. Seconds."""

    client: str
    kind: str
    value: str | None
    began: float
    ended: float = math.inf

    @property
    def answered(self) -> bool:
        return self.ended < math.inf

    def after(self, value: str | None) -> tuple[str | None] | None:
        """What the register holds after it, in a tuple; None: with this value it could not have answered so."""
        match self.kind:
            case "put":
                return (self.value,)
            case "read":
                return (value,) if value == self.value else None
            case "listed":
                return (value,) if (value is not None) == (self.value is not None) else None
            case "delete":
                return (None,) if value is not None or not self.answered else None
            case "drop":
                return (None if value == self.value else value,)
        raise ValueError(self.kind)

    def __str__(self) -> str:
        end = f"{self.ended:9.3f}" if self.answered else "        ?"
        return f"  {self.began:9.3f} to {end}  {self.client}  {self.kind} {(self.value or 'nothing')[:19]}"


def is_linearisable(calls: Iterable[Call]) -> bool:
    """Whether there is one order of the calls that each of their answers agrees with, beginning with nothing."""
    ordered = sorted(calls, key=lambda call: call.began)
    everything = sum(1 << at for at, call in enumerate(ordered) if call.answered)
    seen = _States(everything)
    todo: list[tuple[int, str | None]] = [(0, None)]
    while todo:
        done, value = todo.pop()
        if done & everything == everything:
            return True
        horizon = min(call.ended for at, call in enumerate(ordered) if not done >> at & 1)
        perhaps, certain = list[tuple[int, str | None]](), list[tuple[int, str | None]]()
        for at, call in enumerate(ordered):
            if call.began > horizon:
                break
            if done >> at & 1 or (left := call.after(value)) is None:
                continue
            state = (done | 1 << at, left[0])
            if call.kind in ("read", "listed"):
                # It changes nothing, so it never harms to take it at once, and nothing else needs to be tried.
                perhaps, certain = [], [state]
                break
            if call.answered:
                certain.append(state)
            elif left[0] != value:  # else it may as well not have happened
                perhaps.append(state)
        # What was answered is tried first: of two ways to a state, the one with fewer of the others leaves more open.
        todo += [state for state in (*perhaps, *certain) if seen.is_news(*state)]
    return False


class _States:
    """The states that were reached. One with the same answered calls and the same value, and with no more of those
    without an answer, leads wherever this one leads, so this one is not tried: clients that time out would make of a
    history of forty calls more states than can be tried."""

    def __init__(self, everything: int) -> None:
        self._everything = everything
        self._used: dict[tuple[int, str | None], list[int]] = {}

    def is_news(self, done: int, value: str | None) -> bool:
        used = done & ~self._everything
        others = self._used.setdefault((done & self._everything, value), [])
        if any(other & used == other for other in others):
            return False
        others[:] = [other for other in others if other & used != used] + [used]
        return True


def why_not(calls: Sequence[Call]) -> list[Call]:
    """The shortest beginning of a history that is not linearisable; empty: it is."""
    if is_linearisable(calls):
        return []
    for end in sorted(call.ended for call in calls if call.answered):
        begun = [call for call in calls if call.began <= end]
        cut = [call if call.ended <= end else replace(call, ended=math.inf) for call in begun]
        # A read that has no answer yet says nothing.
        told = [call for call in cut if call.answered or call.kind in ("put", "delete", "drop")]
        if not is_linearisable(told):
            return sorted(told, key=lambda call: call.began)
    raise AssertionError("the whole history is its own longest beginning")


@dataclass
class Registers:
    """Thread-safe. `calls`: those of each tag. `images`: what was put, by digest. Calls move on to a new tag after
    `CALLS_OF_A_TAG`, so that each history is short."""

    CALLS_OF_A_TAG = 40
    calls: dict[str, list[Call]] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    _turns: int = 0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def next_tag(self) -> str:
        with self._mutex:
            self._turns += 1
            return f"r{self._turns // self.CALLS_OF_A_TAG}"

    def note(self, tag: str, call: Call) -> None:
        with self._mutex:
            self.calls.setdefault(tag, []).append(call)

    def made(self, image: Image) -> Digest:
        with self._mutex:
            self.images[str(image.digest)] = image
        return image.digest

    def some_digest(self, tag: str) -> str | None:
        """The one that was put last, as far as is known."""
        with self._mutex:
            return next((call.value for call in reversed(self.calls.get(tag, ())) if call.kind == "put"), None)
