"""The lease of a job on a directory: a byte of a file, locked for as long as the process lives
(docs/design/local.md#locks)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zotctl.errors import HeldElsewhere, NoSpace, NotFound, StorageError
from zotctl.storage import keys
from zotctl.storage.driver import Lock, read
from zotctl.storage.local.context import LocalContext, in_the_way
from zotctl.storage.locks import describe_holder, read_holder

BEYOND_NAMES = 1 << 62
"""Bytes of the lock file that no repository has (`locks.lock_byte`)."""


@contextmanager
def lease(context: LocalContext, job: str) -> Iterator[None]:
    """Raises HeldElsewhere; Damaged where something else has the name of its file."""
    label = context.driver.label
    if not context.driver.capabilities.locks:
        raise HeldElsewhere(f"{label} has no file locks: {job} can't tell whether another process is writing")
    lock = _lock(context, job)
    if lock is None:
        raise HeldElsewhere(f"{job} is already running on {label}{_holder(context, job)}")
    try:
        _note_holder(context, job)
        yield
    finally:
        try:
            with suppress(StorageError):  # the note is for people; the lock must go
                context.discard(keys.lease(f"{job}.holder"))
        finally:
            lock.release()


def _lock(context: LocalContext, job: str) -> Lock | None:
    """None: another run has it."""

    def take() -> Lock | None:
        context.make_dirs(keys.LEASES)
        try:
            return context.driver.lock(keys.lease(job), 0)
        except NotFound:
            if context.stat(key := keys.lease(job)) is None:
                raise
            raise in_the_way(context.driver.label, key) from None

    try:
        return context.with_room(take)
    except NoSpace:
        # On a disk without an inode what frees one may need none: a byte of a file that is there. Who has a file of
        # its own does not see that, which costs work and no data.
        return context.driver.lock(keys.LOCK, BEYOND_NAMES + zlib.crc32(job.encode()))


def _note_holder(context: LocalContext, job: str) -> None:
    temp = keys.tmp(context.clock.token())
    with suppress(StorageError):
        try:
            with context.driver.create(temp) as writer:
                writer.write([json.dumps(describe_holder(context.clock)).encode()])
            context.driver.rename(temp, keys.lease(f"{job}.holder"))
        finally:
            context.discard(temp)  # a full disk is a reason to run gc: no rest of this may stay there


def _holder(context: LocalContext, job: str) -> str:
    try:
        return read_holder(read(context.driver, keys.lease(f"{job}.holder"), 4096))
    except StorageError:
        return ""
