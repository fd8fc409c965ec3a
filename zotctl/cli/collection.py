"""What `gc` tells people: a sentence for each thing that goes or comes back, and for the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from zotctl.cli.report import TextSink, counted_repositories, local_text
from zotctl.cli.sizes import bytes_text
from zotctl.jobs.report import Report, counted


class CollectionText(TextSink):
    """Names whatever is removed, moved to the trash, deleted for good or restored."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._done: Counter[str] = Counter()
        self._planned = False

    def item(self, fields: dict[str, Any]) -> None:
        """A sentence."""
        self._planned |= bool(fields.get("planned"))
        kind = fields["action"]
        if fields.get("tag"):
            kind = {"drop": "tag", "restore": "tag back"}.get(kind, kind)
        self._done[kind] += 1
        self._say(_sentence(fields))

    def sentence(self, report: Report) -> str:
        """`Collected 64 repositories: 2 tags removed, 5 blobs (1.0 MiB) moved to the trash.`"""
        if not any(name in report.summary for name in ("repositories", "purged")):
            return self._short(report)
        done = list(self._parts(report.summary))
        rehearsed = self._planned or report.dry_run
        would = "would be " if rehearsed else ""
        text = f"Collected {counted_repositories(report.summary.get('repositories', 0))}: "
        text += ", ".join(f"{what} {would}{verb}" for what, verb in done) or "nothing to remove"
        if left := report.summary.get("repositories_left_alone", 0):
            text += f", {counted_repositories(left)} left alone"
        text += f"{self._ends(report)}."
        if rehearsed:
            text += " Dry run: nothing was removed."
        if waiting := report.summary.get("in_trash", 0):
            until = local_text(report.summary["in_trash_until_at"])
            size, verb = bytes_text(report.summary["in_trash_bytes"]), "waits" if waiting == 1 else "wait"
            text += f" {counted(waiting, 'blob')} ({size}) {verb} in the trash until {until}."
        return text

    def _parts(self, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
        def blobs(name: str) -> str:
            return f"{counted(summary[name], 'blob')} ({bytes_text(summary.get(f'{name}_bytes', 0))})"

        if self._done["tag"]:
            yield counted(self._done["tag"], "tag"), "removed"
        if self._done["drop"]:
            yield counted(self._done["drop"], "manifest"), "removed"
        if self._done["trash"]:
            yield blobs("unreachable"), "moved to the trash"
        if self._done["unreachable"]:
            yield blobs("unreachable"), "found unreachable"
        if summary.get("purged"):
            yield blobs("purged"), "deleted for good"
        if summary.get("uploads"):
            yield counted(summary["uploads"], "abandoned upload"), "removed"
        if self._done["purge_import"]:
            yield "what a killed import-layout had staged", "removed"

    def _short(self, report: Report) -> str:
        """Of --restore and --list-trash."""
        back = {"tag": self._done["tag back"], "blob": self._done["restore"]}
        if any(back.values()):
            would = "would be " if report.dry_run else ""
            what = " and ".join(counted(number, name) for name, number in back.items() if number)
            return f"{what} {would}restored{self._ends(report)}."
        if self._done["in_trash"]:
            size = bytes_text(report.summary.get("in_trash_bytes", 0))
            return f"{counted(report.summary.get('in_trash', 0), 'blob')} ({size}) in the trash{self._ends(report)}."
        return f"{'Nothing done' if report.exit_code else 'The trash is empty'}{self._ends(report)}."


def _sentence(fields: dict[str, Any]) -> str:
    action, name, digest, tag = (fields.get(key) for key in ("action", "repository", "digest", "tag"))
    what = f"{name}@{digest}" if name else f"{digest} in the pool"
    size = f" ({bytes_text(fields['size_bytes'])})" if "size_bytes" in fields else ""
    would = "would be " if fields.get("planned") else ""
    if action == "drop" and tag:
        return f"tag {name}:{tag} {would}removed: {fields['reason']} (it led to {digest})"
    if action == "drop":
        return f"{what} {would}removed: {fields['reason']}"
    if action == "trash":
        return f"{what}{size} {would}moved to the trash"
    if action == "purge":
        return f"{what}{size} {would}deleted for good"
    if action == "unreachable":
        when = (
            f"; a run after {local_text(fields['purged_after_at'])} deletes it" if "purged_after_at" in fields else ""
        )
        return f"{what}{size} is unreachable{when}"
    if action == "purge_upload":
        return f"abandoned upload {fields['upload']}{size} removed"
    if action == "purge_import":
        return f"what a killed import-layout had staged{size} removed"
    if action == "restore" and tag:
        before = f" (it led to {fields['before']})" if fields.get("before") else ""
        return f"tag {name}:{tag} {would}restored: it leads to {digest} again{before}"
    if action == "restore":
        return f"{what}{size} {would}restored from the trash"
    if action == "in_trash":
        deleted = ", deleted by a client" if fields["deleted"] else ""
        return f"{name}: {counted(len(fields['digests']), 'blob')}{size} of run {fields['run']}{deleted}: " + " ".join(
            fields["digests"]
        )
    when = f", after {local_text(fields['removed_after_at'])}" if "removed_after_at" in fields else ""
    where = f"{name}:{tag}: " if tag else f"{what}: " if digest else f"{name}: " if name else ""
    return f"{where}{fields.get('reason', '')}{when}"
