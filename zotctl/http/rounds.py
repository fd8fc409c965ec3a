"""Reads that several clients ask for at the same time, made once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Rounds:
    """One read at a time under each key. All who ask while one is under way share the next: it begins after they have
    asked, so that each sees what was written before its request. For one event loop; nothing is kept."""

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Task[Any]] = {}
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def of(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns or raises, in a round that begins from now on. A client that goes away ends no round."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._round(key, self._running.get(key), read))
        return await asyncio.shield(task)

    async def _round(self, key: Hashable, before: asyncio.Task[Any] | None, read: Callable[[], Awaitable[T]]) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            del self._running[key]
