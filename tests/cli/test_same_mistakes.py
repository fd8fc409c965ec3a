"""The same mistake ends with the same exit code, whatever the command, and whether or not anything else is right."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from tests import images
from tests.cli.running import REPOSITORY
from tests.jobs.layouts import lay_out
from zotctl.cli import main
from zotctl.cli.app import app

Ends = Callable[..., tuple[int, str, str]]

COMMANDS = ("serve", "gc", "scrub", "dedupe", "verify", "import-layout")
SOURCE = {"import-layout": ("none",)}
"""The arguments that a command can't do without."""
PARSED = {"TIME": "soon", "SIZE": "much", "LEVEL": "loud", "FORMAT": "x", "HOST:PORT": "x", "N": "many",
          "GLOB": "{a,b}" * 11, "docker2s2": "docker1"}  # fmt: skip
"""By what an option takes: a word that it can't take."""


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ends]:
    """Run the command line in this process: exit code, standard output, standard error. Afterwards the process is what
    it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zotctl.jobs.run.give_way", lambda: None)
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    loggers = [(logger, logger.handlers[:], logger.level) for logger in map(logging.getLogger, ("", "zotctl"))]
    for name in ("raiseExceptions", "_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    for name in ("ZOTCTL_CONFIG", "ZOTCTL_ROOT", "ZOTCTL_OUTPUT"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zotctl", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
    for logger, handlers, level in loggers:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def wrong_values() -> Iterator[tuple[str, str, str]]:
    """Every option of every command that takes no just any text, with a value that it can't have."""
    tree = typer.main.get_command(app)
    for command in COMMANDS:
        for each in tree.commands[command].params:  # type: ignore[attr-defined]
            if each.param_type_name == "option" and each.metavar in PARSED:
                yield command, each.opts[0], PARSED[each.metavar]


@pytest.mark.parametrize(("command", "option", "value"), list(wrong_values()))
def test_a_value_that_an_option_cannot_have_is_2_before_anything_is_looked_for(
    ends: Ends, command: str, option: str, value: str
) -> None:
    Path("c.toml").write_text('[storage]\nroots = ["none"]\n')
    code, _, told = ends(command, *SOURCE.get(command, ()), "--config", "c.toml", option, value)
    assert (code, option in told) == (2, True)


def test_what_is_no_bucket_is_2(ends: Ends) -> None:
    for words in (("serve", "s3://"), ("verify", "s3://"), ("import-layout", "s3://", "--root", "."),
                  *((command, *SOURCE.get(command, ()), "--root", "s3://") for command in COMMANDS)):  # fmt: skip
        code, _, told = ends(*words)
        assert (code, "names no bucket" in told) == (2, True), words


def test_a_root_that_is_a_file_is_10(ends: Ends) -> None:
    Path("images").write_text("")
    for command in COMMANDS:
        code, _, told = ends(command, *SOURCE.get(command, ()), "--root", "images")
        assert (code, "is a file, not a directory" in told) == (10, True), command


def test_what_is_a_file_is_called_one(ends: Ends, tmp_path: Path) -> None:
    """Wherever a directory was meant, and on the way to it."""
    lay_out(tmp_path / "root", "app", images.image(), "v1")
    shutil.rmtree("root/app/blobs")
    for name in ("images", "root/app/blobs"):
        Path(name).write_text("")
    for words in (("serve", "--root", "images/x"), ("gc", "--root", "root", "--metrics-file", "images/x.prom"),
                  ("gc", "--root", "root", "--report", "images/x.html"), ("serve", "--config", "images/x"),
                  ("verify", "root"), ("gc", "--root", "root")):  # fmt: skip
        code, _, told = ends(*words)
        assert (code > 0, "is a file, not a directory" in told) == (True, True), words
    for key in ("log.audit", "log.output", "http.auth.htpasswd"):
        Path("c.toml").write_text(f'{key} = "."\n[storage]\nroots = ["root"]\n')
        code, _, told = ends("serve", "--config", "c.toml", "--listen", "127.0.0.1:0")
        assert (code, f"{key}: . is a directory, not a file" in told) == (3, True)


def test_nothing_that_people_read_calls_an_option_otherwise() -> None:
    """One word for one thing (docs/design/glossary.md)."""
    wrong = re.compile(r"\b(flags?|switches|command.line parameters?)\b", re.IGNORECASE)
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("man/*"),
             *REPOSITORY.glob("completions/*")]  # fmt: skip
    assert [page.name for page in pages if wrong.search(page.read_text())] == []


