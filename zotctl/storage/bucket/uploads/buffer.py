"""The bytes of uploads in memory, and the one limit for all of them (I13).

`MemoryBudget` is the limit, in two pools, so that no two uploads wait for each other. A *small* share comes out of a
quarter of it. A *large* one is a part or two: an upload gets it at once or waits in the order of asking. An upload that
has a large share needs no more to send what it has; then it gives the share back if others wait. A second part only
saves time, so no upload waits for it.

`UploadBuffer` holds the bytes of one upload: an anonymous map with room for two parts. A map, since its pages are there
once they are written and go back to the system at once, and since a part is sent out of it without a copy. While one
half is being sent, the other is filled. Before the first part is sent, both are filled one after the other, so that a
blob of up to two parts needs none.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from zotctl.errors import Busy
from zotctl.storage.bucket.objects.multipart import PART_BYTES, SMALLEST_PART_BYTES

UPLOAD_MEMORY_BYTES = 256 << 20
MEMORY_WAIT_S = 60.0
"""How long a thread waits for memory."""
WAITING_THREADS = 8
"""Threads that may wait at once: uploads that have memory need threads to go on (http waits without one, by
`ready`)."""
TRAILER_BYTES = 1 << 20
"""Room behind the last part for the trailer of a session."""


# -- the budget ----------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class BudgetShare:
    """The bytes that one upload has of the budget, and those that it has asked for and does not have yet, 0 if none.
    Written under the lock of the budget."""

    size: int = 0
    asked: int = 0


@dataclass(slots=True)
class BufferPool:
    """Bytes that are given to shares in the order of asking."""

    limit: int
    held: int = 0
    queue: deque[BudgetShare] = field(default_factory=deque)


class MemoryBudget:
    """The limit of the bytes that all uploads of a process hold in memory. Thread-safe.

    `limit` and `part` in bytes; without `part`, the usual size or what fits. A single upload gets what it needs,
    however small the limit.
    """

    def __init__(
        self,
        limit: int = UPLOAD_MEMORY_BYTES,
        *,
        part: int = 0,
        wait_s: float = MEMORY_WAIT_S,
        waiting_threads: int = WAITING_THREADS,
    ) -> None:
        self.part = part or max(SMALLEST_PART_BYTES, min(PART_BYTES, limit // 4))
        self.small = self.part // 16
        self.evict: Callable[[], bool] = lambda: False
        """Give up memory of an upload that is not being written; False: there is none."""
        self._small, self._large = BufferPool(limit // 4), BufferPool(limit - limit // 4)
        self._wait_s, self._threads = wait_s, threading.BoundedSemaphore(waiting_threads)
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Bytes in use."""
        return self._small.held + self._large.held

    @property
    def largest_part(self) -> int:
        """The bytes of the largest part that any upload gets."""
        return max(self.part, self._large.limit)

    @property
    def wanted(self) -> bool:
        """Does an upload wait for a part's memory? Then one that can spare some gives it back."""
        return bool(self._large.queue)

    def ask(self, share: BudgetShare, size: int, *, evict: bool = True) -> bool:
        """Ask for at least `size` bytes. True: the share has them; else ask again later."""
        if share.size < size and share.asked < size:
            self._queue(share, size)
            while evict and share.asked and self.evict():
                pass
        return share.size >= size

    def grow(self, share: BudgetShare, size: int) -> None:
        """Wait for at least `size` bytes. Raises Busy, and then the share is as it was."""
        if self.ask(share, size):
            return
        waiting = self._threads.acquire(blocking=False)
        try:
            with self._changed:
                self._changed.wait_for(lambda: share.size >= size, self._wait_s if waiting else 0)
                if share.size < size:
                    self._withdraw(share)
                    raise Busy("the memory for uploads is in use by others; try again")
        finally:
            if waiting:
                self._threads.release()

    def swap(self, share: BudgetShare, size: int) -> bool:
        """Exchange the share for one of exactly `size` bytes, at once and only if no other upload waits for them.
        False: the share is as it was."""
        with self._changed:
            self._queue(share, size)
            self._withdraw(share)
        return share.size == size

    def settle(self, share: BudgetShare) -> None:
        """Withdraw what was asked for."""
        with self._changed:
            self._withdraw(share)

    def release(self, share: BudgetShare) -> None:
        """Give the whole share back."""
        with self._changed:
            self._pool(share.size).held -= share.size
            share.size = 0
            self._withdraw(share)

    def _pool(self, size: int) -> BufferPool:
        return self._small if size <= self.small else self._large

    def _queue(self, share: BudgetShare, size: int) -> None:
        with self._changed:
            self._withdraw(share)
            share.asked = size
            self._pool(size).queue.append(share)
            self._grant()

    def _withdraw(self, share: BudgetShare) -> None:
        if share.asked:
            self._pool(share.asked).queue.remove(share)
            share.asked = 0
        self._grant()

    def _grant(self) -> None:
        """Give waiting shares what is free. An upload keeps its old share until it has the new one."""
        pools = [self._small, self._large]
        while fits := [p for p in pools if p.queue and (p.held == 0 or p.held + p.queue[0].asked <= p.limit)]:
            share = fits[0].queue.popleft()
            fits[0].held += share.asked
            self._pool(share.size).held -= share.size
            share.size, share.asked = share.asked, 0
        self._changed.notify_all()


