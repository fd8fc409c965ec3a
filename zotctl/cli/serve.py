"""`zotctl serve`: the registry."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zotctl import __version__
from zotctl.cli.report import JsonOption, Output, OutputOption, print_report, print_table
from zotctl.errors import NameInvalid, NoSuchStore, UsageError
from zotctl.jobs.report import Report

if TYPE_CHECKING:
    from zotctl.config import Config

EXAMPLES = """\b
Examples:
  # ./registry on 127.0.0.1:5000
  zotctl serve
  # Two directories as one registry
  zotctl serve --root /srv/images --root /mnt/more
  # One image layout, as repository app, read-only
  zotctl serve ./build/layout --as app
  # What import-layout --to wrote, read-only; nothing is unpacked
  zotctl serve images.tar
  # A bucket; its endpoint and credentials come from AWS_ENDPOINT_URL_S3,
  # AWS_PROFILE, ..., as for every AWS tool
  zotctl serve s3://images/registry
  # The effective configuration of a file of zot
  zotctl serve --show-config config.json
"""

Options = dict[str, object]
"""Values by the path of their key; None: not given."""


def serve(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG | DIR | TAR | BUCKET]",
            help="A configuration file (zotctl's TOML, or zot's JSON, YAML or TOML), a directory of repositories, "
            "a bucket (s3://BUCKET/PREFIX), or one image layout or a tar of layouts, which is served read-only.",
        ),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="A directory of repositories, created if it does not exist, or s3://BUCKET/PREFIX. Repeat it for a "
            "store of several roots.",
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address to listen on; default 127.0.0.1:5000.")
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="The configuration file.")] = None,
    commit: Annotated[
        bool | None, typer.Option("--commit/--no-commit", help="Flush to disk before answering a push.")
    ] = None,
    dedupe: Annotated[
        bool | None,
        typer.Option(
            "--dedupe/--no-dedupe",
            help="Store equal blobs of several repositories once; by default in directories only.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of worker processes; default one per core, at most 4.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing, and refuse every push and delete.")
    ] = False,
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Name of the repository, for one image layout.")
    ] = None,
    no_delete: Annotated[bool, typer.Option("--no-delete", help="Refuse deletes by clients.")] = False,
    compat: Annotated[
        list[str] | None,
        typer.Option(metavar="docker2s2", help="Accept Docker's manifests, and keep them as they are."),
    ] = None,
    max_manifest_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Largest manifest that is accepted; default 4MiB.")
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long requests may take to finish after SIGTERM; default 30s."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Lowest level that is logged: debug, info, warning or error; default info."),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="json or text; default text on a terminal, otherwise json.")
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Serve metrics at /metrics, in the text format of Prometheus.")
    ] = False,
    ignore_sync: Annotated[
        bool, typer.Option("--ignore-sync", help="With zot's file: ignore sync, and serve only what is already here.")
    ] = False,
    show_config: Annotated[
        bool,
        typer.Option("--show-config", help="Print the effective configuration and where each value was set, and exit."),
    ] = False,
    output: OutputOption = Output.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Serve image layouts in directories and buckets as an OCI registry.

    Without arguments it serves ./registry on 127.0.0.1:5000. Options override the environment (ZOTCTL_...), which
    overrides the configuration file, which overrides the defaults.
    """
    options: Options = {
        **_listen(listen),
        "storage.roots": root or None,
        "storage.commit": commit,
        "storage.dedupe": dedupe,
        "storage.read_only": read_only or None,
        "http.workers": workers,
        "http.delete": False if no_delete else None,
        "http.compat": compat or None,
        "http.max_manifest_size": max_manifest_size,
        "http.drain": drain,
        "metrics.enabled": metrics or None,
        "log.level": log_level,
        "log.format": log_format,
    }
    loaded = _load(target, config, as_name, options, waived=["extensions.sync"] if ignore_sync else [])
    if show_config:
        show(loaded, Output.JSON if as_json else output)
    else:
        raise typer.Exit(_serve(loaded))


