"""From one descriptor to another: content in the cheapest way, and labels. Raises OSError: for the driver only."""

from __future__ import annotations

import errno
import fcntl
import os

_FICLONE = 0x40049409
_STEP = 64 << 20
_BUFFER = 1 << 20
_CANT = (
    errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EPERM, errno.ETXTBSY,
)  # fmt: skip


def copy_content(source: int, target: int, size: int) -> bool:
    """Append `size` bytes: shared blocks (xfs, btrfs; then True), else a copy in the kernel, else by hand."""
    flags = fcntl.fcntl(target, fcntl.F_GETFL)
    at = os.fstat(target).st_size
    # Neither of the first two takes a descriptor that appends (ioctl_ficlone(2), copy_file_range(2)).
    fcntl.fcntl(target, fcntl.F_SETFL, flags & ~os.O_APPEND)
    try:
        if not at and _clone(source, target):
            return True
        _copy_by_hand(source, target, _copy_range(source, target, size, at), at)
        return False
    finally:
        fcntl.fcntl(target, fcntl.F_SETFL, flags)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANT:
            raise
        return False
    return True


def _copy_range(source: int, target: int, size: int, at: int) -> int:
    """How far the kernel would copy; it may stop anywhere."""
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, target, min(_STEP, size - done), done, at + done)):
            done += count
    except OSError as error:
        if error.errno not in _CANT:
            raise
    return done


def _copy_by_hand(source: int, target: int, done: int, at: int) -> None:
    while data := os.pread(source, _BUFFER, done):
        rest = memoryview(data)
        while rest:
            count = os.pwrite(target, rest, at + done)
            done += count
            rest = rest[count:]


def labels_of(fd: int) -> dict[str, bytes]:
    """The extended attributes; none where the file system has none."""
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS):
            raise
        return {}


def copy_labels(source: int, target: int) -> None:
    """As far as this user may."""
    for name, value in labels_of(source).items():
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
                raise
