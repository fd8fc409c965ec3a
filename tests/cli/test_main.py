"""Errors become a line and an exit code."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from tests.cli.running import PATIENCE_S, REPOSITORY, python, zotctl
from zotctl import __version__, cli
from zotctl.cli import main
from zotctl.cli.report import TextSink
from zotctl.errors import EXIT_CODES
from zotctl.jobs.finding import Finding

RAISING = """
import sys
import zotctl.cli.app as tree
from zotctl import errors

@tree.app.command()
def fail() -> None:
    {statement}

sys.argv = ["zotctl", "fail"]
from zotctl.cli import main
main()
"""


@pytest.mark.parametrize(
    ("statement", "code", "text"),
    [
        ("raise errors.ConfigError('a: b\\nc: d')", 3, "zotctl: a: b\nzotctl: c: d\n"),
        ("raise errors.NoSpace('full')", 13, "zotctl: full\n"),
        ("raise errors.UsageError('no')", 2, "zotctl: no\n"),
        ("raise errors.Interrupted('stopped')", 130, "zotctl: stopped\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise SystemExit(16)", 16, ""),
        ("raise BrokenPipeError(32, 'x')", 1, ""),
        ("pass", 0, ""),
    ],
)
def test_errors_and_their_codes(statement: str, code: int, text: str) -> None:
    run = python("-c", RAISING.format(statement=statement))
    assert (run.returncode, run.stderr, run.stdout) == (code, text, "")


def test_what_no_encoder_takes_or_a_terminal_obeys_is_printed_as_python_writes_it() -> None:
    """As in names of files, and of members of an archive."""
    names = r"print('\udcff \ud800 \xe4'); raise errors.NoSpace('\x1b[2J\udcff')"
    run = python("-c", RAISING.format(statement=names), environ={"PYTHONIOENCODING": "ascii:strict"})
    assert (run.returncode, run.stdout) == (13, r"\udcff \ud800 \xe4" + "\n")
    assert run.stderr == r"zotctl: \x1b[2J\udcff" + "\n"


def test_so_is_an_error_and_what_standard_output_gets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["zotctl", "no\x1b[2J"])
    with pytest.raises(SystemExit):
        main()
    assert out.errors == "backslashreplace"
    cli._fail("a\x1b[2J", 1)
    assert r"zotctl: a\x1b[2J" in capsys.readouterr().err


def test_nor_does_a_line_of_a_report_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    sink = TextSink(quiet=False)
    sink.item({"action": "imported", "source": "a\x1b[2J"})
    sink.finding(Finding("b\x1b[2J", None, "invalid_layout", "c\x1b[2J\nd"))
    sink.error({"repository": "e\x1b[2J", "reason": "f\x1b[2J"})
    found = capsys.readouterr()
    assert "\x1b" not in found.out + found.err
    assert (found.out + found.err).count(r"\x1b[2J") == 5 and "\nd" in found.err


def test_a_bug_is_a_line_and_a_traceback_only_on_request() -> None:
    script = RAISING.format(statement="raise ZeroDivisionError('x')")
    run = python("-c", script)
    assert run.returncode == 70
    assert re.fullmatch("zotctl: a bug: ZeroDivisionError: x; please open an issue .*\n", run.stderr)
    run = python("-c", script, environ={"ZOTCTL_DEBUG": "1"})
    assert run.returncode == 70
    assert run.stderr.startswith("Traceback")


def test_elsewhere_than_on_linux() -> None:
    run = python("-c", "import sys; sys.platform = 'darwin'; from zotctl.cli import main; main()")
    assert (run.returncode, run.stderr) == (
        1,
        "zotctl: it runs on Linux only: its locks are those of Linux\n",
    )


def test_a_reader_that_went_away_is_no_error() -> None:
    command = f"{sys.executable} -m zotctl.cli serve --show-config --json | true; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert run.stderr == ""
    assert run.stdout.strip() in {"0", "1"}


def test_the_version() -> None:
    assert zotctl("--version").stdout == f"zotctl {__version__}\n"


def test_help_ends_in_the_exit_codes() -> None:
    lines = zotctl("--help").stdout.splitlines()
    table = lines[lines.index("  Exit codes:") + 1 :]
    assert [line.split(None, 1) for line in table] == [[str(code), text] for code, text in EXIT_CODES.items()]


@pytest.mark.parametrize("words", [["serve", "--workers", "many"], ["serve", "--output", "xml"], ["serve", "a", "b"]])
def test_wrong_words_are_exit_2(words: list[str]) -> None:
    run = zotctl(*words)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Traceback" not in run.stderr
