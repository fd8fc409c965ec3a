"""How a report leaves the process: as text for people, as one JSON object, or as JSON lines.

Standard output has the result, standard error everything else. rich is imported here and in progress.py, and late:
NO_COLOR and the width of a terminal are its business.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from zotctl.cli.progress import Progress
from zotctl.cli.sizes import bytes_text
from zotctl.errors import Interrupted, printable
from zotctl.jobs.finding import Finding
from zotctl.jobs.report import Report, Sink, counted, local_time


class Output(StrEnum):
    """The formats of a report."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


OutputOption = Annotated[Output, typer.Option("--output", envvar="ZOTCTL_OUTPUT", help="Format of the output.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --output json.")]


class ClosingSink(Sink):
    """A sink that prints what is left when the run is over. `verbose`: say when the work on a repository begins."""

    verbose = False

    def close(self, report: Report) -> None:
        """Call once, after `summary`, or after a bug that prevented it."""


REMEMBERED_ITEMS = 1000


class RememberingSink(ClosingSink):
    """Passes everything on to another sink. `items`: the first things that were done; `more`: how many more were."""

    def __init__(self, sink: ClosingSink) -> None:
        self._sink, self.keeps_items = sink, sink.keeps_items
        self.items: list[dict[str, Any]] = []
        self.more = 0
        self.start, self.finding, self.error = sink.start, sink.finding, sink.error  # type: ignore[method-assign]
        self.repository = sink.repository  # type: ignore[method-assign]
        self.progress, self.summary, self.close = sink.progress, sink.summary, sink.close  # type: ignore[method-assign]

    def item(self, fields: dict[str, Any]) -> None:
        """Remember it, too."""
        if len(self.items) < REMEMBERED_ITEMS:
            self.items.append(fields)
        else:
            self.more += 1
        self._sink.item(fields)


def sink_for(output: Output, *, quiet: bool, text: Callable[[bool], TextSink] | None = None) -> ClosingSink:
    """A new sink that prints in this format. `quiet`: no progress on standard error. `text` makes that of people's
    text, given `quiet`."""
    if output is Output.JSONL:
        return JsonLines()
    return DocumentSink(quiet) if output is Output.JSON else (text or TextSink)(quiet)


def print_report(report: Report, output: Output) -> None:
    """Print a report that is complete already."""
    sink = sink_for(output, quiet=True)
    sink.start(report.head())
    for item in report.items:
        sink.item(item)
    for finding in report.findings:
        sink.finding(finding)
    for error in report.errors:
        sink.error(error)
    sink.summary(report.tail())
    sink.close(report)


