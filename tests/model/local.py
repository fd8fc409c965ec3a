"""A directory's protocol (docs/design/local.md): one blob, one repository, pushes, a collector and their neighbours.

A push: HEAD or upload, flush, and the commit of index.json under the lock, which checks the blob again and takes it
back from the trash. A collector: mark, move to the trash under the lock after another mark, wait for the grace
period, purge after another look. Beside them a client deletes the blob, `dedupe` replaces it by the pool's copy,
another tool renames its own index.json in without a lock, and the power goes once. A step is a system call, or
several of which nothing is seen between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SAFEGUARDS = {
    "lock": "commits of index.json exclude each other",
    "check under the lock": "a push looks at the blob again when it has the lock",
    "take back": "a push takes back from the trash what it needs",
    "lock of the collector": "content is moved to the trash under the lock",
    "mark again": "the collector marks again under the lock",
    "grace period": "what is in the trash is purged after the grace period only",
    "look before purge": "the collector looks at index.json again before it purges",
    "trash first": "a client's deletion takes what is in the trash before the name",
    "lock of dedupe": "`dedupe` replaces under the lock what is still there",
    "compare": "a copy in the pool is compared before it is linked",
    "swap": "what comes out of the swap of index.json is taken in",
    "flush": "a blob is on the device before a tag leads to it",
}
GOOD, BAD, NONE = "good", "bad", ""
FRESH, OLD = 2, 1
PUSHED, FOREIGN = "pushed", "foreign"


class Process(NamedTuple):
    """`seen`: the tags that it has read. `told`: a client was told that the blob is there, and the grace period is not
    over since. `tag`: what a push sets."""

    kind: str
    at: str
    tag: str = ""
    seen: frozenset[str] = frozenset()
    told: bool = False


class State(NamedTuple):
    processes: tuple[Process, ...]
    blob: str = GOOD
    pool: str = GOOD
    trash: int = 0
    """0: nothing is there; FRESH until the grace period has passed, then OLD."""
    granted: bool = True
    """It was pushed into the repository, and no client has deleted it since."""
    flushed: bool = True
    tags: frozenset[str] = frozenset()
    promised: frozenset[str] = frozenset()
    """Tags that were acknowledged."""
    lock: int = -1
    refused: bool = False
    power: bool = False
    """The power may still go."""


START = {
    "push": "head",
    "collector": "mark",
    "deletion": "lock",
    "dedupe": "link",
    "tool": "look",
}


def start(*kinds: str, **state: object) -> State:
    """A push sets a tag of its own."""
    made = [Process(kind, START[kind], f"{PUSHED} {number}") for number, kind in enumerate(kinds)]
    return State(tuple(made))._replace(**state)  # type: ignore[arg-type]


def is_damaged(state: State) -> str | None:
    kept = state.blob != NONE or (FOREIGN in state.tags and state.trash)
    if state.tags and not kept:
        return "I5: index.json references the blob, which is gone"
    coming = frozenset[str]().union(*(one.seen for one in state.processes if one.at == "merge"))
    if not state.promised <= state.tags | coming:
        return "I4: a tag that was acknowledged is gone"
    if state.refused:
        return "I6: the manifest was refused though its blob was reserved"
    if any(one.told for one in state.processes):
        if state.blob == NONE and not state.trash:
            return "I6: the blob was reserved and is gone"
        if state.blob == BAD:
            return "I2: a client was told that damaged bytes are there"
    if state.blob != NONE and not state.granted:
        return "I7: what a client has deleted is back"
    return None


Moved = Iterator[tuple[str, Process, State]]


class Protocol:
    """`off`: safeguards that are switched off."""

    def __init__(self, *off: str) -> None:
        assert set(off) <= SAFEGUARDS.keys()
        self._off = frozenset(off)

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        yield from _time(state)
        for number, process in enumerate(state.processes):
            for line, moved, after in getattr(self, f"_{process.kind}")(state, process, number):
                # A deletion that a client asked for voids what others were told: `after` has them already.
                processes = (*after.processes[:number], moved, *after.processes[number + 1 :])
                yield f"{process.kind}{number} {line}", after._replace(processes=processes)

    def _locked(self, state: State, it: Process, number: int, then: str, *, safe: bool = True) -> Moved:
        if not safe:
            yield "takes no lock", it._replace(at=then), state
        elif state.lock < 0:
            yield "locks", it._replace(at=then), state._replace(lock=number)

    # -- a push ---------------------------------------------------------------------------------

    def _push(self, state: State, it: Process, number: int) -> Moved:
        early = "check under the lock" in self._off
        ready = "check" if early else "lock"
        if it.at == "head" and state.blob == GOOD:
            yield "is told that it is there", it._replace(at=ready, told=True), state
        elif it.at == "head" and state.trash:
            yield "takes it back", it, state._replace(blob=GOOD)
        elif it.at in ("head", "upload"):
            yield from self._upload(state, it)
        elif it.at == "flush" and state.blob == NONE and state.trash and "flush" not in self._off:
            yield "takes back what it flushes", it, state._replace(blob=GOOD)
        elif it.at == "flush":
            flushed = state.flushed or (state.blob != NONE and "flush" not in self._off)
            yield "flushes", it._replace(at=ready), state._replace(flushed=flushed)
        elif it.at == "lock":
            then = "read" if early else "check"
            yield from self._locked(state, it, number, then, safe="lock" not in self._off)
        elif it.at == "check":
            yield from self._check(state, it, number, "lock" if early else "read")
        elif it.at == "read":
            yield "reads index.json", it._replace(at="swap", seen=state.tags), state
        elif it.at == "swap":
            tags = it.seen | {it.tag}
            yield "swaps index.json", it._replace(at="merge", seen=state.tags), state._replace(tags=tags)
        elif it.at == "merge":
            tags = state.tags if "swap" in self._off else state.tags | it.seen
            done = state._replace(tags=tags, promised=state.promised | {it.tag}, lock=_free(state, number))
            yield "looks at what came out, and acknowledges", it._replace(at="done", told=False), done

    def _upload(self, state: State, it: Process) -> Moved:
        if state.blob == GOOD:
            yield "finds it by its bytes", it._replace(at="flush", told=True), state
            return
        compared = GOOD if state.pool != NONE and "compare" not in self._off else state.pool
        blob = compared or GOOD
        published = state._replace(blob=blob, pool=blob, granted=True, flushed=False)
        yield "publishes", it._replace(at="flush", told=True), published

    def _check(self, state: State, it: Process, number: int, then: str) -> Moved:
        if state.blob != NONE:
            found = state._replace(flushed=state.flushed or "flush" not in self._off)
            yield "finds the blob, and sees it to the device", it._replace(at=then), found
        elif state.trash and "take back" not in self._off:
            yield "takes it back", it, state._replace(blob=GOOD)
        else:
            refused = state._replace(refused=it.told, lock=_free(state, number))
            yield "is refused", it._replace(at="done", told=False), refused

    # -- a collector ----------------------------------------------------------------------------

    def _collector(self, state: State, it: Process, number: int) -> Moved:
        if it.at == "mark":
            unreachable = not state.tags and state.blob != NONE
            yield "marks", it._replace(at="lock" if unreachable else "wait"), state
        elif it.at == "lock":
            yield from self._locked(state, it, number, "again", safe="lock of the collector" not in self._off)
        elif it.at == "again":
            goes = state.blob != NONE and not (state.tags and "mark again" not in self._off)
            then = "move" if goes else "wait"
            yield "marks again", it._replace(at=then), state if goes else state._replace(lock=_free(state, number))
        elif it.at == "move":
            moved = state._replace(lock=_free(state, number))
            if state.blob != NONE:
                moved = moved._replace(blob=NONE, trash=FRESH)
            yield "moves it to the trash", it._replace(at="wait"), moved
        elif it.at == "wait" and (state.trash == OLD or (state.trash and "grace period" in self._off)):
            yield from self._locked(state, it, number, "purge")
        elif it.at == "purge":
            needed = bool(state.tags) and "look before purge" not in self._off
            blob = GOOD if needed and state.blob == NONE else state.blob
            yield "purges", it._replace(at="mark"), state._replace(blob=blob, trash=0, lock=_free(state, number))

    # -- their neighbours -----------------------------------------------------------------------

    def _deletion(self, state: State, it: Process, number: int) -> Moved:
        """On purpose: nothing may bring it back, and what was told before is void."""
        order = ["name", "trash"] if "trash first" in self._off else ["trash", "name"]
        if it.at == "lock":
            yield from self._locked(state, it, number, "look")
        elif it.at == "look" and state.tags:
            yield "it is in use", it._replace(at="done"), state._replace(lock=_free(state, number))
        elif it.at == "look":
            void = tuple(one._replace(told=False) for one in state.processes)
            yield "deletes", it._replace(at=order[0]), state._replace(processes=void)
        elif it.at in order:
            gone = state._replace(trash=0) if it.at == "trash" else state._replace(blob=NONE, granted=False)
            last = it.at == order[1]
            lock = _free(state, number) if last else state.lock
            void = tuple(one._replace(told=False) for one in state.processes)
            gone = gone._replace(lock=lock, processes=void)
            yield f"deletes the {it.at}", it._replace(at="done" if last else order[1]), gone

    def _dedupe(self, state: State, it: Process, number: int) -> Moved:
        safe = "lock of dedupe" not in self._off
        if it.at == "link" and state.blob == GOOD and state.pool == GOOD:
            yield "links the pool's copy", it._replace(at="lock"), state
        elif it.at == "lock":
            yield from self._locked(state, it, number, "replace", safe=safe)
        elif it.at == "replace":
            blob = GOOD if state.blob != NONE or not safe else NONE
            yield "replaces", it._replace(at="done"), state._replace(blob=blob, lock=_free(state, number))

    def _tool(self, state: State, it: Process, number: int) -> Moved:
        """It sees the blob, so it sends none. It has to write within the grace period."""
        if it.at == "look" and state.blob == GOOD:
            yield "sees the blob", it._replace(at="rename", told=True), state
        elif it.at == "rename" and it.told:
            tags = state.tags | {FOREIGN}
            renamed = state._replace(tags=tags, promised=state.promised | {FOREIGN})
            yield "renames its index.json in", it._replace(at="done", told=False), renamed


def _free(state: State, number: int) -> int:
    return -1 if state.lock == number else state.lock


def _time(state: State) -> Iterator[tuple[str, State]]:
    if state.trash == FRESH or any(one.told for one in state.processes):
        processes = tuple(one._replace(told=False) for one in state.processes)
        yield "the grace period passes", state._replace(processes=processes, trash=min(state.trash, OLD))
    if state.power:
        ended = tuple(one._replace(at="done", told=False) for one in state.processes)
        blob = state.blob if state.flushed else NONE
        yield "the power goes", state._replace(processes=ended, blob=blob, lock=-1, power=False)
