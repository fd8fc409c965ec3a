"""Collection: what no manifest reaches goes, beside any number of servers.

What would go is decided in one place (`gc_plan`); how it goes depends on what a root lies on: renamed into the trash
of a directory (`jobs.local.gc`), or deleted under an intent on a bucket (`jobs.bucket.collector`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zotctl.errors import ClockDoubtful, StorageError
from zotctl.jobs.check.hashing import Workers
from zotctl.jobs.clock_check import require_clock
from zotctl.jobs.gc_plan import COUNTERS, GcOptions
from zotctl.jobs.run import Run, Stopped, TimeUp
from zotctl.jobs.stores import Collector, jobs_of
from zotctl.storage.root import Root

__all__ = ["GcOptions", "Settings", "gc"]

Settings = Callable[[Root], GcOptions | None]
"""What holds for a root; None: not collected."""


def gc(run: Run, settings: Settings) -> None:
    """Purge what has lain in the trash for the grace period, and move what nothing reaches there, in every repository
    of the run."""
    run.report.summary.update(dict.fromkeys(COUNTERS, 0))
    run.refuse_read_only()
    with run.leases():
        collectors = {root.label: jobs_of(root).collector(run, options)
                      for root in run.roots
                      if (options := _options(run, root, settings)) and _is_timely(run, root, options)}  # fmt: skip
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
    """Several repositories side by side, where most of the time is spent in waiting for a network."""
    names = run.repositories_of(root)
    if collector is None:
        for _ in names:
            run.check()
        return

    def collect(name: str) -> None:
        if root.label not in run.away:
            with run.guarded(name, root):
                collector.collect(name)

    workers = Workers(collector.at_once)
    try:
        for name in collector.order(names):
            run.check()
            if _is_collected(run, root, name):
                workers.put(partial(collect, name), lambda _: None)
        workers.drain()
    except BaseException:
        collector.halted.set()
        raise
    finally:
        workers.close()
        collector.halted.clear()


def _options(run: Run, root: Root, settings: Settings) -> GcOptions | None:
    """None: nothing is collected there. A dry run only reads, so every user who may read may ask what would go."""
    return None if (root.read_only and not run.dry_run) or root.state() else settings(root)


def _is_timely(run: Run, root: Root, options: GcOptions) -> bool:
    """False: by its clock everything might expire, and that is told."""
    if not options.compares_clock:
        return True
    rehearsed = run.dry_run or options.dry_run or root.read_only
    try:
        require_clock(root, run.clock, trusted=options.trusts_clock, rehearsed=rehearsed)
    except ClockDoubtful as error:
        run.refuse(root, error)
        return False
    except StorageError:
        pass  # it can't be looked at: each repository will say so
    return True


def _is_collected(run: Run, root: Root, name: str) -> bool:
    return (run.dry_run and root.read_only) or root.owns(name)
