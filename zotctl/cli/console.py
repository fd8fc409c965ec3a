"""Tables on a terminal. The only importer of rich; NO_COLOR and a terminal's width are its business."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the names of their columns, on standard output. No text in them is markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


class Bar:
    """A progress bar on standard error, with rate and time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def update(self, done: int, total: int | None, unit: str, what: str) -> None:
        """Bytes done so far, of a total that may be unknown."""
        self._progress.update(self._task, completed=done, total=total, description=what)

    def stop(self) -> None:
        self._progress.stop()
