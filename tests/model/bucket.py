"""Collection on a bucket (docs/design/bucket.md#collection): one blob and one repository, collectors, pushes, a
deletion by a client.

A collector: snapshot, intent (C3), fence (C4), look at the reservation again (C5), delete the reservation and the
blob (C6), withdraw (C7). It may stop for good anywhere, and a delete without an answer may be done once more until
its signature is over. A push: read index.json with its epoch, reservation (P1), intents (P2), blob (P3), and then it
is told; later it commits, by what it remembers, if neither a window has passed nor the epoch has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SAFEGUARDS = {
    "intent": "C3: an intent",
    "fence": "C4: index.json gets another generation",
    "recheck": "C5: the reservation is looked at again",
    "expiry": "C6: deletes die with their signature",
    "unanswered": "C7: the intent stays while a delete may be done once more",
    "intents": "P2: the intents are looked at",
    "second look": "P2: the reservation is looked at again when an intent may have been withdrawn",
    "blob": "P3: the blob itself is looked at",
    "epoch": "what is remembered from before a deletion is void",
    "window": "what is remembered is void after a window",
    "covers": "P1 again when it took longer than a window",
}
OLD, FRESH, GONE = 1, 2, 0
MOST_HOLDS, MOST_INDEXES = 3, 4


class Collector(NamedTuple):
    at: str = "snapshot"
    reservation: int = -1
    index: int = 0  # type: ignore[assignment]
    intent: bool = False
    expired: bool = False
    again: int = 0
    """Deletes that may be done once more: 1 the reservation, 2 the blob."""


class Push(NamedTuple):
    """`epoch`: that of its memory, or -1. `lasts`: its reservation is young. `told`: a reservation that is not over."""

    at: str = "read"
    index: int = 0  # type: ignore[assignment]
    heard: int = 0
    epoch: int = -1
    lasts: bool = False
    told: bool = False


class State(NamedTuple):
    collectors: tuple[Collector, ...]
    pushes: tuple[Push, ...]
    deletion: str = "intent"
    blob: int = OLD
    reservation: int = OLD
    reservations: int = 0
    """How often one was written: its ETag."""
    index: int = 0  # type: ignore[assignment]
    epoch: int = 0
    referenced: bool = False


def start(collectors: int = 1, pushes: int = 1, *, deletion: bool = False) -> State:
    return State((Collector(),) * collectors, (Push(),) * pushes, "intent" if deletion else "done")


def is_damaged(state: State) -> str | None:
    if state.referenced and state.blob == GONE:
        return "I5: index.json references the blob, which is gone"
    if state.blob == GONE and any(push.told for push in state.pushes):
        return "I6: the blob was reserved and is gone"
    return None


class Protocol:
    """`off`: safeguards that are switched off."""

    def __init__(self, *off: str) -> None:
        assert set(off) <= SAFEGUARDS.keys()
        self._off = frozenset(off)

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        yield from self._time(state)
        for number, collector in enumerate(state.collectors):
            for line, (changed, following) in self._collector(state, collector):
                all_of = list(following.collectors)
                all_of[number] = changed
                yield f"gc{number} {line}", following._replace(collectors=tuple(all_of))
        for number, push in enumerate(state.pushes):
            for line, (moved, following) in self._push(state, push):
                pushes = list(following.pushes)
                pushes[number] = moved
                yield f"push{number} {line}", following._replace(pushes=tuple(pushes))
        yield from self._deletion(state)

    def _time(self, state: State) -> Iterator[tuple[str, State]]:
        """The delay passes, and with it each window."""
        if FRESH in (state.blob, state.reservation) or any(push.told or push.lasts for push in state.pushes):
            memory: Any = {} if "window" in self._off else {"epoch": -1}
            pushes = tuple(push._replace(told=False, lasts=False, **memory) for push in state.pushes)
            blob, reservation = min(state.blob, OLD), min(state.reservation, OLD)
            yield "the delay passes", state._replace(pushes=pushes, blob=blob, reservation=reservation)

    # -- the collector --------------------------------------------------------------------------

    def _collector(self, state: State, it: Collector) -> Iterator[tuple[str, tuple[Collector, State]]]:
        etag = state.reservations if state.reservation else -1
        if it.intent and not it.expired:
            yield "signatures are over", (it._replace(expired=True), state)
        may_act = not it.expired or "expiry" in self._off
        if it.again & 1 and may_act:
            yield (
                "the delete of the reservation is done again",
                (it._replace(again=it.again & 2), state._replace(reservation=GONE)),
            )
        if it.again & 2 and may_act:
            yield "the delete of the blob is done again", (it._replace(again=it.again & 1), state._replace(blob=GONE))
        if it.at == "snapshot" and state.blob == OLD and state.reservation != FRESH and not state.referenced:
            yield "snapshot", (it._replace(at="intent", reservation=etag, index=state.index), state)
        elif it.at == "intent":
            yield "intent", (it._replace(at="fence", intent="intent" not in self._off), state)
        elif it.at == "fence":
            yield from self._fence(state, it)
        elif it.at == "recheck":
            same = etag == it.reservation or "recheck" in self._off
            yield "recheck", (it._replace(at="reservation" if same else "withdraw"), state)
        elif it.at in ("reservation", "blob"):
            yield from self._delete(state, it, may_act)
        elif it.at == "withdraw" and (not it.again or it.expired or "unanswered" in self._off):
            yield "withdraw", (it._replace(at="done", intent=False), state)

    def _fence(self, state: State, it: Collector) -> Iterator[tuple[str, tuple[Collector, State]]]:
        if "fence" in self._off:
            yield "no fence", (it._replace(at="recheck"), state)
        elif state.index != it.index:
            yield "fence: changed", (it._replace(at="withdraw"), state)
        elif state.index < MOST_INDEXES:
            following = state._replace(index=state.index + 1, epoch=state.epoch + 1)
            yield "fence", (it._replace(at="recheck"), following)

    def _delete(self, state: State, it: Collector, may_act: bool) -> Iterator[tuple[str, tuple[Collector, State]]]:
        what, bit, after = ("reservation", 1, "blob") if it.at == "reservation" else ("blob", 2, "withdraw")
        if not may_act:
            yield f"delete {what}: too late", (it._replace(at="withdraw"), state)
            return
        gone = state._replace(reservation=GONE) if what == "reservation" else state._replace(blob=GONE)
        yield f"delete {what}", (it._replace(at=after), gone)
        yield f"delete {what}: no answer", (it._replace(at="withdraw", again=it.again | bit), gone)

    # -- a push ---------------------------------------------------------------------------------

    def _push(self, state: State, it: Push) -> Iterator[tuple[str, tuple[Push, State]]]:
        """`read` to `blob` are a HEAD or an upload, `again` and `commit` the manifest."""
        living = any(one.intent and not one.expired for one in state.collectors)
        if it.at in ("read", "again"):
            read = it._replace(index=state.index, heard=state.epoch)
            yield "reads index.json", (read._replace(at="commit" if self._remembers(read) else "reservation"), state)
            if it.at == "again" and it.epoch >= 0 and state.blob:
                yield "is told again, from memory", (it._replace(told=True), state)
        elif it.at == "reservation" and state.reservation == FRESH:
            yield "finds a fresh reservation", (it._replace(at="intents", lasts=True), state)
        elif it.at == "reservation" and state.reservations < MOST_HOLDS:
            following = state._replace(reservation=FRESH, reservations=state.reservations + 1)
            yield "writes a reservation", (it._replace(at="intents", lasts=True), following)
        elif it.at == "intents" and ("intents" in self._off or not (living or self._deletes(state))):
            again = state.reservation != FRESH and not {"second look", "intents"} & self._off
            yield "sees no intent", (it._replace(at="reservation" if again else "blob"), state)
        elif it.at == "blob" and not (it.lasts or "covers" in self._off):
            yield "was too slow", (it._replace(at="reservation"), state)
        elif it.at == "blob" and (state.blob or "blob" in self._off):
            yield "is told that it is there", (it._replace(at="again", epoch=it.heard, told=True), state)
        elif it.at == "blob":
            yield "sends the blob", (it._replace(at="read"), state._replace(blob=FRESH))
        elif it.at == "commit" and state.index != it.index:
            yield "commit: changed", (it._replace(at="again"), state)
        elif it.at == "commit" and state.index < MOST_INDEXES:
            done = it._replace(at="done", told=False, epoch=-1)
            yield "commits", (done, state._replace(referenced=True, index=state.index + 1))

    def _remembers(self, it: Push) -> bool:
        return it.epoch >= 0 and (it.epoch == it.heard or "epoch" in self._off)

    # -- a client deletes the blob --------------------------------------------------------------

    def _deletes(self, state: State) -> bool:
        return state.deletion in ("void", "delete", "withdraw")

    def _deletion(self, state: State) -> Iterator[tuple[str, State]]:
        """On purpose: reservations from before are void, and whoever has them is told so by the epoch."""
        if state.deletion == "intent":
            yield "client: intent", state._replace(deletion="void")
        elif state.deletion == "void" and state.referenced:
            yield "client: it is in use", state._replace(deletion="withdraw")
        elif state.deletion == "void" and state.index < MOST_INDEXES:
            following = state._replace(index=state.index + 1, epoch=state.epoch + 1)
            yield "client: voids reservations", following._replace(deletion="delete")
        elif state.deletion == "delete":
            pushes = tuple(push._replace(told=False) for push in state.pushes)
            yield "client: deletes", state._replace(blob=GONE, reservation=GONE, deletion="withdraw", pushes=pushes)
        elif state.deletion == "withdraw":
            yield "client: withdraws", state._replace(deletion="done")
