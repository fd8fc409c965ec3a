"""One writer: for object stores on which two would lose each other's pushes (`single_writer`, s3.md 4).

A sign, not a lock: on such a server there can be none. It keeps a job, or a second server, from being started beside
the first by mistake; whoever dies leaves it behind, and it counts for a minute.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from zotctl.errors import HeldElsewhere, NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.objects import Object, Objects

COUNTS_FOR = 60.0
"""Seconds without a renewal after which the holder is taken for dead."""
RENEWED_EVERY = 15.0

log = logging.getLogger("zotctl.storage")


class Alone:
    """`process`: stands for the server, whose processes follow each other, or for the job."""

    def __init__(self, objects: Objects, process: int) -> None:
        self._objects, self._key = objects, keys.lease("writer")
        self._me = {"host": socket.gethostname(), "boot": _boot(), "process": process}

    def claim(self) -> None:
        """Before the first write. Raises HeldElsewhere."""
        with suppress(NotFound):
            got = self._objects.get(self._key)
            if got is not None and self._is_held(*got):
                raise HeldElsewhere(
                    f"{self._objects.label} has a single writer already: {_shown(got[1])}; stop it first, or wait "
                    f"{COUNTS_FOR:g} s after it has died"
                )
        self._renew()
        threading.Thread(target=self._keep, name="alone", daemon=True).start()

    def _is_held(self, found: Object, body: bytes) -> bool:
        try:
            said = json.loads(body)
            here = said["boot"] == self._me["boot"]
            return found.age < COUNTS_FOR and said != self._me and not (here and _is_dead(int(said["process"])))
        except (ValueError, TypeError, KeyError):
            return found.age < COUNTS_FOR

    def _renew(self) -> None:
        self._objects.put(self._key, json.dumps(self._me).encode())

    def _keep(self) -> None:
        """As long as this process lives; what it leaves behind names a process that is dead."""
        while True:
            time.sleep(RENEWED_EVERY)
            try:
                self._renew()
            except StorageError as error:
                log.warning(f"{self._key} can't be renewed: {error.message}")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _is_dead(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def _shown(body: bytes) -> str:
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(body)
        return f"process {said['process']} on {said['host']}"
    return "somebody"
