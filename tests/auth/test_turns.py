"""Clients take turns, and none keeps others from theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest

from zotctl.auth.turns import Turns
from zotctl.errors import TooManyRequests

PLACES = 4


class Desk:
    """One thread, which waits until `open` is called. `served`: what it ran, in that order."""

    def __init__(self) -> None:
        self.turns, self.served = Turns(1, PLACES, "desk"), list[str]()
        self._opened, busy = threading.Event(), threading.Event()

        def hold() -> bool:
            busy.set()
            return self._opened.wait(60)

        self.turns.submit("the first", hold)
        assert busy.wait(60)

    def ask(self, client: str, what: str) -> Future[bool]:
        return self.turns.submit(client, lambda: not self.served.append(what))  # type: ignore[func-returns-value]

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.open()
    made.turns.close()


def test_a_client_with_one_call_waits_for_one_of_each_other(desk: Desk) -> None:
    asked = [desk.ask("a", f"a{number}") for number in range(3)] + [desk.ask("b", "b0")]
    desk.open()
    assert all(future.result(60) for future in asked)
    assert desk.served == ["a0", "b0", "a1", "a2"]


def test_who_has_fewer_takes_a_place_from_who_has_the_most(desk: Desk) -> None:
    of_a = [desk.ask("a", f"a{number}") for number in range(PLACES)]
    with pytest.raises(TooManyRequests):
        desk.ask("a", "one more")
    of_b = [desk.ask("b", f"b{number}") for number in range(PLACES // 2)]
    for client in ("a", "b"):
        with pytest.raises(TooManyRequests):
            desk.ask(client, "one more")
    desk.open()
    for future in of_a[PLACES // 2 :]:
        with pytest.raises(TooManyRequests):
            future.result(60)
    assert all(future.result(60) for future in of_a[: PLACES // 2] + of_b)
    assert desk.served == ["a0", "b0", "a1", "b1"]


def test_as_many_clients_as_places_keep_theirs(desk: Desk) -> None:
    asked = [desk.ask(f"client {number}", str(number)) for number in range(PLACES)]
    with pytest.raises(TooManyRequests):
        desk.ask("another", "one more")
    desk.open()
    assert all(future.result(60) for future in asked)


def test_who_leaves_gives_the_place_back(desk: Desk) -> None:
    kept = desk.ask("a", "kept")
    for number in range(3 * PLACES):
        assert desk.ask("a", f"left {number}").cancel()
    others = [desk.ask("b", f"b{number}") for number in range(PLACES - 1)]
    with pytest.raises(TooManyRequests):
        desk.ask("b", "one more")
    assert desk.turns._threads._work_queue.qsize() <= PLACES, "who leaves leaves nothing behind"
    desk.open()
    assert kept.result(60) and all(future.result(60) for future in others)
    assert desk.served == ["kept", "b0", "b1", "b2"]


def test_a_stop_refuses_what_waits_and_serves_who_comes_alone(desk: Desk) -> None:
    asked = [desk.ask("a", f"a{number}") for number in range(PLACES)]
    desk.turns.refuse_waiting()
    assert all(isinstance(future.exception(0), TooManyRequests) for future in asked)
    late = desk.ask("b", "late")
    for client in ("a", "b"):
        with pytest.raises(TooManyRequests):
            desk.ask(client, "too late")
    desk.open()
    assert late.result(60) and desk.served == ["late"]


def test_what_waits_at_the_end_is_dropped(desk: Desk) -> None:
    future = desk.ask("a", "late")
    desk.turns.close()
    desk.open()
    with pytest.raises(CancelledError):
        future.result(60)
    assert desk.served == []


def test_an_error_of_a_call_is_that_of_its_future(desk: Desk) -> None:
    def fails() -> bool:
        raise ValueError("no hash")

    future = desk.turns.submit("a", fails)
    desk.open()
    with pytest.raises(ValueError, match="no hash"):
        future.result(60)
    assert desk.ask("a", "still served").result(60)
