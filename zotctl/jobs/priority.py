"""Jobs give way to requests: on a busy machine the kernel runs the server first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""A tenth of what a server gets: enough to come to an end beside one that is never idle, and not to stand for
long where the lock of a repository is held."""
_AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lower the priority of this process, that of its disk accesses with it; one that is lower stays.

    Linux weighs whole sessions against each other first (sched(7), "The autogroup feature"), and what a job's
    niceness means ends there. So a job that has a session of its own, as under cron or systemd, lowers that too.
    """
    with suppress(OSError):
        os.nice(max(0, NICENESS - os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            _AUTOGROUP.write_text(str(NICENESS))
