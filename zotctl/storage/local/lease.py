"""The lease of a job on a directory: a byte of a file, locked for as long as the process lives (local.md, "Locks")."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zotctl.errors import HeldElsewhere, NoSpace, StorageError
from zotctl.storage import keys
from zotctl.storage.driver import Lock, read
from zotctl.storage.holder import myself, told
from zotctl.storage.local.site import Site

BEYOND_NAMES = 1 << 62
"""Bytes of the lock file that no repository has (`locks.lock_byte`)."""


@contextmanager
def lease(site: Site, job: str) -> Iterator[None]:
    """Raises HeldElsewhere."""
    label = site.driver.label
    if not site.driver.capabilities.locks:
        raise HeldElsewhere(f"{label} has no file locks: {job} can't tell whether anybody else is writing")
    lock = _lock(site, job)
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


def _lock(site: Site, job: str) -> Lock | None:
    """None: another run has it."""

    def take() -> Lock | None:
        site.make_dirs(keys.LEASES)
        return site.driver.lock(keys.lease(job), 0)

    try:
        return site.with_room(take)
    except NoSpace:
        # On a disk without an inode what frees one may need none: a byte of a file that is there. Who has a file of
        # its own does not see that, which costs work and no data.
        return site.driver.lock(keys.LOCK, BEYOND_NAMES + zlib.crc32(job.encode()))


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
