"""What a collection would take, the same for every store: marks, rows that a policy drops, findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from zotctl.jobs.report import Finding, Kind
from zotctl.jobs.retention import Drop, Rules, decide, foreign_untagged
from zotctl.jobs.run import Run
from zotctl.jobs.walk import Reachable, ReachableBlobs, mark_index, with_index
from zotctl.storage.history import CLOCK, Timeline
from zotctl.storage.index import Index
from zotctl.storage.protocol import Transaction
from zotctl.storage.root import Root

COUNTERS = (
    "repositories", "repositories_left_alone", "dropped", "unreachable", "unreachable_bytes", "purged", "purged_bytes",
    "uploads", "pool_entries",
)  # fmt: skip
"""Of a report's summary; always there, so that a script need not ask."""


@dataclass(frozen=True)
class GcOptions:
    """Times in seconds. `trash` may keep longer than `delay`, never shorter."""

    delay: float = 3600.0
    trash: float | None = None
    rules: Rules = field(default_factory=Rules)
    dry_run: bool = False
    """zot's `retention.dryRun`: say what would go in this root, delete nothing at all."""
    compares_clock: bool = False
    """Nothing goes by a clock that is far from where it should be (`clock_check`)."""
    trusts_clock: bool = False
    """The operator says that it is right."""

    @property
    def kept(self) -> float:
        return max(self.delay, self.trash or 0.0)


@dataclass
class CollectionPlan:
    """What one repository would lose. Never trusted: each item is looked at again before it goes."""

    marks: Reachable
    rest: Reachable
    """As they are without the rows that go."""
    drops: list[Drop]


Settle = Callable[[list[Drop], Timeline], list[Drop]]


class Planner:
    """One repository in one run."""

    def __init__(self, run: Run, root: Root, name: str, options: GcOptions, now: float) -> None:
        """`now`: by the clock that stamps what lies in the root."""
        self._run, self._root, self._name, self._options, self._now = run, root, name, options, now
        self.marker = ReachableBlobs(root, name)

    def plan(self, settle: Settle | None = None) -> CollectionPlan | None:
        """None: what it needs can't be known; then nothing is touched (I5). Raises NotFound, LayoutInvalid.
        `settle` takes out what is not sure yet."""
        marks = self.marker.now()
        if marks.faults:
            self._refuse(marks)
            return None
        past = self._root.history.past(self._name)
        self._note(marks, past)
        drops = decide(self._name, marks, past, self._options.rules, self._now)
        if settle is not None:
            drops = _closed(marks, settle(drops, past))
        self._tell(drops)
        return CollectionPlan(marks, _without(marks, drops), drops)

    def _refuse(self, marks: Reachable) -> None:
        for fault in marks.faults:
            kind: Kind = fault.kind  # type: ignore[assignment]
            reason = f"nothing is collected in {self._name}: {fault.reason}"
            finding = Finding(self._name, fault.digest or None, kind, reason, tuple(marks.index.tags_of(fault.digest)))
            self._run.finding(finding)
        self._run.report.codes.append(5)
        self._run.add("repositories_left_alone")

    def _note(self, marks: Reachable, past: Timeline) -> None:
        """What counts from the run that saw it first: rows that were not pushed here, and what is dated ahead."""
        if self._run.dry_run:
            return
        for digest in foreign_untagged(marks, past) if self._options.rules.foreign else ():
            self._root.history.note(self._name, "note", digest)
        for digest in past.ahead:
            self._root.history.note(self._name, "push" if digest else CLOCK, digest)

    def _tell(self, drops: list[Drop]) -> None:
        self._run.add("repositories")
        for drop in drops:
            self._run.item(action="drop", repository=self._name, digest=drop.digest, tag=drop.tag, reason=drop.reason)
        self._run.add("dropped", len(drops))

    def drop_rows(self, drops: list[Drop]) -> None:
        """An ordinary commit, decided again on the index that it replaces."""

        def change(tx: Transaction, draft: Index) -> None:
            marks = mark_index(self._root, self._name, draft, None, certain=True)
            if marks.faults:
                return  # what a manifest that can't be read needs, is not known (I5)
            past = self._root.history.past(self._name)
            wanted = {(drop.digest, drop.tag) for drop in drops}
            again = decide(self._name, marks, past, self._options.rules, self._now)
            done = _closed(marks, [drop for drop in again if (drop.digest, drop.tag) in wanted])
            _apply(draft, done)
            # Before the rename, as for a client's deletion: from now on the delay of what loses its tag runs, and a
            # crash in between only lengthens it.
            for drop in done:
                if drop.tag is not None:
                    self._root.history.note(self._name, "untag", drop.digest, {drop.tag: drop.digest})

        if not drops:
            return
        (outcome,) = self._root.protocol.commit_index(self._name, [change])
        if outcome is not None:
            raise outcome


def _closed(marks: Reachable, drops: list[Drop]) -> list[Drop]:
    """Some of those that were decided together: no row goes that one which stays leads to."""
    while True:
        needed = _without(marks, drops).reachable if drops else set()
        left = [drop for drop in drops if drop.tag is not None or drop.digest not in needed]
        if len(left) == len(drops):
            return left
        drops = left


def _without(marks: Reachable, drops: list[Drop]) -> Reachable:
    if not drops:
        return marks
    draft = marks.index.copy()
    _apply(draft, drops)
    return with_index(marks, draft)


def _apply(draft: Index, drops: list[Drop]) -> None:
    for drop in drops:
        if drop.tag is not None:
            draft.untag(drop.tag)
        else:
            draft.drop(drop.digest)
