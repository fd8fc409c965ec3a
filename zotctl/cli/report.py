"""What a command found, on standard output: as text, as one JSON object, or as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Annotated, Any

import typer

from zotctl import __version__


class Output(StrEnum):
    """The forms of a report."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


OutputOption = Annotated[Output, typer.Option("--output", envvar="ZOTCTL_OUTPUT", help="Format of the output.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --output json.")]


@dataclass
class ReportPrinter:
    """The result of a command; the schema of a command `gc` is called zotctl.gc/1, and only grows."""

    command: str
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    exit_code: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    _begin: float = field(default_factory=monotonic)

    def print(self, output: Output, text: Callable[[ReportPrinter], None]) -> None:
        """Print it in a form; `text` prints that for people."""
        if output is Output.TEXT:
            text(self)
        elif output is Output.JSON:
            lists = {"items": self.items, "findings": self.findings, "errors": self.errors}
            print(json.dumps({**self._head(), **self._result(), **lists}, indent=2))
        else:
            for line in self._lines():
                print(json.dumps(line))

    def _lines(self) -> Iterator[dict[str, Any]]:
        yield {"type": "start", **self._head()}
        for kind, rows in (("item", self.items), ("finding", self.findings), ("error", self.errors)):
            yield from ({"type": kind, **row} for row in rows)
        yield {"type": "summary", **self._result()}

    def _head(self) -> dict[str, Any]:
        return {
            "schema": f"zotctl.{self.command}/1",
            "command": self.command,
            "version": __version__,
            "started": self.started.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }

    def _result(self) -> dict[str, Any]:
        return {
            "duration_s": round(monotonic() - self._begin, 6),
            "exit_code": self.exit_code,
            "summary": self.summary,
        }
