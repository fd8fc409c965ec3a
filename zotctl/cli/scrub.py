"""`zotctl scrub`: read everything again, and act on the findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zotctl.cli.checking import CheckText
from zotctl.cli.jobs import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    MetricsFileOption,
    Output,
    OutputOption,
    QuietOption,
    RateOption,
    RepoOption,
    ReportOption,
    RootOption,
    StopInBlobOption,
    VerboseOption,
    load,
    run_job,
)

if TYPE_CHECKING:
    from zotctl.jobs.run import Run

EXAMPLES = """\b
Examples:
  zotctl scrub --root /srv/images
  # An hour each night, continuing where the last night stopped
  zotctl scrub --config /etc/zotctl.toml --max-duration 1h --rate 99MiB -q
  # Heal what is damaged from another registry
  zotctl scrub --root /srv/images --repair --from https://mirror.example
  # ... or from a backup that tar has made, or images of docker save
  zotctl scrub --root /srv/images --repair --from /backup/images.tar.zst
"""


def scrub(
    root: RootOption = None,
    config: ConfigOption = None,
    repo: RepoOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair damaged content from an intact copy in any root, or from --from.")
    ] = False,
    repair_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="LAYOUT|ARCHIVE|URL", help="Source of intact copies: a layout, a tar, or a registry."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Check only sizes and references; read no content.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Number of threads that hash; default one per core.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start from the beginning, not where a run with --max-duration stopped.")
    ] = False,
    rate: RateOption = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Read at most N blobs per second; on a bucket each is a request."),
    ] = None,
    dry_run: DryRunOption = False,
    max_duration: StopInBlobOption = None,
    metrics_file: MetricsFileOption = None,
    report: ReportOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Hash every blob again, beside any number of servers.

    Servers answer 404 for damaged content from then on, so that clients push it again, which heals it in every
    repository. scrub also finds missing and short blobs, unreadable manifests, and leftovers of crashes. It exits with
    4 if anything is damaged.
    """
    loaded = load(root, config)

    def work(run: Run) -> None:
        from zotctl.jobs.check.scrub import ScrubOptions
        from zotctl.jobs.check.scrub import scrub as check

        check(
            run,
            ScrubOptions(
                workers=workers,
                repair=repair or repair_from is not None,
                repair_from=repair_from,
                resume=True,
                restart=restart,
                quick=quick,
                measure=not quiet,
            ),
        )

    run_job("scrub", loaded, work, repos=repo, dry_run=dry_run, max_duration=max_duration, rate=rate,
            requests=requests, quiet=quiet, verbose=verbose, metrics_file=metrics_file, report_file=report,
            output=output, as_json=as_json,
            text=CheckText)  # fmt: skip
