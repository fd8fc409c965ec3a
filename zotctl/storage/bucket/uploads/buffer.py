"""The bytes of an upload that are in no part yet: one anonymous map with room for two parts.

A map, since its pages are there once they are written and go back to the system at once, and since a part is sent out
of it without a copy. While one half is being sent, the other is filled. Before the first part is sent, both are filled
one after the other, so that a blob of up to two parts needs none.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zotctl.storage.bucket.uploads.memory_budget import BudgetShare, MemoryBudget

SPARE = 1 << 20
"""Bytes behind the last part, for what `session` writes after a tail."""


class UploadBuffer:
    """From `start` to `end` it is filled; `cut`: parts are being sent, each from a half. For one thread at a time."""

    def __init__(self, budget: MemoryBudget, part: int, *, cut: bool = False) -> None:
        self.part, self.cut, self.start, self.end = part, cut, 0, 0
        self._budget, self._share = budget, BudgetShare(budget)
        self._map: mmap.mmap | None = None
        self._huge = False
        """In large pages, of which a part needs few; a small tail would take up one for nothing."""
        self._lent: list[memoryview] = []

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def halves(self) -> int:
        """Parts for which it has memory; 0 while it is small."""
        return self._share.size // self.part

    @property
    def room(self) -> int:
        """Bytes that can be added without more memory and without sending a part."""
        limit = self.start + self.part if self.cut else 2 * self.part
        return max(0, min(limit, self._share.size) - self.end)

    def add(self, data: memoryview) -> int:
        """As much of it as there is room for."""
        count = min(self.room, len(data))
        if count:
            self._memory()[self.end : self.end + count] = data[:count]
            self.end += count
        return count

    def ready(self, count: int) -> bool:
        """Can so many bytes, at most a part, be taken without waiting for memory? If not, ask again."""
        return self.room >= count or self.halves > 0 or self._share.ask(self._level(self.end + count))

    def grow(self) -> bool:
        """More room, waiting for it if there are less bytes than a part. Raises Busy."""
        if self.halves == 0:
            self._share.grow(self._level(self.end + 1))
        elif self.halves == 1 and not self.cut:
            self._share.swap(2 * self.part)
        return self.room > 0

    def load(self, data: memoryview) -> None:
        """What another request has left, into an empty one. Raises Busy."""
        if len(data):
            self._share.grow(self._level(len(data)))
            self.add(data)

    def view(self, start: int, end: int) -> memoryview:
        """Good until this half is used again, or all is dropped."""
        if end <= start:
            return memoryview(b"")
        self._lent = [view for view in self._lent if not _is_released(view)]
        self._lent.append(memoryview(self._memory())[start:end])
        return self._lent[-1]

    def content(self) -> memoryview:
        return self.view(self.start, self.end)

    @property
    def whole(self) -> bool:
        """Is it parts, and nothing beside them?"""
        return len(self) > 0 and len(self) % self.part == 0

    @contextmanager
    def trailed(self, size: int, trailer: bytes) -> Iterator[memoryview]:
        """Its first so many bytes and what follows them, in one piece and without a copy; what is there comes back
        afterwards. No part is being sent."""
        memory, end = self._memory(), self.start + size
        after = end + len(trailer)
        if after > len(memory):
            yield memoryview(bytes(self.view(self.start, end)) + trailer)
            return
        behind = memory[end:after]
        memory[end:after] = trailer
        try:
            yield self.view(self.start, after)
        finally:
            memory[end:after] = behind

    def turn(self, sent: int) -> int:
        """Go on in another half than that which was sent last, if there is memory for it; where."""
        if self.halves == 1:
            self._share.swap(2 * self.part)
        self.start = self.end = self.part if self.halves > 1 and sent == 0 else 0
        return self.start

    def rest(self) -> None:
        """No more bytes come for now: what was asked for is not wanted any more."""
        self._share.settle()
        if not len(self):
            self.clear()

    def shrink(self) -> None:
        """Leave a part's memory to others, if a small share is free and enough. No part is being sent."""
        size = self._level(len(self))
        if self.halves and size < self.part and self._share.swap(size):
            content = bytes(self.content())
            self._drop()
            self.add(memoryview(content))

    def clear(self) -> None:
        """Let go of all bytes, and of the memory."""
        self._drop()
        self._share.release()

    def _drop(self) -> None:
        self.start = self.end = 0
        # Frames of exceptions that are over may refer to a view until the garbage is collected, and a map with
        # views can't be given back.
        for view in self._lent:
            view.release()
        self._lent.clear()
        if self._map is not None:
            self._map.close()
            self._map = None

    def _memory(self) -> mmap.mmap:
        if self._map is None:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._map, self._huge = mmap.mmap(-1, 2 * self.part + SPARE, flags=flags), False
        if self.halves and not self._huge:
            self._huge = True
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_HUGEPAGE)
        return self._map

    def _level(self, count: int) -> int:
        small = self._budget.small
        return next(size for size in (small // 16, small, self.part, 2 * self.part) if size >= count)


def _is_released(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018 - raises
    except ValueError:
        return True
    return False
