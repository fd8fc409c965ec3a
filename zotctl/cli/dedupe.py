"""`zotctl dedupe`: store equal content once, or separately again."""

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
    VerboseOption,
    load,
    run_job,
)
from zotctl.cli.sharing import SharingText

if TYPE_CHECKING:
    from zotctl.config import Config
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
    undo: Annotated[bool, typer.Option("--undo", help="Give each repository its own copy again.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Number of threads that hash; default one per core.")
    ] = None,
    rate: RateOption = None,
    dry_run: DryRunOption = False,
    max_duration: MaxDurationOption = None,
    metrics_file: MetricsFileOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Store equal blobs of all repositories of a root once, whatever tool wrote them, beside any number of servers.

    Both copies are hashed before they become one, so damage never spreads. Files that differ in owner or mode stay as
    they are. --undo first checks that there is room for the copies. Run the servers with dedupe = false (--no-dedupe)
    then, or they share what is pushed next.

    In a bucket, configs and layers move to _blobs/, or back to each repository. The object store copies them, and the
    old copies are deleted when no client can be reading them any more. Empty objects of zot are filled.
    """
    loaded = load(root, config)
    if undo and not quiet:
        _warn_of_servers(loaded)

    def work(run: Run) -> None:
        from zotctl.jobs.dedupe import DedupeOptions
        from zotctl.jobs.dedupe import dedupe as share

        share(run, DedupeOptions(undo=undo, workers=workers, measure=not quiet))

    run_job("dedupe", loaded, work, repos=repo, dry_run=dry_run, max_duration=max_duration, rate=rate, quiet=quiet,
            verbose=verbose, metrics_file=metrics_file, output=output, as_json=as_json, text=SharingText)  # fmt: skip


def _warn_of_servers(loaded: Config) -> None:
    """A warning only: a job cannot know whether a server runs, and the way back to zot starts with dedupe = true."""
    import logging

    roots = {f"storage.roots[{i}]": root for i, root in enumerate(loaded.storage.roots)}
    roots |= {f"storage.routes[{i}].root": route.root for i, route in enumerate(loaded.storage.routes)}
    for path, root in roots.items():
        if root.dedupe:
            origin = loaded.origins.get(f"{path}.dedupe", "the default for directories")
            logging.getLogger("zotctl.jobs").warning(
                f"{root.path}: dedupe is true ({origin}): a server that runs so "
                "stores what is pushed next only once again; write dedupe = false, or start it with --no-dedupe"
            )
