"""A job that can't begin says so in the form that was asked for: whoever parses the output gets it in any case.

What goes wrong once it has begun is in its report (jobs/run.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from zotctl import __version__
from zotctl.cli.report import Output
from zotctl.errors import ZotctlError


def reporting(command: Callable[..., None]) -> Callable[..., None]:
    """For the function of a job's command. Raises what it raises, which is told on stderr besides."""

    @wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except ZotctlError as error:
            form = Output.JSON if options.get("as_json") else options.get("output", Output.TEXT)
            if form is not Output.TEXT:
                _tell(command.__name__.replace("_", "-"), form, error, dry_run=bool(options.get("dry_run")))
            raise

    return run


def _tell(job: str, form: Output, error: ZotctlError, *, dry_run: bool) -> None:
    from zotctl.cli.sinks import sink_for
    from zotctl.jobs.report import Report, error_fields

    report = Report(job, __version__, dry_run, codes=[error.exit_code])
    # A configuration is refused with all of its mistakes, a line each.
    report.errors += [error_fields("", error) | {"reason": line} for line in error.message.splitlines()]
    sink = sink_for(form, quiet=True)
    sink.start(report.head())
    for fields in report.errors:
        sink.error(fields)
    sink.summary(report.tail())
    sink.close(report)
