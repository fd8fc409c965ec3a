"""The progress of a job on standard error: a line that is drawn anew on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time

from zotctl.cli.sizes import bytes_text

LINE_EVERY_S = 10.0
"""Between two lines where there is no terminal."""
BAR_FROM_COLUMNS = 90
"""A narrower terminal has no room for a bar beside the figures."""


class Progress:
    """Shows how far a job is. rich draws, and NO_COLOR and the width are its business; a terminal that can't move its
    cursor (TERM=dumb) gets lines."""

    def __init__(self) -> None:
        self._began = self._printed = time.monotonic()
        self._what = ""
        self._bar: _Bar | None = None
        self._draws = sys.stderr.isatty()

    def update(self, done: int, total: int | None, unit: str, what: str) -> None:
        """`done` of `total` in `unit`, at the repository `what` ("" is the same as before)."""
        self._what = what or self._what
        now = time.monotonic()
        if self._draws and self._bar is None:
            self._bar = _Bar()
            self._draws = self._bar.draws
        if self._draws and self._bar is not None:
            self._bar.update(done, total, self._what, figures(done, total, unit, now - self._began))
        elif now - self._printed >= LINE_EVERY_S:
            self._printed = now
            said = ", ".join(figures(done, total, unit, now - self._began))
            print(f"{self._what}: {said}" if self._what else said, file=sys.stderr)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def clear(self) -> None:
        """Take it off the terminal, so that a line may be printed. The next update draws it again."""
        if self._bar is not None:
            self._bar.stop()


def figures(done: int, total: int | None, unit: str, elapsed: float) -> list[str]:
    """`45%`, `1.1 GiB of 2.4 GiB`, `120.0 MiB/s`, `0:12 left`: what is known of these after `elapsed` seconds."""
    rate = done / elapsed if elapsed > 0 else 0.0
    known = bool(total) and total is not None and done <= total
    said = [f"{100 * done // total}%"] if total and known else []
    said.append(f"{_amount(done, unit)} of {_amount(total, unit)}" if total and known else _amount(done, unit))
    if unit != "bytes":
        said[-1] += f" {unit}"
    if rate:
        said.append(f"{bytes_text(int(rate))}/s" if unit == "bytes" else f"{rate:.1f}/s")
    if rate and total and known:
        left = int((total - done) / rate)
        said.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left" if left >= 3600 else
                    f"{left // 60}:{left % 60:02} left")  # fmt: skip
    return said


def fitted(what: str, said: list[str], width: int) -> str:
    """One line of at most `width` characters. The rate goes first where there is no room, then the amount, then the
    beginning of the name."""
    for dropped in ((), (2,), (1, 2)):
        line = "  ".join(part for at, part in enumerate(said) if at not in dropped or len(said) < 3)
        if len(line) + min(len(what), 16) + 2 <= width:
            break
    room = width - len(line) - 2
    name = what if len(what) <= room else f"…{what[-(room - 1) :]}" if room > 1 else ""
    return f"{name}  {line}"[:width] if name else line[:width]


def _amount(count: int, unit: str) -> str:
    return bytes_text(count) if unit == "bytes" else str(count)


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column

        console = Console(stderr=True)
        self.draws = not console.is_dumb_terminal
        self._width = console.width - 1
        self._bar_width = 24 if console.width >= BAR_FROM_COLUMNS else 0
        one_line = Column(no_wrap=True)
        columns: list[ProgressColumn] = [TextColumn("{task.fields[line]}", markup=False, table_column=one_line)]
        if self._bar_width:
            columns.insert(0, BarColumn(self._bar_width))
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("", total=None, line="")

    def update(self, done: int, total: int | None, what: str, said: list[str]) -> None:
        self._progress.update(
            self._task, completed=done, total=total, line=fitted(what, said, self._width - self._bar_width - 1)
        )
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()