# -- the buffer ----------------------------------------------------------------------------------


class UploadBuffer:
    """The bytes of one upload that are in no part yet, from `start` to `end` of its map. For one thread at a time.

    `part`: bytes of a part. `in_parts`: some were sent, so that it is filled by halves.
    """

    def __init__(self, budget: MemoryBudget, part: int, *, in_parts: bool = False) -> None:
        self.part, self.in_parts, self.start, self.end = part, in_parts, 0, 0
        self._budget, self._share = budget, BudgetShare()
        self._map: mmap.mmap | None = None
        self._huge = False
        """Is it in huge pages? A part needs few of them, but a small buffer would waste one."""
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
        limit = self.start + self.part if self.in_parts else 2 * self.part
        return max(0, min(limit, self._share.size) - self.end)

    def add(self, data: memoryview) -> int:
        """Add as much of `data` as there is room for. Returns the number of bytes."""
        count = min(self.room, len(data))
        if count:
            self._memory()[self.end : self.end + count] = data[:count]
            self.end += count
        return count

    def ready(self, count: int) -> bool:
        """Can `count` bytes, at most a part, be added without waiting for memory? If not, ask again."""
        return self.room >= count or self.halves > 0 or self._budget.ask(self._share, self._level(self.end + count))

    def grow(self) -> bool:
        """Get more room, waiting for it if there is less than a part. False: none, so a part has to be sent. Raises
        Busy."""
        if self.halves == 0:
            self._budget.grow(self._share, self._level(self.end + 1))
        elif self.halves == 1 and not self.in_parts:
            self._budget.swap(self._share, 2 * self.part)
        return self.room > 0

    def load(self, data: memoryview) -> None:
        """Fill an empty one. Raises Busy."""
        if len(data):
            self._budget.grow(self._share, self._level(len(data)))
            self.add(data)

    def divide(self, part: int) -> None:
        """Make parts smaller, before any was sent."""
        self.part = part
        if self._share.size > 2 * part:
            self._budget.swap(self._share, 2 * part)

    def view(self, start: int, end: int) -> memoryview:
        """A view of its bytes, without a copy. Valid until this half is used again, or everything is dropped."""
        if end <= start:
            return memoryview(b"")
        self._lent = [view for view in self._lent if not _is_released(view)]
        self._lent.append(memoryview(self._memory())[start:end])
        return self._lent[-1]

    def content(self) -> memoryview:
        """A view of all its bytes; see `view`."""
        return self.view(self.start, self.end)

    @contextmanager
    def with_trailer(self, size: int, trailer: bytes) -> Iterator[memoryview]:
        """Its first `size` bytes and then `trailer`, in one piece and without a copy; what the trailer covers comes
        back afterwards. Only while no part is being sent."""
        memory, end = self._memory(), self.start + size
        after = end + len(trailer)
        if after > len(memory):
            yield memoryview(bytes(self.view(self.start, end)) + trailer)
            return
        covered = memory[end:after]
        memory[end:after] = trailer
        try:
            yield self.view(self.start, after)
        finally:
            memory[end:after] = covered

    def next_half(self, sent: int) -> int:
        """Go on, empty, in another half than that which was sent last (`sent`, an offset in the map), if there is
        memory for it; returns the offset of the half."""
        if self.halves == 1:
            self._budget.swap(self._share, 2 * self.part)
        self.start = self.end = self.part if self.halves > 1 and sent == 0 else 0
        return self.start

    def settle(self) -> None:
        """No more bytes come for now: withdraw what was asked for, and keep memory only for what is there."""
        self._budget.settle(self._share)
        if not len(self):
            self.clear()

    def shrink(self) -> None:
        """Leave a part's memory to others, if a small share is free and enough. Only while no part is being sent."""
        size = self._level(len(self))
        if self.halves and size < self.part and self._budget.swap(self._share, size):
            content = bytes(self.content())
            self._drop()
            self.add(memoryview(content))

    def clear(self) -> None:
        """Drop all bytes and free the memory."""
        self._drop()
        self._budget.release(self._share)

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
            self._map, self._huge = mmap.mmap(-1, 2 * self.part + TRAILER_BYTES, flags=flags), False
        if self.halves and not self._huge:
            self._huge = True
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_HUGEPAGE)
        return self._map

    def _level(self, count: int) -> int:
        """The smallest size of a share that is enough for so many bytes."""
        small = self._budget.small
        return next(size for size in (small // 16, small, self.part, 2 * self.part) if size >= count)


def _is_released(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018 - raises
    except ValueError:
        return True
    return False
