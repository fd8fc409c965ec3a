"""The process beside the workers that collects and scrubs, so that requests are not slowed down."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zotctl.config import Config
from zotctl.errors import ZotctlError
from zotctl.http.counters import SharedText
from zotctl.storage import Store, open_store

if TYPE_CHECKING:
    from zotctl.jobs.report import Report
    from zotctl.storage.root import Root

log = logging.getLogger("zotctl.jobs")

JOB_SHARE_OF_DRAIN = 0.8
"""The part of `drain` in which a job must stop."""


def is_wanted(config: Config) -> bool:
    """Whether the configuration asks for any job."""
    storage = config.storage
    if storage.read_only or storage.single_layout is not None:
        return False
    roots = [*storage.roots, *(route.root for route in storage.routes)]
    return config.scrub.interval is not None or any(root.gc for root in roots)


def preload(config: Config) -> None:
    """Import what the jobs need, before processes are forked. Later an import would write to pages all over the memory
    that they share, and each of these would be copied."""
    if is_wanted(config):
        import zotctl.jobs.schedule  # noqa: F401
        from zotctl.jobs import stores

        stores.preload(config.storage)


def main(config: Config, life: int, counted: SharedText | None = None) -> int:
    """Run the jobs until told to stop, or until the parent is gone (the pipe `life` ends).

    `counted`: the metrics of their runs."""
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
    schedule = Schedule(config, store, stop.wait)
    if counted is not None:
        schedule.on_report = _counting(counted, store)
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
