"""One run of a job: its scope, when it has to stop, how fast it may go, and what it reports."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zotctl
from zotctl.config.globs import check_glob, matches
from zotctl.errors import Interrupted, NameUnknown, ReadOnly, StorageError, Unavailable, UsageError, ZotctlError
from zotctl.jobs.finding import Finding
from zotctl.jobs.report import Report, Sink, error_fields
from zotctl.logs import audit_change
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.protocol import no_answer
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.gc import Settings

log = logging.getLogger("zotctl.jobs")


class Throttle:
    """Limits a rate. `rate`: units per second of what `take` counts; None: no limit. Safe between threads."""

    def __init__(self, rate: int | None, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._mutex = threading.Lock()
        self._free_at = clock.elapsed()

    def piece(self, most: int) -> int:
        """How many bytes to read at a time, so that the pace is even: at most a sixteenth of a second's worth."""
        return max(1, min(most, self._rate // 16)) if self._rate else most

    def take(self, size: int) -> None:
        """Wait until `size` units are allowed."""
        if not self._rate:
            return
        with self._mutex:
            now = self._clock.elapsed()
            wait = max(0.0, self._free_at - now)
            self._free_at = max(self._free_at, now) + size / self._rate
        if wait:
            self._clock.sleep(wait)


NICENESS = 10
"""Gives a job a tenth of the time that a server gets: enough to finish beside a busy one, and not to be stopped for
long while it holds the lock of a repository."""
_AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lower the priority of this process and of its disk accesses, unless it is lower already.

    Linux first weighs whole sessions against each other (sched(7), "The autogroup feature"); niceness counts only
    within one. So a job that has a session of its own, as under cron or systemd, lowers the session's priority too.
    """
    with suppress(OSError):
        os.nice(max(0, NICENESS - os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            _AUTOGROUP.write_text(str(NICENESS))


class TimeUp(Exception):
    """The time given with --max-duration is over. The next run continues."""


class Stopped(KeyboardInterrupt):
    """A signal ends the run. It is no Exception, so that no step catches it with its errors."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


def _may_be_below(directory: str, pattern: str) -> bool:
    """Whether a name that this glob matches may be that of the directory, or lie below it."""
    for part, wanted in zip(directory.split("/"), pattern.split("/"), strict=False):
        if "**" in wanted or "{" in wanted:
            break
        if not matches(part, [wanted]):
            return False
    return True


def check_repos(repos: Sequence[str]) -> None:
    """Raises UsageError for a value of --repo that is not usable as a glob."""
    try:
        for pattern in repos:
            check_glob(pattern)
    except ValueError as error:
        raise UsageError(f"--repo: {error}") from None


class Run:
    """One run of a job, passed to all of its functions. Safe between threads.

    `roots`: the roots of the store that the run covers, by default all. `repos`: globs of repositories, by default all.
    `max_duration` in seconds. `rate`: bytes that may be read per second; `requests`: blobs that may be read per second.
    `pause` is called between two steps, and may raise to end the run. Raises UsageError for one of `repos` that is not
    usable as a glob.
    """

    def __init__(
        self,
        job: str,
        store: Store,
        *,
        roots: Sequence[Root] | None = None,
        repos: Sequence[str] = (),
        dry_run: bool = False,
        max_duration: float | None = None,
        rate: int | None = None,
        requests: int | None = None,
        sink: Sink | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:
        self.store, self.clock, self.dry_run = store, store.clock, dry_run
        self.roots = tuple(store.roots if roots is None else roots)
        self.throttle = Throttle(rate, store.clock)
        self.requests = Throttle(requests, store.clock)
        """Counts one for each blob that is read."""
        self.report = Report(job, zotctl.__version__, dry_run)
        check_repos(repos)
        self.repos, self._sink, self._pause = tuple(repos), sink or Sink(), pause
        self.whole = not repos
        """Whether the run covers all repositories: False with --repo."""
        self._met = self._walked = False
        self.unlisted: set[str] = set()
        """Labels of roots whose repositories are not all known, because listing them failed."""
        self.away: set[str] = set()
        """Labels of roots whose storage went away during the run: reported once, and not touched for the rest of the
        run."""
        self._there = [root for root in self.roots if not root.by_requests and root.state() is None]
        self.settings: Settings | None = None
        """By what the run collects; None: it does not."""
        self._began = self.clock.elapsed()
        self._until = None if max_duration is None else self._began + max_duration
        self._mutex = threading.Lock()

    def look(self) -> Run:
        """Another run over the same repositories, without the roots that are away: it only looks, reports nothing and
        has no time limit."""
        roots = [root for root in self.roots if root.label not in self.away]
        return Run(self.report.job, self.store, roots=roots, repos=self.repos, dry_run=True)

    # -- scope ----------------------------------------------------------------------------------

    def repositories(self) -> Iterator[tuple[Root, str]]:
        """The repositories of all roots that the run covers, with their root. An absent root is reported."""
        for root in self.roots:
            yield from ((root, name) for name in self.repositories_of(root))
        self.walked()

    def repositories_of(self, root: Root) -> Iterator[str]:
        """The repositories of one root that the run covers. Call `walked` after those of the last root."""
        try:
            root.require()
            passed_over = partial(self._pass_over, root)
            for name in [self.store.only] if self.store.only else root.catalog.everything(passed_over):
                if root.label in self.away:
                    return
                if self.covers(name):
                    yield name
        except StorageError as error:
            self.unlisted.add(root.label)
            self.error(root.label, error, root)

    def _pass_over(self, root: Root, directory: str, error: StorageError) -> None:
        """Report a directory that can't be listed, if a repository that the run covers may lie in it."""
        if self.whole or any(_may_be_below(directory, pattern) for pattern in self.repos):
            self.error(directory, error, root)

    def covers(self, name: str) -> bool:
        """Whether the run covers this repository: --repo matches it, or was not given."""
        covered = self.whole or matches(name, self.repos)
        self._met |= covered
        return covered

    def walked(self) -> None:
        """All names have been passed to `covers`: a --repo that matched none of them is an error (exit 10)."""
        self._walked = True

    @contextmanager
    def guarded(self, name: str, root: Root | None) -> Iterator[None]:
        """Report an error in the block under `name`, and go on (I11). If the storage of `root` is away, report that
        instead, once."""
        try:
            yield
        except ZotctlError as error:
            self.error(name, error, root)

    @contextmanager
    def sparing(self, root: Root) -> Iterator[None]:
        """Let an error in the block end the run, except if this root is away: then the others go on."""
        try:
            yield
        except ZotctlError as error:
            if not self.is_lost(root, error):
                raise

    def owns(self, root: Root, name: str) -> bool:
        """Whether this repository may be written; in a dry run, whether it could be if the root could. False also if
        that can't be found out, which is reported."""
        with self.guarded(name, root):
            return root.protocol.owns(name) if self.dry_run else root.owns(name)
        return False

    def is_lost(self, root: Root, error: ZotctlError) -> bool:
        """Whether this error means that the whole root is away, which the root itself is asked.

        Once it is, it counts as away for the rest of the run, and nothing is reported about its content.
        """
        if root.label not in self.away and isinstance(error, Unavailable):
            state = root.state() or self._why_unwritable(root)
            with self._mutex:
                first = isinstance(state, Unavailable) and root.label not in self.away
                self.away |= {root.label} if first else set()
            if first and state is not None:
                self.refuse(root, state)
        return root.label in self.away

    def _why_unwritable(self, root: Root) -> StorageError | None:
        """Why a bucket that can be read can't be written; None: it can, or is not to be."""
        if self.dry_run or root.read_only or not root.by_requests:
            return None
        try:
            root.maintenance.write(keys.WRITE_TRIAL, [b"trial"])
        except StorageError as error:
            return no_answer(root.label, error)
        return None

    # -- the end --------------------------------------------------------------------------------

    def check(self) -> None:
        """Call between two steps. Raises TimeUp when --max-duration is over."""
        if self.is_over:
            raise TimeUp
        if self._pause is not None:
            self._pause()

    @property
    def is_over(self) -> bool:
        """Whether --max-duration is over."""
        return self._until is not None and self.clock.elapsed() >= self._until

    def finish(self, work: Callable[[], None]) -> Report:
        """Do the work. Whatever ends it, the report is complete and the sink gets its summary. Raises only
        BrokenPipeError, and the exception of a bug."""
        self._sink.start(self.report.head())
        try:
            work()
            if self._walked and not (self.whole or self._met or self.report.errors):
                raise NameUnknown(f"no repository matches --repo {' or '.join(self.repos)}")
        except TimeUp:
            self.report.codes.append(16)
        except Stopped as stop:
            self.report.codes.append(stop.exit_code)
            self._tell("", Interrupted("stopped by a signal; run it again to go on"))
        except ZotctlError as error:
            self.report.codes.append(error.exit_code)
            self._tell("", error)
        except BrokenPipeError:
            raise
        except Exception as bug:
            self.report.codes.append(70)
            self.report.errors.append(error_fields("", ZotctlError(f"a bug: {type(bug).__name__}: {bug}")))
            self._end()
            raise
        # Where a directory was unmounted, content is merely absent, so ask each root. A bucket reports that it is away.
        for root in self._there:
            if (state := root.state()) is not None:
                self.is_lost(root, state)
        self._end()
        return self.report

    def _end(self) -> None:
        self.report.duration_s = self.clock.elapsed() - self._began
        self._sink.summary(self.report.tail())

    # -- reporting ------------------------------------------------------------------------------

    def item(self, **fields: Any) -> None:
        """Report something that was done, or in a dry run would be. `action` says what; names of sizes end in
        `_bytes`."""
        with self._mutex:
            if self._sink.keeps_items or not self.report.items:
                self.report.items.append(fields)
            self._sink.item(fields)

    def changed(
        self,
        action: str,
        repository: str,
        reason: str,
        *,
        tag: str | None = None,
        before: str,
        after: str | None = None,
    ) -> None:
        """Tell, in the log and the audit file, that a tag or content is gone; call it when that is done."""
        audit_change(log, action, repository, reason=reason, tag=tag, before=before, after=after)

    def finding(self, finding: Finding) -> None:
        """Report content that is wrong."""
        with self._mutex:
            self.report.findings.append(finding)
            self._sink.finding(finding)

    def error(self, repository: str, error: ZotctlError, root: Root | None) -> None:
        """Report an error. If the storage of `root` is away, report that instead, once. `root` None: it is about no
        root."""
        if root is None or not self.is_lost(root, error):
            self._tell(repository, error)

    def _tell(self, repository: str, error: ZotctlError) -> None:
        fields = error_fields(repository, error)
        with self._mutex:
            self.report.errors.append(fields)
            self._sink.error(fields)

    def add(self, counter: str, amount: int = 1) -> None:
        """Add to a counter in the summary of the report. Names of counters of bytes end in `_bytes`."""
        with self._mutex:
            self.report.summary[counter] = self.report.summary.get(counter, 0) + amount

    def latest(self, name: str, stamp: str) -> None:
        """Have a time stamp in the summary; of several the latest."""
        with self._mutex:
            self.report.summary[name] = max(stamp, self.report.summary.get(name, ""))

    def begins(self, name: str) -> None:
        """The work on this repository begins; for those who want to know (`Sink.repository`)."""
        with self._mutex:
            self._sink.repository(name)

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """Report progress to the sink; see `Sink.progress`."""
        with self._mutex:
            self._sink.progress(done, total, unit, what)

    def refuse_read_only(self) -> None:
        """For a job that writes: refuse each root that can't be written, except in a dry run. The others are still
        done. Nothing is to be done in an archive, so that this is no failure of each run."""
        for root in self.roots:
            if root.read_only and not (self.dry_run or root.is_archive):
                self.refuse(root, ReadOnly("it can't be written, so nothing was done there", root.label))

    def refuse(self, root: Root, error: ZotctlError) -> None:
        """Report that the job can't work on this root; its exit code becomes one of the run's. The others are still
        done."""
        self.report.codes.append(error.exit_code)
        self._tell(root.label, error)

    # -- one run at a time ----------------------------------------------------------------------

    @contextmanager
    def leases(self) -> Iterator[None]:
        """Hold the job's lease on every root that is written, during the block. Raises HeldElsewhere.

        A lease saves work; no data depends on it (docs/design/local.md#locks).
        """
        with ExitStack() as stack:
            for root in self.roots:
                if not (self.dry_run or root.read_only or root.state()):
                    with self.sparing(root):
                        stack.enter_context(root.maintenance.lease(self.report.job))
            yield
