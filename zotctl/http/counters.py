"""What is counted for /metrics, in memory that all processes of a server share.

A row has one writer, the event loop of the worker that it was given to: no lock is taken for a request, and no
increment is lost. Counters stay when a worker dies, and its successor goes on with them. The size is fixed, whatever
clients send; memory is taken by the page, for what has been counted only.
"""

from __future__ import annotations

import mmap
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple

from zotctl.errors import Unavailable

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
CODES = (*sorted({499, *(status.value for status in HTTPStatus if status >= 200)}),)
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
"""Seconds: from a cached manifest to a layer of gigabytes."""
SPARE_ROWS = 32
"""For workers that still drain while their successors serve."""
MAX_ROOTS = 64
"""Further roots are not counted by root."""
JOBS_TEXT_BYTES = 1 << 20

_METHOD = {method: place for place, method in enumerate(METHODS)}
_CODE = {code: place for place, code in enumerate(CODES)}
_OTHER = len(METHODS) - 1
_BUCKETS = len(CODES)
_NANOSECONDS = _BUCKETS + len(BOUNDS_S) + 1
_RECEIVED, _SENT = _NANOSECONDS + 1, _NANOSECONDS + 2
_BLOCK = _SENT + 1
CELL_BYTES = 8
_CLAIMS = 1 + MAX_ROOTS
_FIRST = _CLAIMS + 1
"""The first cells of a row: requests in progress, conflicts by root, and claims that were dropped."""


class RequestCounts(NamedTuple):
    """Requests with one method on one route. `codes` in the order of CODES; `buckets` one more than BOUNDS_S."""

    method: str
    route: str
    codes: list[int]
    buckets: list[int]
    nanoseconds: int
    received: int
    sent: int


def shared_memory(size: int) -> mmap.mmap:
    """`size` bytes for this process and all that it forks. Raises Unavailable if the system has no room for them."""
    try:
        return mmap.mmap(-1, size)
    except OSError as error:
        raise Unavailable(f"no memory can be shared: {error.strerror}") from error


class SharedCounters:
    """Made before the fork. `routes`: how many there are; `workers`: how many serve at a time."""

    def __init__(self, routes: int, workers: int) -> None:
        self._blocks = routes * len(METHODS)
        self._rows = 2 * workers + SPARE_ROWS
        self._width = _FIRST + self._blocks + self._blocks * _BLOCK
        # One more row, which is never read, for workers that got no row of their own.
        self._cells = memoryview(shared_memory((1 + (self._rows + 1) * self._width) * CELL_BYTES)).cast("Q")
        self._free = set(range(self._rows))
        self._roots: dict[str, int] = {}
        self.jobs = SharedText()

    # -- the parent ------------------------------------------------------------------------------

    def know(self, roots: Iterable[str]) -> None:
        """The roots of the workers from now on. A root that returns gets its old place."""
        for root in roots:
            if len(self._roots) < MAX_ROOTS:
                self._roots.setdefault(root, len(self._roots))

    def take(self) -> int | None:
        """A row for a new worker; None: too many workers still drain, and this one is not counted."""
        if not self._free:
            return None
        index = min(self._free)
        self._free.remove(index)
        self._cells[0] = max(self._cells[0], index + 1)
        return index

    def give_back(self, index: int) -> None:
        """Free the row of a dead worker, with the requests that were in progress."""
        self._cells[1 + index * self._width] = 0
        self._free.add(index)

    # -- workers ---------------------------------------------------------------------------------

    def row(self, index: int | None, routes: tuple[str, ...]) -> CounterRow:
        """Where a worker counts. The first route stands for requests that match none."""
        start = 1 + (self._rows if index is None else index) * self._width
        return CounterRow(self._cells[start : start + self._width], routes, self._roots)

    @property
    def in_flight(self) -> int:
        """Requests under way, in all workers."""
        return sum(self._cells[start] for start in self._starts())

    def conflicts(self, root: str) -> int | None:
        """Commits on a root that started again; None: a root that is not counted by itself."""
        place = self._roots.get(root)
        return None if place is None else sum(self._cells[start + 1 + place] for start in self._starts())

    @property
    def dropped_claims(self) -> int:
        """Requests with headers that only a trusted proxy may send, from other addresses."""
        return sum(self._cells[start + _CLAIMS] for start in self._starts())

    def counts(self, routes: tuple[str, ...]) -> Iterator[RequestCounts]:
        """The sums over all workers, dead ones too, of all routes that were requested."""
        for block in range(self._blocks):
            found = [start for start in self._starts() if self._cells[start + _FIRST + block]]
            if found:
                columns = zip(*(self._block(start, block) for start in found), strict=True)
                yield _counts(block, routes, [sum(column) for column in columns])

    def _starts(self) -> range:
        return range(1, 1 + self._cells[0] * self._width, self._width)

    def _block(self, start: int, block: int) -> list[int]:
        at = start + _FIRST + self._blocks + block * _BLOCK
        return self._cells[at : at + _BLOCK].tolist()


