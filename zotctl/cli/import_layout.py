"""`zotctl import-layout`: take over layouts and archives that other tools made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from zotctl.cli.export import ExportText, refuse_beside_to, source_config
from zotctl.cli.importing import ImportText
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
    RootOption,
    VerboseOption,
    load,
    run_job,
)
from zotctl.errors import NameInvalid, TagInvalid, UsageError

if TYPE_CHECKING:
    from zotctl.jobs.run import Run

EXAMPLES = """\b
Examples:
  zotctl import-layout ./layout --root /srv/images --repo team/app --tag 1.0
  docker save app:1.0 | zotctl import-layout - --root /srv/images
  # What podman save, skopeo, crane, kaniko, jib, nix write; a store in a tar
  zotctl import-layout k3s-airgap-images-amd64.tar.zst --root /srv/images
  # A whole store of zot or olareg, or any tree of layouts
  zotctl import-layout /var/lib/registry --root /srv/images
  zotctl import-layout /var/lib/registry --root /srv/images --repo m --all
  # An online backup that follows a store; see first what would go
  zotctl import-layout /srv/images --root /backup/images --mirror --dry-run
  # All of registry:2, registry:3 or Harbor, by hard links in one file system
  zotctl import-layout /var/lib/docker-registry --root /srv/images --link
  zotctl import-layout s3://old --root s3://images/registry --tagged-only
  # To a bucket, and out of one: whole layouts, even if it is deduplicated
  zotctl import-layout /srv/images --root s3://images/registry
  zotctl import-layout s3://images/registry --root /srv/copy
  # Into one archive, for skopeo, a shelf, or an import where no network is
  zotctl import-layout /srv/images --to images.tar.zst
  zotctl import-layout /srv/images --to app.tar --only team/app
"""


def import_layout(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A layout, a tree of layouts, or another store, in a directory, in s3://BUCKET/PREFIX or in a tar "
            "(plain, gzip or zstd; - reads standard input), an archive of docker save or podman save, or the directory "
            "or bucket of registry:2, registry:3 or Harbor.",
        ),
    ],
    root: RootOption = None,
    config: ConfigOption = None,
    repo: Annotated[
        str | None, typer.Option(metavar="NAME", help="Target repository, instead of the one that the source names.")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="The tag for a single image, or which one of several images to import."),
    ] = None,
    take_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="With --repo NAME, import everything: all images of one layout or archive into NAME, the layouts of a "
            "tree below NAME/. Without --repo, everything is imported anyway.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Move tags that already exist; with --to, replace the archive.")
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Follow the source: move tags that already exist, and remove tags, manifests and repositories that it "
            "has no more, once all of it is in. With --repo NAME and --all, only below NAME/.",
        ),
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hash, then hard-link instead of copying, within one file system.")
    ] = False,
    move: Annotated[
        bool, typer.Option("--move", help="Remove the files of the source once everything is in the store.")
    ] = False,
    tags: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The tags of a registry that keeps them elsewhere, as Harbor does: lines of REPOSITORY:TAG DIGEST.",
        ),
    ] = None,
    tagged_only: Annotated[
        bool,
        typer.Option(
            "--tagged-only", help="Leave out images that no tag leads to. Signatures of tagged images come along."
        ),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Write SOURCE into an archive instead: all repositories, hashed on the way, or no archive at all. The "
            "name says how it is packed: .tar, .tar.zst or .tar.gz. With --overwrite, a file that is there is "
            "replaced.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="With --to, only these repositories; may be repeated."),
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
    """Import image layouts into a store, beside any number of servers, which serve them at once.

    Everything is hashed on the way. A repository appears complete or not at all, and existing tags are kept without
    --overwrite or --mirror. Importing twice changes nothing; after a kill, run the same command again.
    """
    _check_names(source, repo, tag)
    if to is not None:
        given = {"--root": root, "--repo": repo, "--tag": tag, "--all": take_all, "--mirror": mirror, "--link": link,
                 "--move": move, "--tagged-only": tagged_only, "--max-duration": max_duration}  # fmt: skip
        refuse_beside_to([option for option, value in given.items() if value])
        archive, chosen = to, only or ()
        settings, s3 = source_config(config, source)

        def write(run: Run) -> None:
            from zotctl.jobs.imports.export import ExportOptions, export

            export(run, source, ExportOptions(archive, chosen, overwrite, tags, s3))

        run_job("import-layout", settings, write, dry_run=dry_run, rate=rate, quiet=quiet, verbose=verbose,
                metrics_file=metrics_file, output=output, as_json=as_json, text=ExportText)  # fmt: skip
    if only:
        raise UsageError("--only is for --to; to import one repository of a store, give its directory as the SOURCE")
    loaded = load(root, config, may_be_new=True)

    def work(run: Run) -> None:
        from zotctl.jobs.imports.job import import_layout as take_over
        from zotctl.jobs.imports.plan import ImportOptions

        take_over(run, source, ImportOptions(repo, tag, take_all, overwrite, link, move, tags, mirror, tagged_only))

    run_job("import-layout", loaded, work, dry_run=dry_run, max_duration=max_duration, rate=rate, quiet=quiet,
            verbose=verbose, metrics_file=metrics_file, output=output, as_json=as_json,
            text=partial(ImportText, dry_run=dry_run))  # fmt: skip


def _check_names(source: str, repo: str | None, tag: str | None) -> None:
    """Raises UsageError before anything is opened, since the mistake is on the command line, not in the source."""
    from zotctl.config.address import is_bucket, parse_address
    from zotctl.oci.reference import parse_name, parse_tag

    try:
        if is_bucket(source):
            parse_address(source)
        if repo is not None:
            parse_name(repo)
        if tag is not None:
            parse_tag(tag)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except NameInvalid as error:
        raise UsageError(f"--repo: {error.message}") from None
    except TagInvalid as error:
        raise UsageError(f"--tag: {error.message}") from None
