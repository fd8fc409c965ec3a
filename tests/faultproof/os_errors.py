"""A call of the operating system fails, below a directory, within this process: whoever makes it."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

_BY_PATH = (
    "stat", "lstat", "open", "listdir", "scandir", "mkdir", "rmdir", "unlink", "link", "rename", "utime", "lchown",
    "access", "statvfs", "readlink",
)  # fmt: skip
_BY_NUMBER = (
    "fstat", "pread", "preadv", "writev", "write", "read", "ftruncate", "fdatasync", "fsync", "fchown", "fchmod",
    "posix_fallocate", "listxattr",
)  # fmt: skip
_CALLS = [*((os, name) for name in (*_BY_PATH, *_BY_NUMBER)),
          *((fcntl, name) for name in ("fcntl", "flock")), (builtins, "open"), (io, "open")]  # fmt: skip


class OsErrors:
    """`number`: of an errno; `at`: which call fails, from 1; `onward`: and all after it."""

    def __init__(self, place: str, number: int, at: int, *, onward: bool = False) -> None:
        self._place, self._number, self._at, self._onward = place, number, at, onward
        self._descriptors: set[int] = set()
        self.calls = 0
        self.hit = ""
        """The first call that failed."""

    @contextmanager
    def active(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module, name in _CALLS:
                stack.enter_context(mock.patch.object(module, name, self._wrapped(name, getattr(module, name))))
            yield

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._before(name, arguments[0] if arguments else None)
            result = real(*arguments, **options)
            if name == "open" and isinstance(result, int) and self._is_meant(arguments[0]):
                self._descriptors.add(result)
            return result

        return call

    def _is_meant(self, target: object) -> bool:
        if isinstance(target, int):
            return target in self._descriptors
        return isinstance(target, str | os.PathLike) and os.path.abspath(os.fspath(target)).startswith(self._place)

    def _before(self, name: str, target: object) -> None:
        if not self._is_meant(target):
            return
        self.calls += 1
        if self.calls == self._at or (self._onward and self.calls > self._at):
            self.hit = self.hit or f"{name} {target}"
            raise OSError(self._number, os.strerror(self._number))
