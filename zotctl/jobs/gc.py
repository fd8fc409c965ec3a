"""Collection: deletes what no manifest reaches, beside any number of servers.

This module decides what a repository loses, in the same way for every store: what is unreachable, and the rows that a
policy drops. The collector of each kind of store deletes it: it moves content into the trash of a directory
(`jobs.local.gc`), or deletes it from a bucket under an intent (`jobs.bucket.gc`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from zotctl.config import RootSettings
from zotctl.errors import ClockDoubtful, StorageError
from zotctl.jobs.check.hashing import Workers
from zotctl.jobs.clock_check import require_clock
from zotctl.jobs.finding import Finding
from zotctl.jobs.reachable import Reachable, ReachableBlobs, mark_index, with_index
from zotctl.jobs.retention import Drop, Rules, decide, foreign_untagged
from zotctl.jobs.run import Run, Stopped, TimeUp
from zotctl.jobs.stores import Collector, jobs_of
from zotctl.oci.digest import Digest
from zotctl.storage.history import CLOCK_ACTION, Timeline
from zotctl.storage.index import Index
from zotctl.storage.protocol import Transaction
from zotctl.storage.root import Root

COUNTERS = (
    "repositories", "repositories_left_alone", "dropped", "unreachable", "unreachable_bytes", "purged", "purged_bytes",
    "uploads", "pool_entries",
)  # fmt: skip
"""Counters that the summary of a report always has, so that a script need not test for them."""


@dataclass(frozen=True)
class GcOptions:
    """How one root is collected. Times in seconds. `trash` may keep longer than `delay`, never shorter."""

    delay: float = 3600.0
    trash: float | None = None
    rules: Rules = field(default_factory=Rules)
    dry_run: bool = False
    """zot's `retention.dryRun`: report what would go in this root, and delete nothing."""
    compares_clock: bool = False
    """Refuse to collect by a clock that is far from where it should be (`clock_check`)."""
    trusts_clock: bool = False
    """The operator says that the clock is right."""

    @property
    def kept(self) -> float:
        """Seconds for which the trash keeps what was moved there."""
        return max(self.delay, self.trash or 0.0)


@dataclass
class CollectionPlan:
    """What one repository would lose. Each item is checked again before it goes.

    `marks`: what is reachable now. `drops`: rows that a policy lets go.
    """

    marks: Reachable
    rest: Reachable
    """What is reachable without the rows that go."""
    drops: list[Drop]


def planned(run: Run, options: GcOptions) -> dict[str, bool]:
    """A field for items of what a rehearsal only says: that of the run, or of `retention.dry_run`."""
    return {"planned": True} if run.dry_run or options.dry_run else {}


Settle = Callable[[list[Drop], Timeline], list[Drop]]


