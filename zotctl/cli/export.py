"""`zotctl import-layout --to`: what its command line has of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zotctl.cli.jobs import load
from zotctl.cli.report import TextSink, counted_repositories
from zotctl.cli.sizes import bytes_text
from zotctl.errors import UsageError
from zotctl.jobs.report import Report, counted

if TYPE_CHECKING:
    from zotctl.config import Config, S3Config


class ExportText(TextSink):
    """The last line about an archive."""

    def sentence(self, report: Report) -> str:
        """`Wrote 12 blobs (1.0 GiB) of 2 repositories into an archive of 1.0 GiB in 3.1 s.`"""
        summary = report.summary
        if "repositories" not in summary:
            return f"No archive was written{self._ends(report)}."
        blobs = f"{counted(summary['blobs'], 'blob')} ({bytes_text(summary['blobs_bytes'])})"
        text = f"{blobs} of {counted_repositories(summary['repositories'])}"
        if report.is_dry_run:
            return f"Would write {text}{self._ends(report)} (dry run, nothing was written)."
        size = bytes_text(summary["archive_bytes"])
        return f"Wrote {text} into an archive of {size} in {report.duration_s:.1f} s{self._ends(report)}."


def source_config(config: str | None, source: str) -> tuple[Config, S3Config | None]:
    """A configuration without a store, since the job reads its source only, and how to reach the source if it is in a
    bucket: as the root of this address is reached, or else as [storage.s3] says for all."""
    from zotctl.config import StorageConfig, is_bucket, parse_address

    loaded, s3 = load(None, config, must_exist=False), None
    if is_bucket(source):
        address = parse_address(source)
        roots = loaded.storage.every_root
        known = [root for root in roots if is_bucket(root.path) and parse_address(root.path).overlaps(address)]
        s3 = (known or load([source], config, must_exist=False).storage.roots)[0].s3
    return replace(loaded, storage=StorageConfig(roots=(), read_only=True)), s3


def refuse_beside_to(options: list[str]) -> None:
    """Raise UsageError for options that say how to import, where nothing is."""
    if "--root" in options:
        raise UsageError("--to writes SOURCE into an archive, and no store takes part; leave out --root")
    if "--max-duration" in options:
        raise UsageError("--to writes an archive as a whole, which can't go on later; leave out --max-duration")
    if options:
        raise UsageError(f"--to writes SOURCE as it is; leave out {' and '.join(options)}, and say it at the import")
