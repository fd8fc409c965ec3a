"""renameat2(2) with RENAME_EXCHANGE: two names swap what they lead to, in one step. Python has no call for it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "loongarch64": 276, "ppc64le": 357, "s390x": 347}
"""Of the system call, where the C library is too old to have a function for it."""

_Swap = Callable[[bytes, bytes], int]


def _find() -> _Swap | None:
    """None: neither the library nor this machine is known to have it."""
    library = ctypes.CDLL(None, use_errno=True)
    paths = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if (function := getattr(library, "renameat2", None)) is not None:
        function.argtypes, function.restype = paths, ctypes.c_int
        return lambda one, other: int(function(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))
    if (number := _NUMBERS.get(platform.machine())) is not None and ctypes.sizeof(ctypes.c_void_p) == 8:
        call = library.syscall
        call.argtypes, call.restype = (ctypes.c_long, *paths), ctypes.c_long
        return lambda one, other: int(call(number, _AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))
    return None


_swap = _find()


def swap(one: str, other: str) -> None:
    """Both names have to be there, on one file system. Raises OSError; EINVAL or ENOSYS: it can't be done here."""
    code = _swap(os.fsencode(one), os.fsencode(other)) if _swap is not None else -1
    if code:
        number = ctypes.get_errno() if _swap is not None else errno.ENOSYS
        raise OSError(number, os.strerror(number), one, None, other)
