"""The jobs inside `serve`: gc and scrub at their intervals, in a process of their own beside the workers.

Of all servers on one store, one runs a job at a time: the one that gets its lease. The others try again later.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from zotctl.config import Config, RootSettings, TimeWindow
from zotctl.errors import StorageError
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.clock_check import note_clock
from zotctl.jobs.gc import gc, gc_settings
from zotctl.jobs.last_run import note_run
from zotctl.jobs.report import Report, Sink, hints
from zotctl.jobs.run import Run
from zotctl.storage import Store
from zotctl.storage.root import Root

RETRY_EVERY_S = 60.0
"""How long a job that may not begin now (another process holds the lease, or it is outside of its window) waits."""
LONGEST_WAIT_S = 90.0
"""For the next job, that the process waits; if it takes longer, its memory is worth more than a fork."""
QUIET_COUNTERS = (
    "repositories", "repositories_left_alone", "blobs", "checked", "checked_bytes", "in_trash", "in_trash_bytes",
    "in_trash_until_at",
)  # fmt: skip
"""Counters of a run that found nothing to do."""

log = logging.getLogger("zotctl.jobs")


@dataclass
class Task:
    """One job on one root. `interval` in seconds; 0: it runs once. `due`: by `Clock.elapsed`, or never."""

    name: str
    root: Root
    interval: float
    work: Callable[[Run], None]
    window: TimeWindow | None = None
    rate: int | None = None
    due: float = 0.0

    @property
    def key(self) -> str:
        """What tells it from the other tasks of a configuration."""
        return f"{self.name} {self.root.label}"


class Schedule:
    """Runs the jobs of the configuration as they become due. Used by one thread.

    `wait(seconds)` sleeps, and returns True when it is time to stop. `due`: what `due` of the schedule before this one
    returned; a job that it lacks is due at once. `on_report` is called with the report of each run.
    """

    def __init__(
        self, config: Config, store: Store, wait: Callable[[float], bool], due: Mapping[str, float] | None = None
    ) -> None:
        self._store, self._wait, self._clock = store, wait, store.clock
        self.on_report: Callable[[Report, Root], None] = lambda report, root: None
        self._tasks = [task for root in store.roots if not root.read_only for task in tasks(config, root)]
        self._begins = not due
        for task in self._tasks:
            task.due = (due or {}).get(task.key, self._clock.elapsed())

    def due(self) -> dict[str, float]:
        """When each job is due, by `Clock.elapsed`; infinite: never again."""
        return {task.key: task.due for task in self._tasks}

    def run(self) -> None:
        """Run jobs as they become due. Returns when `wait` says so, or when nothing is due for `LONGEST_WAIT_S`."""
        if self._begins:
            for root in {task.root.label: task.root for task in self._tasks}.values():
                with suppress(StorageError):
                    note_clock(root, self._clock)
        while True:
            wait = min((task.due for task in self._tasks), default=math.inf) - self._clock.elapsed()
            if wait > LONGEST_WAIT_S or self._wait(max(0.0, wait)):
                return
            for task in self._tasks:
                if task.due <= self._clock.elapsed():
                    self._turn(task)

    def _turn(self, task: Task) -> None:
        now = self._clock.elapsed()
        today = datetime.fromtimestamp(self._clock.now(), UTC)
        if task.window is not None and today.hour * 60 + today.minute not in task.window:
            task.due = now + RETRY_EVERY_S
            return
        report = self._do(task)
        if report is None:
            return  # it stays due, for the next process
        interval = task.interval or math.inf
        task.due = self._clock.elapsed() + (min(RETRY_EVERY_S, interval) if 11 in report.codes else interval)

    def _do(self, task: Task) -> Report | None:
        run = Run(task.name, self._store, roots=[task.root], rate=task.rate, pause=self._pause, sink=_NoItems())
        try:
            report = run.finish(lambda: task.work(run))
        except _ScheduleStopped:
            return None
        log_report(report, task.root)
        if task.name == "gc":
            note_run(report, [task.root])  # of a scrub, its own state tells
        self.on_report(report, task.root)
        return report

    def _pause(self) -> None:
        if self._wait(0.0):
            raise _ScheduleStopped


class _NoItems(Sink):
    """Keeps no items in the report: a collection may have a million of them."""

    keeps_items = False


class _ScheduleStopped(BaseException):
    """The schedule was stopped during a run; the next run continues."""


def tasks(config: Config, root: Root) -> list[Task]:
    """The jobs that the configuration asks for on one root."""
    settings, found = root.config or RootSettings(), []
    if settings.gc:
        chosen = gc_settings()
        found.append(Task("gc", root, settings.gc_interval, lambda run: gc(run, chosen), settings.gc_time_window))
    if config.scrub.interval is not None:
        # The job itself spreads its work over the interval, and does a slice of it about once a minute.
        slices = ScrubOptions(workers=1, interval=config.scrub.interval)
        every = min(RETRY_EVERY_S, config.scrub.interval / 4)
        found.append(Task("scrub", root, every, lambda run: scrub(run, slices), rate=config.scrub.rate))
    return found


def log_report(report: Report, root: Root) -> None:
    """Log a run: a line for each finding and error, and one for the run, at `info` if it did something."""
    if 11 in report.codes:
        log.debug(f"{report.job} is running on {root.label} already")
        return
    for finding in report.findings:
        where = f"{finding.repository} {finding.digest or ''}"
        log.error(f"{report.job}: {finding.kind}: {where}: {finding.reason}", extra={"fields": finding.as_fields()})
    for error in report.errors:
        log.error(f"{report.job}: {error['repository']}: {error['reason']}", extra={"fields": error})
    for hint in hints(report):
        log.warning(f"{report.job}: {hint}")
    level = (
        logging.INFO if any(n for name, n in report.summary.items() if name not in QUIET_COUNTERS) else logging.DEBUG
    )
    fields = {"job": report.job, "root": root.label, "duration_s": round(report.duration_s, 3), **report.summary}
    log.log(level, f"{report.job} on {root.label} done", extra={"fields": fields})
