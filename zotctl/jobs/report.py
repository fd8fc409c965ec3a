"""What a job reports: items, findings, errors, a summary, and the exit code that follows from them.

A finding says that content is wrong, an error that something could not be checked or done
(docs/design/invariants.md#i15).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from zotctl.errors import ZotctlError
from zotctl.jobs.finding import DAMAGE_KINDS, Finding


class Sink:
    """Receives what a job reports, as it happens. This class ignores everything, for a caller that only wants the
    report.

    A `Run` calls it from one thread at a time.
    """

    keeps_items = True
    """Whether the report keeps all items. If not, it keeps only the first one, which shows that there are some."""

    def start(self, fields: dict[str, Any]) -> None:
        """The run begins; `fields` are those of `Report.head`."""

    def item(self, fields: dict[str, Any]) -> None:
        """Something was done, or in a dry run would be."""

    def finding(self, finding: Finding) -> None:
        """Some content is wrong."""

    def error(self, fields: dict[str, Any]) -> None:
        """Something could not be checked or done; `fields` are those of `error_fields`."""

    def repository(self, name: str) -> None:
        """The work on a repository, or on what else has a name, begins; several may be worked on at once."""

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """`done` of `total` is done, both in `unit` ("bytes"). `total` None: it is not known. `what`: the current
        repository."""

    def summary(self, fields: dict[str, Any]) -> None:
        """The run has ended; `fields` are those of `Report.tail`."""


_SEVERITY = (0, 16, 5, 4)
"""Exit codes from harmless to grave. All others (1, 2, 3, 10 to 15, 70, signals) are graver."""


@dataclass
class Report:
    """The result of one run. `summary`: counters by name; without a suffix (`_bytes`, `_s`, `_at`) they count
    things."""

    job: str
    version: str
    dry_run: bool = False
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    summary: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def exit_code(self) -> int:
        """The gravest of the codes that were set, of findings (4) and of errors (5); see `errors.EXIT_CODES`."""
        # A collector does not look for damage: its findings say what it could not read (5).
        found = [4] if self.job != "gc" and any(finding.kind in DAMAGE_KINDS for finding in self.findings) else []
        codes = [*self.codes, *found, *([5] if self.errors else [])]
        return max(codes, key=lambda code: _SEVERITY.index(code) if code in _SEVERITY else 100 + code, default=0)

    @property
    def is_dry_run(self) -> bool:
        """Whether the run only reported what it would do. False for `verify`, which never changes anything."""
        return self.dry_run and self.job != "verify"

    def head(self) -> dict[str, Any]:
        """The fields that are known when the run begins, for JSON."""
        return {
            "schema": f"zotctl.{self.job}/1",
            "command": self.job,
            "version": self.version,
            "started": self.started.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }

    def tail(self) -> dict[str, Any]:
        """The fields that are known when the run has ended, for JSON."""
        fields = {"duration_s": round(self.duration_s, 3), "dry_run": self.dry_run, "exit_code": self.exit_code}
        return fields | {"summary": self.summary}

    def document(self) -> dict[str, Any]:
        """The whole report, for JSON."""
        lists = {"items": self.items, "findings": [f.as_fields() for f in self.findings], "errors": self.errors}
        return self.head() | self.tail() | lists


def counted(number: int, what: str) -> str:
    """`1 blob`, `2 blobs`"""
    return f"{number} {what}{'' if number == 1 else 's'}"


def time_of(at: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC; "never" if that has no such form."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError):
        return "never"


def local_time(at: float) -> str:
    """Seconds since 1970 for people, by the clock on their wall: `2026-11-30 02:15:00`; "never" if there is none."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return "never"


def whole_second(at: float) -> float:
    """The first whole second after a time, since reports have no fractions: whatever has to be older is so by then."""
    return math.floor(at) + 1.0 if math.isfinite(at) else at


def error_fields(repository: str, error: ZotctlError) -> dict[str, Any]:
    """The fields that a report has for an error. `repository`: "" if it is about none."""
    return {"repository": repository, "reason": error.message, "error": type(error).__name__}


# -- the way out ----------------------------------------------------------------------------------

_LAYOUT_KINDS = frozenset({"invalid_index", "invalid_layout"})
_CONTENT_KINDS = DAMAGE_KINDS - _LAYOUT_KINDS - {"wire"}
_ON_STORES = ("gc", "scrub", "dedupe")
"""Jobs whose findings are always about the operator's own store. `verify` may check another operator's registry."""

_HEAL = "push it again, or run `zotctl scrub --repair`, with `--from LAYOUT|URL` where an intact copy may be"


def hints(report: Report) -> Iterator[str]:
    """What an operator can do about the findings of a run: one line for each kind of trouble."""
    if report.job not in _ON_STORES:
        return
    left = {finding.kind for finding in report.findings if finding.action != "repaired"}
    if left & _CONTENT_KINDS:
        yield f"to heal what is damaged or missing: {_HEAL}"
    if report.job == "gc" and report.summary.get("repositories_left_alone"):
        yield "to have it collected again: heal it, or delete the tags that lead to it"
    if left & _LAYOUT_KINDS or any(error["error"] == "LayoutInvalid" for error in report.errors):
        yield (
            "a layout that is not valid: put back its oci-layout or index.json from a copy, or move its directory out "
            "of the store and push again"
        )
