"""`scrub`: hashes every blob of every repository again, marks or repairs what is damaged, and reports it.

An inode is read once, however many names it has, and reported for each repository that links it. Damaged content is
marked and answers 404, so that clients push it again, which heals it everywhere. No lock is held while anything is
read, and a file is checked again before anything is done to it (I10, I11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from zotctl.jobs.check.hashing import Hasher, HashResult, InodeResults, Inspector, Workers, cores, measure
from zotctl.jobs.check.outcome import Outcome
from zotctl.jobs.check.passes import note_overrun, note_stop
from zotctl.jobs.check.repository import StoredCheck
from zotctl.jobs.check.scrub_state import Checked, FirstSeen
from zotctl.jobs.layouts import lasting, layouts_in
from zotctl.jobs.run import Run, TimeUp
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.check.repair import Repair

BATCH_BLOBS, BATCH_BYTES = 64, 4 << 20
"""How many small blobs, and bytes of them, a worker gets at a time."""
PASS_SHARE = 0.9
"""The share of the interval in which a rolling scrub reads everything; the rest is slack for interruptions."""
SLICE_S = 60.0
"""The longest time of one slice of a rolling scrub, so that other jobs get their turn."""
SLICES_PER_PASS = 200
LEAST_SLICE_BYTES = 64 << 20
"""A slice reads a two-hundredth of the store, and at least so many bytes, since each slice has to list the store."""


@dataclass(frozen=True)
class ScrubOptions:
    """Options of `scrub`.

    `workers`: threads; by default one per core. `repair`: heal from a good copy in any root, or from `repair_from`, a
    layout or the URL of a registry. `resume`: continue where a run that was stopped ended; with `restart` begin anew,
    and let the next run continue. `interval`: do one slice of a rolling scrub, which reads everything once in so many
    seconds, what was not checked for longest first. `quick`: check only sizes, references and known damage. `measure`:
    add up the sizes first, for a progress bar.
    """

    workers: int | None = None
    repair: bool = False
    repair_from: str | None = None
    resume: bool = False
    restart: bool = False
    interval: float | None = None
    quick: bool = False
    measure: bool = False


def scrub(run: Run, options: ScrubOptions | None = None) -> None:
    """Hash everything in the scope of the run.

    A rolling scrub is called about once a minute, and returns at once when nothing is due. Raises HeldElsewhere while
    another run holds the lease, TimeUp, and UsageError if `repair_from` is no source.
    """
    with run.leases():
        _Scrub(run, options or ScrubOptions()).go_through()


class _Enough(Exception):
    """The slice is done."""


class _OpenCheck(StoredCheck):
    """A repository whose check is under way: its blobs are being listed and hashed."""

    def __init__(self, root: Root, name: str) -> None:
        super().__init__(root, name)
        self.left, self.listed_all = 0, False
        """How many blobs are with the workers; whether all have been listed."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One blob for a worker. `shared`: the key under which other names of its inode wait for the result."""

    repo: _OpenCheck
    digest: Digest
    info: Info
    shared: int | None = None