def _load(target: str | None, config: str | None, as_name: str | None, options: Options, waived: list[str]) -> Config:
    from zotctl.config import is_bucket, load_config

    if target is not None and os.path.isdir(target):
        options.update(_directory(target, as_name, options))
    elif target is not None and _is_archive(target):
        options.update(_archive(target, as_name, options))
    elif target is not None and is_bucket(target) and as_name is None:
        options["storage.roots"] = _with_first(target, options)
    elif as_name is not None:
        raise UsageError("--as names the repository of one image layout; give its directory, or a tar of it")
    elif target is not None and config is not None:
        raise UsageError(f"two configurations, {target} and {config}; give one")
    elif target is not None and not os.path.exists(target):
        raise NoSuchStore(f"{target}: no such file or directory; --root {target} would make the directory")
    else:
        config = config or target
    return load_config(config, options=options, environ=os.environ, waived=waived)


def _serve(config: Config) -> int:
    import logging

    from zotctl import logs
    from zotctl.http.supervisor import run

    logs.setup(config.log.level, config.log.output, config.log.format, config.log.audit)
    for warning in config.warnings:
        logging.getLogger("zotctl.config").warning(warning)
    return run(config)


def _listen(text: str | None) -> Options:
    if text is None:
        return {}
    from zotctl.config.schema import parse_listen

    try:
        address, port = parse_listen(text)
    except ValueError as error:
        raise UsageError(f"--listen: {error}") from None
    return {"http.address": address, "http.port": port}


def _directory(path: str, as_name: str | None, options: Options) -> Options:
    """What a directory as the argument means: one layout, or the first root."""
    roots: Any = options["storage.roots"]
    if not os.path.isfile(os.path.join(path, "oci-layout")):
        if as_name is not None:
            raise UsageError(f"--as names the repository of one image layout, and {path} has no oci-layout")
        return {"storage.roots": _with_first(path, options)}
    if roots:
        raise UsageError(f"{path} is an image layout and is served alone; leave --root out, or give its parent")
    return {"storage.single_layout.path": path, "storage.single_layout.name": layout_name(path, as_name)}


def _is_archive(target: str) -> bool:
    from zotctl.storage.opening import is_tar

    return os.path.isfile(target) and is_tar(target)


def _archive(path: str, as_name: str | None, options: Options) -> Options:
    """The same for an archive."""
    from zotctl.storage.opening import name_in_archive

    said = name_in_archive(path)
    if said is None and as_name is not None:
        raise UsageError(f"--as names the repository of one image layout, and {path} holds a tree of them")
    if said is None:
        return {"storage.roots": _with_first(path, options)}
    if options["storage.roots"]:
        raise UsageError(f"{path} is an image layout and is served alone; leave --root out")
    name = as_name or said or None
    return {
        "storage.single_layout.path": path,
        "storage.single_layout.name": layout_name(path.removesuffix(".tar"), name),
    }


def _with_first(root: str, options: Options) -> list[str]:
    others: Any = options["storage.roots"]
    return [root, *(others or ())]


def layout_name(path: str, as_name: str | None) -> str:
    """The repository's name for the layout at `path`: `as_name`, else made of the directory's name.

    Raises UsageError.
    """
    from zotctl.oci.reference import parse_name

    try:
        return parse_name(_normalised(os.path.basename(os.path.realpath(path))) if as_name is None else as_name)
    except NameInvalid as error:
        raise UsageError(f"{error.message}; name the repository of {path} with --as NAME") from None


def _normalised(name: str) -> str:
    """`My Image_1.0` becomes `my-image_1.0`."""

    def separator(found: re.Match[str]) -> str:
        return found[0] if found[0] in (".", "_", "__") else "-"

    return re.sub("[^a-z0-9]+", separator, name.lower()).strip("._-")


def show(config: Config, output: Output) -> None:
    """Print every effective key, and where it was set."""
    from zotctl.config import show_config

    for warning in config.warnings:
        print(f"zotctl: warning: {warning}", file=sys.stderr)
    values = [{"key": key, "value": value, "origin": origin} for key, value, origin in show_config(config)]
    if output is not Output.TEXT:
        print_report(Report("config", __version__, items=values), output)
        return
    rows = [(item["key"], _value(item["value"]), item["origin"]) for item in values]
    if sys.stdout.isatty():
        print_table(("KEY", "VALUE", "FROM"), rows)
    else:
        for key, value, origin in rows:
            print(f"{key} = {value}  # {origin}")


def _value(value: object) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)
