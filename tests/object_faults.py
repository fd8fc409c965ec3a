"""Faults of an object store, by wrapping one: refusals, replies that get lost, bodies that end too early.

Seeded, so that a red run can be run again. What happened is in `requests`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from tests.counting import Intercepted
from tests.doubles.objects import MemoryObjects
from zotctl.errors import OutcomeUnknown, SlowDown, StorageError, Unavailable
from zotctl.storage.bucket.objects.seam import Objects, PresignedDelete
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Reader

READS = ("head", "get", "open", "list", "names")
WRITES = ("put", "delete", "copy", "start_parts", "put_part", "complete_parts", "abort_parts", "execute")
PIECES = ("read_at", "read_into")

SLOW, AWAY, LOST, NEVER, HALF = "slow down", "away", "lost reply", "never arrived", "half arrived"
TWICE = "done twice"
FAULTS = (SLOW, AWAY, LOST, NEVER)
"""A refusal; no connection; done, and not answered; not done, and not answered. HALF is for puts: half of the body was
kept, and not answered. TWICE: a proxy has repeated it, and the second answer comes."""


class Made(NamedTuple):
    method: str
    subject: str
    fault: str


class StillClock(Clock):
    """Time that goes by in sleep alone."""

    def __init__(self) -> None:
        self.time = 1000.0

    def elapsed(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Forgetful(MemoryObjects):
    """A server that carries out whatever was signed, whenever."""

    def execute(self, presigned: PresignedDelete) -> None:
        for key in presigned.keys:
            self.delete(key)


class FaultyObjects(Intercepted):
    """`choose` says what befalls a request: one of `FAULTS`, or "" for nothing."""

    def __init__(self, inner: Objects, choose: Callable[[str, str], str]) -> None:
        super().__init__(inner)
        self._choose = choose
        self.requests: list[Made] = []
        self._mutex = Lock()

    def taken(self) -> list[Made]:
        """Since the last time."""
        with self._mutex:
            taken, self.requests = self.requests, []
        return taken

    def fault(self, method: str, subject: str) -> str:
        with self._mutex:
            fault = self._choose(method, subject)
            self.requests.append(Made(method, subject, fault))
        return fault

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if name in ("list", "names"):
            return self._rows(name, str(args[0]), call(*args, **options))
        return self._call(name, str(args[0]), partial(call, *args, **options))

    def _call(self, method: str, subject: str, call: Callable[[], Any]) -> Any:
        fault = self.fault(method, subject)
        if fault == SLOW:
            raise SlowDown(f"{subject}: {method}: slow down, says the test")
        if fault == AWAY:
            raise Unavailable(f"{subject}: {method}: no connection, says the test")
        if fault == NEVER:
            raise self._silence(method, subject)
        if fault == TWICE:
            with suppress(StorageError):
                call()
        done = _half(call) if fault == HALF else call()
        if fault in (LOST, HALF):
            raise self._silence(method, subject)
        return FaultyReader(done, self, subject) if method == "open" else done

    def _silence(self, method: str, subject: str) -> Unavailable:
        kind = OutcomeUnknown if method in WRITES else Unavailable
        return kind(f"{subject}: {method}: no answer, says the test")

    def _rows(self, method: str, prefix: str, rows: Iterator[Any]) -> Iterator[Any]:
        """A page may fail anywhere."""
        for row in rows:
            self._call(method, prefix, lambda: None)
            yield row


def _half(call: Any) -> Any:
    """Of what is put."""
    key, body = call.args
    return call.func(key, bytes(body)[: len(body) // 2], **(call.keywords | {"sha256": ""}))


class FaultyReader:
    """Bodies that end too early."""

    def __init__(self, inner: Reader, faults: FaultyObjects, key: str) -> None:
        self._inner, self._faults, self._key = inner, faults, key

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return (lambda *args: self._piece(name, found, *args)) if name in PIECES else found

    def _piece(self, name: str, read: Callable[..., Any], offset: int, wanted: Any) -> Any:
        if self._faults.fault(name, self._key):
            if name == "read_into":
                wanted[:] = bytes(len(wanted))
            raise Unavailable(f"{self._key}: its bytes ended early, says the test")
        return read(offset, wanted)

    def __enter__(self) -> FaultyReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


def one_in(rate: int, seed: int, faults: tuple[str, ...] = FAULTS) -> Callable[[str, str], str]:
    """One request in so many has a fault."""
    dice = random.Random(seed)
    return lambda _method, _subject: dice.choice(faults) if dice.randrange(rate) == 0 else ""


def scripted(*faults: str) -> Callable[[str, str], str]:
    """The first requests have these faults, the others none."""
    left = list(faults)
    return lambda _method, _subject: left.pop(0) if left else ""
