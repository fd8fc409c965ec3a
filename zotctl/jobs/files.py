"""Files that a job writes for its operator, outside of any store: replaced as a whole, so that no reader sees half."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from stat import S_ISREG
from typing import BinaryIO

from zotctl.errors import HeldElsewhere, UsageError
from zotctl.storage.driver import Buffer
from zotctl.storage.opening import translated


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


def require_directory(path: str) -> None:
    """Raise UsageError if there is no directory in which `path` could be made."""
    directory = os.path.dirname(os.path.realpath(path))
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise UsageError(f"{path}: {directory} is a file, not a directory")
    if not os.path.isdir(directory):
        raise UsageError(f"{path}: there is no directory {directory}")


def refuse_existing(path: str, *, replaces: bool) -> None:
    """Raise UsageError if `new_file` would not write there."""
    require_directory(path)
    if os.path.lexists(path) and not replaces:
        raise UsageError(f"{path} is there already; choose another name, or replace it with --overwrite")
    if os.path.lexists(path) and not _leads_to_file(path):
        raise UsageError(f"{path} is no regular file; choose another name")


def _leads_to_file(path: str) -> bool:
    """Also by links, but not by one that is more than its text, as /dev/stdout: what `realpath` makes of it is another
    file, or none."""
    real = os.path.realpath(path)
    return os.path.isfile(path) and os.path.exists(real) and os.path.samefile(path, real)


class NewFile:
    """What `new_file` gives to its block. Used by one thread."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file, self._path = file, path

    def write(self, data: Buffer) -> int:
        """Append all of it. Raises NoSpace and other StorageErrors."""
        with translated(self._path, "write"):
            return self._file.write(data)

    def tell(self) -> int:
        """The bytes that were written."""
        return self._file.tell()


@contextmanager
def new_file(path: str, *, replaces: bool) -> Iterator[NewFile]:
    """A large file, which gets its name at the end of the block, when it is on the disk. Until then it is called
    PATH.part: a run that is killed leaves that, and the next one removes it.

    Raises HeldElsewhere if another run writes it, UsageError if `path` is there and is not to be replaced, NoSpace and
    other StorageErrors. Whatever is raised in the block, `path` stays as it was.
    """
    part, directory = f"{path}.part", os.path.dirname(path)
    own: os.stat_result | None = None
    try:
        with translated(path), locked(directory):
            descriptor = _own_part(part)
            own = os.fstat(descriptor)
        with os.fdopen(descriptor, "wb") as file:
            yield NewFile(file, path)
            with translated(path):
                file.flush()
                os.fsync(descriptor)
                with locked(directory):
                    _give_name(own, part, path, replaces=replaces)
                _flush_directory(directory)
    except BaseException:
        with suppress(OSError):
            if own is not None and os.path.samestat(own, os.lstat(part)):
                os.unlink(part)
        raise


def _own_part(part: str) -> int:
    """Create the file, in place of one that a killed run has left. Its lock says that it is being written."""
    with suppress(FileNotFoundError):
        if not S_ISREG(os.lstat(part).st_mode):
            raise UsageError(f"{part} is in the way, and is no regular file; remove it, or choose another name")
        left = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldElsewhere(f"another run is writing {part}; wait for it") from None
        except OSError:  # no locks here
            pass
        finally:
            os.close(left)
        os.unlink(part)  # never cut: it may have a second name already
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _give_name(own: os.stat_result, part: str, path: str, *, replaces: bool) -> None:
    """Rename it; a file that is there is replaced only if that is wanted."""
    if not os.path.samestat(own, os.lstat(part)):
        raise HeldElsewhere(f"another run has begun to write {part}; run one at a time")
    if replaces:
        os.rename(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise UsageError(f"{path} was made meanwhile, by another program; it stays as it is") from None
    except OSError:  # no hard links here, as on FAT
        refuse_existing(path, replaces=False)
        os.rename(part, path)
    else:
        os.unlink(part)


def _flush_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
