"""`zotctl gc`: delete what no manifest reaches."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from zotctl.cli.answers import Explanations, HistoryTable
from zotctl.cli.collection import CollectionText
from zotctl.cli.jobs import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    MaxDurationOption,
    MetricsFileOption,
    Output,
    OutputOption,
    QuietOption,
    RepoOption,
    ReportOption,
    RootOption,
    VerboseOption,
    duration,
    load,
    only_read,
    run_job,
)
from zotctl.errors import UsageError

if TYPE_CHECKING:
    from zotctl.jobs.run import Run


EXAMPLES = """\b
Examples:
  zotctl gc --root /srv/images --dry-run
  zotctl gc --config /etc/zotctl.toml --quiet
  zotctl gc --root /srv/images --explain demo/hello:1.0
  zotctl gc --root /srv/images --history demo/hello:1.0
  zotctl gc --root /srv/images --restore demo/hello:1.0
"""


class Untagged(StrEnum):
    """Which manifests without a tag may be deleted."""

    NONE = "none"
    PUSHED = "pushed"
    ALL = "all"


def gc(
    root: RootOption = None,
    config: ConfigOption = None,
    repo: RepoOption = None,
    delay: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Keep unreachable content in place for this long, then in the trash (on a "
                     "bucket in place) for as long again; 0s: delete it now. Default: the configuration, or else 1h."),
    ] = None,
    untagged: Annotated[
        Untagged | None,
        typer.Option(help="Manifests without a tag to delete where no retention policy decides: none (the default), "
                     "pushed (those that were pushed here), or all."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="DIGEST|NAME@DIGEST|NAME:TAG|NAME", help="Print what keeps it, or why and when it goes, "
                     "or what has become of it, and exit."),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(metavar="NAME:TAG|NAME|NAME@DIGEST|DIGEST|RUN", help="Bring it back, and exit: a tag that was "
                     "moved or removed, or what lies in the trash, with its tags."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Print who did what to tags and manifests, and exit; name one after it.")
    ] = False,
    what: Annotated[
        str | None, typer.Argument(metavar="NAME|NAME:TAG|DIGEST", help="With --history: only what happened to it.")
    ] = None,
    list_trash: Annotated[bool, typer.Option("--list-trash", help="List the trash, and exit.")] = False,
    trust_clock: Annotated[
        bool, typer.Option("--trust-clock", help="Collect though the clock is far from where it should be (exit 15).")
    ] = False,
    dry_run: DryRunOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit 4 if anything would be deleted.")
    ] = False,
    max_duration: MaxDurationOption = None,
    metrics_file: MetricsFileOption = None,
    report: ReportOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Delete what no manifest reaches, beside any number of servers.

    Nothing is deleted at once. Content that was unreachable for the delay moves to the trash, returns when a client
    asks for it, and is deleted after another delay, so that its space is free after twice the delay. If something in a
    repository cannot be read, gc reports it and touches nothing in that repository.

    If the clock is far from where it should be, gc deletes nothing, since everything would expire (exit 15): the clock
    is more than a day ahead of the time that the machine has been running since the last run, or more than 100 days
    after the last run, or differs from the clock of the storage. Correct it. If it is right, give --trust-clock once,
    or wait: after a day gc believes it.

    A bucket has no trash: a run notes what is unreachable, and a run after the delay deletes it, unless a client asked
    for it meanwhile. There, too, space is free after twice the delay; --restore NAME:TAG works until then. If the
    object store accepts deletes whose signature has expired, gc does not run beside servers (exit 3): stop them, and
    set ZOTCTL_SINGLE_WRITER=true.
    """
    wanted = [explain is not None, restore is not None, list_trash, history]
    if sum(wanted) > 1:
        raise UsageError("--explain, --restore, --list-trash and --history exclude each other; give one of them")
    if report is not None and any(wanted):
        raise UsageError("--report shows a collection; leave it out with --explain, --restore, --list-trash, --history")
    if what is not None and not history:
        raise UsageError(f"{what}: gc takes an argument only with --history; name repositories with --repo")
    loaded = load(root, config)
    chosen = duration("--delay", delay)

    def work(run: Run) -> None:
        from zotctl.jobs import explain as explaining
        from zotctl.jobs import gc as collecting
        from zotctl.jobs import past
        from zotctl.jobs import restore as restoring

        which = untagged.value if untagged else None
        settings = collecting.gc_settings(delay=chosen, untagged=which, trust_clock=trust_clock)
        if explain is not None:
            explaining.explain(run, explain, settings)
        elif restore is not None:
            restoring.restore(run, restore, settings)
        elif list_trash:
            restoring.list_trash(run)
        elif history:
            past.history(run, what)
        else:
            collecting.gc(run, settings)
            if dry_run and exit_code and run.report.items:
                run.report.codes.append(4)

    if explain is not None or list_trash or history:
        loaded = only_read(loaded)
    text = Explanations if explain is not None else HistoryTable if history else CollectionText
    run_job("gc", loaded, work, repos=repo, dry_run=dry_run, max_duration=max_duration, quiet=quiet, verbose=verbose,
            metrics_file=None if any(wanted) else metrics_file, report_file=report, noted=not (any(wanted) or repo),
            output=output, as_json=as_json, text=text)  # fmt: skip
