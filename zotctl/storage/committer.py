"""Group commit: a push that finds no leader leads, and commits the changes of the waiting pushes with its own.

Each change is checked by itself, so one that is refused costs the others nothing (docs/design/local.md#indexjson).
"""

from __future__ import annotations

import threading
from collections import deque

from zotctl.errors import ZotctlError
from zotctl.storage.protocol import Change, StoreProtocol

GROUP_CHANGES = 256
"""Waiting changes that one commit takes in, at most."""


class _Ticket:
    __slots__ = ("change", "done", "error", "lead")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.lead = False


class Committer:
    """The group commit of one root in this process. Safe between threads."""

    def __init__(self, protocol: StoreProtocol) -> None:
        self._protocol = protocol
        self._mutex = threading.Lock()
        self._queues: dict[str, deque[_Ticket]] = {}

    def commit(self, name: str, change: Change) -> None:
        """Apply one change; returns when it is in index.json. Raises what the change or the storage raised."""
        ticket = _Ticket(change)
        with self._mutex:
            queue = self._queues.get(name)
            if queue is None:
                self._queues[name] = deque()
                ticket.lead = True
            else:
                queue.append(ticket)
        if not ticket.lead:
            ticket.done.wait()
        if ticket.lead:
            self._lead(name, ticket)
        if ticket.error is not None:
            raise ticket.error

    def _lead(self, name: str, own: _Ticket) -> None:
        group = [own]
        try:
            with self._protocol.turn(name):
                self._gather(name, group)
                self._run(name, group)
        finally:
            self._hand_over(name)
            for ticket in group[1:]:
                ticket.done.set()

    def _gather(self, name: str, group: list[_Ticket]) -> None:
        with self._mutex:
            queue = self._queues[name]
            group += [queue.popleft() for _ in range(min(len(queue), GROUP_CHANGES))]

    def _run(self, name: str, group: list[_Ticket]) -> None:
        try:
            outcomes = self._protocol.commit_index(name, [ticket.change for ticket in group])
            for ticket, outcome in zip(group, outcomes, strict=True):
                ticket.error = outcome
        except BaseException as error:
            for ticket in group:
                ticket.error = _again(error)

    def _hand_over(self, name: str) -> None:
        """The next in the queue leads; if there is none, the next to come will."""
        with self._mutex:
            queue = self._queues[name]
            if not queue:
                del self._queues[name]
                return
            successor = queue.popleft()
            successor.lead = True
        successor.done.set()


def _again(error: BaseException) -> BaseException:
    """A copy of an exception for each waiting caller: several threads cannot raise one object at once."""
    return type(error)(error.message, error.detail) if isinstance(error, ZotctlError) else error
