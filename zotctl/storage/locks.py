"""The lock of a repository, held for one short commit (docs/design/local.md#locks).

A function that needs the lock takes a `Held` as an argument, so it cannot be called without one.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from zotctl.errors import Busy
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.clock import Clock, poll
from zotctl.storage.driver import Driver, Lock

LOCK_TIMEOUT_S = 30.0
RENEW_AFTER_S = 20.0
"""A lock that was held for longer is taken again before a rename: a network client may have lost it unnoticed."""


def lock_byte(name: str) -> int:
    """The byte of the lock file that stands for a repository: the first 62 bits of SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


class ProcessLocks:
    """Locks within this process, for a file system that has none. `serve` then runs one process, and no job writes
    beside it. Thread-safe."""

    def __init__(self) -> None:
        self._mutex, self._taken = threading.Lock(), set[object]()

    def take(self, name: object) -> _ProcessLock | None:
        """Lock a name; None: another caller has it."""
        with self._mutex:
            if name in self._taken:
                return None
            self._taken.add(name)
        return _ProcessLock(self, name)

    def give_back(self, name: object) -> None:
        """Release a name."""
        with self._mutex:
            self._taken.discard(name)


class _ProcessLock:
    def __init__(self, locks: ProcessLocks, name: object) -> None:
        self._locks, self._name = locks, name

    def current(self) -> bool:
        return True

    def release(self) -> None:
        self._locks.give_back(self._name)


class ReadTurns:
    """Of the threads of this process that find an index.json which it does not know, one parses it, and the others find
    what it has parsed: a parse takes several times the bytes of the file. Nothing but memory depends on it, so that who
    has waited for long goes on. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._taken = clock, ProcessLocks()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """The turn of this thread at a repository, as long as the block runs."""
        turn = poll(self._clock, partial(self._taken.take, name), self._clock.elapsed() + LOCK_TIMEOUT_S)
        try:
            yield
        finally:
            if turn is not None:
                turn.release()


class Held:
    """The lock of one repository, taken. Only `Locks.hold` makes one."""

    __slots__ = ("_clock", "lock", "name", "since")

    def __init__(self, name: str, lock: Lock, clock: Clock) -> None:
        self.name, self.lock, self._clock = name, lock, clock
        self.since = clock.elapsed()

    def too_long(self) -> bool:
        """Was it held for more than `RENEW_AFTER_S`?"""
        return self._clock.elapsed() - self.since > RENEW_AFTER_S


class Locks:
    """The lock file of one root."""

    def __init__(self, driver: Driver, clock: Clock, deadline: float = LOCK_TIMEOUT_S) -> None:
        self._driver, self._clock, self._deadline = driver, clock, deadline
        self.process_locks = ProcessLocks()

    @contextmanager
    def hold(self, name: str) -> Iterator[Held]:
        """Exclude every other writer of a repository, in any process. Raises Busy after the deadline.

        Held for a commit only: no hashing, no listing, no walking inside (I11).
        """
        held = Held(name, self._take(name), self._clock)
        try:
            yield held
        finally:
            held.lock.release()

    def renew(self, held: Held) -> None:
        """Take the lock again, because it was held for so long that it may have been lost."""
        held.lock.release()
        held.lock, held.since = self._take(held.name), self._clock.elapsed()

    def _take(self, name: str) -> Lock:
        lock = poll(self._clock, partial(self._try, lock_byte(name)), self._clock.elapsed() + self._deadline)
        if lock is None:
            raise Busy(f"{name}: another process has held its lock for {self._deadline:.0f} s; try again")
        return lock

    def _try(self, byte: int) -> Lock | None:
        locks = self._driver.capabilities.locks
        lock = self._driver.lock(keys.LOCK, byte) if locks else self.process_locks.take(byte)
        if lock is None or lock.current():
            return lock
        lock.release()
        return None


def describe_holder(clock: Clock) -> dict[str, Any]:
    """How the holder of a lease describes itself. `since` in seconds since 1970."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": int(clock.now())}


def read_holder(body: bytes) -> str:
    """What follows "is already running" in a message; "" if the body is nothing that `describe_holder` has made."""
    try:
        who = load_json(body)
        return f": process {who['pid']} on {who['host']}"
    except (ValueError, KeyError, TypeError):
        return ""
