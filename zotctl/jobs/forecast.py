"""What the rules remove from a repository in which nobody changes anything, and when: the collections to come, played
on a copy of index.json and of the timeline, by the very function that collections decide by (`jobs.retention`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from zotctl.jobs.gc import without_rows
from zotctl.jobs.reachable import Attachments, Reachable
from zotctl.jobs.report import whole_second
from zotctl.jobs.retention import Drop, Rules, decide, foreign_untagged
from zotctl.oci.reference import digest_key
from zotctl.storage.history import Timeline


@dataclass
class Loss:
    """What becomes of one digest. Times in seconds since 1970, before which nothing happens; a run from then on does
    it.

    `at`: when no row leads to it any more; None: it stays. `reason`: the rule. `tags`: those of its tags that go, with
    time and rule. `marks`: what is reachable in the end, or, if it goes, just before that.
    """

    marks: Reachable
    at: float | None = None
    reason: str = ""
    tags: dict[str, tuple[float, str]] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    """The rows that go at that time, as far as they matter."""


class RunToCome(NamedTuple):
    """What a collection removes. `at`: seconds since 1970, before which none does. `marks`: what is reachable before,
    `after`: when it is done."""

    at: float
    drops: list[Drop]
    marks: Reachable
    after: Reachable


class Forecast:
    """The forecast for one repository. `now`: by the clock that stamps what lies in the root. Used by one thread."""

    def __init__(self, name: str, marks: Reachable, past: Timeline, rules: Rules, now: float) -> None:
        """`marks` without faults: with them nothing is collected."""
        self._name, self._marks, self._rules, self._now = name, marks, rules, now
        self._past = _copy(past)
        self.ahead = self.unnoted = bool(past.ahead)
        """Whether something counts only from the next run, which notes it. `ahead`: since it is dated ahead of the
        clock; once the clock is there, its date counts."""
        for digest in foreign_untagged(marks, past) if rules.foreign else ():
            self._past.noted[digest] = now
            self.unnoted = True

    def of(self, digest: str) -> Loss:
        """What becomes of a digest that is reachable."""
        loss, related = Loss(self._marks), self._related(digest)
        for run in self._play(lambda drop: drop.digest in related or (drop.tag is not None and self._counts)):
            for drop in run.drops:
                if drop.tag is not None and drop.digest == digest:
                    loss.tags[drop.tag] = (run.at, drop.reason)
            if digest not in run.after.reachable:
                loss.at, loss.marks = run.at, run.marks
                loss.rows = [drop.digest for drop in run.drops if drop.tag is None and drop.digest in related]
                mine = (drop.reason for drop in run.drops if drop.digest == digest and drop.tag is None)
                loss.reason = next(mine, self._first(run.drops, related))
                return loss
            loss.marks = run.after
        return loss

    def coming(self, until: float) -> Iterator[RunToCome]:
        """The collections that remove something, from now until then (seconds since 1970), in the order of time."""
        yield from (run for run in self._play(lambda drop: True, until) if run.drops)

    def _play(self, matters: Callable[[Drop], bool], until: float = float("inf")) -> Iterator[RunToCome]:
        """The collection of now, and each later one that removes something that matters."""
        marks, past, now = self._marks, self._past, self._now
        while True:
            drops = self._decide(marks, past, now)
            after = _without(marks, drops)
            yield RunToCome(now, drops, marks, after)
            past = _copy(past)
            for drop in drops:
                if drop.tag is not None:
                    past.take({"a": "untag", "d": drop.digest, "t": now, "tags": {drop.tag: drop.digest}})
            marks = after
            if drops:
                now = whole_second(now)  # what may go because of that goes by another run
                continue
            following = self._next(marks, past, now, matters, until)
            if following is None:
                return
            now = following

    def _decide(self, marks: Reachable, past: Timeline, now: float) -> list[Drop]:
        return decide(self._name, marks, past, self._rules, now)

    @staticmethod
    def _first(drops: list[Drop], related: set[str]) -> str:
        reasons = [drop.reason for drop in drops if drop.digest in related] or [drop.reason for drop in drops]
        return f"what leads to it goes: {reasons[0]}"

    # -- the next time ----------------------------------------------------------------------------

    def _next(
        self, marks: Reachable, past: Timeline, now: float, matters: Callable[[Drop], bool], until: float
    ) -> float | None:
        """The first time after now, and until then, at which something goes that matters; None: none. While nothing
        changes, what goes at one time would go at each later one."""
        times = sorted({at for at in self._times(past) if now < at <= until})

        def goes(at: float) -> bool:
            return any(map(matters, self._decide(marks, past, at)))

        if not times or not goes(times[-1]):
            return None
        return times[bisect_left(times, True, hi=len(times) - 1, key=goes)]

    @cached_property
    def _counts(self) -> bool:
        """Whether a manifest that loses its tag elsewhere can take the place of another."""
        policy = self._rules.policy(self._name)
        keep = policy.keep_untagged if policy else None
        return keep is not None and bool(keep.most_recently_pulled_count or keep.most_recently_pushed_count)

    def _times(self, past: Timeline) -> Iterator[float]:
        """Whole seconds at which a rule with a time may begin to hold: what is exactly as old as a rule says stays by
        some and goes by others."""
        policy = self._rules.policy(self._name)
        if policy is None:
            return
        keeps = [*policy.keep_tags, *([policy.keep_untagged] if policy.keep_untagged else [])]
        rules = {self._rules.delay, self._rules.untagged_delay}
        rules |= {within for keep in keeps for within in (keep.pulled_within, keep.pushed_within) if within is not None}
        stamps = {*past.pushed.values(), *past.noted.values(), *past.tagged.values(), *past.pulled.values()}
        yield from (whole_second(at + age) for at in stamps for age in rules)

    # -- what may matter --------------------------------------------------------------------------

    def _related(self, digest: str) -> set[str]:
        """The manifests that are connected with a digest, in whatever direction."""
        start = {digest} & self._neighbours.keys()
        start |= {manifest for manifest, facts in self._marks.facts.items() if facts.blobs.has(digest)}
        related, todo = {digest}, list(start)
        while todo:
            at = todo.pop()
            if at not in related or at == digest:
                related.add(at)
                todo += self._neighbours.get(at, set()) - related
        return related

    @cached_property
    def _neighbours(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {digest: set() for digest in (*self._marks.facts, *self._marks.index.digests)}
        by_key: dict[str, list[str]] = {}
        for digest in found:
            by_key.setdefault(digest_key(digest), []).append(digest)
        for digest, target in self._pairs():
            for other in by_key.get(digest_key(target), ()):
                if other.startswith(target):
                    found[digest].add(other)
                    found[other].add(digest)
        return found

    def _pairs(self) -> Iterable[tuple[str, str]]:
        for digest, facts in self._marks.facts.items():
            yield from ((digest, one.digest) for one in (*facts.children, *facts.subjects))
        yield from Attachments(self._marks).pairs()


def _without(marks: Reachable, drops: list[Drop]) -> Reachable:
    """As the next run will find it: without the facts of what is gone by then."""
    after = without_rows(marks, drops)
    if after is marks:
        return marks
    return replace(after, facts={digest: facts for digest, facts in marks.facts.items() if digest in after.reachable})


def _copy(past: Timeline) -> Timeline:
    return replace(
        past, pushed=dict(past.pushed), tagged=dict(past.tagged), entered=dict(past.entered), pulled=dict(past.pulled),
        noted=dict(past.noted), here=set(past.here), ahead=set(past.ahead),
    )  # fmt: skip
