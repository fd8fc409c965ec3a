"""The process beside the workers that collects and scrubs, so that requests are not slowed down.

It ends when no job is due for a while, and leaves a plan for the next one, so that it takes no memory between two runs.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zotctl.config import Config
from zotctl.errors import ZotctlError
from zotctl.http.counters import SharedText
from zotctl.logs import audit_trouble
from zotctl.oci.codec import load_json
from zotctl.storage import Store, open_store

if TYPE_CHECKING:
    from zotctl.jobs.report import Report
    from zotctl.storage.root import Root

log = logging.getLogger("zotctl.jobs")

FIRST_WITHIN_S = 30.0
"""How long after the start the jobs begin at the latest."""
JOB_SHARE_OF_DRAIN = 0.8
"""The part of `drain` in which a job must stop."""
AUDIT_RETRY_S = 10.0


class Plan:
    """When each job is due next, by the clock that only grows: what one process for the jobs tells the next. It is made
    before the fork; one process writes."""

    def __init__(self) -> None:
        self._text = SharedText()

    def write(self, due: Mapping[str, float]) -> bool:
        """Replace it. Returns False if there is no room for so many jobs."""
        told = {job: at if at < math.inf else None for job, at in due.items()}
        return self._text.write(json.dumps(told).encode())

    def read(self) -> dict[str, float]:
        """Empty until it was written; infinite: never again."""
        return {job: math.inf if at is None else at for job, at in load_json(self._text.read() or b"{}").items()}

    def next_due(self) -> float:
        """The first time of all: in the past until it was written, infinite if no job is due again."""
        return min(self.read().values(), default=math.inf) if self._text.read() else 0.0


def is_wanted(config: Config) -> bool:
    """Whether the configuration asks for any job."""
    storage = config.storage
    if storage.read_only or storage.single_layout is not None:
        return False
    return config.scrub.interval is not None or any(root.gc for root in storage.every_root)


def goes_by(config: Config) -> tuple[object, ...]:
    """All of a configuration that the process for the jobs goes by. While it is equal, a reload leaves it alone: a job
    that takes longer than the time between two reloads would never come to its end."""
    return config.storage, config.scrub, config.metrics, config.log, config.http.drain


def first_wait(config: Config) -> float:
    """Seconds after the start until the jobs begin, by chance: servers that start together should not all collect
    together."""
    intervals = [root.gc_interval for root in config.storage.every_root if root.gc]
    intervals += [config.scrub.interval] if config.scrub.interval is not None else []
    return random.uniform(0, min([FIRST_WITHIN_S, *filter(None, intervals)]))


def preload(config: Config) -> None:
    """Import what the jobs need, before processes are forked. Later an import would write to pages all over the memory
    that they share, and each of these would be copied."""
    if is_wanted(config):
        import zotctl.jobs.schedule  # noqa: F401
        from zotctl.jobs import stores

        stores.preload(config.storage)


def main(config: Config, life: int, plan: Plan, counted: SharedText | None = None) -> int:
    """Run the jobs that are due or will be soon, until told to stop, or until the parent is gone (the pipe `life`
    ends). `plan`: when they are due, and then when the next are; `counted`: the metrics of their runs."""
    from zotctl.jobs.run import give_way
    from zotctl.jobs.schedule import Schedule

    give_way()
    try:
        store = open_store(config.storage, serving=True)
    except ZotctlError as error:
        log.error(f"no collection and no scrub: {error.message}")
        return error.exit_code
    stop = _Stop(life)
    threading.Thread(target=stop.enforce, args=(config.http.drain,), daemon=True).start()
    schedule = Schedule(config, store, stop.wait, plan.read())
    if counted is not None:
        schedule.on_report = _counting(counted, store)
    schedule.run()
    # Lines for the audit file that can't be written now are in this process only.
    while not (plan.write(schedule.due()) and audit_trouble() is None) and not stop.wait(AUDIT_RETRY_S):
        schedule.run()
    store.close()
    return 0


def _counting(counted: SharedText, store: Store) -> Callable[[Report, Root], None]:
    """Go on where the process before this one ended."""
    from zotctl.jobs.metrics import Totals

    totals = Totals(counted.read().decode())
    totals.keep_roots(root.label for root in store.roots)

    def told(report: Report, root: Root) -> None:
        totals.add(report, [root])
        if not counted.write(totals.text()):
            log.error("the metrics of jobs are too many to be kept")

    return told


class _Stop:
    """SIGTERM, SIGQUIT or the end of the parent."""

    def __init__(self, life: int) -> None:
        self._told, heard = socket.socketpair()
        self._told.setblocking(False)
        heard.setblocking(False)
        signal.set_wakeup_fd(heard.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        self._sources, self._heard = [self._told.fileno(), life], heard

    def wait(self, seconds: float) -> bool:
        """Sleep. True, from now on, if it is time to stop."""
        return bool(select.select(self._sources, [], [], seconds)[0])

    def enforce(self, drain: float) -> None:
        """In a thread: a job that waits for its storage when it is time to stop ends within `drain`. It may be cut
        off anywhere, as by a kill."""
        select.select(self._sources, [], [])
        time.sleep(JOB_SHARE_OF_DRAIN * drain)
        log.warning("the job under way did not come to a stop in time and is cut off; the next run goes on")
        os._exit(0)
