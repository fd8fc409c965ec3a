"""What `import-layout` tells people: a sentence for each image, and for the whole run."""

from __future__ import annotations

from typing import Any

from zotctl.cli.report import TextSink, counted_repositories
from zotctl.cli.sizes import bytes_text
from zotctl.jobs.report import Report, counted


class ImportText(TextSink):
    """Names each image that came, or did not."""

    def __init__(self, quiet: bool, *, dry_run: bool) -> None:
        super().__init__(quiet)
        self._repositories: set[str] = set()
        self._dry_run = dry_run

    def item(self, fields: dict[str, Any]) -> None:
        """A sentence."""
        if fields["action"] == "import":
            self._repositories.add(fields["repository"])
        if (said := _sentence(fields, "would be " if self._dry_run else "")) is None:
            super().item(fields)
        else:
            self._say(said)

    def sentence(self, report: Report) -> str:
        """`Imported 5 images into 3 repositories (204 blobs, 2.4 GiB copied), 2 images are there already.`"""
        summary = report.summary
        if "repositories" not in summary and not report.findings:
            return super().sentence(report)
        text = "Would import" if report.dry_run else "Imported"
        number = summary.get("imported", 0)
        into = f" into {counted_repositories(len(self._repositories))}" if number else ""
        text += f" {counted(number, 'image') if number else 'nothing'}{into}"
        moved = [
            f"{bytes_text(summary[f'{how}_bytes'])} {how}"
            for how in ("copied", "linked")
            if summary.get(f"{how}_bytes")
        ]
        if moved:
            text += f" ({', '.join([counted(summary.get('blobs', 0), 'blob'), *moved])})"
        if unchanged := summary.get("unchanged"):
            text += f", {counted(unchanged, 'image')} {'is' if unchanged == 1 else 'are'} there already"
        if kept := summary.get("tags_kept"):
            text += f", {counted(kept, 'tag')} kept as {'it was' if kept == 1 else 'they were'}"
        text += f"{self._removed(summary, 'would be ' if report.dry_run else '')}{self._ends(report)}."
        rest = " or removed" if summary.get("dropped") else ""
        return f"{text} Dry run: nothing was imported{rest}." if report.dry_run else text

    @staticmethod
    def _removed(summary: dict[str, Any], would: str) -> str:
        """What a mirror has removed: `, 3 tags and manifests removed (1 repository as a whole)`."""
        text = ""
        if rows := summary.get("dropped"):
            whole = summary.get("repositories_removed")
            text = f", {rows} {'tag or manifest' if rows == 1 else 'tags and manifests'} {would}removed"
            text += f" ({counted_repositories(whole)} as a whole)" if whole else ""
        if kept := summary.get("repositories_kept"):
            text += f", nothing removed from {counted_repositories(kept)}"
        return text


def _sentence(fields: dict[str, Any], would: str) -> str | None:
    action, name, tag, digest = (fields.get(key) for key in ("action", "repository", "tag", "digest"))
    what = f"{name}:{tag}" if tag else f"{name}@{digest}" if digest else f"{name or fields.get('source')}"
    source = f" from {fields['source']}" if fields.get("source") else ""
    if action == "import":
        of = f" ({digest}, {bytes_text(fields['size_bytes'])})" if tag else f" ({bytes_text(fields['size_bytes'])})"
        return f"{what} {would}imported{source}{of}"
    if action == "unchanged":
        return f"{what} is there already: {digest}" if tag else f"{what} is there already"
    if action == "drop":
        return f"{what} {would}removed: {fields['reason']}" + (f" ({digest})" if tag else "")
    if action == "keep" and "source_digest" not in fields:
        return f"{what} left as it is: {fields['reason']}"
    if action == "keep":
        return f"{what} kept: it leads to {digest}, in the source to {fields['source_digest']}; --overwrite moves it"
    if action == "remove":
        return f"{fields['source']} removed: {counted(fields['blobs'], 'blob')} moved"
    if action == "stay":
        return f"{fields['source']} left in place: {fields['reason'].removesuffix(', so it is left in place')}"
    return f"{what}: {fields['reason']}" if action == "note" else None