def _counts(block: int, routes: tuple[str, ...], cells: list[int]) -> RequestCounts:
    route, method = divmod(block, len(METHODS))
    codes, buckets = cells[:_BUCKETS], cells[_BUCKETS:_NANOSECONDS]
    return RequestCounts(METHODS[method], routes[route], codes, buckets, *cells[_NANOSECONDS:])


class CounterRow:
    """The cells of one worker."""

    def __init__(self, cells: memoryview[int], routes: tuple[str, ...], roots: Mapping[str, int]) -> None:
        self._cells, self._roots, self._mutex = cells, roots, threading.Lock()
        self._route = {route: place * len(METHODS) for place, route in enumerate(routes)}
        self._first = _FIRST + len(routes) * len(METHODS)

    def begin(self) -> None:
        """A request is under way."""
        self._cells[0] += 1

    def end(self) -> None:
        """It is not any more."""
        self._cells[0] -= 1

    def drop_claims(self) -> None:
        """A request had headers that only a trusted proxy may send."""
        self._cells[_CLAIMS] += 1

    def conflict(self, root: str) -> None:
        """Seldom, and in any thread."""
        place = self._roots.get(root)
        if place is not None:
            with self._mutex:
                self._cells[1 + place] += 1

    def count(self, method: str, route: str, code: int, seconds: float, received: int, sent: int) -> None:
        """Count an answered request. Bytes are those of bodies."""
        cells, block = self._cells, self._route.get(route, 0) + _METHOD.get(method, _OTHER)
        at = self._first + block * _BLOCK
        cells[_FIRST + block] = 1
        cells[at + _CODE[code]] += 1
        cells[at + _BUCKETS + bisect_left(BOUNDS_S, seconds)] += 1
        cells[at + _NANOSECONDS] += int(seconds * 1e9)
        if received:
            cells[at + _RECEIVED] += received
        if sent:
            cells[at + _SENT] += sent


class SharedText:
    """A text that one process replaces and others read. Of its two halves, one is complete at any moment."""

    def __init__(self, size: int = JOBS_TEXT_BYTES) -> None:
        self._size, self._memory = size, shared_memory(mmap.PAGESIZE + 2 * size)
        self._state = memoryview(self._memory)[:CELL_BYTES].cast("Q")
        """Twice the length, and which half it is."""

    def read(self) -> bytes:
        """The text that was complete last."""
        while True:
            state = self._state[0]
            start = mmap.PAGESIZE + (state & 1) * self._size
            text = self._memory[start : start + (state >> 1)]
            if self._state[0] == state:
                return text

    def write(self, text: bytes) -> bool:
        """Replace the text. Returns False, and changes nothing, if it is too long."""
        if len(text) > self._size:
            return False
        half = 1 - (self._state[0] & 1)
        start = mmap.PAGESIZE + half * self._size
        self._memory[start : start + len(text)] = text
        self._state[0] = len(text) << 1 | half
        return True


_STATUS_ROW = struct.Struct("<QQQ")


class StatusCounts(NamedTuple):
    """Connections that are open, requests under way, and requests since the start."""

    connections: int
    in_flight: int
    requests: int


class StatusBoard:
    """One row a worker; made before the fork."""

    def __init__(self, rows: int) -> None:
        self._memory, self._rows = shared_memory(max(rows, 1) * _STATUS_ROW.size), rows

    def row(self, index: int) -> Status:
        """The row in which worker `index` counts, reset to zero."""
        status = Status(self._memory, index * _STATUS_ROW.size)
        status.write(0, 0, 0)
        return status

    def total(self) -> StatusCounts:
        """The sums over all workers."""
        rows = [_STATUS_ROW.unpack_from(self._memory, index * _STATUS_ROW.size) for index in range(self._rows)]
        return StatusCounts(*(sum(column) for column in zip(*rows, strict=True)))


class Status:
    """The row of one worker."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory, self._offset = memory, offset

    def write(self, connections: int, in_flight: int, requests: int) -> None:
        """Replace what this worker has told."""
        _STATUS_ROW.pack_into(self._memory, self._offset, connections, in_flight, requests)
