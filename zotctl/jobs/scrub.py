"""Scrubbing: every blob of every repository is hashed again, and what is found has consequences.

One inode is read once, however many names it has, and reported for each repository that links it. Damaged
content is kept aside and answers 404, so that clients push it again, which heals it everywhere. Nothing is
locked while anything is read, and before a name is touched it is looked at again (I10, I11).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from zotctl.errors import Busy, HeldElsewhere, LayoutInvalid, NotFound, StorageError
from zotctl.jobs.damage import Inspector, Verdict, judge, mark
from zotctl.jobs.examination import Examined, Trouble, View, layout_trouble, path_of, temporaries, view_of
from zotctl.jobs.hashing import Hasher, Workers, cores
from zotctl.jobs.repair import Repair
from zotctl.jobs.report import Finding
from zotctl.jobs.run import Run, TimeUp, matches
from zotctl.jobs.scrub_state import Checked, FirstSeen
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.root import Root

BATCH_BLOBS, BATCH_BYTES = 64, 4 << 20
"""Small blobs go to a worker together."""
REMEMBERED = 1_000_000
"""Shared inodes that are remembered as good; beyond that some are read twice."""
KEPT_ASIDE = 7 * 86400.0
"""Seconds that damaged content is kept for a look when no name leads to it any more."""
SHARE = 0.9
"""Of the interval in which a rolling scrub goes through everything; the rest is for what comes between."""
ROLLING = "scrub.rolling"


@dataclass(frozen=True)
class ScrubOptions:
    """`workers`: threads, one for each core by default. `repair`: heal from a good copy in any root, or from
    `repair_from`, a layout directory or the URL of a registry. `resume`: go on where a run that was stopped
    left off. `interval`: rolling; only what was not checked for so many seconds, the oldest first, spread
    over that time. `quick`: sizes, references and known damage only. `measure`: count first, for a bar."""

    workers: int | None = None
    repair: bool = False
    repair_from: str | None = None
    resume: bool = False
    interval: float | None = None
    quick: bool = False
    measure: bool = False


def scrub(run: Run, options: ScrubOptions | None = None) -> None:
    """Look at everything in the scope of the run. Raises HeldElsewhere while another run does, TimeUp."""
    options = options or ScrubOptions()
    if options.interval is None:
        with run.leases():
            _Scrub(run, options).go_through()
        return
    with _rolling_leases(run) as held:
        if held:
            _Scrub(run, options).go_through()


class _rolling_leases(ExitStack):  # noqa: N801 - used like a function
    """Of several servers on one store, one does the rolling scrub. It does not keep out a run by hand: two
    at once are safe, they only read twice. False: another server does it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def __enter__(self) -> bool:  # type: ignore[override]
        for root in self._run.store.roots:
            if root.read_only or root.state() or not root.driver.capabilities.locks:
                continue
            lock = root.driver.lock(keys.lease(ROLLING), 0)
            if lock is None:
                self.close()
                return False
            self.callback(lock.release)
        return True


@dataclass(frozen=True, slots=True)
class _Task:
    """One blob for a worker. `shared`: under which others wait for its verdict."""

    repo: Examined
    digest: Digest
    info: Info
    shared: int | None = None

    @property
    def key(self) -> str:
        return keys.blob(self.repo.name, self.digest)


class _Shared:
    """Verdicts on inodes with several names, kept for the next name."""

    def __init__(self) -> None:
        self.good: set[int] = set()
        self.bad: dict[int, Verdict] = {}
        self.waiting: dict[int, list[_Task]] = {}

    def keep(self, shared: int, verdict: Verdict) -> None:
        if not verdict.good:
            self.bad[shared] = verdict
            return
        if len(self.good) >= REMEMBERED:
            self.good.clear()
        self.good.add(shared)


