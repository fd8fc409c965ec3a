"""Group commit: a push that finds no leader leads, and takes the changes of those that wait into the same rename.

Each change is checked for itself, so one that is refused costs the others nothing (docs/design/local.md#indexjson).
"""

from __future__ import annotations

import threading
from collections import deque

from zotctl.errors import ZotctlError
from zotctl.storage.protocol import Change, StoreProtocol

GROUP_CHANGES = 256


class _Ticket:
    __slots__ = ("change", "done", "error", "lead")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.lead = False


class Committer:
    """One for each store protocol and process."""

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
            heir = queue.popleft()
            heir.lead = True
        heir.done.set()


def _again(error: BaseException) -> BaseException:
    """A fresh exception for each caller that waited: one object can't be raised in several threads at once."""
    return type(error)(error.message, error.detail) if isinstance(error, ZotctlError) else error
