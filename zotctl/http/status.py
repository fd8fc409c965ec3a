"""What each worker counts, in memory that the parent reads: for the status line."""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

_ROW = struct.Struct("<QQQ")


class StatusCounts(NamedTuple):
    connections: int
    in_flight: int
    requests: int


class StatusBoard:
    """One row a worker; made before the fork."""

    def __init__(self, rows: int) -> None:
        self._memory, self._rows = mmap.mmap(-1, max(rows, 1) * _ROW.size), rows

    def row(self, index: int) -> Status:
        """The row in which worker `index` counts, reset to zero."""
        status = Status(self._memory, index * _ROW.size)
        status.write(0, 0, 0)
        return status

    def total(self) -> StatusCounts:
        """The sums over all workers."""
        rows = [_ROW.unpack_from(self._memory, index * _ROW.size) for index in range(self._rows)]
        return StatusCounts(*(sum(column) for column in zip(*rows, strict=True)))


class Status:
    """The row of one worker."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory, self._offset = memory, offset

    def write(self, connections: int, in_flight: int, requests: int) -> None:
        _ROW.pack_into(self._memory, self._offset, connections, in_flight, requests)