class _Known:
    """What is known of one root before it is gone through."""

    def __init__(self, run: Run, root: Root, *, stateful: bool) -> None:
        self.first_seen = FirstSeen(root, run.clock)
        self.checked = Checked(root, run.clock) if stateful else None
        self.bad = set(root.protocol.bad.digests())


class _Scrub:
    def __init__(self, run: Run, options: ScrubOptions) -> None:
        self._run, self._options, self._rolling = run, options, options.interval is not None
        self._hasher = Hasher(run)
        self._inspector = Inspector(run, self._hasher, quick=options.quick)
        self._repair = Repair(run, options.repair_from) if options.repair else None
        self._workers = Workers(options.workers or (1 if self._rolling else cores()))
        self._known: dict[str, _Known] = {}
        self._shared, self._open = _Shared(), dict[int, Examined]()
        self._batch: list[_Task] = []
        self._batch_bytes = 0
        self._reported: set[tuple[str, str, str]] = set()
        self._rate = 0.0
        self._began = run.clock.elapsed()

    # -- the way through ------------------------------------------------------------------------

    def go_through(self) -> None:
        try:
            self._all()
        except TimeUp:
            self._batch.clear()
            self._workers.drain()
            self._finish_open()
            raise
        finally:
            self._hasher.stopped.set()
            self._workers.close()
            self._save()

    def _all(self) -> None:
        due = self._due()
        if due and (self._rolling or self._options.measure):
            self._measure(due)
        for root, name in due:
            self._run.check()
            with self._run.guarded(name):
                self._begin(root, name)
        self._flush()
        self._workers.drain()
        self._finish_open()
        self._close_pass()

    def _due(self) -> list[tuple[Root, str]]:
        """Every repository; in a rolling scrub those whose time has come, the longest unchecked first."""
        found = [*self._run.repositories(), *self._strays()]
        for root in self._run.store.roots:
            if root.state() is None:
                self._known[root.label] = self._know(root)
        found = [(root, name) for root, name in found if root.label in self._known]
        if not self._rolling:
            return found
        since = self._since
        dated = [(self._last(root, name), root, name) for root, name in found]
        return [(root, name) for at, root, name in sorted(dated, key=lambda one: one[0]) if at < since]

    def _know(self, root: Root) -> _Known:
        known = _Known(self._run, root, stateful=self._rolling or self._options.resume)
        if known.checked is not None and not known.checked.began:
            known.checked.began = int(self._run.clock.now())
        return known

    def _last(self, root: Root, name: str) -> int:
        checked = self._known[root.label].checked
        return checked.repositories.get(name, 0) if checked else 0

    @property
    def _since(self) -> float:
        return self._run.clock.now() - (self._options.interval or 0.0)

    def _strays(self) -> Iterator[tuple[Root, str]]:
        """Directories that were layouts and have lost their `oci-layout`; no list of repositories has them."""
        for root in self._run.store.roots:
            if root.state() is None:
                with self._run.guarded(root.label):
                    yield from ((root, name) for name in _strays(root, "") if self._wants(name))

    def _wants(self, name: str) -> bool:
        return not self._run._repos or matches(name, self._run._repos)

    def _measure(self, due: list[tuple[Root, str]]) -> None:
        """How much there is to read, shared content divided among its names."""
        total = 0.0
        for root, name in due:
            with self._run.guarded(name):
                for _, info in Examined(root, name).blobs():
                    self._run.check()
                    total += info.size / max(1, info.nlink - 1)
        self._hasher.total = int(total)
        if self._options.interval:
            self._rate = max(total, 1.0) / (SHARE * self._options.interval)

    def _pace(self) -> None:
        """Rolling: no faster than to be through when the interval is over."""
        while self._rate and (wait := self._hasher.done / self._rate - (self._run.clock.elapsed() - self._began)) > 0:
            self._run.clock.sleep(min(1.0, wait))
            self._run.check()

    # -- one repository -------------------------------------------------------------------------

    def _begin(self, root: Root, name: str) -> None:
        repo = Examined(root, name)
        self._open[id(repo)] = repo
        for digest, info in repo.blobs():
            self._run.check()
            self._pace()
            if not self._is_recent(root, digest, info):
                self._take(repo, digest, info)
        repo.listed = True
        self._settle(repo)

    def _is_recent(self, root: Root, digest: Digest, info: Info) -> bool:
        """Found good since the pass began that this run goes on with, or within the interval."""
        checked = self._known[root.label].checked
        if checked is None:
            return False
        since = self._since if self._rolling else checked.began
        recent = checked.when(digest, info) >= since
        if recent:
            self._run.add("skipped_blobs")
        return recent

    def _take(self, repo: Examined, digest: Digest, info: Info) -> None:
        repo.left += 1
        shared = self._shared_key(repo.root, digest, info)
        if shared is None:
            return self._queue(_Task(repo, digest, info))
        if shared in self._shared.good:
            return self._record(repo, Verdict(digest, info, digest))
        if (verdict := self._shared.bad.get(shared)) is not None:
            return self._record(repo, verdict)
        if (waiting := self._shared.waiting.get(shared)) is not None:
            return waiting.append(_Task(repo, digest, info))
        self._shared.waiting[shared] = []
        return self._queue(_Task(repo, digest, info, shared))

    def _shared_key(self, root: Root, digest: Digest, info: Info) -> int | None:
        """None: no other repository can have this inode; the pool's name is no repository."""
        if info.nlink == 1:
            return None
        if info.nlink == 2:
            pooled = root.protocol.site.stat(keys.pool(digest))
            if pooled is not None and (pooled.ino, pooled.dev) == (info.ino, info.dev):
                return None
        return hash((info.ino, info.dev, digest))

    def _queue(self, task: _Task) -> None:
        self._batch.append(task)
        self._batch_bytes += task.info.size
        if len(self._batch) >= BATCH_BLOBS or self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._workers.put(partial(self._look, batch), partial(self._results, batch))

    def _look(self, batch: list[_Task]) -> list[Verdict]:
        return [self._inspector.look(task.repo.root, task.key, task.digest) for task in batch]

    # -- verdicts -------------------------------------------------------------------------------

    def _results(self, batch: list[_Task], verdicts: list[Verdict]) -> None:
        for task, verdict in zip(batch, verdicts, strict=True):
            self._share(task, verdict)
            self._run.add("read_bytes", verdict.info.size if verdict.info and verdict.found else 0)
            self._record(task.repo, verdict)
        for known in self._known.values():
            if known.checked is not None and not self._run.dry_run:
                known.checked.save_now_and_then()
        self._run.progress(self._hasher.done, self._hasher.total, "bytes", batch[-1].repo.name)

    def _share(self, task: _Task, verdict: Verdict) -> None:
        """Give the verdict to the other names of the inode, if it was that inode that was read."""
        if task.shared is None:
            return
        same = verdict.is_about(task.info)
        if same:
            self._shared.keep(task.shared, verdict)
        for other in self._shared.waiting.pop(task.shared):
            if same:
                self._record(other.repo, verdict)
            else:
                self._queue(other)

    def _record(self, repo: Examined, verdict: Verdict) -> None:
        repo.left -= 1
        if verdict.good:
            self._note_good(repo, verdict)
        elif not verdict.gone:
            repo.bad.append(verdict)
        self._settle(repo)

    def _note_good(self, repo: Examined, verdict: Verdict) -> None:
        known, info = self._known[repo.root.label], verdict.info
        self._run.add("checked_blobs")
        self._run.add("checked_bytes", info.size if info else 0)
        if info is None or self._options.quick or self._is_read_only(repo.root):
            return
        if known.checked is not None:
            known.checked.note(verdict.digest, info)
        if verdict.digest in known.bad and repo.root.protocol.bad.clear(verdict.digest, info):
            self._run.add("cleared")

    def _settle(self, repo: Examined) -> None:
        if repo.done and self._open.pop(id(repo), None) is not None:
            with self._run.guarded(repo.name):
                self._finish(repo)

    def _finish_open(self) -> None:
        """What could not be gone through as a whole: what was found in it is told all the same."""
        for repo in list(self._open.values()):
            with self._run.guarded(repo.name):
                self._tell_damage(repo, self._view(repo) if repo.bad else None)
        self._open.clear()

    # -- findings -------------------------------------------------------------------------------

    def _finish(self, repo: Examined) -> None:
        errors = len(self._run.report.errors)
        view = self._view(repo)
        if view is not None:
            # Read now, while damaged manifests are not marked yet; and what they say is told once.
            unclear = [self._inspector.look(repo.root, self._blob(repo, d), d) for d in repo.unclear(view)]
            repo.bad += [verdict for verdict in unclear if not verdict.good and not verdict.gone]
            for trouble in repo.troubles(view, hashed=not self._options.quick):
                self._tell(repo, trouble, view)
        self._tell_damage(repo, view)
        for trouble in repo.leftovers(self._run.clock.now()):
            self._tell(repo, trouble, view)
        self._run.add("repositories")
        if len(self._run.report.errors) == errors:
            self._note_done(repo)

    def _blob(self, repo: Examined, digest: Digest) -> str:
        return keys.blob(repo.name, digest)

    def _view(self, repo: Examined) -> View | None:
        try:
            return view_of(repo.root, repo.name)
        except (LayoutInvalid, NotFound) as error:
            repo.root.require()
            if (trouble := layout_trouble(repo.root, repo.name, error)) is not None:
                self._tell(repo, trouble, None)
        except StorageError as error:
            self._run.error(repo.name, error)
        return None

    def _note_done(self, repo: Examined) -> None:
        known = self._known[repo.root.label]
        known.first_seen.gone_through(repo.name)
        if known.checked is not None:
            known.checked.repositories[repo.name] = int(self._run.clock.now())

    def _tell(self, repo: Examined, trouble: Trouble, view: View | None) -> None:
        action = "none"
        missing = trouble.kind in ("missing_blob", "missing_manifest") and trouble.digest is not None
        if missing and view and self._may_write(repo) and self._bring_back(repo, Digest(trouble.digest or ""), view):
            action = "repaired"
        details: dict[str, Any] = {"path": trouble.path}
        if trouble.wanted >= 0:
            details |= {"expected_bytes": trouble.wanted, "found_bytes": trouble.had}
        self._report(repo.root, repo.name, trouble.digest, trouble.kind, trouble.reason, view, action, details)

    def _bring_back(self, repo: Examined, digest: Digest, view: View) -> bool:
        if self._repair is None:
            return False
        return self._repair.bring_back(repo.root, repo.name, digest, view.is_manifest(digest))

    def _tell_damage(self, repo: Examined, view: View | None) -> None:
        for verdict in repo.bad:
            now = repo.root.protocol.site.stat(self._blob(repo, verdict.digest))
            if verdict.is_about(now):
                self._deal_with(repo, verdict, view)

    def _deal_with(self, repo: Examined, verdict: Verdict, view: View | None) -> None:
        """Mark or heal, and tell it; for the other repositories that were healed by the way, too."""
        action, healed = "none", list[str]()
        try:
            if self._may_write(repo):
                action, healed = self._act(repo, verdict, view)
        except StorageError as error:
            self._run.error(repo.name, error)
        self._report_damage(repo.root, repo.name, verdict, view, action)
        for other in healed:
            if other != repo.name:
                with self._run.guarded(other):
                    self._report_damage(repo.root, other, verdict, view_of(repo.root, other), action)

    def _act(self, repo: Examined, verdict: Verdict, view: View | None) -> tuple[str, list[str]]:
        if self._repair is not None:
            manifest = view is not None and view.is_manifest(verdict.digest)
            healed = self._repair.heal(repo.root, repo.name, verdict, manifest)
            if repo.name in healed:
                return "repaired", healed
        # What was only found by its size, or could not be read, may be good yet.
        if verdict.found is not None and mark(repo.root, repo.name, verdict):
            return "marked", []
        return "none", []

    def _report_damage(self, root: Root, name: str, verdict: Verdict, view: View | None, action: str) -> None:
        kind, reason, details = judge(verdict, view.sizes(verdict.digest) if view else set())
        details |= {"path": path_of(root, keys.blob(name, verdict.digest))}
        if kind == "unreadable":
            self._run.report.codes.append(5)
        self._report(root, name, verdict.digest, kind, reason, view, action, details)

    def _report(
        self, root: Root, name: str, digest: str | None, kind: Any, reason: str, view: View | None, action: str,
        details: dict[str, Any],
    ) -> None:  # fmt: skip
        """Once for each name: a repository may have been healed before its turn came."""
        key = (details["path"], kind, "")
        if key in self._reported:
            return
        self._reported.add(key)
        details["first_seen_at"] = self._known[root.label].first_seen.of(name, digest, kind, details["path"])
        tags = view.affected.tags(digest) if view and digest else tuple(view.index.tags()) if view else ()
        self._run.finding(Finding(name, digest, kind, reason, tags, action, details))
        self._run.add("findings")
        if action != "none":
            self._run.add(action)

    def _may_write(self, repo: Examined) -> bool:
        return not self._is_read_only(repo.root) and self._run.store.is_ours(repo.root, repo.name)

    def _is_read_only(self, root: Root) -> bool:
        return self._run.dry_run or root.read_only

    # -- the end --------------------------------------------------------------------------------

    def _close_pass(self) -> None:
        now = self._run.clock.now()
        for root in self._run.store.roots:
            if (known := self._known.get(root.label)) is None:
                continue
            if not self._run._repos:
                self._look_at_hidden(root, now)
            if known.checked is not None and not self._run.report.errors:
                if not self._run._repos:
                    known.checked.forget_before(int(self._since if self._rolling else known.checked.began))
                known.checked.began = 0

    def _look_at_hidden(self, root: Root, now: float) -> None:
        with self._run.guarded(root.label):
            for trouble in temporaries(root, now):
                self._report(root, "", None, trouble.kind, trouble.reason, None, "none", {"path": trouble.path})
            self._known[root.label].first_seen.gone_through("")
            if not self._is_read_only(root):
                before = int((now - KEPT_ASIDE) * 1e9)
                freed = sum(root.protocol.bad.sweep(digest, before) for digest in root.protocol.bad.digests())
                self._run.add("freed_bytes", freed)

    def _save(self) -> None:
        for root in self._run.store.roots:
            known = self._known.get(root.label)
            if known is not None and not self._is_read_only(root):
                known.first_seen.save()
                if known.checked is not None:
                    known.checked.save()


def _strays(root: Root, directory: str) -> Iterator[str]:
    """Layouts without `oci-layout` below a directory. One that is just being made is none: its index.json
    comes first, so the two are looked for again."""
    try:
        entries = {entry.name: entry for entry in root.driver.scan(directory)}
    except NotFound:
        return
    if directory and "blobs" in entries and "index.json" in entries and "oci-layout" not in entries:
        if root.protocol.site.stat(keys.layout(directory)) is None and _is_old(root, directory):
            yield directory
    for name, entry in entries.items():
        if entry.is_dir and name != "blobs" and not name.startswith("."):
            yield from _strays(root, f"{directory}/{name}".lstrip("/"))


def _is_old(root: Root, directory: str) -> bool:
    """Nobody is making it right now."""
    info = root.protocol.site.stat(directory)
    return info is not None and root.protocol.site.clock.now() - info.mtime_ns / 1e9 > 2.0
