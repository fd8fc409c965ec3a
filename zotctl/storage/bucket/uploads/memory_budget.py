"""How much memory all uploads of a process may hold (I13).

Two pools, so that no two uploads wait for each other. A *small* share comes out of a quarter of the limit. A
large one is a part or two: it is had at once or waited for in the order of asking, and an upload that has one needs
no more to send what he reservations, after which he gives it back if others wait. A second part is a luxury, never
waited for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from zotctl.errors import Busy
from zotctl.storage.bucket.objects.multipart import PART_BYTES, SMALLEST_PART_BYTES

LIMIT = 256 << 20
PATIENCE = 60.0
"""Seconds that a thread waits for memory."""
WAITING = 8
"""Threads that may wait at once: uploads that have memory need some to go on (http waits without a thread, by
`ready`)."""


class BudgetTicket:
    """A place in the queue of a pool, or, once `granted`, memory."""

    __slots__ = ("granted", "pool", "size")

    def __init__(self, pool: BufferPool, size: int) -> None:
        self.pool, self.size, self.granted = pool, size, False

    def give_back(self) -> None:
        self.pool.drop(self)


class BufferPool:
    """Bytes, first come, first served. A single upload gets what it needs, however small the limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.queue: deque[BudgetTicket] = deque()
        self._changed = threading.Condition()

    def ask(self, size: int) -> BudgetTicket:
        ticket = BudgetTicket(self, size)
        with self._changed:
            self.queue.append(ticket)
            self._grant()
        return ticket

    def drop(self, ticket: BudgetTicket) -> None:
        """Memory or a place in the queue."""
        with self._changed:
            if ticket.granted:
                ticket.granted = False
                self.held -= ticket.size
            elif ticket in self.queue:
                self.queue.remove(ticket)
            self._grant()

    def wait(self, ticket: BudgetTicket, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: ticket.granted, seconds)

    def _grant(self) -> None:
        while self.queue and (self.held == 0 or self.held + self.queue[0].size <= self.limit):
            ticket = self.queue.popleft()
            ticket.granted = True
            self.held += ticket.size
        self._changed.notify_all()


class MemoryBudget:
    """`limit` and `part` in bytes; without a `part`, the usual one or what fits."""

    def __init__(
        self, limit: int = LIMIT, *, part: int = 0, patience: float = PATIENCE, waiting: int = WAITING
    ) -> None:
        self.part = part or max(SMALLEST_PART_BYTES, min(PART_BYTES, limit // 4))
        self.small = self.part // 16
        self._small, self._large = BufferPool(limit // 4), BufferPool(limit - limit // 4)
        self._patience, self._threads = patience, threading.BoundedSemaphore(waiting)
        self.evict: Callable[[], bool] = lambda: False
        """Give up memory of an upload that is not being written; False: there is none."""

    @property
    def held(self) -> int:
        return self._small.held + self._large.held

    @property
    def wanted(self) -> bool:
        """Another upload waits for a part: one that can spare a part gives it back."""
        return bool(self._large.queue)

    def ask(self, size: int, *, evict: bool = True) -> BudgetTicket:
        """Bytes, or a place in the queue for them."""
        ticket = (self._small if size <= self.small else self._large).ask(size)
        while evict and not ticket.granted and self.evict():
            pass
        return ticket

    def wait(self, ticket: BudgetTicket) -> None:
        """Until it is granted. Raises Busy, and the ticket is void."""
        if ticket.granted:
            return
        waiting = self._threads.acquire(blocking=False)
        try:
            if not waiting or not ticket.pool.wait(ticket, self._patience):
                ticket.give_back()
                raise Busy("the memory for uploads is in use by others; try again")
        finally:
            if waiting:
                self._threads.release()


class BudgetShare:
    """What one upload holds of it. For one thread at a time."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self._ticket: BudgetTicket | None = None
        self._asked: BudgetTicket | None = None

    @property
    def size(self) -> int:
        return self._ticket.size if self._ticket else 0

    def ask(self, size: int) -> bool:
        """At least so much, now or, if this is asked again, some time."""
        if self.size >= size:
            return True
        if self._asked is None or self._asked.size < size:
            self.settle()
            self._asked = self.budget.ask(size)
        return self._take()

    def grow(self, size: int) -> None:
        """At least so much, waiting for it. Raises Busy; then it is as it was."""
        if not self.ask(size) and self._asked is not None:
            asked, self._asked = self._asked, None
            self.budget.wait(asked)
            self._asked = asked
            self._take()

    def swap(self, size: int) -> bool:
        """Just so much instead, at once, and only if no other upload waits for it."""
        self.settle()
        self._asked = self.budget.ask(size, evict=False)
        done = self._take()
        self.settle()
        return done

    def release(self) -> None:
        self.settle()
        if self._ticket is not None:
            self._ticket.give_back()
            self._ticket = None

    def _take(self) -> bool:
        if self._asked is None or not self._asked.granted:
            return False
        before, self._ticket, self._asked = self._ticket, self._asked, None
        if before is not None:
            before.give_back()
        return True

    def settle(self) -> None:
        """Withdraw what was asked for and not taken."""
        if self._asked is not None:
            self._asked.give_back()
            self._asked = None
