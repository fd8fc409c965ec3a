"""The object store as one process reaches it: each request is a step of the scheduler, and may go wrong.

A fault befalls the request of a number: refused (`slow`), no connection (`away`), done and not answered (`lost`), not
done and not answered (`never`), not answered and done some time later (`late`), or done twice, of which the second
answer comes (`twice`): a proxy on the way repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.scheduler import SECOND
from zotctl.errors import Expired, OutcomeUnknown, SlowDown, StorageError, Unavailable
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.bucket.objects.wrappers import WrappedObjects
from zotctl.storage.driver import Buffer

if TYPE_CHECKING:
    from tests.simulation.bucket.machine import Process
    from tests.simulation.bucket.model import Op

WRITES = frozenset(("put", "delete", "execute", "copy", "complete_parts", "abort_parts"))
"""What changes what others see."""
CHANGES = frozenset(("put", "delete", "copy", "complete_parts"))
"""Of those, what is done to an object, and not to parts."""
TIMEOUTS = (0, 0, 60)
"""Seconds: a reset comes at once, a time-out does not."""


class Turns(WrappedObjects):
    def __init__(self, process: Process) -> None:
        super().__init__(process.machine.memory)
        self._process, self._machine, self._memory = process, process.machine, process.machine.memory

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
        """And let the model see what has changed, and what the sender was about when it sent this."""
        if not changed:
            return call()
        stored = self._memory.stored
        before = [stored.get(key) for key in changed]
        done = call()
        self._machine.model.changed(self._process, op, changed, before)
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
        if fault == "twice":
            with suppress(StorageError):
                self._do(process.op, call, changed)
            return self._do(process.op, call, changed)
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
        if self._memory.clock() > presigned.ends:
            raise Expired("signed too long ago")

        def delete() -> None:
            for key in presigned.keys:
                self._memory.delete(key)

        return delete

    # -- which requests there are ---------------------------------------------------------------

    def _read(self, call: partial[Any]) -> Any:
        name = call.func.__name__
        return self._make(name, call.args[0], call) if name in ("head", "get", "open") else call()

    def _write(self, call: partial[Any]) -> Any:
        name, key = call.func.__name__, call.args[0]
        if name == "copy":
            key = call.args[1]
        return self._make(name, key, call, *([key] if name in CHANGES else []))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """One page: no world here has a thousand keys."""
        yield from self._make("list", prefix, partial(self._memory._page, prefix, after))

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        yield from self._make("names", directory, partial(self._memory.names, directory, after=after))

    def put(self, key: str, body: Buffer, **how: Any) -> str:
        """Of bytes that stay as they are, however late it comes."""
        return super().put(key, bytes(body), **how)

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        return super().put_part(key, upload, number, bytes(body))

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        """Its store needs nothing else."""

    def execute(self, presigned: PresignedDelete) -> None:
        self._make("execute", " ".join(presigned.keys), partial(self._memory.execute, presigned), *presigned.keys)

    def close(self) -> None:
        pass
