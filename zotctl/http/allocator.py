"""How the C library keeps memory between two pieces of a body.

glibc gives freed memory back to the system as soon as there are some hundred KiB of it at the end of its heap, so that
each piece that arrives is written into pages which have to be made and cleared first: a tenth of what a push costs.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

KEPT = 8 << 20
"""Bytes at the end of a heap that the process keeps."""
LARGEST = 5 << 20
"""Larger allocations are mapped, and returned at once. Two pieces of a body are smaller."""
HEAPS = 2
"""Threads of one interpreter rarely allocate at the same time, and each heap keeps its own bytes."""


def keep_pieces() -> None:
    """Applies to this process and its forks. Does nothing with another C library."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_TRIM_THRESHOLD, KEPT), (_MMAP_THRESHOLD, LARGEST), (_ARENA_MAX, HEAPS)):
            mallopt(option, value)
