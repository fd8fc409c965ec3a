"""The answers of `gc --explain` and `gc --history` for people: sentences and a table, with times of the local clock."""

from __future__ import annotations

from typing import Any

from zotctl.cli.report import TextSink, local_text
from zotctl.jobs.report import Report, counted

_TIMES = {
    "unreachable_since_at": "unreachable since {}",
    "noted_after_at": "a run after {} notes that it may go",
    "removed_after_at": "removed from index.json after {}",
    "first_seen_at": "found unreachable by the run of {}",
    "unreachable_noted_after_at": "found unreachable by a run after {}",
    "noted_again_after_at": "noted once more by a run after {}",
    "trashed_at": "in the trash since {}",
    "trashed_after_at": "moved to the trash after {}",
    "purged_after_at": "deleted for good after {}",
    "purged_at": "deleted for good at {}",
}
"""What the fields of an explanation say, in the order in which it happens."""


class Explanations(TextSink):
    """The verdict of each digest, and below it the chain and the times."""

    def item(self, fields: dict[str, Any]) -> None:
        """Print one answer."""
        self._clear()
        name = "@".join(filter(None, (fields.get("repository"), fields.get("digest"))))
        print(f"{name}: {fields['verdict']}: {fields['why']}")
        if fields["verdict"] == "goes":
            for link in fields.get("chain", ())[:-1]:
                print(f"  led to by {link}")
        for going in fields.get("tags_going", ()):
            print(f"  its tag {going['tag']} goes after {local_text(going['removed_after_at'])}: {going['why']}")
        for key, sentence in _TIMES.items():
            if key in fields:
                print(f"  {sentence.format(local_text(fields[key]))}")
        for tag in fields.get("former_tags", ()):
            now = f", which made it {tag['now']}" if tag["now"] else ""
            print(f"  was tagged {tag['tag']} until {local_text(tag['until_at'])}, by {tag['by']}{now}")

    def close(self, report: Report) -> None:
        """Nothing more: the answers are all."""
        self._clear()


class HistoryTable(TextSink):
    """A row for each change, oldest first; digests are whole, to be copied into a command."""

    keeps_items = True

    def item(self, fields: dict[str, Any]) -> None:
        """Print nothing yet: the widths of the columns are known at the end."""

    def close(self, report: Report) -> None:
        """Print the table, and how much it is."""
        self._clear()
        if report.items:
            rows = [("TIME", "NAME", "WHAT", "BY", "FROM", "TO"), *map(_row, report.items)]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        elif not report.errors:
            print(f"the history has {counted(0, 'change')}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    name = ":".join(filter(None, (item["repository"], item["tag"])))
    return local_text(item["at"]), name, item["action"], item["by"], item["before"] or "-", item["after"] or "-"
