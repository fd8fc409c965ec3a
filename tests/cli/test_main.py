"""Errors become a line and an exit code."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.cli.running import PATIENCE_S, REPOSITORY, python, zotctl
from zotctl import __version__
from zotctl.errors import EXIT_CODES

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
