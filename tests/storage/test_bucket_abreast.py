"""Calls side by side: bounded, without a deadlock however deep they nest, and over when they are over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_root
from zotctl.storage.bucket.context import abreast


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def test_results_are_in_order_and_no_more_than_that_many_are_under_way(threads: ThreadPoolExecutor) -> None:
    meeting, mutex, running, most = threading.Barrier(3), threading.Lock(), [0], [0]

    def call(at: int) -> int:
        with mutex:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if at < 3:
            meeting.wait(20)  # the first three are side by side, or this breaks
        with mutex:
            running[0] -= 1
        return at

    assert abreast(threads, 3, [partial(call, at) for at in range(50)]) == list(range(50))
    assert most[0] == 3


def test_calls_that_make_calls_do_not_wait_for_each_other(threads: ThreadPoolExecutor) -> None:
    def deep(level: int) -> int:
        return 1 if not level else sum(abreast(threads, 4, [partial(deep, level - 1)] * 4))

    done: list[int] = []
    watched = threading.Thread(target=lambda: done.append(deep(4)), daemon=True)
    watched.start()
    watched.join(60)
    assert done == [4**4]


def test_after_a_failure_nothing_is_begun_and_the_first_one_is_told(threads: ThreadPoolExecutor) -> None:
    begun: list[int] = []
    meeting = threading.Barrier(2)

    def call(at: int) -> None:
        begun.append(at)
        if at in (0, 1):
            meeting.wait(20)
            raise ValueError(at)

    with pytest.raises(ValueError, match="0"):
        abreast(threads, 2, [partial(call, at) for at in range(100)])
    assert sorted(begun) == [0, 1]


def test_without_threads_one_call_follows_the_other() -> None:
    root, order = bucket_root(MemoryObjects()), list[int]()
    calls: list[Callable[[], None]] = [partial(order.append, at) for at in range(5)]
    root.protocol.each(calls)
    assert order == [0, 1, 2, 3, 4]
