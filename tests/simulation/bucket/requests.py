"""The object store as one process reaches it: each request is a step of the scheduler, and may go wrong.

A fault befalls the request of a number: refused (`slow`), no connection (`away`), done and not answered (`lost`), not
done and not answered (`never`), or not answered and done some time later (`late`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.doubles.objects import MemoryObjectReader
from tests.simulation.baton import SECOND
from zotctl.errors import Expired, OutcomeUnknown, SlowDown, StorageError, Unavailable
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.driver import Buffer

if TYPE_CHECKING:
    from tests.simulation.bucket.ghost import Op
    from tests.simulation.bucket.machine import Process

WRITES = frozenset(("put", "delete", "execute", "copy", "complete_parts", "abort_parts"))
"""What changes what others see."""
TIMEOUTS = (0, 0, 60)
"""Seconds: a reset comes at once, a time-out does not."""


class Turns:
    def __init__(self, process: Process) -> None:
        self._process, self._machine = process, process.machine
        self._inner, self.label = process.machine.memory, process.machine.memory.label

    # -- one request ----------------------------------------------------------------------------

    def _make(self, method: str, key: str, call: Callable[[], Any], *changed: str) -> Any:
        machine = self._machine
        self._process.turn(method, key)
        if machine.hub is None:
            return call()
        fault = machine.fault(method, key) if machine.faults else None
        if fault is not None:
            return self._fail(fault, method, key, call, changed)
        try:
            done = self._do(self._process.op, call, changed)
        except StorageError as error:
            machine.trace.append((self._process.name, method, key, type(error).__name__))
            raise
        machine.trace.append((self._process.name, method, key, ""))
        return done

    def _do(self, op: Op | None, call: Callable[[], Any], changed: Sequence[str]) -> Any:
        """And let the ghost see what has changed, and what the sender was about when it sent this."""
        if not changed:
            return call()
        stored = self._inner.stored
        before = [stored.get(key) for key in changed]
        done = call()
        self._machine.ghost.changed(self._process, op, changed, before)
        return done

    def _fail(self, fault: str, method: str, key: str, call: Callable[[], Any], changed: Sequence[str]) -> Any:
        from tests.simulation.bucket.machine import Late

        machine, process = self._machine, self._process
        is_write = bool(changed) or method in WRITES
        machine.note(process.name, method, key, f"FAULT {fault}")
        if fault == "slow":
            raise SlowDown(f"{key}: slow down")
        if fault == "away":
            raise Unavailable(f"{key}: no connection")
        if fault == "lost":
            self._do(process.op, call, changed)
        elif fault == "late" and is_write:
            Late(process, method, key, partial(self._do, process.op, self._accepted(method, call), changed))
        process.wake = machine.now + machine.dice.choice(TIMEOUTS) * SECOND
        process.give_way()
        raise (OutcomeUnknown if is_write else Unavailable)(f"{key}: no answer")

    def _accepted(self, method: str, call: Callable[[], Any]) -> Callable[[], Any]:
        """A signature is looked at when a request comes in; that it is carried out later is the server's affair."""
        if method != "execute":
            return call
        presigned: PresignedDelete = call.args[0]  # type: ignore[attr-defined]
        if self._inner.clock() > float(str(presigned.request)):
            raise Expired("signed too long ago")

        def delete() -> None:
            for key in presigned.keys:
                self._inner.delete(key)

        return delete

    # -- reading --------------------------------------------------------------------------------

    def head(self, key: str) -> Object:
        return self._make("head", key, partial(self._inner.head, key))

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        return self._make("get", key, partial(self._inner.get, key, unless=unless))

    def open(self, key: str) -> MemoryObjectReader:
        return self._make("open", key, partial(self._inner.open, key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """One page: no world here has a thousand keys."""
        yield from self._make("list", prefix, partial(self._inner._page, prefix, after))

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        yield from self._make("names", directory, partial(self._inner.names, directory, after=after))

    # -- writing --------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Buffer,
        *,
        match: str = "",
        absent: bool = False,
        metadata: Mapping[str, str] | None = None,
        sha256: str = "",
    ) -> str:
        sent = partial(self._inner.put, key, bytes(body), match=match, absent=absent, metadata=metadata, sha256=sha256)
        return self._make("put", key, sent, key)

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        """Its store needs nothing else."""

    def delete(self, key: str) -> None:
        self._make("delete", key, partial(self._inner.delete, key), key)

    def copy(self, source: str, target: str) -> Object:
        return self._make("copy", target, partial(self._inner.copy, source, target), target)

    def start_parts(self, key: str) -> str:
        return self._make("start_parts", key, partial(self._inner.start_parts, key))

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        return self._make("put_part", key, partial(self._inner.put_part, key, upload, number, bytes(body)))

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        return self._make("complete_parts", key, partial(self._inner.complete_parts, key, upload, list(etags)), key)

    def abort_parts(self, key: str, upload: str) -> None:
        self._make("abort_parts", key, partial(self._inner.abort_parts, key, upload))

    # -- signed requests ------------------------------------------------------------------------

    def presign_get(self, key: str, seconds: int) -> str:
        return self._inner.presign_get(key, seconds)

    def sign_deletes(self, keys: Sequence[str], seconds: int, **more: Any) -> PresignedDelete:
        return self._inner.sign_deletes(keys, seconds, **more)

    def execute(self, presigned: PresignedDelete) -> None:
        self._make("execute", " ".join(presigned.keys), partial(self._inner.execute, presigned), *presigned.keys)

    def date(self) -> float:
        return self._inner.date()

    def close(self) -> None:
        pass
