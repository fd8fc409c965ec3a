from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zotctl import logs
from zotctl.errors import ConfigError

LOGGER = logging.getLogger("zotctl.http.supervisor")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = (None, "zotctl", logs.AUDIT)
    before = [(logging.getLogger(n), logging.getLogger(n).handlers[:], logging.getLogger(n).level) for n in names]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.getLogger(logs.AUDIT).propagate = True
    logging.raiseExceptions = True


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_of_json(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"))
    LOGGER.info("request", extra={"fields": {"status": 200, "user": None, "path": Path("/v2")}})
    LOGGER.debug("not this")
    (line,) = lines(tmp_path / "log")
    assert list(line) == ["time", "level", "message", "component", "status", "user", "path"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line.pop("time")))
    assert line == {
        "level": "info",
        "message": "request",
        "component": "http",
        "status": 200,
        "user": None,
        "path": "/v2",
    }


def test_names_that_are_not_utf_8_are_logged(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"))
    LOGGER.warning("odd: %s", "\udcff")
    assert lines(tmp_path / "log")[0]["message"] == "odd: \udcff"


def test_a_traceback_is_a_field(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"))
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError:
        LOGGER.exception("failed")
    assert "ZeroDivisionError: x" in str(lines(tmp_path / "log")[0]["traceback"])


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("debug", format="text")
    LOGGER.debug("a\x1b[31m %s", "b", extra={"fields": {"agent": "x y\n", "n": 1.5, "user": None}})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\S+Z debug http: a\\x1b\[31m b agent=\"x y\\\\n\" n=1.5", line)


def test_text_of_an_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", format="text")
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError:
        LOGGER.exception("failed")
    assert capsys.readouterr().err.endswith('http: failed error="ZeroDivisionError: x"\n')


def test_no_terminal_means_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info")
    LOGGER.info("x")
    assert json.loads(capsys.readouterr().err)["message"] == "x"


def test_others_log_from_warning_on(tmp_path: Path) -> None:
    logs.setup("debug", str(tmp_path / "log"))
    logging.getLogger("botocore.retries").info("no")
    logging.getLogger("botocore.retries").warning("yes")
    assert [(line["component"], line["message"]) for line in lines(tmp_path / "log")] == [("botocore", "yes")]


def test_a_moved_file_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    logs.setup("info", str(path), audit=str(tmp_path / "audit"))
    LOGGER.info("one")
    path.rename(moved)
    logs.reopen()
    LOGGER.info("two")
    assert [line["message"] for line in (*lines(moved), *lines(path))] == ["one", "two"]


def test_a_file_that_cannot_be_opened_anew_leaves_the_old_one(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    logs.setup("info", str(directory / "log"))
    directory.rename(tmp_path / "e")
    logs.reopen()
    assert "can't be reopened" in str(lines(tmp_path / "e" / "log")[0]["message"])


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.output: .*: Is a directory"):
        logs.setup("info", str(tmp_path))


def test_audit_goes_to_its_own_file_only(tmp_path: Path) -> None:
    logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    logging.getLogger(logs.AUDIT).info("push")
    assert [line["message"] for line in lines(tmp_path / "audit")] == ["push"]
    assert lines(tmp_path / "log") == []


def test_warn_once(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"))
    for n in range(3):
        logs.warn_once(LOGGER, f"{tmp_path}", "links do not work", root="/a", n=n)
    (line,) = lines(tmp_path / "log")
    assert (line["message"], line["root"], line["n"]) == ("links do not work", "/a", 0)