class _WithProgress(ClosingSink):
    """Progress on standard error, unless quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._progress = quiet, Progress()

    def repository(self, name: str) -> None:
        """Verbose, a line on standard error."""
        if self.verbose:
            self._clear()
            print(f"{name}: begun after {self._progress.elapsed:.1f} s", file=sys.stderr)

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """On a terminal nearly free; elsewhere a line every 10 seconds."""
        if not self._quiet:
            self._progress.update(done, total, unit, what)

    def _clear(self) -> None:
        """Take the progress away, so that a line may be printed."""
        self._progress.clear()


class DocumentSink(_WithProgress):
    """One JSON object, printed when the run is over."""

    def close(self, report: Report) -> None:
        """Prints the whole report."""
        self._clear()
        print(json.dumps(report.document(), indent=2))


class JsonLines(ClosingSink):
    """A line for each thing, as it happens; the summary is always the last. Progress is part of it, even if quiet."""

    keeps_items = False

    def start(self, fields: dict[str, Any]) -> None:
        """A line of type `start`."""
        self._print("start", fields)

    def item(self, fields: dict[str, Any]) -> None:
        """A line of type `item`."""
        self._print("item", fields)

    def finding(self, finding: Finding) -> None:
        """A line of type `finding`."""
        self._print("finding", finding.as_fields())

    def error(self, fields: dict[str, Any]) -> None:
        """A line of type `error`."""
        self._print("error", fields)

    def repository(self, name: str) -> None:
        """Verbose, a line of type `repository`."""
        if self.verbose:
            self._print("repository", {"repository": name})

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """A line of type `progress`."""
        self._print("progress", {"done": done, "total": total, "unit": unit, "what": what})

    def summary(self, fields: dict[str, Any]) -> None:
        """A line of type `summary`."""
        self._print("summary", fields)

    def _print(self, kind: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"type": kind, **fields}), flush=True)


class TextSink(_WithProgress):
    """Lines for people: what was done, and a summary; on standard error what is wrong. Each stands alone, as in a mail
    by cron. Quiet, a run that succeeds prints nothing."""

    keeps_items = False

    def item(self, fields: dict[str, Any]) -> None:
        """`trash repository=team/app digest=sha256:... size=1.0 MiB`, without fields that are empty."""
        # A chain is what "why" says already, in a form for programs.
        shown = {key: value for key, value in fields.items() if value not in (None, [], "") and key != "chain"}
        self._say(" ".join(_pair(key, value) for key, value in shown.items()))

    def _say(self, line: str) -> None:
        """Print what is no trouble, and is not printed if quiet."""
        self._clear()
        if not self._quiet:
            print(_shown(line))

    def finding(self, finding: Finding) -> None:
        """Its kind, where it is, the tags that it affects, the reason, and what was done about it; on standard
        error."""
        self._clear()
        tags = f" (tags {', '.join(finding.tags)})" if finding.tags else ""
        action = f" [{finding.action}]" if finding.action != "none" else ""
        where = " ".join(filter(None, (finding.repository, finding.digest)))
        line = f"{finding.kind}: {where}{tags}: {finding.reason}{action}".replace(": : ", ": ")
        print(_shown(line), file=sys.stderr)

    def error(self, fields: dict[str, Any]) -> None:
        """On standard error, with the repository if it is about one."""
        self._clear()
        where = f"{fields['repository']}: " if fields.get("repository") else ""
        print(_shown(f"zotctl: {where}{fields['reason']}"), file=sys.stderr)

    def close(self, report: Report) -> None:
        """Hints on standard error, and a last line about the whole run; if quiet, only where the run has not
        succeeded, on standard error, too."""
        from zotctl.jobs.report import hints

        self._clear()
        for hint in hints(report):
            print(f"zotctl: {hint}", file=sys.stderr)
        if not self._quiet:
            print(self.sentence(report))
        elif report.exit_code:
            print(self.sentence(report), file=sys.stderr)

    def sentence(self, report: Report) -> str:
        """What the run has done: all counters that are not zero."""
        counters = ", ".join(_counters(report.summary))
        dry = " (dry run, nothing was changed)" if report.is_dry_run else ""
        # A run that a signal, a lease or the clock cut short has not seen that there is nothing to do.
        nothing = "nothing done" if report.exit_code else "done" if report.items else "nothing to do"
        return f"{report.job}: {counters or nothing}{self._ends(report)} in {report.duration_s:.1f} s{dry}"

    @staticmethod
    def _ends(report: Report) -> str:
        """What else is to be said of a run: `, 2 findings, 1 error, stopped at --max-duration`."""
        found = f", {counted(len(report.findings), 'finding')}" if report.findings else ""
        # That somebody stopped the run is no error of the store.
        stops = sum(error["error"] == Interrupted.__name__ for error in report.errors)
        errors = len(report.errors) - stops
        failed = f", {counted(errors, 'error')}" if errors else ""
        failed += ", stopped by a signal" if stops else ""
        return found + failed + (", stopped at --max-duration" if 16 in report.codes else "")


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def counted_repositories(number: int) -> str:
    """`1 repository`, `2 repositories`"""
    return f"{number} {'repository' if number == 1 else 'repositories'}"


def _counters(summary: dict[str, Any]) -> Iterator[str]:
    """`checked_blobs` 16 as `checked blobs 16`, `purged` 2 and `purged_bytes` 4480 as `purged 2 (4.4 KiB)`."""
    for name, value in summary.items():
        base = name.removesuffix("_bytes")
        if not value or name == "findings" or (base != name and summary.get(base)):
            continue
        size = summary.get(f"{name}_bytes")
        yield f"{base.replace('_', ' ')} {_amount(name, value)}" + (f" ({bytes_text(size)})" if size else "")


def _pair(key: str, value: object) -> str:
    if key == "action":
        return str(value)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    shown = ",".join(map(str, value)) if isinstance(value, list) else value
    shown = local_text(value) if key.endswith("_at") else shown
    return f"{key.removesuffix('_bytes')}={_amount(key, shown)}"


def _amount(name: str, value: object) -> object:
    return bytes_text(value) if name.endswith("_bytes") and isinstance(value, int) else value


def local_text(stamp: object) -> str:
    """A time stamp of a report for people, by the clock of this machine."""
    try:
        return local_time(datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return str(stamp)


# -- on a terminal ------------------------------------------------------------------------------


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the names of their columns, on standard output. No text in them is markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
