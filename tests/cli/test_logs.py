from __future__ import annotations

import errno
import json
import logging
import os
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
    with pytest.raises(ConfigError, match=r"log\.output: .* is a directory, not a file"):
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


def change(number: int = 0) -> None:
    logs.audit_change(LOGGER, "untag", "app", tag=f"v{number}", before="sha256:1", reason="gc")


def test_a_change_is_a_line_in_the_log_and_in_the_audit_file(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    change()
    (line,) = lines(tmp_path / "audit")
    assert list(line)[4:] == [
        "action", "user", "client", "repository", "tag", "digest_before", "digest_after", "reason",
    ]  # fmt: skip
    assert line["message"] == "untag app:v0"
    (logged,) = lines(tmp_path / "log")
    assert logged | {"time": 0, "component": ""} == line | {"time": 0, "component": ""}


def test_without_an_audit_file_a_change_is_one_line_in_the_log(tmp_path: Path) -> None:
    logs.setup("info", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    logs.setup("info", str(tmp_path / "log"))
    change()
    assert len(lines(tmp_path / "log")) == 1
    assert (tmp_path / "audit").read_text() == "" and logs.audit_trouble() is None


class Disk:
    """Refuses writes of one file while it is full; one write may end in the middle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.room, self._write = True, 0, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.full:
            return self._write(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written, self.room = self._write(fd, data[: self.room]), 0
        return written


def test_an_audit_file_that_cannot_be_written_is_an_error_and_no_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    before, disk = logs.audit_errors(), Disk(monkeypatch)
    for number in range(3):
        change(number)
    assert logs.audit_errors() == before + 3
    assert logs.audit_trouble() == os.strerror(errno.ENOSPC)
    (line,) = lines(tmp_path / "log")
    assert line["level"] == "error" and str(tmp_path / "audit") in str(line["message"])
    disk.full = False
    change(3)
    assert [line["tag"] for line in lines(tmp_path / "audit")] == ["v0", "v1", "v2", "v3"]
    assert logs.audit_trouble() is None and len(lines(tmp_path / "log")) == 1


def test_what_is_waiting_is_written_when_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    disk = Disk(monkeypatch)
    change()
    disk.full = False
    assert logs.audit_trouble() is None
    assert [line["tag"] for line in lines(tmp_path / "audit")] == ["v0"]


def test_a_line_that_was_torn_is_written_once_more_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    disk = Disk(monkeypatch)
    disk.room = 20
    change()
    disk.full = False
    change(1)
    torn, *whole = (tmp_path / "audit").read_text().splitlines()
    assert len(torn) == 20 and [json.loads(line)["tag"] for line in whole] == ["v0", "v1"]


def test_no_more_lines_wait_than_memory_allows_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "AUDIT_BACKLOG_LINES", 2)
    logs.setup("warning", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    disk = Disk(monkeypatch)
    for number in range(5):
        change(number)
    disk.full = False
    assert logs.audit_trouble() is None
    assert [line["tag"] for line in lines(tmp_path / "audit")] == ["v3", "v4"]
    assert str(lines(tmp_path / "log")[-1]["message"]).endswith("is written again; 3 lines are lost")


def test_a_full_disk_does_not_keep_a_job_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection is what frees it."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        logs.setup_audit(str(tmp_path / "audit"))
    change()
    assert [line["tag"] for line in lines(tmp_path / "audit")] == ["v0"]


def test_a_reload_to_an_audit_file_that_cannot_be_opened_keeps_the_old_one(tmp_path: Path) -> None:
    logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "audit"))
    with pytest.raises(ConfigError, match=r"log\.audit: .*none"):
        logs.setup("error", str(tmp_path / "log"), audit=str(tmp_path / "none" / "audit"))
    change()
    assert len(lines(tmp_path / "audit")) == 1
