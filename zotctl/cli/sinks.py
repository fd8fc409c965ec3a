"""Where a job's report goes: a person's terminal or mail, one JSON document, or JSON lines.

stdout is the result, stderr all else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

from zotctl.cli.report import Output
from zotctl.jobs.check.hints import hints
from zotctl.jobs.finding import Finding
from zotctl.jobs.report import Report, Silent, Sink, counted

PLAIN_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class ClosingSink(Sink, Protocol):
    def close(self, report: Report) -> None: ...


def sink_for(output: Output, *, quiet: bool) -> ClosingSink:
    progress = Silent() if quiet else _Progress()
    if output is Output.JSONL:
        return JsonLines()
    return DocumentSink(progress) if output is Output.JSON else TextSink(progress)


class _Progress(Silent):
    """A bar on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._said = time.monotonic()

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        if sys.stderr.isatty():
            from zotctl.cli.console import Bar

            self._bar = self._bar or Bar()
            self._bar.update(done, total, unit, what)
        elif time.monotonic() - self._said > PLAIN_EVERY:
            self._said = time.monotonic()
            print(f"{what}: {done}{f' of {total}' if total else ''} {unit}", file=sys.stderr)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class _Quiet(Silent):
    def __init__(self, progress: Silent) -> None:
        self._progress = progress

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        self._progress.progress(done, total, unit, what)

    def stop(self) -> None:
        if isinstance(self._progress, _Progress):
            self._progress.stop()


class DocumentSink(_Quiet):
    """One JSON object, when the run is over."""

    def close(self, report: Report) -> None:
        self.stop()
        print(json.dumps(report.document(), indent=2))


class JsonLines(Silent):
    """A line for each thing, as it happens; the summary is always the last."""

    keeps_items = False

    def start(self, fields: dict[str, Any]) -> None:
        self._print("start", fields)

    def item(self, fields: dict[str, Any]) -> None:
        self._print("item", fields)

    def finding(self, finding: Finding) -> None:
        self._print("finding", finding.as_fields())

    def error(self, fields: dict[str, Any]) -> None:
        self._print("error", fields)

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        self._print("progress", {"done": done, "total": total, "unit": unit, "what": what})

    def summary(self, fields: dict[str, Any]) -> None:
        self._print("summary", fields)

    def close(self, report: Report) -> None:
        pass

    def _print(self, kind: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"type": kind, **fields}), flush=True)


class TextSink(_Quiet):
    """Lines for people: what was done, what is wrong, and a summary. Each stands alone, as in a mail by cron."""

    keeps_items = False

    def item(self, fields: dict[str, Any]) -> None:
        self.stop()
        # A chain is what "why" says already, in a form for programs.
        shown = {key: value for key, value in fields.items() if value not in (None, [], "") and key != "chain"}
        print(" ".join(_pair(key, value) for key, value in shown.items()))

    def finding(self, finding: Finding) -> None:
        self.stop()
        tags = f" (tags {', '.join(finding.tags)})" if finding.tags else ""
        action = f" [{finding.action}]" if finding.action != "none" else ""
        where = " ".join(filter(None, (finding.repository, finding.digest)))
        print(f"{finding.kind}: {where}{tags}: {finding.reason}{action}".replace(": : ", ": "))

    def error(self, fields: dict[str, Any]) -> None:
        self.stop()
        where = f"{fields['repository']}: " if fields.get("repository") else ""
        print(f"zotctl: {where}{fields['reason']}", file=sys.stderr)

    def close(self, report: Report) -> None:
        self.stop()
        for hint in hints(report):
            print(f"zotctl: {hint}", file=sys.stderr)
        counters = ", ".join(_counters(report.summary))
        dry = " (dry run, nothing was changed)" if report.is_rehearsal else ""
        found = f", {counted(len(report.findings), 'finding')}" if report.findings else ""
        failed = f", {counted(len(report.errors), 'error')}" if report.errors else ""
        # A run that a signal, a lease or the clock cut short has not seen that there is nothing to do.
        nothing = "nothing done" if report.exit_code else "done" if report.items else "nothing to do"
        stopped = ", stopped at --max-duration" if 16 in report.codes else ""
        print(f"{report.job}: {counters or nothing}{found}{failed}{stopped} in {report.duration_s:.1f} s{dry}")


def _counters(summary: dict[str, Any]) -> Iterator[str]:
    """`checked_blobs` 16 as `checked blobs 16`, `purged` 2 and `purged_bytes` 4480 as `purged 2 (4.4 KiB)`."""
    for name, value in summary.items():
        base = name.removesuffix("_bytes")
        if not value or name == "findings" or (base != name and summary.get(base)):
            continue
        size = summary.get(f"{name}_bytes")
        yield f"{base.replace('_', ' ')} {_amount(name, value)}" + (f" ({_bytes(size)})" if size else "")


def _pair(key: str, value: object) -> str:
    if key == "action":
        return str(value)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    shown = ",".join(map(str, value)) if isinstance(value, list) else value
    return f"{key.removesuffix('_bytes')}={_amount(key, shown)}"


def _amount(name: str, value: object) -> object:
    return _bytes(value) if name.endswith("_bytes") and isinstance(value, int) else value


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