class Planner:
    """Decides what one repository loses in one run, the same for every store. Used by one thread."""

    def __init__(self, run: Run, root: Root, name: str, options: GcOptions, now: float) -> None:
        """`now`: by the clock that stamps what lies in the root."""
        self._run, self._root, self._name, self._options, self._now = run, root, name, options, now
        self.marker = ReachableBlobs(root, name)

    def plan(self, settle: Settle | None = None) -> CollectionPlan | None:
        """Decide what goes. None: it can't be known what the repository needs, so nothing is touched (I5).

        `settle` removes drops that are not certain yet. Raises NotFound, LayoutInvalid.
        """
        marks = self.marker.now()
        if marks.faults:
            self._refuse(marks)
            return None
        past = self._root.history.timeline(self._name)
        if not self._run.dry_run:
            self._note(marks, past)
        drops = decide(self._name, marks, past, self._options.rules, self._now)
        if settle is not None:
            drops = _closed(marks, settle(drops, past))
        self._run.add("repositories")
        for drop in drops:
            self._run.item(action="drop", repository=self._name, digest=drop.digest, tag=drop.tag, reason=drop.reason,
                           **planned(self._run, self._options))  # fmt: skip
        self._run.add("dropped", len(drops))
        return CollectionPlan(marks, without_rows(marks, drops), drops)

    def _refuse(self, marks: Reachable) -> None:
        for fault in marks.faults:
            reason = f"nothing is collected in {self._name}: {fault.reason}"
            tags = tuple(marks.index.tags_of(fault.digest))
            self._run.finding(Finding.of_fault(self._name, fault, tags, reason=reason))
        self._run.report.codes.append(5)
        self._run.add("repositories_left_alone")

    def _note(self, marks: Reachable, past: Timeline) -> None:
        """Note what expires a delay after the run that first saw it: rows that were not pushed here, and events dated
        ahead of the clock."""
        for digest in foreign_untagged(marks, past) if self._options.rules.foreign else ():
            self._root.history.note(self._name, "note", digest)
        for digest in past.ahead:
            self._root.history.note(self._name, "push" if digest else CLOCK_ACTION, digest)

    def drop_rows(self, drops: list[Drop]) -> None:
        """Remove the rows of `drops` by an ordinary commit, which decides again on the index that it replaces."""
        wanted = {(drop.digest, drop.tag) for drop in drops}

        def choose(draft: Index) -> list[Drop]:
            marks = mark_index(self._root, self._name, draft, None, certain=True)
            if marks.faults:
                return []  # what a manifest that can't be read needs, is not known (I5)
            past = self._root.history.timeline(self._name)
            again = decide(self._name, marks, past, self._options.rules, self._now)
            return _closed(marks, [drop for drop in again if (drop.digest, drop.tag) in wanted])

        if drops:
            drop_rows(self._run, self._root, self._name, self._options.rules.called(self._name), choose)


def drop_rows(run: Run, root: Root, name: str, by: str, choose: Callable[[Index], list[Drop]]) -> list[Drop]:
    """Remove rows by an ordinary commit, tell the history, the log and the audit file, and return them.

    `choose` sees the index that is replaced. `by`: the job or the policy, in words. Raises StorageError.
    """
    dropped = list[Drop]()

    def change(tx: Transaction, draft: Index) -> None:
        done = choose(draft)
        apply_drops(draft, done)
        dropped[:] = done
        # Before the rename, as for a client's deletion: from now on the delay of what loses its tag runs, and a
        # crash in between only lengthens it.
        for drop in done:
            if drop.tag is not None:
                root.history.note(name, "untag", drop.digest, {drop.tag: drop.digest}, by=by)

    (outcome,) = root.protocol.commit_index(name, [change])
    if outcome is not None:
        raise outcome
    for drop in dropped:
        if drop.tag is None:
            root.history.note(name, "drop", drop.digest, by=f"{by}: {drop.reason}")
        action = "delete" if drop.tag is None else "untag"
        run.changed(action, name, f"{by}: {drop.reason}", tag=drop.tag, before=drop.digest)
    return dropped


def note_purged(root: Root, name: str, digests: Iterable[Digest]) -> None:
    """Note that the bytes of these are gone for good, of those that were manifests: others have no history."""
    if digests := list(digests):
        with suppress(StorageError):
            known = root.history.written(name).pushed
            for digest in digests:
                if digest in known:
                    root.history.note(name, "purge", digest, by="gc")


def _closed(marks: Reachable, drops: list[Drop]) -> list[Drop]:
    """Those of `drops` that may go although some that were decided with them stay: no row that a kept row leads to."""
    while True:
        needed = without_rows(marks, drops).reachable if drops else set()
        left = [drop for drop in drops if drop.tag is not None or drop.digest not in needed]
        if len(left) == len(drops):
            return left
        drops = left


def without_rows(marks: Reachable, drops: list[Drop]) -> Reachable:
    """What is reachable without the rows that go."""
    if not drops:
        return marks
    draft = marks.index.copy()
    apply_drops(draft, drops)
    return with_index(marks, draft)


