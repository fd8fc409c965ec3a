"""Progress that fits: words for any width, a drawn line on a terminal, plain lines elsewhere, nothing with -q."""

from __future__ import annotations

import sys

import pytest
from rich.progress import Progress as Drawn

from tests.cli.running import zotctl
from zotctl.cli import progress
from zotctl.cli.progress import Progress, figures, fitted

HALF = figures(1 << 30, 2 << 30, "bytes", 64.0)


def test_it_tells_percent_amount_rate_and_time_left() -> None:
    assert HALF == ["50%", "1.0 GiB of 2.0 GiB", "16.0 MiB/s", "1:04 left"]
    assert figures(1, 8000, "repositories", 1.0) == ["0%", "1 of 8000 repositories", "1.0/s", "2:13:19 left"]
    assert figures(3 << 20, None, "bytes", 1.0) == ["3.0 MiB", "3.0 MiB/s"]
    assert figures(5, 4, "bytes", 0.0) == ["5 B"], "a store that has grown since it was measured"


@pytest.mark.parametrize("width", [1, 2, 12, 20, 39, 60, 199])
def test_a_line_is_never_longer_than_the_terminal(width: int) -> None:
    line = fitted("team/with/a/very/long/name/of/a/repository", HALF, width)
    assert len(line) <= width and "\n" not in line
    assert ("50%" in line and "1:04 left" in line) == (width >= 20)
    assert (line == "  ".join(["team/with/a/very/long/name/of/a/repository", *HALF])) == (width == 199)
    assert fitted("", HALF, width).startswith("50%"[:width])


def drawn(monkeypatch: pytest.MonkeyPatch, term: str, columns: int) -> bool:
    """Whether rich was asked to draw."""
    calls: list[str] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Drawn, "start", lambda self: calls.append("start"))
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(columns))
    Progress().update(1, 2, "bytes", "app")
    return bool(calls)


def test_a_terminal_gets_a_bar_and_a_dumb_one_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drawn(monkeypatch, "xterm", 40) and drawn(monkeypatch, "xterm", 200)
    assert not drawn(monkeypatch, "dumb", 80)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert not drawn(monkeypatch, "dumb", 80)
    told = capsys.readouterr().err
    assert told.startswith("app: 50%, 1 B of 2 B") and "\x1b" not in told


@pytest.mark.parametrize("words", [["-h"], ["help"], ["gc", "-h"], ["help", "gc"], ["help", "import-layout"]])
def test_help_by_any_name(words: list[str]) -> None:
    command = [word for word in words if word not in ("-h", "help")]
    done, asked = zotctl(*words), zotctl(*command, "--help")
    assert (done.returncode, done.stdout) == (0, asked.stdout) and "Usage: zotctl" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2].partition("Exit codes")[0]
