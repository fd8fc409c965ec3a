"""When the rules remove something from a repository in which nobody changes anything: the collections to come, played
on a copy of index.json and of the timeline, by the very function that collections decide by (`jobs.retention`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

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
        marks, past, now = self._marks, self._past, self._now
        loss, related = Loss(marks), self._related(digest)
        while True:
            drops = self._decide(marks, past, now)
            for drop in drops:
                if drop.tag is not None and drop.digest == digest:
                    loss.tags[drop.tag] = (now, drop.reason)
            after = _without(marks, drops)
            if digest not in after.reachable:
                loss.at, loss.marks = now, marks
                loss.rows = [drop.digest for drop in drops if drop.tag is None and drop.digest in related]
                mine = (drop.reason for drop in drops if drop.digest == digest and drop.tag is None)
                loss.reason = next(mine, self._first(drops, related))
                return loss
            past = _copy(past)
            for drop in drops:
                if drop.tag is not None:
                    past.take({"a": "untag", "d": drop.digest, "t": now, "tags": {drop.tag: drop.digest}})
            marks = loss.marks = after
            if drops:
                now = whole_second(now)  # what may go because of that goes by another run
                continue
            following = self._next(marks, past, now, related)
            if following is None:
                return loss
            now = following

    def _decide(self, marks: Reachable, past: Timeline, now: float) -> list[Drop]:
        return decide(self._name, marks, past, self._rules, now)

    @staticmethod
    def _first(drops: list[Drop], related: set[str]) -> str:
        reasons = [drop.reason for drop in drops if drop.digest in related] or [drop.reason for drop in drops]
        return f"what leads to it goes: {reasons[0]}"

    # -- the next time ----------------------------------------------------------------------------

    def _next(self, marks: Reachable, past: Timeline, now: float, related: set[str]) -> float | None:
        """The first time after now at which something goes that may matter to the digest; None: none. While nothing
        changes, what goes at one time would go at each later one."""
        times = sorted({at for at in self._times(past) if at > now})

        def matters(at: float) -> bool:
            drops = self._decide(marks, past, at)
            return any(drop.digest in related or (drop.tag is not None and self._counts) for drop in drops)

        found = bisect_left(times, True, key=matters)
        return times[found] if found < len(times) else None

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
        start |= {manifest for manifest, facts in self._marks.facts.items() if any(
            blob.digest == digest for blob in facts.blobs)}  # fmt: skip
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
