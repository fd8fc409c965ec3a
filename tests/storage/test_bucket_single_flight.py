"""A look that is shared began after each of those who share it had asked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from zotctl.storage.bucket.intents import SingleFlight


def test_each_caller_sees_what_was_there_when_it_asked() -> None:
    written = [0]
    looks = [0]
    mutex = threading.Lock()

    def look() -> int:
        with mutex:
            looks[0] += 1
        seen = written[0]
        time.sleep(0.002)
        return seen

    single_flight = SingleFlight(look)

    def ask(_: int) -> bool:
        with mutex:
            written[0] += 1
            mine = written[0]
        return single_flight() >= mine

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(800)))
    assert looks[0] < 400


def test_an_error_is_told_once_and_another_one_looks() -> None:
    begun, go_on = threading.Event(), threading.Event()
    turns = iter([True, False, False])

    def look() -> str:
        begun.set()
        go_on.wait(10)
        if next(turns):
            raise ValueError
        return "seen"

    single_flight = SingleFlight(look)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(single_flight)
        begun.wait(10)
        rest = [pool.submit(single_flight) for _ in range(2)]
        go_on.set()
        with pytest.raises(ValueError):
            first.result(10)
        assert [other.result(10) for other in rest] == ["seen", "seen"]
