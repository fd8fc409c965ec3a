"""`zotctl gc`: collect what no manifest reaches."""

from __future__ import annotations

from enum import StrEnum
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
    RepoOption,
    RootOption,
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
  zotctl gc --root /srv/images --restore demo/hello@sha256:...
"""


class Untagged(StrEnum):
    """Which manifests without a tag may go."""

    PUSHED = "pushed"
    ALL = "all"
    NONE = "none"


def gc(
    root: RootOption = None,
    config: ConfigOption = None,
    repo: RepoOption = None,
    delay: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Keep what nothing reaches for this long, then in the trash (on a bucket "
                     "where it is) for as long again; 0s: free it now. Default 1h, or what the configuration says."),
    ] = None,
    untagged: Annotated[
        Untagged | None,
        typer.Option(help="Manifests without a tag that may go: those pushed here (the default), all, none."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(metavar="DIGEST|NAME:TAG|NAME", help="Say what keeps it, or when it goes, and end."),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(metavar="RUN|DIGEST|NAME@DIGEST", help="Bring it back out of the trash, and end."),
    ] = None,
    list_trash: Annotated[bool, typer.Option("--list-trash", help="Show what lies in the trash, and end.")] = False,
    trust_clock: Annotated[
        bool, typer.Option("--trust-clock", help="Collect though the clock is far from where it should be (exit 15).")
    ] = False,
    dry_run: DryRunOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit 4 if anything would go.")
    ] = False,
    max_duration: MaxDurationOption = None,
    metrics_file: MetricsFileOption = None,
    quiet: QuietOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Collect what no manifest reaches, beside any number of servers.

    Nothing is deleted at once: what is unreachable for the delay goes into the trash, comes back by itself when
    somebody asks for it, and is freed when it has lain there for the delay. Space is free after twice the delay.
    A repository in which something can't be read is reported, and nothing in it is touched.

    By a clock that is far from where it should be nothing goes, for everything would (exit 15): more than a day beyond
    the time for which the machine has been running since the last run, or more than 100 days after it, or not that of
    the storage. Put it right; if it is right, give --trust-clock once, or wait: after a day it is believed.

    On a bucket there is no trash: what a run finds unreachable is noted, and deleted by a run after the delay, unless
    somebody asked for it since. Space is free after twice the delay there, too; --restore has nothing to bring back.
    An object store that carries out deletes which were signed too long ago is none to collect on beside servers (exit
    3): stop them, and say ZOTCTL_SINGLE_WRITER=true.
    """
    wanted = [explain is not None, restore is not None, list_trash]
    if sum(wanted) > 1:
        raise UsageError("--explain, --restore and --list-trash are three things; ask for one")
    loaded = load(root, config)
    chosen = duration("--delay", delay)

    def work(run: Run) -> None:
        from zotctl.jobs import explain as explaining
        from zotctl.jobs import gc as collecting
        from zotctl.jobs.local import restore as restoring
        from zotctl.jobs.settings import gc_settings

        which = untagged.value if untagged else None
        settings = gc_settings(delay=chosen, untagged=which, trust_clock=trust_clock)
        if explain is not None:
            explaining.explain(run, explain, settings)
        elif restore is not None:
            restoring.restore(run, restore)
        elif list_trash:
            restoring.list_trash(run)
        else:
            collecting.gc(run, settings)
            if dry_run and exit_code and run.report.items:
                run.report.codes.append(4)

    if explain is not None or list_trash:
        loaded = only_read(loaded)
    run_job("gc", loaded, work, repos=repo, dry_run=dry_run, max_duration=max_duration, quiet=quiet,
            metrics_file=None if any(wanted) else metrics_file, output=output, as_json=as_json)  # fmt: skip
