"""Where an import stages the blobs of an archive, and how gc removes what a killed one has left there."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import HeldElsewhere
from zotctl.jobs.run import Run
from zotctl.storage import keys
from zotctl.storage.clock import DAY_S
from zotctl.storage.root import Root

IMPORT_JOB = "import-layout"
STAGING = keys.tmp(IMPORT_JOB)
"""The staged blobs. Each root has one place for them, since a writer holds the lease of the job."""
STAGED_KEPT_S = float(DAY_S)
"""How long the next import finds what a killed one has staged, after the last blob came."""


def kept(delay: float) -> float:
    """Seconds. `delay`: of the collection; with 0 the space is wanted now."""
    return max(delay, STAGED_KEPT_S) if delay else 0.0


def discard_staged(run: Run, root: Root, size: int) -> None:
    """Remove what is staged, unless an import is running. `size`: the bytes that this frees. The caller has seen that
    the last blob came `kept` seconds ago."""
    with suppress(HeldElsewhere):
        with root.maintenance.lease(IMPORT_JOB):
            root.maintenance.discard(STAGING)
        run.item(action="purge_import", size_bytes=size)
        run.add("purged_bytes", size)
