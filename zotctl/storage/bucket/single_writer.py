"""One writer: for object stores on which two would lose each other's pushes (`single_writer`,
docs/design/bucket.md#indexjson).

A sign, not a lock. It keeps a job, or a second server, from being started beside the first by mistake; one that dies
leaves it behind, and it counts for a minute. On such a server it can't be more: two that look at the same moment both
find nothing, for none can create it only if it is absent; and one that was frozen for longer than a minute writes on
when it wakes, for no write can be made to depend on the sign. Either is told, in the log, within seconds.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from zotctl.errors import HeldElsewhere, NotFound, StorageError
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.lease import is_dead, system
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.clock import Clock

COUNTS_FOR = 60.0
"""Seconds without a renewal after which the holder is taken for dead."""
RENEWED_EVERY = 15.0

log = logging.getLogger("zotctl.storage")


def refuse_beside_one(objects: Objects) -> None:
    """A process that shares the bucket must not meet one that relies on being alone. Raises HeldElsewhere."""
    if (holder := _holder(objects)) is not None:
        raise _held(objects, holder)


class SingleWriterLease:
    """`process`: stands for the server, whose processes follow each other, or for the job."""

    def __init__(self, objects: Objects, clock: Clock, process: int) -> None:
        self._objects, self._key = objects, keys.lease("writer")
        self._me = {"host": socket.gethostname(), "system": system(), "pid": process}
        self._body = json.dumps({**self._me, "token": clock.token()}).encode()
        self._over = threading.Event()

    def refuse_beside_another(self) -> None:
        """Raises HeldElsewhere."""
        if (holder := self._other()) is not None:
            raise _held(self._objects, holder)

    def claim(self) -> None:
        """Before the first write. Raises HeldElsewhere."""
        self.refuse_beside_another()
        self._objects.put(self._key, self._body)
        threading.Thread(target=self._keep, name="alone", daemon=True).start()

    def release(self) -> None:
        """After the last write. Only the sign that this object has put there, for another process of the server may
        have put its own. Never raises: it is over in a minute by itself."""
        self._over.set()
        with suppress(StorageError):
            got = self._objects.get(self._key)
            if got is not None and got[1] == self._body:
                self._objects.delete(self._key)

    def _other(self) -> dict[str, Any] | None:
        holder = _holder(self._objects)
        return None if holder is not None and self._me.items() <= holder.items() else holder

    def _keep(self) -> None:
        """As long as this process lives; what it leaves behind names a process that is dead."""
        while not self._over.wait(RENEWED_EVERY):
            try:
                self.renew()
            except StorageError as error:
                log.warning(f"{self._key} can't be renewed: {error.message}")

    def renew(self) -> None:
        """Raises StorageError."""
        if (other := self._other()) is not None:
            log.error(
                f"{self._objects.label} has a second writer, {_shown(other)}, and pushes may get lost: stop one of the "
                "two; single_writer means that there is one process"
            )
        elif not self._over.is_set():
            self._objects.put(self._key, self._body)


def _holder(objects: Objects) -> dict[str, Any] | None:
    """Whose sign counts; {}: of a process that can't be known."""
    with suppress(NotFound):
        got = objects.get(keys.lease("writer"))
        if got is not None and got[0].age < COUNTS_FOR and not is_dead(got[1]):
            return _said(got[1])
    return None


def _said(body: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        said = load_json(body)
        return said if isinstance(said, dict) else {}
    return {}


def _held(objects: Objects, holder: dict[str, Any]) -> HeldElsewhere:
    return HeldElsewhere(
        f"{objects.label} has a single writer already: {_shown(holder)}; stop it first, or wait {COUNTS_FOR:g} s after "
        "it has died"
    )


def _shown(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"
