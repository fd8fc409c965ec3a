"""Mistakes in the words of a command line: one line each, that says what is wrong and where to look."""

from __future__ import annotations

import sys

import pytest

from zotctl.cli import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("scurb", "no such command 'scurb'; nearest: 'scrub'; see zotctl help"),
        ("help scurb", "no such command 'scurb'; nearest: 'scrub'; see zotctl help"),
        ("--nope", "--nope: no such option; see zotctl help"),
        ("gc --histroy", "gc: --histroy: no such option; nearest: --history; see zotctl help gc"),
        ("gc --delay", "gc: --delay: the value is missing; see zotctl help gc"),
        ("gc --json=1", "gc: --json: it takes no value; see zotctl help gc"),
        ("gc --untagged some", "gc: --untagged: 'some' is not one of 'none', 'pushed', 'all'; see zotctl help gc"),
        (
            "gc --output xml",
            "gc: --output (or ZOTCTL_OUTPUT): 'xml' is not one of 'text', 'json', 'jsonl'; see zotctl help gc",
        ),
        ("import-layout", "import-layout: SOURCE is missing; see zotctl help import-layout"),
        (
            "import-layout a b",
            "import-layout: there are more arguments than it takes: (b); see zotctl help import-layout",
        ),
        ("scrub --workers many", "scrub: --workers: 'many' is not a whole number; see zotctl help scrub"),
        ("scrub --workers 0", "scrub: --workers: 0 is not from 1 to 64; see zotctl help scrub"),
        ("scrub --requests 0", "scrub: --requests: 0 is less than 1; see zotctl help scrub"),
        ("gc --delay 1x", "--delay: '1x' is not a duration such as '30s', '1h30m' or '7d'"),
    ],
)
def test_a_mistake_is_one_line(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zotctl", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, *capsys.readouterr()) == (2, "", f"zotctl: {said}\n")


@pytest.mark.parametrize("line", ["--version", "-V", "gc -h", "help gc"])
def test_what_was_asked_for_is_no_mistake(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["zotctl", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "") and "zotctl" in out


def test_no_words_get_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["zotctl"])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "") and err.startswith("Usage: zotctl ")