def apply_drops(draft: Index, drops: list[Drop]) -> None:
    """Remove rows from a draft."""
    for drop in drops:
        if drop.tag is not None:
            draft.untag(drop.tag)
        else:
            draft.drop(drop.digest)


Settings = Callable[[Root], GcOptions | None]
"""The options for a root. None: it is not collected."""


def gc(run: Run, settings: Settings) -> None:
    """Collect every repository of the run, as `settings` say for each root.

    On a directory it purges what has been in the trash for the grace period, and moves unreachable content there
    (docs/design/local.md). On a bucket it deletes what has been unreachable for the grace period
    (docs/design/bucket.md#c1). Raises HeldElsewhere while another run holds the lease, TimeUp, Stopped. An error in one
    repository is reported, and the rest goes on.
    """
    run.settings = settings
    run.report.summary.update(dict.fromkeys(COUNTERS, 0))
    run.refuse_read_only()
    with run.leases():
        collectors = {root.label: found for root in run.roots if (found := _collector(run, root, settings)) is not None}
        try:
            _collect(run, collectors)
        except (TimeUp, Stopped):
            for collector in collectors.values():
                collector.stopped()
            raise


def _collect(run: Run, collectors: dict[str, Collector]) -> None:
    for collector in collectors.values():
        collector.begin()
    for root in run.roots:
        with run.guarded(root.label, root):
            _collect_root(run, root, collectors.get(root.label))
    run.walked()
    for label, collector in collectors.items():
        if label not in run.away:
            collector.end()


def _collect_root(run: Run, root: Root, collector: Collector | None) -> None:
    """Collect the repositories of one root, several in parallel where most of the time is spent on waiting for a
    network. `collector` None: only walk through their names."""
    names = run.repositories_of(root)
    if collector is None:
        for _ in names:
            run.check()
        return

    def collect(name: str) -> None:
        if root.label not in run.away:
            run.begins(name)
            with run.guarded(name, root):
                collector.collect(name)

    workers = Workers(collector.parallel)
    try:
        for name in collector.order(names):
            run.check()
            if (run.dry_run and root.read_only) or root.owns(name):
                workers.put(partial(collect, name), lambda _: None)
        workers.drain()
    except BaseException:
        collector.halted.set()
        raise
    finally:
        workers.close()
        collector.halted.clear()


def _collector(run: Run, root: Root, settings: Settings) -> Collector | None:
    """The collector of a root. None: nothing is collected there; if its clock is the reason, that is reported."""
    # A dry run only reads, so every user who may read may ask what would go.
    options = None if (root.read_only and not run.dry_run) or root.state() else settings(root)
    if options is None:
        return None
    if options.compares_clock:
        dry_run = run.dry_run or options.dry_run or root.read_only
        try:
            require_clock(root, run.clock, trusted=options.trusts_clock, dry_run=dry_run)
        except ClockDoubtful as error:
            run.refuse(root, error)
            return None
        except StorageError:
            pass  # it can't be looked at: each repository will say so
    return jobs_of(root).collector(run, options)


def gc_settings(*, delay: float | None = None, untagged: str | None = None, trust_clock: bool = False) -> Settings:
    """Settings from the configuration of each root, overridden by these options.

    `delay` in seconds. `untagged`: "pushed", "all" or "none".
    """

    def settings(root: Root) -> GcOptions | None:
        config = root.config or RootSettings()
        chosen = config.gc_delay if delay is None else delay
        which = untagged or config.gc_untagged
        rules = Rules(config.retention, chosen, foreign=which == "all", untagged=which != "none")
        dry = config.retention is not None and config.retention.dry_run
        # An explicit delay of zero is a wish to have the space now, whatever the trash would keep.
        trash = None if delay == 0 else config.trash
        return GcOptions(chosen, trash, rules, dry, compares_clock=True, trusts_clock=trust_clock)

    return settings
