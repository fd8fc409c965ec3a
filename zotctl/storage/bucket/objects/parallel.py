"""Several requests side by side, by the caller and by threads that it shares with others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Halted(Exception):
    """No caller waits for this any more. It is no error of the registry, so code that passes over those does not pass
    over this."""


def abreast(
    threads: ThreadPoolExecutor, most: int, calls: Sequence[Callable[[], T]], halted: threading.Event | None = None
) -> list[T]:
    """Make all calls, at most `most` at once; the results in order.

    The caller makes calls too, and waits for those only that a thread has begun: so a call may come here itself,
    however few threads there are. After a failure no other call is begun; of several, the first in order is raised.
    Nor is one after `halted`; Halted is raised then, if not all were made.
    """
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}
    todo, mutex = iter(enumerate(calls)), threading.Lock()

    def work() -> None:
        while not (failures or (halted is not None and halted.is_set())):
            with mutex:
                at, call = next(todo, (-1, None))
            if call is None:
                return
            try:
                results[at] = call()
            except BaseException as failure:
                failures[at] = failure

    helpers = [threads.submit(work) for _ in range(min(most, len(calls)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if failures:
        raise failures[min(failures)]
    if len(results) < len(calls):
        raise Halted
    return [results[at] for at in range(len(calls))]
