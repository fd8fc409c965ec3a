"""Lines of requests: what they say, and that none is lost, torn or out of its order, although several are written
together."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from select import PIPE_BUF
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.http.serving import until
from zotctl import logs
from zotctl.http import access
from zotctl.http.answer import Answer
from zotctl.http.request import Request

LOG = logging.getLogger("zotctl.http")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    before = [(logger, logger.handlers[:], logger.level) for logger in map(logging.getLogger, (None, "zotctl"))]
    direct = logs._direct
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.raiseExceptions, logs._direct = True, direct


def asked(number: int = 1, method: str = "GET", path: str = "/v2/app/manifests/v1", **more: Any) -> Request:
    name, reference = path.split("/")[2], path.rpartition("/")[2]
    plain = {
        "id": f"abc-{number:x}", "number": number, "method": method, "path": path, "name": name, "reference": reference,
        "route": "/v2/<name>/manifests/<reference>", "client": "127.0.0.1", "headers": {"user-agent": "this test"},
        "identity": SimpleNamespace(user=SimpleNamespace(name="")), "body": SimpleNamespace(arrived=0),
    }  # fmt: skip
    return cast(Request, SimpleNamespace(**plain | more))


def answered(status: int = 200, size: int = 527, error_code: str | None = None) -> Answer:
    answer = Answer(status)
    answer.bytes_out, answer.error_code = size, error_code
    return answer


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


CASES = [
    (asked(7), answered()),
    (asked(0x1F, "HEAD"), answered(404, 0, "MANIFEST_UNKNOWN")),
    (asked(8, "PUT", body=SimpleNamespace(arrived=9)), answered(201, 0)),
    (asked(9, path='/v2/a"b/manifests/%\udcff\\'), answered(400)),
    (asked(10, identity=SimpleNamespace(user=SimpleNamespace(name="jürgen"))), answered()),
    (asked(11, headers={"user-agent": '"\udcff\x00 {}%s'}), answered()),
    (asked(12, headers={}, route="", name="", reference=""), answered(429)),
    (asked(13, client="un\udcffknown"), answered()),
]


@pytest.mark.parametrize(("request_", "answer"), CASES)
def test_a_line_says_the_same_however_it_is_made(tmp_path: Path, request_: Request, answer: Answer) -> None:
    """As a record of logging, from nothing, and from what was kept of the one before."""
    other = logging.StreamHandler(StringIO())

    async def tell() -> None:
        log = access.AccessLog(LOG, None)
        for seconds in (0.0012346, 12.0):
            log.write(request_, answer, seconds)
        logs.reopen()
        logging.root.addHandler(other)
        for seconds in (0.0012346, 12.0):
            log.write(request_, answer, seconds)

    logs.setup("info", str(tmp_path / "log"))
    asyncio.run(tell())
    made = lines(tmp_path / "log")
    assert len(made) == 4 and all(line.pop("time") for line in made)
    assert [list(line.items()) for line in made[:2]] == [list(line.items()) for line in made[2:]]
    assert [line["duration_ms"] for line in made] == [1.235, 12000, 1.235, 12000]


def test_lines_stay_in_their_order(tmp_path: Path) -> None:
    async def tell() -> None:
        log = access.AccessLog(LOG, None)
        for number in range(3):
            log.write(asked(number), answered(), 0.0)
            await asyncio.to_thread(LOG.warning, f"after {number}")

    logs.setup("info", str(tmp_path / "log"))
    asyncio.run(tell())
    told = [line.get("request_id") or line["message"] for line in lines(tmp_path / "log")]
    assert told == ["abc-0", "after 0", "abc-1", "after 1", "abc-2", "after 2"]


def test_a_line_is_written_soon(tmp_path: Path) -> None:
    async def tell() -> None:
        access.AccessLog(LOG, None).write(asked(), answered(), 0.0)
        await asyncio.to_thread(until, lambda: (tmp_path / "log").stat().st_size, 10.0)

    logs.setup("info", str(tmp_path / "log"))
    asyncio.run(tell())
    assert len(lines(tmp_path / "log")) == 1


def test_no_line_is_lost_when_the_file_is_opened_anew_or_the_process_ends(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"

    async def tell() -> None:
        log = access.AccessLog(LOG, None)
        log.write(asked(1), answered(), 0.0)
        path.rename(moved)
        logs.reopen()
        log.write(asked(2), answered(), 0.0)
        logging.root.handlers[0].flush()  # as `logging.shutdown` does

    logs.setup("info", str(path))
    asyncio.run(tell())
    assert [line["request_id"] for line in (*lines(moved), *lines(path))] == ["abc-1", "abc-2"]


class Writes(StringIO):
    """Notes each write. `broken`: how many fail."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []
        self.broken = 0

    def write(self, text: str) -> int:
        if self.broken:
            self.broken -= 1
            raise OSError("no room")
        self.taken.append(text)
        return len(text)


def test_a_write_has_whole_lines_and_no_more_than_a_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Writes()
    monkeypatch.setattr("sys.stderr", stream)
    numbers = range(access.WAITING_LINES * 2)

    async def tell() -> None:
        log = access.AccessLog(LOG, None)
        for number in numbers:
            agent = "é" * 3000 if number == 30 else "this test"
            log.write(asked(number, headers={"user-agent": agent}), answered(), 0.0)
        logging.root.handlers[0].flush()

    logs.setup("info", format="json")
    asyncio.run(tell())
    told = [json.loads(line)["request_id"] for text in stream.taken for line in text.splitlines()]
    assert told == [f"abc-{number:x}" for number in numbers]
    assert all(text.endswith("\n") for text in stream.taken) and len(stream.taken) < len(numbers) / 4
    assert [len(text.splitlines()) for text in stream.taken if len(text.encode()) > PIPE_BUF] == [1]


def test_a_log_that_cannot_be_written_stops_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Writes()
    monkeypatch.setattr("sys.stderr", stream)

    async def tell() -> None:
        log = access.AccessLog(LOG, None)
        stream.broken = 2
        for number in range(access.WAITING_LINES):
            log.write(asked(number), answered(), 0.0)
        assert not stream.broken
        log.write(asked(1000), answered(), 0.0)

    logs.setup("info", format="json")
    asyncio.run(tell())
    LOG.warning("the end")
    told = "".join(stream.taken)
    assert '"abc-3f"' in told and '"abc-3e8"' in told and told.endswith("}\n")
