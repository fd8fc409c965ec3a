"""What the jobs have in common on the command line: options, the store, the report, the exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from zotctl import __version__
from zotctl.cli.report import JsonOption, Output, OutputOption, RememberingSink, TextSink, print_report, sink_for
from zotctl.errors import NoSuchStore, StorageError, UsageError, ZotctlError
from zotctl.jobs.report import Report, error_fields

if TYPE_CHECKING:
    from zotctl.config import Config
    from zotctl.jobs.run import Run
    from zotctl.storage.root import Root

T = TypeVar("T")

_READ_ONLY_DRY_RUNS = ("gc", "scrub", "dedupe")
"""Jobs whose dry runs only read, and make nothing where no store is yet."""

_AUDITED = ("gc", "import-layout")
"""Jobs that move or remove tags, or delete content."""

RootOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="DIR",
        # Not by typer, which would split the variable at spaces: the configuration reads it (config/layers.py).
        help="A root: a directory, or s3://BUCKET/PREFIX; may be repeated. Default: the roots of ZOTCTL_ROOT.",
    ),
]
ConfigOption = Annotated[
    str | None,
    # Not the variable's by typer: `verify` checks a file that is named here, and the configuration reads the other.
    typer.Option(
        "--config", metavar="FILE", help="The configuration file of the server. Default: that of ZOTCTL_CONFIG."
    ),
]
RepoOption = Annotated[
    list[str] | None, typer.Option("--repo", metavar="GLOB", help="Only these repositories; may be repeated.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")]
MaxDurationOption = Annotated[
    str | None,
    typer.Option(
        "--max-duration",
        metavar="TIME",
        help="Stop after this time, once the current blob is finished (exit 16). The next run continues.",
    ),
]
StopInBlobOption = Annotated[
    str | None,
    typer.Option(
        "--max-duration",
        metavar="TIME",
        help="Stop after this time (exit 16), also within a blob; the next run continues. It begins with that blob, "
        "and reads it to its end even if that takes longer.",
    ),
]
RateOption = Annotated[
    str | None, typer.Option("--rate", metavar="SIZE", help="Bytes to read per second at most, such as 50MiB.")
]


def _require_directory(option: str, path: str | None) -> None:
    from zotctl.jobs.files import require_directory

    try:
        if path is not None:
            require_directory(path)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}") from None


def _metrics_file(path: str | None) -> str | None:
    """Told before the job begins, not when it is done."""
    _require_directory("--metrics-file", path)
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--metrics-file: {path} is not a regular file")
    return path


MetricsFileOption = Annotated[
    str | None,
    typer.Option(
        "--metrics-file",
        metavar="FILE",
        callback=_metrics_file,
        help="Add the run to a file (NAME.prom) for a node exporter's textfile collector, however it ends. Jobs may "
        "share the file. A dry run is not counted.",
    ),
]


def _report_file(path: str | None) -> str | None:
    """Told before the job begins, too."""
    _require_directory("--report", path)
    if path is not None and os.path.isdir(path):
        raise UsageError(f"--report: {path} is a directory; name a file in it")
    return path


ReportOption = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        callback=_report_file,
        help="Write the run as a page for a browser as well (NAME.html), in one file: damage, what uses the space, the "
        "age of the last scrub of each repository and, after gc, what goes next.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing if the run succeeds.")]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say on standard error when the work on each repository begins."),
]

__all__ = [
    "ConfigOption",
    "DryRunOption",
    "JsonOption",
    "MaxDurationOption",
    "MetricsFileOption",
    "Output",
    "OutputOption",
    "QuietOption",
    "RateOption",
    "RepoOption",
    "ReportOption",
    "RootOption",
    "StopInBlobOption",
    "VerboseOption",
    "duration",
    "load",
    "only_read",
    "reporting",
    "run_job",
    "size",
]


def duration(option: str, text: str | None) -> float | None:
    """Seconds of `6s`, `30m`, `1h`, `0s`. Raises UsageError naming the option."""
    from zotctl.config.schema import parse_duration

    return None if text is None else _parsed(option, text, parse_duration)


def size(option: str, text: str | None) -> int | None:
    """Bytes of `50MiB`. Raises UsageError naming the option."""
    from zotctl.config.schema import parse_size

    return None if text is None else _parsed(option, text, parse_size)


def _parsed(option: str, text: str, parse: Callable[[object], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def read_config(roots: list[str] | None, config: str | None, *, as_server: bool) -> Config:
    """The configuration, whether or not its store is there. `as_server`: also refuse keys that only a server must not
    ignore. Raises ConfigError and UsageError."""
    from zotctl.config import load_config

    return load_config(config, options={"storage.roots": roots or None}, environ=os.environ, serving=as_server)


def load(
    roots: list[str] | None,
    config: str | None,
    *,
    must_exist: bool = True,
    may_be_empty: bool = False,
    may_be_new: bool = False,
    any_content: bool = False,
    as_server: bool = False,
) -> Config:
    """The configuration that says where the store is. A job creates no root: a missing one is NoSuchStore.

    So is an empty directory: a share that is not mounted looks empty, and with our marker in it `serve` would take it
    for the root. So is a directory that was never a root and contains no layout, unless the caller reports that itself
    (`any_content`). `may_be_new`: the job brings content, and may start with an empty store. `as_server`: as for
    `read_config`.
    """
    import logging

    from zotctl import logs
    from zotctl.config import is_bucket

    loaded = read_config(roots, config, as_server=as_server)
    # As text also where there is no terminal: what cron mails is read by a person.
    level = loaded.log.level if os.environ.get("ZOTCTL_LOG_LEVEL") else "warning"
    logs.setup(level, None, "text", None)
    for warning in loaded.warnings:
        if warning.startswith("environment "):  # the others are the server's, not for a mail from each cron job
            logging.getLogger("zotctl.config").warning(warning)
    archives, stores = list[str](), 0
    for path in (*(root.path for root in loaded.storage.roots), *(r.root.path for r in loaded.storage.routes)):
        if is_bucket(path):
            stores += 1
            continue  # opening it says whether it is there
        if must_exist and os.path.isfile(path):
            if _is_archive(path):
                archives.append(path)
                continue
            raise NoSuchStore(f"{path} is a file, not a directory; name the directory of the store with --root")
        if must_exist and not os.path.isdir(path):
            new = ", or make the directory if the store is to be a new one" if may_be_new else ""
            raise NoSuchStore(f"{path}: no such directory; is it mounted? Name the store with --root or --config{new}")
        if must_exist and not (may_be_empty or may_be_new):
            if _is_empty(path):
                raise NoSuchStore(f"{path}: an empty directory, not a store; is it mounted?")
            if not any_content:
                _refuse_no_store(path)
        stores += 1
    if archives and not stores:
        raise NoSuchStore(
            f"{archives[0]} is an archive, in which no job changes anything: `zotctl verify {archives[0]}` checks it, "
            "and import-layout takes it into a store"
        )
    return _with_buckets(loaded, may_be_new or may_be_empty)


def _is_archive(path: str) -> bool:
    from zotctl.storage.opening import is_tar

    return is_tar(path)


def _with_buckets(loaded: Config, may_be_empty: bool) -> Config:
    """The same rule for a bucket, where only opening it tells whether anything is there."""
    from zotctl.config import is_bucket

    roots = [replace(root, create=may_be_empty) if is_bucket(root.path) else root for root in loaded.storage.roots]
    return replace(loaded, storage=replace(loaded.storage, roots=tuple(roots)))


def _refuse_no_store(path: str) -> None:
    """Raises NoSuchStore for a directory that is no store: a job creates no hidden directory in an arbitrary place."""
    from zotctl.oci.layout import LAYOUT_FILE
    from zotctl.storage.clock import Clock
    from zotctl.storage.opening import directory, root_over
    from zotctl.storage.root import no_store

    with suppress(StorageError):  # opening the store says what is wrong with it
        is_layout = os.path.isfile(os.path.join(path, LAYOUT_FILE))
        if is_layout or _was_used(path):
            return
        if next(root_over(directory(path), Clock()).catalog.everything(), None) is None:
            raise no_store(path)


def _was_used(path: str) -> bool:
    from zotctl.storage import keys

    return os.path.exists(os.path.join(path, keys.VERSION))


def only_read(config: Config) -> Config:
    """For a run that only looks: where zotctl has never served it makes nothing, so it opens all roots read-only. What
    it would tell beside a running zot would not hold: HeldElsewhere, as for a run that writes."""
    from zotctl.config import is_bucket
    from zotctl.storage.opening import refuse_beside_zot

    places = [root.path for root in config.storage.every_root]
    if all(is_bucket(path) or _was_used(path) for path in places):
        return config
    for path in places:
        if not is_bucket(path):
            refuse_beside_zot(path)
    return replace(config, storage=replace(config.storage, read_only=True))


def _is_empty(path: str) -> bool:
    with suppress(OSError):  # opening the store says what is wrong with it
        return not os.listdir(path)
    return False


def run_job(
    job: str,
    config: Config,
    work: Callable[[Run], None],
    *,
    repos: list[str] | None = None,
    dry_run: bool = False,
    max_duration: str | None = None,
    rate: str | None = None,
    requests: int | None = None,
    quiet: bool = False,
    verbose: bool = False,
    metrics_file: str | None = None,
    report_file: str | None = None,
    noted: bool = False,
    output: Output = Output.TEXT,
    as_json: bool = False,
    text: Callable[[bool], TextSink] = TextSink,
) -> None:
    """Open the store, do the work, report, and exit with the report's code. `noted`: the run is noted in the store, for
    people who look at it later. `text`: prints what people read."""
    from zotctl import logs
    from zotctl.jobs.last_run import note_run
    from zotctl.jobs.run import Run, give_way
    from zotctl.storage import open_store

    audited = job in _AUDITED and not dry_run and not config.storage.read_only and config.log.audit is not None
    if audited:
        logs.setup_audit(str(config.log.audit))
    give_way()
    sink = sink_for(Output.JSON if as_json else output, quiet=quiet, text=text)
    sink.verbose = verbose
    if report_file is not None:
        sink = RememberingSink(sink)
    limit, pace = duration("--max-duration", max_duration), size("--rate", rate)
    store = open_store((only_read(config) if dry_run and job in _READ_ONLY_DRY_RUNS else config).storage)
    _stop_on_signals()
    run = Run(
        job, store, repos=repos or (), dry_run=dry_run, max_duration=limit, rate=pace, requests=requests, sink=sink
    )
    try:
        run.finish(lambda: work(run))
        if audited and logs.audit_trouble():
            run.report.codes.append(1)  # the log has said why
        if isinstance(sink, RememberingSink):
            _write_page(str(report_file), run.report, run, sink)
    except BrokenPipeError:
        run.report.codes.append(1)  # the reader of the output has gone, so the job stopped
        raise
    except Exception:
        sink.close(run.report)  # a bug: the report says how far it came
        raise
    finally:
        if noted:
            note_run(run.report, run.roots)
        if metrics_file is not None and not run.report.is_dry_run:
            _count(metrics_file, run.report, run.roots if run.whole else ())
        store.close()
    sink.close(run.report)
    raise typer.Exit(run.report.exit_code)


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps the function of a job's command: a job that cannot start reports that in the requested format, so that
    programs can always parse the output. The error is raised again, and so reaches standard error too.

    Errors after the start are in the job's own report (`jobs.run`).
    """

    @wraps(command)
    def run(**options: Any) -> None:
        try:
            _check_words(options)
            command(**options)
        except ZotctlError as error:
            job = command.__name__.replace("_", "-")
            report = Report(job, __version__, bool(options.get("dry_run")), codes=[error.exit_code])
            # A configuration is refused with all of its mistakes, a line each.
            report.errors += [error_fields("", error) | {"reason": line} for line in error.message.splitlines()]
            report.items += warning_items(error.warnings)
            output = Output.JSON if options.get("as_json") else options.get("output", Output.TEXT)
            if output is not Output.TEXT:
                print_report(report, output)
            if options.get("metrics_file") is not None and not report.is_dry_run:
                _count(options["metrics_file"], report, ())
            if options.get("report") is not None and not isinstance(error, UsageError):
                _write_page(options["report"], report, None, None)
            raise

    return run


