"""A FUSE file system that shows another directory: python fuse_passthrough.py SOURCE MOUNTPOINT [CONTROL].

While the file CONTROL says "OP ERRNO N", the N-th call of OP from then on fails with ERRNO, once. "OP!" does
what it should and then reports ERRNO, as a network file system that repeats a request does.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import mfusepy  # type: ignore[import-untyped,unused-ignore]

F = TypeVar("F", bound=Callable[..., Any])


def below(operation: F) -> F:
    """Run an operation on the path below SOURCE, with the fault that is asked for."""

    @functools.wraps(operation)
    def run(self: Passthrough, path: str, *args: Any, **options: Any) -> Any:
        code, done = self.fault(operation.__name__)
        if code and not done:
            raise OSError(code, os.strerror(code))
        result = operation(self, self.source + path, *args, **options)
        if code:
            raise OSError(code, os.strerror(code))
        return result

    return cast(F, run)


class Passthrough(mfusepy.Operations):  # type: ignore[misc,unused-ignore]
    use_ns = True

    def __init__(self, source: str, control: str) -> None:
        self.source, self.control = source, control

    def fault(self, op: str) -> tuple[int, bool]:
        try:
            with open(self.control) as file:
                name, code, count = file.read().split()
        except (OSError, ValueError):
            return 0, False
        if name.rstrip("!") != op:
            return 0, False
        with open(self.control, "w") as file:
            file.write(f"{name} {code} {int(count) - 1}" if int(count) > 1 else "")
        return (getattr(errno, code) if int(count) == 1 else 0), name.endswith("!")

    @below
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(path) if fh is None else os.fstat(fh)
        names = ("ino", "mode", "nlink", "uid", "gid", "size", "dev", "rdev", "blocks")
        whole = {f"st_{name}": getattr(found, f"st_{name}") for name in names}
        return whole | {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}

    @below
    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        # An entry without an inode number would be skipped by the C library.
        for name in (".", "..", *os.listdir(path)):
            found = os.lstat(f"{path}/{name}")
            yield name, {"st_ino": found.st_ino, "st_mode": found.st_mode}, 0

    @below
    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags & ~(os.O_APPEND | os.O_NOFOLLOW))

    @below
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, mode)

    @below
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @below
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @below
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(path if fh is None else fh, length)
        return 0

    @below
    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    @below
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    @below
    def link(self, target: str, source: str) -> int:
        os.link(self.source + source, target)
        return 0

    @below
    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, target)
        return 0

    @below
    def rename(self, old: str, new: str) -> int:
        os.rename(old, self.source + new)
        return 0

    @below
    def unlink(self, path: str) -> int:
        os.unlink(path)
        return 0

    @below
    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(path, mode)
        return 0

    @below
    def rmdir(self, path: str) -> int:
        os.rmdir(path)
        return 0

    @below
    def mknod(self, path: str, mode: int, dev: int) -> int:
        os.mknod(path, mode, dev)
        return 0

    @below
    def readlink(self, path: str) -> str:
        return os.readlink(path)

    @below
    def chmod(self, path: str, mode: int) -> int:
        os.chmod(path, mode)
        return 0

    @below
    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(path, -1 if uid == 0xFFFFFFFF else uid, -1 if gid == 0xFFFFFFFF else gid)
        return 0

    @below
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        now = time.time_ns()
        os.utime(path, ns=times or (now, now))
        return 0

    @below
    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}


if __name__ == "__main__":
    source, mountpoint, control = sys.argv[1], sys.argv[2], (*sys.argv, "")[3]
    # Nothing cached: by default the link count of one name is a second late after a change by another name.
    fresh = {"attr_timeout": 0, "entry_timeout": 0, "use_ino": True}
    mfusepy.FUSE(Passthrough(source, control), mountpoint, foreground=True, nothreads=True, **fresh)
