"""Leases on a bucket: that of a job, and that of the only process that may write (`single_writer`).

Both are objects that name their holder. The holder renews them, and they expire by the server's clock. They save work
and prevent mistakes, but protect no data: a holder that was frozen for longer may meet another one, and every protocol
here allows for that.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zotctl.errors import Changed, HeldElsewhere, NotFound, OutcomeUnknown, StorageError
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.bucket.objects.states import read_state
from zotctl.storage.clock import Clock
from zotctl.storage.locks import describe_holder, read_holder

JOB_LEASE_S = 120.0
"""Seconds since the last renewal after which the holder counts as dead."""
JOB_RENEWAL_S = 30.0
JOB_ATTEMPTS = 3

WRITER_LEASE_S = 60.0
"""The same for the single writer."""
WRITER_RENEWAL_S = 15.0

log = logging.getLogger("zotctl.storage")


# -- of a job -------------------------------------------------------------------------------------


@contextmanager
def lease(context: BucketContext, job: str) -> Iterator[None]:
    """One run of a job at a time, by compare-and-swap. Raises HeldElsewhere, naming the process that has it."""
    held = _Lease(context, job)
    held.take()
    renewing = held.renew_now_and_then() if context.threads is not None else None
    try:
        yield
    finally:
        if renewing is not None:
            renewing.set()
        held.give_back()


class _Lease:
    """The lease of one run. `renew` runs in a thread of its own."""

    def __init__(self, context: BucketContext, job: str) -> None:
        self._context, self._job, self._key = context, job, keys.lease(job)
        self._token = context.clock.token()
        self._etag = ""
        self._mutex = threading.Lock()

    def take(self) -> None:
        for _ in range(JOB_ATTEMPTS):
            there = self._there()
            held = there is not None and there[0].is_younger(JOB_LEASE_S)
            if there is not None and held and not (self._is_mine(there[1]) or is_dead(there[1])):
                raise HeldElsewhere(
                    f"{self._job} is already running on {self._context.objects.label}{read_holder(there[1])}"
                )
            try:
                return self._write(there[0].etag if there else "")
            except (Changed, OutcomeUnknown):
                continue  # another process was faster, or this one was
        raise HeldElsewhere(f"{self._job} is being started by another process on {self._context.objects.label}")

    def _there(self) -> tuple[Object, bytes] | None:
        with suppress(NotFound):
            return read_state(self._context.objects, self._key)
        return None

    def _write(self, etag: str) -> None:
        """Each time other bytes, so that no two states have one ETag."""
        who = {"system": system(), "token": self._token, "renewal": self._context.clock.token()}
        who |= describe_holder(self._context.clock)
        self._etag = self._context.objects.put(self._key, json.dumps(who).encode(), match=etag, absent=not etag)

    def _is_mine(self, body: bytes) -> bool:
        return self._token.encode() in body

    def renew_now_and_then(self) -> threading.Event:
        """In a thread, until the event is set."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(JOB_RENEWAL_S):
                self.renew()

        threading.Thread(target=renew, name=f"lease-{self._job}", daemon=True).start()
        return over

    def renew(self) -> None:
        """Renew the lease. Never raises: without it another run may begin, which costs work only."""
        with self._mutex:
            try:
                self._write(self._etag)
            except Changed:
                self._take_over()
            except StorageError as error:
                log.info(f"the lease of {self._job} could not be renewed: {error.message}")

    def _take_over(self) -> None:
        """A renewal without an answer may have been done: then ours has another ETag by now."""
        with suppress(StorageError):
            there = self._there()
            if there is not None and self._is_mine(there[1]):
                self._etag = there[0].etag

    def give_back(self) -> None:
        """Only if it is still ours; between the look and the delete another process may take it, which costs work."""
        with self._mutex, suppress(StorageError):
            there = self._there()
            if there is not None and self._is_mine(there[1]):
                self._context.objects.delete(self._key)