class _Scrub:
    def __init__(self, run: Run, options: ScrubOptions) -> None:
        self._run, self._options = run, options
        self._hasher = Hasher(run)
        self._inspector = Inspector(run, self._hasher, quick=options.quick)
        self._first_seen: dict[str, FirstSeen] = {}
        self._checked: dict[str, Checked] = {}
        self._known_damaged: dict[str, set[Digest]] = {}
        repair = _repair(run, options)
        self._outcome = Outcome(run, self._inspector, self._first_seen, repair, quick=options.quick)
        self._workers = Workers(options.workers or (1 if options.interval else cores()))
        self._shared, self._waiting, self._open = InodeResults(), dict[int, list[_Task]](), dict[int, _OpenCheck]()
        self._batch: list[_Task] = []
        self._batch_bytes = 0
        self._left_to_next = False
        """Whether time was up before or while some blob was read."""
        self._whole: list[Root] = []
        """Roots that this run checks as a whole, unless it is stopped."""
        self._began = run.clock.elapsed()

    # -- the order of work ----------------------------------------------------------------------

    def go_through(self) -> None:
        try:
            self._all()
        except (TimeUp, _Enough) as end:
            self._stop_early()
            self._note_cuts()
            if isinstance(end, TimeUp):
                raise
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._save()

    def _all(self) -> None:
        roots = [root for root in self._run.roots if root.state() is None]
        for root in roots:
            with self._run.guarded(root.label, root):
                self._load_state(root)
        roots = [root for root in roots if root.label in self._known_damaged]
        if self._options.interval:
            self._look_at_doubtful(roots)
        due = list(self._due(roots))
        if self._options.measure:
            self._hasher.total = self._measure(due)
        self._finish_stopped()
        for root, name in due:
            self._run.check()
            if root.label not in self._run.away:
                self._run.begins(name)
                with self._run.guarded(name, root):
                    self._begin(root, name)
        self._flush()
        self._workers.drain()
        if self._left_to_next:
            raise TimeUp
        self._finish_open()
        self._complete()

    def _finish_stopped(self) -> None:
        """Begin with the blobs in which the last run was stopped, and read them to their end, however long that takes:
        with less than all of a run's time they might never be finished. From then on a run ends in time."""
        for root in self._whole:
            checked = self._checked.get(root.label)
            for name, digest in checked.stopped if checked is not None else ():
                if self._run.covers(name):
                    with self._run.guarded(name, root):
                        self._take_again(_OpenCheck(root, name), digest)
        began = self._hasher.done
        self._stop_early()
        for checked in self._checked.values():
            if self._run.is_over and self._hasher.done > began:
                for name, digest in checked.stopped:
                    note_overrun(self._run, name, digest)
            checked.stopped = [one for one in checked.stopped if not self._run.covers(one[0])]
        self._hasher.stops_in_blobs = bool(self._checked) and self._options.interval is None

    def _take_again(self, repo: _OpenCheck, digest: Digest) -> None:
        info = repo.info(digest)
        if info is not None and info.is_file and self._checked[repo.root.label].found(digest, info) is None:
            self._open[id(repo)] = repo
            self._take(repo, digest, info)

    def _note_cuts(self) -> None:
        for root, name, digest in self._inspector.cut:
            if (checked := self._checked.get(root.label)) is not None:
                checked.stopped.append((name, digest))
                note_stop(self._run, name, digest)

    def _look_at_doubtful(self, roots: list[Root]) -> None:
        """After a reboot, begin a rolling scrub with what was written shortly before it."""
        doubtful = {
            root.label: None if root.maintenance.durable else self._checked[root.label].doubtful_since()
            for root in roots
        }
        if all(since is None for since in doubtful.values()):
            return
        for root, name in self._run.repositories():
            if (since := doubtful.get(root.label)) is not None:
                with self._run.guarded(name, root):
                    self._take_young(_OpenCheck(root, name), since)
        self._stop_early()
        for label, since in doubtful.items():
            if since is not None:
                self._checked[label].settle()

    def _take_young(self, repo: _OpenCheck, since: int) -> None:
        for digest, info in repo.blobs():
            self._run.check()
            if info.ctime_ns / 1e9 >= since:
                self._open[id(repo)] = repo
                self._take(repo, digest, info)

    def _stop_early(self) -> None:
        """Finish the few blobs that are with the workers, and report what was found."""
        self._flush()
        self._workers.drain()
        self._finish_open()

    def _finish_open(self) -> None:
        """Report on repositories that were not checked as a whole."""
        for repo in list(self._open.values()):
            if repo.root.label not in self._run.away:
                with self._run.guarded(repo.name, repo.root):
                    self._outcome.report_damage_so_far(repo)
        self._open.clear()

    def _load_state(self, root: Root) -> None:
        known_damaged = root.maintenance.damaged()
        self._first_seen[root.label] = FirstSeen(root, self._run.clock)
        if (self._options.resume or self._options.interval) and not self._options.quick:
            self._checked[root.label] = checked = Checked(root, self._run.clock)
            if self._options.restart:
                checked.restart()
        self._known_damaged[root.label] = known_damaged

    def _due(self, roots: list[Root]) -> Iterator[tuple[Root, str]]:
        """The repositories to check; in a rolling scrub those that the pass has not checked, the oldest first."""
        roots = [root for root in roots if self._may_be_due(root)]
        if not roots:
            return
        found = [*self._run.repositories(), *self._strays(roots)]
        for root in roots:
            mine = [(root, name) for at, name in found if at is root]
            checked = self._checked.get(root.label)
            if checked is None:
                self._whole.append(root)
                yield from mine
            elif self._options.interval is None or self._is_due(root, checked, mine):
                self._whole.append(root)
                checked.begin()
                dated = sorted(mine, key=lambda one: checked.repositories.get(one[1], 0))
                yield from (one for one in dated if checked.repositories.get(one[1], 0) < checked.began)

    def _strays(self, roots: list[Root]) -> Iterator[tuple[Root, str]]:
        """Layouts that have lost their `oci-layout`, so that the catalog does not list them."""
        for root in roots:
            with self._run.guarded(root.label, root):
                # The walk over the repositories reports what can't be read.
                unmarked = [one for one in layouts_in(root.driver, lambda *_: None) if not one.has_marker]
                for name in (one.name for one in lasting(root, unmarked)):
                    if root.stat(keys.layout(name)) is None and self._run.covers(name):
                        yield root, name

    def _measure(self, due: list[tuple[Root, str]]) -> int:
        """The bytes to read, shared content divided among its names."""
        return measure(self._run, (StoredCheck(root, name) for root, name in due), pooled=1)

    # -- rolling --------------------------------------------------------------------------------

    def _may_be_due(self, root: Root) -> bool:
        """Whether a slice may be due. Decided before anything is listed, which on a bucket costs requests."""
        checked, interval = self._checked.get(root.label), self._options.interval
        if checked is None or interval is None:
            return True
        if not checked.began:
            return self._run.clock.now() - checked.last >= interval
        least = max(LEAST_SLICE_BYTES, checked.total / SLICES_PER_PASS)
        return self._is_late(checked, interval) or self._ahead(checked, interval) <= -least

    def _is_due(self, root: Root, checked: Checked, mine: list[tuple[Root, str]]) -> bool:
        """Whether another slice is due. Measures the store when a pass begins."""
        if not checked.began:
            checked.begin()
            checked.total = self._measure(mine)
        return self._may_be_due(root)

    def _ahead(self, checked: Checked, interval: float) -> float:
        """How many more bytes were read than should have been by now; negative: fewer."""
        over = (self._run.clock.now() - checked.began) / (PASS_SHARE * interval)
        return checked.done - checked.total * min(1.0, over)

    def _is_late(self, checked: Checked, interval: float) -> bool:
        """Whether the time of the pass is over, or there is too little to spread over it."""
        return self._run.clock.now() - checked.began >= PASS_SHARE * interval or checked.total <= LEAST_SLICE_BYTES

    def _pace(self, root: Root) -> None:
        interval = self._options.interval
        if interval is None:
            return
        checked = self._checked[root.label]
        spread = not self._is_late(checked, interval) and self._ahead(checked, interval) >= 0
        if spread or self._run.clock.elapsed() - self._began > SLICE_S:
            raise _Enough

    # -- one repository -------------------------------------------------------------------------

    def _begin(self, root: Root, name: str) -> None:
        repo = _OpenCheck(root, name)
        self._open[id(repo)] = repo
        for digest, info in repo.blobs():
            self._run.check()
            if not self._is_known(repo, digest, info):
                self._pace(root)
                self._take(repo, digest, info)
        repo.listed_all = True
        self._settle(repo)

    def _is_known(self, repo: _OpenCheck, digest: Digest, info: Info) -> bool:
        """Whether the blob was read since the current pass began. If it was damaged, that is reported again."""
        checked = self._checked.get(repo.root.label)
        found = checked.found(digest, info) if checked is not None else None
        if found is None:
            self._run.add("skipped_blobs", 0)
            return False
        self._hasher.expect(-info.size // max(1, _names(info)))
        if found == digest:
            self._run.add("skipped_blobs")
        else:
            repo.left += 1
            self._record(repo, HashResult(digest, info, found))
        return True

    def _take(self, repo: _OpenCheck, digest: Digest, info: Info) -> None:
        repo.left += 1
        shared = _shared_key(repo.root, digest, info)
        if shared is None:
            self._queue(_Task(repo, digest, info))
        elif (result := self._shared.known(shared, digest, info)) is not None:
            self._record(repo, result)
        elif (waiting := self._waiting.get(shared)) is not None:
            waiting.append(_Task(repo, digest, info))
        else:
            self._waiting[shared] = []
            self._queue(_Task(repo, digest, info, shared))

    def _queue(self, task: _Task) -> None:
        self._batch.append(task)
        self._batch_bytes += task.info.size
        if (checked := self._checked.get(task.repo.root.label)) is not None:
            checked.done += task.info.size
        if len(self._batch) >= BATCH_BLOBS or self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        while self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._workers.put(partial(self._hash, batch), partial(self._results, batch))

    def _hash(self, batch: list[_Task]) -> list[HashResult | None]:
        """Hash a batch, in a worker. None: the root is away or time is up, so there is no result."""
        results: list[HashResult | None] = []
        if self._hasher.begins_no_more:
            self._left_to_next = True
            return [None] * len(batch)
        for repo, digest in ((task.repo, task.digest) for task in batch):
            result = None
            if repo.root.label not in self._run.away:
                with self._run.guarded(repo.name, repo.root):
                    result = self._inspector.blob_in_time(repo.root, repo.name, digest)
                    self._left_to_next |= result is None
            results.append(result)
        return results

    # -- results -------------------------------------------------------------------------------

    def _results(self, batch: list[_Task], results: list[HashResult | None]) -> None:
        for task, result in zip(batch, results, strict=True):
            if result is None:
                continue
            size = result.info.size if result.info and result.found else 0
            self._run.add("read_bytes", size)
            self._share(task, result)
            self._record(task.repo, result)
        for label, checked in self._checked.items():
            if label not in self._unwritable():
                checked.save_now_and_then()
        self._hasher.tell(batch[-1].repo.name)

    def _share(self, task: _Task, result: HashResult) -> None:
        """Use the result for the other names of the inode, if that inode was read."""
        if task.shared is None:
            return
        same = result.is_about(task.info)
        if same:
            self._shared.keep(task.shared, result)
        for other in self._waiting.pop(task.shared):
            if same:
                self._record(other.repo, result)
            else:
                self._queue(other)

    def _record(self, repo: _OpenCheck, result: HashResult) -> None:
        repo.left -= 1
        if result.good:
            self._note_good(repo.root, repo.name, result)
        elif not result.gone:
            repo.damaged.append(result)
            checked = self._checked.get(repo.root.label)
            if checked is not None and result.info is not None and result.found is not None:
                checked.note_damaged(result.digest, result.info, result.found)
        self._settle(repo)

    def _note_good(self, root: Root, name: str, result: HashResult) -> None:
        digest, info = result.digest, result.info
        self._run.add("checked_blobs")
        self._run.add("checked_bytes", info.size if info else 0)
        if info is None or self._options.quick:
            return
        if (checked := self._checked.get(root.label)) is not None:
            checked.note(digest, info)
        may_write = root.label not in self._unwritable()
        if digest in self._known_damaged[root.label] and may_write and root.maintenance.is_marked(name, digest, info):
            with self._run.guarded(name, root):
                self._clear(root, name, result)

    def _clear(self, root: Root, name: str, result: HashResult) -> None:
        with self._inspector.again(root, name, result) as looked:
            if looked.result.good and looked.held and root.maintenance.clear(name, result.digest, looked.held):
                self._run.add("cleared")

    def _settle(self, repo: _OpenCheck) -> None:
        if repo.listed_all and not repo.left and self._open.pop(id(repo), None) is not None:
            with self._run.guarded(repo.name, repo.root):
                whole = self._outcome.report_repository(repo)
                checked = self._checked.get(repo.root.label)
                if checked is not None and whole:
                    checked.note_repository(repo.name)

    # -- the end --------------------------------------------------------------------------------

    def _complete(self) -> None:
        whole = self._run.whole
        for root in self._whole:
            if root.label in self._run.away:
                continue
            if whole:
                with self._run.guarded(root.label, root):
                    self._outcome.report_hidden(root)
            if (checked := self._checked.get(root.label)) is not None:
                checked.complete(whole=whole, prune=not self._run.report.errors)

    def _unwritable(self) -> set[str]:
        return {root.label for root in self._run.roots if self._run.dry_run or root.read_only}

    def _save(self) -> None:
        for root in self._run.roots:
            if root.label not in self._unwritable() | self._run.away:
                if (seen := self._first_seen.get(root.label)) is not None:
                    seen.save()
                if (checked := self._checked.get(root.label)) is not None and checked.began + checked.last:
                    checked.save()


def _repair(run: Run, options: ScrubOptions) -> Repair | None:
    if not options.repair:
        return None
    from zotctl.jobs.check.repair import Repair  # and all kinds of archives with it

    return Repair(run, options.repair_from)


def _names(info: Info) -> int:
    """How many repositories have a name of a file: all names but the pool's."""
    return info.nlink - 1


def _shared_key(root: Root, digest: Digest, info: Info) -> int | None:
    """The key for results that other repositories can use. None: no other repository has this inode."""
    if info.nlink == 1 or (info.nlink == 2 and root.maintenance.readers(digest, info) == 1):
        return None
    return InodeResults.key_of(digest, info)
