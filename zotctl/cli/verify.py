"""`zotctl verify`: check a store, a layout, an archive or a registry. Nothing is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from zotctl.cli.checking import CheckText
from zotctl.cli.config_check import check_config
from zotctl.cli.jobs import (
    ConfigOption,
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
    state_directory,
)
from zotctl.cli.report import TextSink
from zotctl.errors import NoSuchStore, UsageError

if TYPE_CHECKING:
    from zotctl.config import Config
    from zotctl.jobs.run import Run

EXAMPLES = """\b
Examples:
  zotctl verify --root /srv/images --deep
  zotctl verify ./build/layout
  zotctl verify images.tar.gz
  zotctl verify --root /srv/images --usage --repo 'team/**'
  zotctl verify --root /srv/images --usage --report usage.html
  docker save app:1.0 | zotctl verify -
  zotctl verify http://127.0.0.1:5000/team/app
  # A configuration: its mistakes and warnings, even if its store is not there
  zotctl verify --config /etc/zotctl.toml
  zotctl verify --config /etc/zotctl.toml --show-origin
  # The store of that configuration
  zotctl verify --config /etc/zotctl.toml --deep
  zotctl verify --root /mnt/share --probe
"""


def verify(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR | BUCKET | ARCHIVE | URL]",
            help="A layout, a directory or bucket (s3://BUCKET/PREFIX) of layouts, a tar of them or of docker save, or "
            "a registry: http(s)://HOST[:PORT][/NAME[:TAG]].",
        ),
    ] = None,
    root: RootOption = None,
    config: ConfigOption = None,
    show_origin: Annotated[
        bool,
        typer.Option("--show-origin", help="Print the effective configuration and where each value was set, and exit."),
    ] = False,
    repo: RepoOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every blob; by default only sizes are compared.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Test what the storage can do, leave nothing there, and exit.")
    ] = False,
    usage: Annotated[
        bool,
        typer.Option("--usage", help="Print what takes the space, by repository and tag, and exit. Own: no other "
                     "repository, or for a tag nothing else in its repository, needs it. Freed: what the disk gains if "
                     "it goes."),
    ] = False,
    rate: RateOption = None,
    max_duration: StopInBlobOption = None,
    metrics_file: MetricsFileOption = None,
    report: ReportOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Check a store, a layout, an archive or a registry by the specifications, and write nothing.

    Each finding names the section of the specification that it breaks. verify exits with 4 if anything is damaged, and
    with 5 if something could not be checked.

    With --config FILE and nothing else it checks that file alone, whether or not its store is there, and reports each
    mistake (exit 3) and each warning. With --deep, --repo or another option of a check it checks the store, too.

    With --deep and --max-duration it notes in $XDG_STATE_HOME/zotctl (~/.local/state/zotctl) how far it came, and goes
    on from there the next time, with the same --repo. What it has read is read again when it has come to the end.
    """
    if target is not None and (root or config):
        raise UsageError(f"{target} is checked alone; leave out --root and --config")
    if report is not None and (probe or show_origin):
        raise UsageError("--report shows a check or what takes the space; leave it out with --probe and --show-origin")
    if usage and (deep or probe):
        raise UsageError("--usage reads no blob and tries nothing; leave out --deep and --probe")
    about_the_store = (root, repo, deep, probe, usage, rate, max_duration, metrics_file, report)
    if config is not None and not show_origin and not any(about_the_store):
        check_config(config, quiet=quiet, output=Output.JSON if as_json else output)
        return
    elsewhere = target is not None and not (os.path.isdir(target) or _is_bucket(target))
    if usage and elsewhere:
        raise UsageError(
            f"{target}: --usage measures what lies on a disk or in a bucket; import-layout brings it there"
        )
    loaded = load(_roots(target, root), config, must_exist=not (show_origin or elsewhere), may_be_empty=probe,
                  any_content=True, as_server=True)  # fmt: skip
    if show_origin:
        from zotctl.cli.serve import show

        show(loaded, Output.JSON if as_json else output)
        return

    def work(run: Run) -> None:
        from zotctl.jobs.check.verify import VerifyOptions
        from zotctl.jobs.check.verify import probe as try_out
        from zotctl.jobs.check.verify import verify as check

        if usage:
            from zotctl.jobs.check.usage import usage as measure

            measure(run)
        elif probe:
            try_out(run)
        elif target is not None and _is_registry(target):
            from zotctl.jobs.check.verify_url import verify_url

            verify_url(run, target, VerifyOptions(deep))
        elif target is not None and _is_archive(target):
            from zotctl.jobs.check.verify import verify_archive

            verify_archive(run, target)
        else:
            place = state_directory() if max_duration is not None and not elsewhere else None
            check(run, VerifyOptions(deep, measure=not quiet, place=place))

    sink: type[TextSink] = TextSink if probe else CheckText
    if usage:
        from zotctl.cli.usage import UsageSink

        sink = UsageSink
    if probe:
        loaded = _new_buckets_too(loaded)
    run_job("verify", _read_only(loaded, target), work, repos=repo, dry_run=True, max_duration=max_duration,
            rate=rate, quiet=quiet, verbose=verbose, metrics_file=None if probe or usage else metrics_file,
            report_file=report, output=output, as_json=as_json, text=sink)  # fmt: skip


def _roots(target: str | None, root: list[str] | None) -> list[str] | None:
    if target is None or _is_registry(target):
        return root
    if _is_bucket(target):
        return [target]
    if target != "-" and not os.path.exists(target):
        raise NoSuchStore(f"{target}: no such file or directory")
    return [target] if os.path.isdir(target) else root


def _is_archive(target: str) -> bool:
    """A file, a named pipe, or "-" for standard input."""
    return target == "-" or (os.path.exists(target) and not os.path.isdir(target))


def _is_registry(target: str) -> bool:
    return "://" in target and not _is_bucket(target)


def _is_bucket(target: str) -> bool:
    from zotctl.config import is_bucket

    return is_bucket(target)


def _new_buckets_too(config: Config) -> Config:
    """A bucket in which nothing is yet can be tried out, too."""
    from dataclasses import replace

    from zotctl.config import is_bucket

    roots = [replace(root, create=True) if is_bucket(root.path) else root for root in config.storage.roots]
    return replace(config, storage=replace(config.storage, roots=tuple(roots)))


def _read_only(config: Config, target: str | None) -> Config:
    """The store as it is; of a single layout only that, and of an archive or a URL none at all."""
    from dataclasses import replace

    from zotctl.cli.serve import layout_name
    from zotctl.config import LayoutConfig, StorageConfig

    is_tree = os.path.isdir(target or "") and not os.path.isfile(os.path.join(target or "", "oci-layout"))
    if target is None or _is_bucket(target) or is_tree:
        return replace(config, storage=replace(config.storage, read_only=True))
    if os.path.isdir(target):
        layout = LayoutConfig(os.path.abspath(target), layout_name(target, None))
        return replace(config, storage=StorageConfig(roots=(), single_layout=layout))
    return replace(config, storage=StorageConfig(roots=()))
