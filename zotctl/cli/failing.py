"""A job that cannot start reports that in the requested format, so that programs can always parse the output.

Errors after the start are in its report (jobs/run.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from zotctl import __version__
from zotctl.cli.jobs import count
from zotctl.cli.report import Output
from zotctl.errors import ZotctlError

if TYPE_CHECKING:
    from zotctl.jobs.report import Report


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps the function of a job's command. Errors are raised again, and so reach standard error too."""

    @wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except ZotctlError as error:
            form = Output.JSON if options.get("as_json") else options.get("output", Output.TEXT)
            report = _report(command.__name__.replace("_", "-"), error, dry_run=bool(options.get("dry_run")))
            if form is not Output.TEXT:
                _tell(report, form)
            if options.get("metrics_file") is not None and not report.is_rehearsal:
                count(options["metrics_file"], report, ())
            raise

    return run


def _report(job: str, error: ZotctlError, *, dry_run: bool) -> Report:
    from zotctl.jobs.report import Report, error_fields

    report = Report(job, __version__, dry_run, codes=[error.exit_code])
    # A configuration is refused with all of its mistakes, a line each.
    report.errors += [error_fields("", error) | {"reason": line} for line in error.message.splitlines()]
    return report


def _tell(report: Report, form: Output) -> None:
    from zotctl.cli.sinks import sink_for

    sink = sink_for(form, quiet=True)
    sink.start(report.head())
    for fields in report.errors:
        sink.error(fields)
    sink.summary(report.tail())
    sink.close(report)
