"""What `scrub` and `verify` tell people at the end: one sentence about what was looked at and found."""

from __future__ import annotations

from typing import Any

from zotctl.cli.report import TextSink, counted_repositories
from zotctl.cli.sizes import bytes_text
from zotctl.jobs.finding import DAMAGE_KINDS
from zotctl.jobs.report import Report, counted


class CheckText(TextSink):
    """A check's last line, and notes about blobs."""

    def item(self, fields: dict[str, Any]) -> None:
        """`team/app@sha256:...: stopped in it at --max-duration; the next run begins with it`"""
        if fields["action"] == "note":
            self._say(f"{fields['repository']}@{fields['digest']}: {fields['reason']}")
        else:
            super().item(fields)

    def sentence(self, report: Report) -> str:
        """`Checked 204 blobs (2.4 GiB) in 64 repositories: no damage.`"""
        summary = report.summary
        if not {"repositories", "hashed_bytes", "read_bytes"} & summary.keys():
            return super().sentence(report)
        blobs = summary.get("checked_blobs", summary.get("blobs", 0))
        size = summary.get("checked_bytes", summary.get("hashed_bytes", 0))
        read = f" ({bytes_text(size)})" if size else ""
        damaged = any(finding.kind in DAMAGE_KINDS for finding in report.findings)
        verdict = "damaged" if damaged else "no damage found" if report.exit_code else "no damage"
        number = summary.get("repositories", 0)
        # A run that was stopped may have come to the end of none.
        where = f" in {counted_repositories(number)}" if number or not report.exit_code else ""
        text = f"Checked {counted(blobs, 'blob')}{read}{where}: {verdict}"
        if repaired := summary.get("repaired"):
            text += f", {repaired} repaired"
        if skipped := summary.get("skipped_blobs"):
            text += f", {counted(skipped, 'blob')} checked before"
        if skipped := summary.get("skipped_repositories"):
            text += f", {counted_repositories(skipped)} checked before"
        return f"{text}{self._ends(report)}."
