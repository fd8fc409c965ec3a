"""What the last collection of a root did, in `.zotctl/runs/gc`: only for people who look at the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from zotctl.errors import StorageError
from zotctl.jobs.report import Report
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.root import Root

MOST_KEPT = 100
"""Findings, and errors, of one run."""
LAST_RUN_BYTES = 1 << 20
_HELD = 11


class LastRun(NamedTuple):
    """One run that has ended. `ended` in seconds since 1970; `roots`: the labels of all roots that it covered.
    `findings` and `errors` as in a report."""

    ended: float
    duration_s: float
    exit_code: int
    roots: tuple[str, ...]
    summary: dict[str, int]
    findings: list[dict[str, Any]]
    errors: list[dict[str, Any]]


def note_run(report: Report, roots: Iterable[Root]) -> None:
    """Note a run that has ended in each of its roots; a dry run, and one that did not begin because another held the
    lease, are not noted. Never raises."""
    if report.dry_run or _HELD in report.codes:
        return
    covered = [root for root in roots if not root.read_only]
    fields = {
        "format": 1,
        "job": report.job,
        "ended": round(report.started.timestamp() + report.duration_s, 3),
        "duration_s": round(report.duration_s, 3),
        "exit_code": report.exit_code,
        "roots": [root.label for root in covered],
        "summary": {name: count for name, count in report.summary.items() if isinstance(count, int)},
        "findings": [finding.as_fields() for finding in report.findings[:MOST_KEPT]],
        "errors": report.errors[:MOST_KEPT],
    }
    for root in covered:
        with suppress(StorageError):
            if not root.by_requests:
                root.require()  # nothing is made below a mount point
            root.maintenance.write(keys.last_run(report.job), [json.dumps(fields).encode()])


def last_run(root: Root, job: str) -> LastRun | None:
    """The last run that was noted; None: none was, or what is there is no such note."""
    with suppress(StorageError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        found = load_json(root.maintenance.read(keys.last_run(job), LAST_RUN_BYTES))
        if found["format"] == 1:
            return LastRun(
                float(found["ended"]),
                float(found["duration_s"]),
                int(found["exit_code"]),
                tuple(map(str, found["roots"])),
                {str(name): count for name, count in found["summary"].items() if isinstance(count, int)},
                [dict(one) for one in found["findings"]],
                [dict(one) for one in found["errors"]],
            )
    return None
