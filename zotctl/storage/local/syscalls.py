"""System calls that Python's `os` lacks or makes only in part: swap two names, copy content, lock a byte, flush all.

Paths and descriptors in, OSError out: for `local.driver`, which translates.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from zotctl.storage.driver import Buffer

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAMEAT2_NUMBERS = {
    "x86_64": 316, "aarch64": 276, "riscv64": 276, "loongarch64": 276, "ppc64le": 357, "s390x": 347,
}  # fmt: skip
"""Of the system call, where the C library is too old to have a function for it."""
_FICLONE = 0x40049409
_COPY_STEP_BYTES = 64 << 20
_COPY_BUFFER_BYTES = 1 << 20
_CANNOT_SHARE_OR_COPY = (
    errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EPERM, errno.ETXTBSY,
)  # fmt: skip
_IOV_MAX = os.sysconf("SC_IOV_MAX")

_Swap = Callable[[bytes, bytes], int]


# -- names ------------------------------------------------------------------------------------------


def _find_renameat2() -> _Swap | None:
    """None: neither the library nor this machine is known to have it."""
    library = ctypes.CDLL(None, use_errno=True)
    paths = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if (function := getattr(library, "renameat2", None)) is not None:
        function.argtypes, function.restype = paths, ctypes.c_int
        return lambda one, other: int(function(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))
    if (number := _RENAMEAT2_NUMBERS.get(platform.machine())) is not None and ctypes.sizeof(ctypes.c_void_p) == 8:
        call = library.syscall
        call.argtypes, call.restype = (ctypes.c_long, *paths), ctypes.c_long
        return lambda one, other: int(call(number, _AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))
    return None


_renameat2 = _find_renameat2()


def swap(one: str, other: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE: two paths swap what they lead to, in one step.

    Both have to be there, on one file system. Raises OSError; EINVAL or ENOSYS: it can't be done here.
    """
    code = _renameat2(os.fsencode(one), os.fsencode(other)) if _renameat2 is not None else -1
    if code:
        number = ctypes.get_errno() if _renameat2 is not None else errno.ENOSYS
        raise OSError(number, os.strerror(number), one, None, other)


# -- content and labels -----------------------------------------------------------------------------


def write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Append all of the buffers; the bytes written. One writev(2) takes at most IOV_MAX buffers and 2 GiB, and may
    take less."""
    total = 0
    for first in range(0, len(buffers), _IOV_MAX):
        some: Sequence[Buffer] = buffers[first : first + _IOV_MAX]
        left = sum(map(len, some))
        total += left
        while left:
            written = os.writev(fd, some)
            if not written:
                raise OSError(errno.EIO, "the file takes no more bytes and gives no reason")
            left -= written
            if left:
                some = _after(some, written)
    return total


def _after(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    """What is left of the buffers behind the first `count` bytes."""
    rest: list[Buffer] = []
    for buffer in buffers:
        if count < len(buffer):
            rest.append(memoryview(buffer)[count:] if count else buffer)
        count = max(0, count - len(buffer))
    return rest


def copy_content(source: int, target: int, size: int) -> bool:
    """Append `size` bytes of one descriptor to another in the cheapest way: by shared blocks (xfs, btrfs; then True),
    else by a copy in the kernel, else by hand."""
    flags = fcntl.fcntl(target, fcntl.F_GETFL)
    at = os.fstat(target).st_size
    # Neither of the first two takes a descriptor that appends (ioctl_ficlone(2), copy_file_range(2)).
    fcntl.fcntl(target, fcntl.F_SETFL, flags & ~os.O_APPEND)
    try:
        if not at and _clone(source, target):
            return True
        done = _copy_range(source, target, size, at)
        while data := os.pread(source, _COPY_BUFFER_BYTES, done):
            rest = memoryview(data)
            while rest:
                count = os.pwrite(target, rest, at + done)
                done += count
                rest = rest[count:]
        return False
    finally:
        fcntl.fcntl(target, fcntl.F_SETFL, flags)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE_OR_COPY:
            raise
        return False
    return True


def _copy_range(source: int, target: int, size: int, at: int) -> int:
    """How far the kernel would copy; it may stop anywhere."""
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source, target, min(_COPY_STEP_BYTES, size - done), done, at + done)
            if not count:
                break
            done += count
    except OSError as error:
        if error.errno not in _CANNOT_SHARE_OR_COPY:
            raise
    return done


def labels_of(fd: int) -> dict[str, bytes]:
    """The extended attributes; none where the file system has none."""
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS):
            raise
        return {}


def copy_labels(source: int, target: int) -> None:
    """Give the target the extended attributes of the source, as far as this user may."""
    for name, value in labels_of(source).items():
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
                raise


# -- locks and flushes ------------------------------------------------------------------------------


def try_lock(fd: int, start: int, length: int) -> bool:
    """Take an open-file-description lock (fcntl(2)) on some bytes; length 0: to the end of the file. False: another
    descriptor has it."""
    try:
        _set_lock(fd, fcntl.F_WRLCK, start, length)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(fd: int, start: int, length: int) -> None:
    """Release it. Closing is not enough while a child that is just being forked has the descriptor too."""
    with suppress(OSError):
        _set_lock(fd, fcntl.F_UNLCK, start, length)


def _set_lock(fd: int, kind: int, start: int, length: int) -> None:
    # struct flock, native packing; l_pid must be 0. Not classic POSIX locks: any close would drop those.
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def sync_filesystem(fd: int) -> None:
    """syncfs(2): flush the whole file system that a descriptor lies on."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
