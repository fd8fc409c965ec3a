"""`zotctl dedupe`: store equal content once, or apart again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zotctl.cli.jobs import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    MaxDurationOption,
    MetricsFileOption,
    Output,
    OutputOption,
    QuietOption,
    RateOption,
    RepoOption,
    RootOption,
    load,
    run_job,
)

if TYPE_CHECKING:
    from zotctl.jobs.run import Run

EXAMPLES = """\b
Examples:
  zotctl dedupe --root /srv/images --dry-run
  zotctl dedupe --root /srv/images
  zotctl dedupe --root /srv/images --undo --repo 'team/**'
  # A bucket that zot has deduplicated becomes one of whole layouts
  zotctl dedupe --root s3://images/registry --undo
"""


def dedupe(
    root: RootOption = None,
    config: ConfigOption = None,
    repo: RepoOption = None,
    undo: Annotated[bool, typer.Option("--undo", help="Give each repository a copy of its own again.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Threads that hash; default one a core.")
    ] = None,
    rate: RateOption = None,
    dry_run: DryRunOption = False,
    max_duration: MaxDurationOption = None,
    metrics_file: MetricsFileOption = None,
    quiet: QuietOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Store equal blobs of all repositories of a root once, whoever wrote them, beside any number of servers.

    Both sides are hashed before they become one, so damage never spreads. Files that differ in owner or mode are
    left as they are. --undo checks first that there is room for the copies.

    In a bucket, configs and layers go into _blobs/, or back into each repository, by copies on the server's side; the
    old ones go when nobody can be reading them any more. The empty objects that zot leaves there are filled.
    """
    loaded = load(root, config)

    def work(run: Run) -> None:
        from zotctl.jobs.dedupe import DedupeOptions
        from zotctl.jobs.dedupe import dedupe as share

        share(run, DedupeOptions(undo=undo, workers=workers))

    run_job("dedupe", loaded, work, repos=repo, dry_run=dry_run, max_duration=max_duration, rate=rate, quiet=quiet,
            metrics_file=metrics_file, output=output, as_json=as_json)  # fmt: skip
