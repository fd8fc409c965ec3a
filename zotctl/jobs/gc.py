"""Collection by the steps of local.md: mark, plan, condemn, wait, purge. No lock but short ones.

A collector never deletes: it condemns, by renaming what no manifest reaches into the trash, and what
has lain there for longer than the delay is purged. Killed anywhere, the next run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from zotctl.errors import DigestInvalid, LayoutInvalid, NoSpace, NotEmpty, NotFound, ZotctlError
from zotctl.jobs import leftovers
from zotctl.jobs.leftovers import Moving
from zotctl.jobs.report import Finding, Kind
from zotctl.jobs.retention import Drop, Rules, decide, foreign_untagged
from zotctl.jobs.run import Run
from zotctl.jobs.walk import Marker, Marks, mark_index, with_index
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.index import Index
from zotctl.storage.local.trash import Folder
from zotctl.storage.locks import Held
from zotctl.storage.protocol import Transaction
from zotctl.storage.root import Root

BATCH = 64
COMPACT_ABOVE = 1 << 20
"""Bytes of a repository's history above which it is compacted."""


COUNTERS = (
    "repositories", "repositories_left_alone", "dropped", "condemned", "condemned_bytes", "purged", "purged_bytes",
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

    @property
    def kept(self) -> float:
        return max(self.delay, self.trash or 0.0)


@dataclass(frozen=True)
class Chosen:
    """What holds for one root in one run."""

    options: GcOptions
    moving: Moving

    def dry_run(self, run: Run) -> bool:
        return run.dry_run or self.options.dry_run


Settings = Callable[[Root], GcOptions | None]
"""What holds for a root; None: not collected."""


@dataclass
class Plan:
    """What one repository would lose. Never trusted: each item is looked at again under the lock."""

    marks: Marks
    drops: list[Drop]
    condemned: list[tuple[Digest, int]]


def gc(run: Run, settings: Settings) -> None:
    """Purge what has lain in the trash for long enough, then collect every repository of the run."""
    run.report.summary.update(dict.fromkeys(COUNTERS, 0))
    run.refuse_read_only()
    with run.leases():
        run_name = f"{datetime.fromtimestamp(run.clock.now(), UTC):%Y%m%dT%H%M%S}-{run.clock.token()[:8]}"
        chosen = {root.label: Chosen(options, Moving(root, options.delay, run.clock.now()))
                  for root in run.roots if (options := _options(run, root, settings))}  # fmt: skip
        working = [root for root in run.roots if root.label in chosen and not chosen[root.label].dry_run(run)]
        for root in working:
            purge(run, root, chosen[root.label])  # first, so that a run that is cut short frees something
        for root, name in run.repositories():
            run.check()
            if root.label in chosen and _is_collected(run, root, name):
                with run.guarded(name):
                    Collection(run, root, name, run_name, chosen[root.label]).collect()
        for root in working:
            leftovers.sweep(run, root, chosen[root.label].options.delay)


def _options(run: Run, root: Root, settings: Settings) -> GcOptions | None:
    """None: nothing is collected there. A dry run only reads, so whoever may read may ask what would go."""
    return None if (root.read_only and not run.dry_run) or root.state() else settings(root)


def _is_collected(run: Run, root: Root, name: str) -> bool:
    return (run.dry_run and root.read_only) or root.owns(name)


class Collection:
    """One repository in one run."""

    def __init__(self, run: Run, root: Root, name: str, run_name: str, chosen: Chosen) -> None:
        self._run, self._root, self._name, self._run_name = run, root, name, run_name
        self._options, self._moving = chosen.options, chosen.moving
        self._local, self._marker = root.local, Marker(root, name)
        self._now = run.clock.now()

    def collect(self) -> None:
        plan = self.plan()
        if plan is None:
            return
        self._run.add("repositories")
        self._tell(plan)
        if self._run.dry_run or self._options.dry_run:
            return
        if plan.drops:
            self._drop_rows(plan.drops)
        self._condemn([digest for digest, _ in plan.condemned])
        self._keep_house()

    # -- 1 mark, 2 plan -------------------------------------------------------------------------

    def plan(self) -> Plan | None:
        """None: there is no such repository, or what it needs can't be known; then nothing is touched (I5)."""
        try:
            marks = self._marker.now()
        except NotFound:
            return None
        if marks.faults:
            self._refuse(marks)
            return None
        past = self._root.history.past(self._name)
        self._note_foreign(marks, foreign_untagged(marks, past))
        drops = decide(self._name, marks, past, self._options.rules, self._now)
        rest = self._without(marks, drops)
        return Plan(marks, drops, list(self._unreachable(rest)))

    def _refuse(self, marks: Marks) -> None:
        for fault in marks.faults:
            kind: Kind = fault.kind  # type: ignore[assignment]
            reason = f"nothing is collected in {self._name}: {fault.reason}"
            finding = Finding(self._name, fault.digest or None, kind, reason, tuple(marks.index.tags_of(fault.digest)))
            self._run.finding(finding)
        self._run.report.codes.append(5)
        self._run.add("repositories_left_alone")

    def _note_foreign(self, marks: Marks, digests: Sequence[str]) -> None:
        if self._options.rules.foreign and not self._run.dry_run:
            for digest in digests:
                self._root.history.note(self._name, "note", digest)

    def _without(self, marks: Marks, drops: list[Drop]) -> Marks:
        if not drops:
            return marks
        draft = marks.index.copy()
        _apply(draft, drops)
        return with_index(marks, draft)

    def _unreachable(self, marks: Marks) -> Iterator[tuple[Digest, int]]:
        """Blobs that nothing reaches and that were not written within the delay, which spares pushes
        under way the way to the trash and back."""
        newest = self._spared_since()
        for digest in self._blobs():
            if digest not in marks.reachable:
                info = self._local.site.stat(keys.blob(self._name, digest))
                if info is not None and info.is_file and info.mtime_ns / 1e9 < newest:
                    yield digest, info.size

    def _blobs(self) -> Iterator[Digest]:
        """What has the name of a blob. Anything else in there is nobody's business, and stays."""
        for algorithm in self._scan(keys.blobs(self._name)):
            for encoded in self._scan(keys.blobs_of(self._name, algorithm)):
                with suppress(DigestInvalid):
                    yield parse_digest(f"{algorithm}:{encoded}")

    def _spared_since(self) -> float:
        """What was written later is left alone: the delay, or the oldest upload that is still moving."""
        return min(self._now - self._options.delay, self._moving.since(self._name))

    def _scan(self, key: str) -> list[str]:
        try:
            return sorted(entry.name for entry in self._root.driver.scan(key))
        except NotFound:
            return []

    def _tell(self, plan: Plan) -> None:
        for drop in plan.drops:
            self._run.item(action="drop", repository=self._name, digest=drop.digest, tag=drop.tag, reason=drop.reason)
        for digest, size in plan.condemned:
            self._run.item(action="condemn", repository=self._name, digest=str(digest), size_bytes=size)
            self._run.add("condemned")
            self._run.add("condemned_bytes", size)
        self._run.add("dropped", len(plan.drops))

    # -- 3 condemn ------------------------------------------------------------------------------

    def _drop_rows(self, drops: list[Drop]) -> None:
        """An ordinary commit, decided again on the index that it replaces."""

        def change(tx: Transaction, draft: Index) -> None:
            marks = mark_index(self._root, self._name, draft, None)
            past = self._root.history.past(self._name)
            wanted = {(drop.digest, drop.tag) for drop in drops}
            again = decide(self._name, marks, past, self._options.rules, self._now)
            done = [drop for drop in again if (drop.digest, drop.tag) in wanted]
            _apply(draft, done)
            # Before the rename, as for a client's deletion: from now on the delay of what loses its tag runs, and a
            # crash in between only lengthens it.
            for drop in done:
                if drop.tag is not None:
                    self._root.history.note(self._name, "untag", drop.digest, {drop.tag: drop.digest})

        (outcome,) = self._local.commit_index(self._name, [change])
        if outcome is not None:
            raise outcome

    def _condemn(self, digests: list[Digest]) -> None:
        if not digests:
            return
        self._root.driver.sync_dir(self._name)  # never act on an index.json that a power cut could take back
        for batch in batches(digests, BATCH):
            self._run.check()
            try:
                self._condemn_batch(batch)
            except NoSpace as error:
                raise NoSpace(f"{error.message}; `zotctl gc --delay 0s` frees space without the trash") from error

    def _condemn_batch(self, batch: Sequence[Digest]) -> None:
        with self._local.site.locks.hold(self._name) as held:
            try:
                marks = self._marker.now()
            except NotFound:
                return  # removed meanwhile, by another collector or by hand
            if marks.faults:
                return
            left = [digest for digest in batch if digest not in marks.reachable]
            if self._options.kept > 0:
                self._local.trash.condemn(held, self._run_name, left)
            else:
                self._unlink(held, left)

    def _unlink(self, held: Held, digests: Sequence[Digest]) -> None:
        """`--delay 0s` is an explicit wish: nothing is kept, and no folder in the trash needs room."""
        for digest in digests:
            key = keys.blob(held.name, digest)
            info = self._local.site.stat(key)
            if info is not None:
                self._local.site.discard(key)
                self._local.pool.release(digest)
                self._run.add("purged")
                self._run.add("purged_bytes", info.size if info.nlink <= 2 else 0)

    def _keep_house(self) -> None:
        remove_empty(self._root, self._name, self._options.delay, self._now)
        leftovers.remove_index_temps(self._root, self._name, self._options.delay, self._now)
        if self._local.history.size(self._name) > COMPACT_ABOVE:
            with self._local.site.locks.hold(self._name):
                self._local.history.compact(self._name, self._marker.now().reachable)


def remove_empty(root: Root, name: str, delay: float, now: float) -> None:
    """Remove a layout that holds nothing any more, and only what we know of it. Who publishes into it
    meanwhile either keeps `blobs/ALG` from going, or meets its absence and makes the layout again."""
    site = root.local.site
    with site.locks.hold(name) as held, suppress(NotEmpty, NotFound):
        info = site.driver.stat(keys.index(name))
        if len(root.protocol.read_index(held.name).index) or now - info.mtime_ns / 1e9 < delay:
            return
        known = {"blobs", "index.json", "oci-layout"}
        if {entry.name for entry in site.driver.scan(name) if entry.is_file} - known:
            return
        for entry in site.driver.scan(keys.blobs(name)):
            site.driver.rmdir(keys.blobs_of(name, entry.name))
        site.driver.rmdir(keys.blobs(name))
        site.driver.unlink(keys.layout(name))
        site.driver.unlink(keys.index(name))
        while name:
            site.driver.rmdir(name)
            name = keys.parent(name)


def _apply(draft: Index, drops: list[Drop]) -> None:
    for drop in drops:
        if drop.tag is not None:
            draft.untag(drop.tag)
        else:
            draft.drop(drop.digest)


def batches(items: list[Digest], size: int) -> Iterator[list[Digest]]:
    return (items[at : at + size] for at in range(0, len(items), size))


# -- 4 wait, 5 purge ----------------------------------------------------------------------------


def purge(run: Run, root: Root, chosen: Chosen) -> None:
    """Free what has lain in the trash for longer than it is kept, by the storage's own clock."""
    trash = root.local.trash
    now = trash.now()
    for folder in list(trash.folders()):
        run.check()
        lain = (now - trash.stamp(folder)) / 1e9
        if not run.covers(folder.name) or lain < chosen.options.kept or _push_under_way(root, folder, chosen):
            continue
        with run.guarded(folder.name):
            _purge_folder(run, root, folder)
        trash.sweep(folder)


def _push_under_way(root: Root, folder: Folder, chosen: Chosen) -> bool:
    """What was condemned after the oldest moving upload began is left for it, whatever it takes."""
    began = chosen.moving.since(folder.name)
    return chosen.options.delay > 0 and root.local.trash.stamp(folder) / 1e9 >= began


def _purge_folder(run: Run, root: Root, folder: Folder) -> None:
    local, marker = root.local, Marker(root, folder.name)
    sizes = dict(local.trash.lying(folder))
    for batch in batches(list(sizes), BATCH):
        run.check()
        with local.site.locks.hold(folder.name) as held:
            needed = _needed(marker)
            if needed is None:
                return
            gone = local.trash.purge(held, folder, batch, needed)
        for digest in gone:
            local.pool.release(digest)
            run.add("purged")
            run.add("purged_bytes", sizes[digest].size if sizes[digest].nlink <= 2 else 0)


def _needed(marker: Marker) -> set[str] | None:
    """What is reachable now: a foreign tool may have referenced it. None: that can't be known."""
    try:
        marks = marker.now()
    except NotFound:
        return set()
    except (LayoutInvalid, ZotctlError):
        return None
    return None if marks.faults else marks.reachable
