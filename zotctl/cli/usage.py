"""What `verify --usage` prints for people: a line for each repository and tag, then what the disk holds."""

from __future__ import annotations

from typing import Any

from zotctl.cli.report import TextSink, counted_repositories
from zotctl.cli.sizes import bytes_text
from zotctl.jobs.check.usage import PLACES
from zotctl.jobs.report import Report, counted

_COLUMNS = ("SIZE", "OWN", "SHARED", "FREED")


class UsageSink(TextSink):
    """Prints sizes as a table whose last column is a name, so that `sort` and `grep` do what is expected."""

    def start(self, fields: dict[str, Any]) -> None:
        """Nothing is printed before there are sizes."""
        self._headed = False

    def item(self, fields: dict[str, Any]) -> None:
        """A line of the table, or of what the disk holds."""
        self._clear()
        what = fields["what"]
        if what == "disk":
            saved = fields["saved_bytes"]
            more = f"; stored once, which saves {bytes_text(saved)}" if saved else ""
            print(f"{bytes_text(fields['size_bytes']):>10}  {fields['root']} in all{more}\n")
            self._headed = False
        elif what == "place":
            if self._headed is not None:
                print(f"\n{'ON DISK':>10}")
                self._headed = None
            print(f"{bytes_text(fields['size_bytes']):>10}  {PLACES.get(fields['place'], fields['place'])}")
        else:
            if not self._headed:
                print(*(f"{column:>10}" for column in _COLUMNS), " REPOSITORY:TAG")
                self._headed = True
            sizes = (bytes_text(fields[f"{column.lower()}_bytes"]) for column in _COLUMNS)
            print(*(f"{size:>10}" for size in sizes), f" {_name(fields)}")

    def sentence(self, report: Report) -> str:
        """`Measured 64 repositories with 204 tags: 2.4 GiB on the disk.`"""
        done, size = report.summary, bytes_text(report.summary.get("disk_bytes", 0))
        where = f"{counted_repositories(done.get('repositories', 0))} with {counted(done.get('tags', 0), 'tag')}"
        return f"Measured {where}: {size} on the disk{self._ends(report)}."

    _headed: bool | None = False


def _name(fields: dict[str, Any]) -> str:
    name = str(fields["repository"])
    if fields["what"] == "tag":
        return f"{name}:{fields['tag']}"
    if fields["what"] == "untagged":
        return f"{name} (untagged: {len(fields['digests'])})"
    left = fields["unreachable_bytes"]
    return f"{name} (unreachable: {bytes_text(left)})" if left else name
