"""Reads that clients share: none of them may get what was read before its request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from zotctl.errors import Unavailable
from zotctl.http.lists import readable_names
from zotctl.http.rounds import Rounds


class Reading:
    """A read that tells when it began, and returns what is stored then as soon as it is let on."""

    def __init__(self) -> None:
        self.stored, self.began, self.go_on = 0, asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.reads = 0

    async def __call__(self) -> int:
        self.reads, found = self.reads + 1, self.stored
        self.began.release()
        await self.go_on.acquire()
        if found < 0:
            raise Unavailable("the storage is away")
        return found


async def ask(rounds: Rounds, reading: Reading, key: str = "page") -> asyncio.Task[int]:
    """A client that has asked."""
    task = asyncio.create_task(rounds.of(key, reading))
    await asyncio.sleep(0)
    return task


def test_who_asks_while_a_read_is_under_way_shares_the_next_one() -> None:
    async def clients() -> None:
        rounds, reading = Rounds(), Reading()
        first = await ask(rounds, reading)
        await reading.began.acquire()
        reading.stored = 1
        others = [await ask(rounds, reading) for _ in range(3)]
        reading.go_on.release()
        assert await first == 0
        await reading.began.acquire()
        reading.go_on.release()
        assert await asyncio.gather(*others) == [1, 1, 1]
        assert reading.reads == 2

    asyncio.run(clients())


def test_who_asks_after_a_write_never_gets_what_was_read_before_it() -> None:
    """The next round has its clients already, and the one before it has just ended."""

    async def clients() -> None:
        rounds, reading = Rounds(), Reading()
        asked = [(0, await ask(rounds, reading))]
        for written in range(1, 20):
            await reading.began.acquire()
            reading.stored = written
            asked.append((written, await ask(rounds, reading)))
            reading.go_on.release()
            asked.append((written, await ask(rounds, reading)))
        await reading.began.acquire()
        reading.go_on.release()
        assert all([await task >= written for written, task in asked])

    asyncio.run(clients())


def test_other_pages_do_not_wait() -> None:
    async def clients() -> None:
        rounds, one, other = Rounds(), Reading(), Reading()
        waits = await ask(rounds, one, "one")
        other.go_on.release()
        assert await rounds.of("other", other) == 0
        one.go_on.release()
        assert await waits == 0

    asyncio.run(clients())


def test_a_read_that_fails_fails_for_its_clients_only() -> None:
    async def clients() -> None:
        rounds, reading = Rounds(), Reading()
        reading.stored = -1
        first = await ask(rounds, reading)
        await reading.began.acquire()
        reading.stored = 5
        second = await ask(rounds, reading)
        reading.go_on.release()
        reading.go_on.release()
        with pytest.raises(Unavailable):
            await first
        assert await second == 5

    asyncio.run(clients())


def test_a_client_that_goes_away_ends_no_round() -> None:
    async def clients() -> None:
        rounds, reading = Rounds(), Reading()
        leaves, stays = (asyncio.create_task(rounds.of("page", reading)) for _ in range(2))
        await reading.began.acquire()
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        reading.go_on.release()
        assert await stays == 0
        assert reading.reads == 1

    asyncio.run(clients())


def test_nothing_is_kept() -> None:
    async def clients() -> None:
        rounds, reading = Rounds(), Reading()
        for _ in range(2):
            reading.go_on.release()
            await rounds.of("page", reading)
        assert reading.reads == 2
        assert not rounds._next and not rounds._running

    asyncio.run(clients())


def test_pages_that_are_asked_for_together_are_not_mixed_up() -> None:
    names = ["a", "b", "c"]

    def repositories(count: int | None, last: str | None) -> list[str]:
        return [name for name in names if name > (last or "")][:count]

    async def move_bytes(call: Callable[..., list[str]], *args: object) -> list[str]:
        await asyncio.sleep(0)
        return call(*args)

    async def clients() -> list[tuple[list[str], bool]]:
        store = SimpleNamespace(repositories=repositories)
        service = cast(Any, SimpleNamespace(move_bytes=move_bytes, store=store, rounds=Rounds()))
        request = cast(Any, SimpleNamespace(identity=SimpleNamespace(allows=lambda action, name: True)))
        asked: list[tuple[int | None, str | None]] = [(1, None), (1, "a"), (None, None), (None, "a"), (1, "b")]
        return await asyncio.gather(*(readable_names(service, request, n, after) for n, after in asked))

    pages = [(["a"], True), (["b"], True), (names, False), (["b", "c"], False), (["c"], False)]
    assert asyncio.run(clients()) == pages