def _check_words(options: dict[str, Any]) -> None:
    """Raise UsageError for what can be no value of an option, before anything is looked for: the same mistake ends
    alike whether or not the store is there."""
    from zotctl.jobs.run import check_repos

    duration("--max-duration", options.get("max_duration"))
    duration("--delay", options.get("delay"))
    size("--rate", options.get("rate"))
    if options.get("verbose") and options.get("quiet"):
        raise UsageError("--verbose and --quiet exclude each other; give one of them")
    if isinstance(globs := options.get("repo"), list):  # of import-layout it is a name
        check_repos(globs)


def warning_items(warnings: Sequence[str]) -> list[dict[str, Any]]:
    """Warnings about a configuration, as a report has them."""
    return [{"action": "warn", "reason": warning} for warning in warnings]


def state_directory() -> str:
    """Where a command keeps what it needs for its next run and what belongs in no store: the XDG Base Directory
    Specification, XDG_STATE_HOME."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.local/state"), "zotctl")


def _count(path: str, report: Report, roots: Sequence[Root]) -> None:
    """Add a run that has ended to the file of metrics. That this fails changes nothing about the run."""
    from zotctl.jobs.metrics import write

    try:
        write(path, report, roots)
    except OSError as error:
        print(f"zotctl: --metrics-file: {path}: {error.strerror}", file=sys.stderr)


def _write_page(path: str, report: Report, run: Run | None, sink: RememberingSink | None) -> None:
    """Write the file of --report. If it can't be written, the run ends with 1 at least."""
    from zotctl.jobs.files import locked, replace_file
    from zotctl.web.report import write_report

    items, more = (sink.items, sink.more) if sink is not None else ([], 0)
    path = os.path.realpath(path)
    try:
        body = write_report(report, run, items, more)
        with locked(os.path.dirname(path)):
            replace_file(path, body)
    except OSError as error:
        print(f"zotctl: --report: {path}: {error.strerror}", file=sys.stderr)
        report.codes.append(1)


def _stop_on_signals() -> None:
    """SIGTERM, SIGINT, and SIGHUP of a terminal that is closed end the run, with its report; the second one ends the
    process. Under nohup SIGHUP stays ignored; SIGINT is heard even where a shell began the job in the background."""
    from zotctl.jobs.run import Stopped

    heard = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    for each in heard:
        signal.signal(each, stop)
