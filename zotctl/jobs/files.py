"""Files that a job writes for its operator, outside of any store: replaced as a whole, so that no reader sees half."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def locked(directory: str) -> Iterator[None]:
    """Lock a directory, so that of two that replace a file in it neither meets the other's half. Where it can't be
    locked, two that end together may."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: str, body: bytes, mode: int | None = None) -> None:
    """Write `body` beside `path`, flush it, and rename it. `mode`: whatever the umask; None: as the umask wants it. The
    caller has the directory `locked`. Raises OSError, and leaves `path` as it was."""
    temp = f"{path}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temp)
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(body)
            file.flush()
            os.fsync(descriptor)
        os.rename(temp, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temp)
        raise