def test_what_is_not_there_is_10(ends: Ends, tmp_path: Path) -> None:
    lay_out(tmp_path / "root", "app", images.image(), "v1")
    Path("c.toml").write_text('[storage]\nroots = ["none"]\n')
    for words in (("serve", "none"), ("verify", "none"), ("import-layout", "none", "--root", "root"),
                  ("scrub", "--root", "root", "--from", "none"), ("serve", "--config", "c.toml"),
                  ("gc", "--config", "c.toml"), ("verify", "--deep", "--config", "c.toml")):  # fmt: skip
        assert ends(*words)[0] == 10, words


def test_a_bucket_is_no_source_of_a_repair(ends: Ends, tmp_path: Path) -> None:
    lay_out(tmp_path / "root", "app", images.image(), "v1")
    code, _, told = ends("scrub", "--root", "root", "--from", "s3://images")
    assert (code, "it takes no bucket; copy that to a directory with import-layout" in told) == (2, True)


def test_a_configuration_that_is_a_directory_or_not_there_is_3(ends: Ends) -> None:
    for command in COMMANDS:
        code, _, told = ends(command, *SOURCE.get(command, ()), "--config", ".")
        assert (code, ". is a directory, not a file" in told) == (3, True), command
        assert ends(command, *SOURCE.get(command, ()), "--config", "none.toml")[0] == 3, command


def test_a_level_that_is_none_is_a_mistake_in_the_environment_of_a_job(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOTCTL_LOG_LEVEL", "loud")
    code, _, told = ends("gc", "--root", ".")
    assert (code, told) == (3, "zotctl: environment ZOTCTL_LOG_LEVEL: 'loud' is none of debug, info, warning, error\n")


# -- verify --config ------------------------------------------------------------------------------


PROT = "http.prot: unknown key; nearest valid key: http.port"
OPEN = '[storage]\nroots = ["/none"]\ngc_delay = "5s"\n[http]\naddress = "0.0.0.0"\n'


def test_a_configuration_is_checked_alone(ends: Ends) -> None:
    """Without its store, which --deep asks for; quiet, what has no mistake says nothing."""
    Path("c.toml").write_text(OPEN)
    code, out, told = ends("verify", "--config", "c.toml")
    assert (code, out.partition(". ")[0]) == (0, "Checked c.toml: no mistake, 2 warnings")
    assert "gc_delay: under a minute" in told and "ANYONE WHO CAN REACH 0.0.0.0" in told
    assert ends("verify", "--config", "c.toml", "--quiet") == (0, "", "")
    assert ends("verify", "--config", "c.toml", "--deep")[0] == 10
    code, out, told = ends("verify", "--config", "c.toml", "--json")
    document = json.loads(out)
    assert (code, told, document["exit_code"], document["summary"]["warnings"]) == (0, "", 0, 2)
    assert {item["action"] for item in document["items"]} == {"warn"}


def test_whoever_listens_on_loopback_is_not_told_to(ends: Ends) -> None:
    Path("c.toml").write_text('[storage]\nroots = ["/none"]\n[http]\naddress = "127.0.0.1"\n')
    code, out, told = ends("verify", "--config", "c.toml")
    assert (code, told, "no mistake. " in out) == (0, "", True)


def test_warnings_are_told_with_the_refusal(ends: Ends) -> None:
    Path("c.toml").write_text(f"{OPEN}prot = 1\n")
    for words in (("verify",), ("serve",), ("gc",)):
        code, _, told = ends(*words, "--config", "c.toml")
        assert (code, told.splitlines()[0]) == (
            3,
            f"zotctl: c.toml: {PROT}",
        )
        assert "zotctl: warning: c.toml: storage.gc_delay: under a minute" in told
    document = json.loads(ends("verify", "--config", "c.toml", "--json")[1])
    assert [item["action"] for item in document["items"]] == ["warn"]


def test_the_configuration_of_the_environment_says_where_the_store_is(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "root", "app", images.image(), "v1")
    Path("c.toml").write_text('[storage]\nroots = ["root"]\n')
    monkeypatch.setenv("ZOTCTL_CONFIG", "c.toml")
    assert ends("verify")[1] == "Checked 4 blobs in 1 repository: no damage.\n"
    assert ends("verify", "root/app")[0] == 0
