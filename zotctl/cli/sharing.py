"""What `dedupe` tells people: a sentence for each repository or blob that it changes, and for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zotctl.cli.report import TextSink, counted_repositories
from zotctl.cli.sizes import bytes_text
from zotctl.jobs.report import Report, counted

_LEFT = {
    "left_unlike": "of another owner or mode",
    "left_moved": "replaced meanwhile",
    "left_full": "with as many links as one file can have",
    "left": "not yet in the pool for long enough",
}
"""Why copies stay as they are."""


class SharingText(TextSink):
    """Names what is shared or separated."""

    def item(self, fields: dict[str, Any]) -> None:
        """A sentence."""
        self._say(_sentence(fields))

    def sentence(self, report: Report) -> str:
        """`Checked 204 blobs in 64 repositories: 12 copies linked to equal content (1.0 MiB freed).`"""
        summary = report.summary
        if "repositories" not in summary:
            return super().sentence(report)
        blobs = f"{counted(summary['blobs'], 'blob')} in " if "blobs" in summary else ""
        done = ", ".join(_parts(summary, "would be " if report.dry_run else "")) or "nothing to change"
        text = f"Checked {blobs}{counted_repositories(summary['repositories'])}: {done}"
        if left := ", ".join(f"{summary[key]} {why}" for key, why in _LEFT.items() if summary.get(key)):
            text += f"; left as they are: {left}"
        text += f"{self._ends(report)}."
        return f"{text} Dry run: nothing was changed." if report.dry_run else text


def _parts(summary: dict[str, Any], would: str) -> Iterator[str]:
    def size(name: str) -> str:
        return bytes_text(summary.get(name, 0))

    if summary.get("linked"):
        yield f"{_copies(summary['linked'])} {would}linked to equal content ({size('saved_bytes')} {would}freed)"
    if summary.get("pooled"):
        bytes_name = "pooled_bytes" if "pooled_bytes" in summary else "saved_bytes"
        of = "" if bytes_name == "pooled_bytes" else f" {would}freed"
        yield f"{counted(summary['pooled'], 'blob')} {would}put into the pool ({size(bytes_name)}{of})"
    if summary.get("dropped"):
        yield f"{_copies(summary['dropped'], 'old ')} {would}deleted ({size('dropped_bytes')})"
    if summary.get("copied"):
        yield f"{counted(summary['copied'], 'blob')} {would}copied into repositories ({size('copied_bytes')})"


def _sentence(fields: dict[str, Any]) -> str:
    action, name = fields["action"], fields["repository"]
    what = f"{name}@{fields.get('digest')} ({bytes_text(fields.get('size_bytes', 0))})"
    if action == "linked":
        freed = bytes_text(fields["saved_bytes"])
        return f"{name}: {_copies(fields['blobs'])} linked to equal content ({freed} freed)"
    if action == "dropped":
        return f"{name}: {_copies(fields['blobs'], 'old ')} deleted ({bytes_text(fields['bytes'])})"
    would = {
        "link": "linked to equal content",
        "pool": "put into the pool",
        "copy": "copied into its repository",
    }
    return f"{what} would be {would[action]}"


def _copies(number: int, old: str = "") -> str:
    return f"{number} {old}{'copy' if number == 1 else 'copies'}"