# -- of the single writer (docs/design/bucket.md#indexjson) ---------------------------------------------


def refuse_beside_one(objects: Objects) -> None:
    """For a process that shares the bucket: it must not meet one that relies on being the only one. Raises
    HeldElsewhere, naming that one."""
    if (holder := _writer_of(objects)) is not None:
        raise _second_writer(objects, holder)


class SingleWriterLease:
    """For object stores on which two writers would lose each other's pushes. `process`: the number of the server, whose
    processes follow each other, or of the job.

    A sign, not a lock. It keeps a job, or a second server, from being started beside the first by mistake. On such a
    server it can't be more: two processes that start together both find no lease, for neither can create it only if it
    is absent; and one that was frozen for longer than a minute writes on when it wakes, for no write can be made to
    depend on the lease. Either is told, in the log, within seconds.
    """

    def __init__(self, objects: Objects, clock: Clock, process: int) -> None:
        self._objects, self._key = objects, keys.lease("writer")
        self._me = {"host": socket.gethostname(), "system": system(), "pid": process}
        self._body = json.dumps({**self._me, "token": clock.token()}).encode()
        self._over = threading.Event()

    def refuse_beside_another(self) -> None:
        """Raises HeldElsewhere while another process has it."""
        if (holder := self._other()) is not None:
            raise _second_writer(self._objects, holder)

    def claim(self) -> None:
        """Take it before the first write, and renew it for as long as this process lives. Raises HeldElsewhere."""
        self.refuse_beside_another()
        self._objects.put(self._key, self._body)
        threading.Thread(target=self._keep, name="single-writer", daemon=True).start()

    def release(self) -> None:
        """After the last write. Only the object that this instance has put there, for another process of the server may
        have put its own. Never raises: it is over in a minute by itself."""
        self._over.set()
        with suppress(StorageError):
            got = self._objects.get(self._key)
            if got is not None and got[1] == self._body:
                self._objects.delete(self._key)

    def renew(self) -> None:
        """Write it again, or log an error beside a second writer. Raises StorageError."""
        if (other := self._other()) is not None:
            log.error(
                f"{self._objects.label} has a second writer, {_shown(other)}, and pushes may get lost: stop one of the "
                "two; single_writer means that there is one process"
            )
        elif not self._over.is_set():
            self._objects.put(self._key, self._body)

    def _keep(self) -> None:
        while not self._over.wait(WRITER_RENEWAL_S):
            try:
                self.renew()
            except StorageError as error:
                log.warning(f"{self._key} can't be renewed: {error.message}")

    def _other(self) -> dict[str, Any] | None:
        holder = _writer_of(self._objects)
        return None if holder is not None and self._me.items() <= holder.items() else holder


def _writer_of(objects: Objects) -> dict[str, Any] | None:
    """The holder of a lease that has not expired; {}: unknown; None: there is none."""
    with suppress(NotFound):
        got = objects.get(keys.lease("writer"))
        if got is not None and got[0].age < WRITER_LEASE_S and not is_dead(got[1]):
            try:
                said = load_json(got[1])
            except ValueError:
                return {}
            return said if isinstance(said, dict) else {}
    return None


def _second_writer(objects: Objects, holder: dict[str, Any]) -> HeldElsewhere:
    return HeldElsewhere(
        f"{objects.label} has a single writer already: {_shown(holder)}; stop it first, or wait {WRITER_LEASE_S:g} s "
        "after it has died"
    )


def _shown(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"


# -- the holder -----------------------------------------------------------------------------------------


def is_dead(body: bytes) -> bool:
    """Did the holder run on this machine, and has it ended? Then no run has to wait for the lease to expire."""
    try:
        who = load_json(body)
        if who["system"] != system() or not who["system"]:
            return False
        os.kill(int(who["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return False


def system() -> str:
    """Identifies one boot of one machine and one PID namespace on it; "" where that can't be known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
