"""The way out of what a job has found, for people who read its mail: a line for each kind of trouble, not for each
finding."""

from __future__ import annotations

from collections.abc import Iterator

from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.report import Report

_LAYOUT = frozenset({"invalid_index", "invalid_layout"})
_CONTENT = DAMAGE_KINDS - _LAYOUT - {"wire"}
_ON_STORES = ("gc", "scrub", "dedupe")
"""`verify` may have looked at an archive, or at another operator's registry."""

_HEAL = "push it again, or run `zotctl scrub --repair`, with `--from LAYOUT|URL` where an intact copy may be"


def hints(report: Report) -> Iterator[str]:
    """What an operator can do about the findings of a run."""
    if report.job not in _ON_STORES:
        return
    left = [finding for finding in report.findings if finding.action != "repaired"]
    if _any(left, _CONTENT):
        yield f"to heal what is damaged or missing: {_HEAL}"
    if report.job == "gc" and report.summary.get("repositories_left_alone"):
        yield "to have it collected again: heal it, or delete the tags that lead to it"
    if _any(left, _LAYOUT) or any(error["error"] == "LayoutInvalid" for error in report.errors):
        yield (
            "a layout that is not valid: put back its oci-layout or index.json from a copy, or move its directory out "
            "of the store and push again"
        )


def _any(findings: list[Finding], kinds: frozenset[str]) -> bool:
    return any(finding.kind in kinds for finding in findings)
