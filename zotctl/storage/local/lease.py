"""The lease of a job on a directory: a byte of a file, locked for as long as the process lives (local.md, "Locks")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zotctl.errors import HeldElsewhere, StorageError
from zotctl.storage import keys
from zotctl.storage.driver import read
from zotctl.storage.holder import myself, told
from zotctl.storage.local.site import Site


@contextmanager
def lease(site: Site, job: str) -> Iterator[None]:
    """Raises HeldElsewhere."""
    label = site.driver.label
    if not site.driver.capabilities.locks:
        raise HeldElsewhere(f"{label} has no file locks: {job} can't tell whether anybody else is writing")
    site.make_dirs(keys.LEASES)
    lock = site.driver.lock(keys.lease(job), 0)
    if lock is None:
        raise HeldElsewhere(f"{job} is already running on {label}{_holder(site, job)}")
    try:
        _note_holder(site, job)
        yield
    finally:
        try:
            with suppress(StorageError):  # the note is for people; the lock must go
                site.discard(keys.lease(f"{job}.holder"))
        finally:
            lock.release()


def _note_holder(site: Site, job: str) -> None:
    temp = keys.tmp(site.clock.token())
    with suppress(StorageError):
        try:
            with site.driver.create(temp) as writer:
                writer.write([json.dumps(myself(site.clock)).encode()])
            site.driver.rename(temp, keys.lease(f"{job}.holder"))
        finally:
            site.discard(temp)  # a full disk is why somebody runs gc: no rest of this may stay there


def _holder(site: Site, job: str) -> str:
    try:
        return told(read(site.driver, keys.lease(f"{job}.holder"), 4096))
    except StorageError:
        return ""
