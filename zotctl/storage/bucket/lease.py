"""The lease of a job on a bucket: an object that names its holder, renewed while the job runs
(docs/design/bucket.md#the-tree).

It is taken by compare-and-swap, and it ends by the server's clock. It saves work, never data: a holder that was frozen
for longer may meet another one, which every protocol here allows for.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zotctl.errors import Changed, HeldElsewhere, NotFound, OutcomeUnknown, StorageError
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.locks import describe_holder, read_holder

LIFETIME = 120.0
"""Seconds since the last renewal, after which its holder counts as dead."""
RENEWED_EVERY = 30.0
ATTEMPTS = 3

log = logging.getLogger("zotctl.storage")


@contextmanager
def lease(context: BucketContext, job: str) -> Iterator[None]:
    """Raises HeldElsewhere, naming the process that has it."""
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
    def __init__(self, context: BucketContext, job: str) -> None:
        self._context, self._job, self._key = context, job, keys.lease(job)
        self._token = context.clock.token()
        self._etag = ""
        self._mutex = threading.Lock()

    def take(self) -> None:
        for _ in range(ATTEMPTS):
            there = self._there()
            held = there is not None and there[0].is_younger(LIFETIME)
            if there is not None and held and not (self._is_mine(there[1]) or is_dead(there[1])):
                raise HeldElsewhere(
                    f"{self._job} is already running on {self._context.objects.label}{read_holder(there[1])}"
                )
            try:
                return self._write(there[0].etag if there else "")
            except (Changed, OutcomeUnknown):
                continue  # another process was faster, or this one was
        raise HeldElsewhere(f"{self._job} is being started by others on {self._context.objects.label}, too")

    def _there(self) -> tuple[Object, bytes] | None:
        with suppress(NotFound):
            return self._context.objects.get(self._key)
        return None

    def _write(self, etag: str) -> None:
        """Each time other bytes, so that no two states have one ETag."""
        who = {"system": system(), "token": self._token, "renewal": self._context.clock.token()}
        who |= describe_holder(self._context.clock)
        self._etag = self._context.objects.put(self._key, json.dumps(who).encode(), match=etag, absent=not etag)

    def _is_mine(self, body: bytes) -> bool:
        return self._token.encode() in body

    # -- while it is held -----------------------------------------------------------------------

    def renew_now_and_then(self) -> threading.Event:
        """In a thread, until the event is set."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEWED_EVERY):
                self.renew()

        threading.Thread(target=renew, name=f"lease-{self._job}", daemon=True).start()
        return over

    def renew(self) -> None:
        """Never raises: without it another run may begin, which costs work."""
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


def is_dead(body: bytes) -> bool:
    """Did its holder run here, and does it no more? Then no run has to wait until the lease is over."""
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
    """One start of one machine, and one set of process numbers on it; "" where that can't be known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
