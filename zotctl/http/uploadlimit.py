"""Limits on what one client has under way: open uploads, and bytes of their bodies. All workers share them.

A client is a user, or the address of a client without a login (of IPv6, a /64). The records are in shared memory: one
for each request that sends to an upload, which ends with the request or with its worker, and one for each upload that
waits for its next request, which ends with the upload, or LEASE_S after its last request: a client that went away
sends no word. The lock is one of the kernel, which ends with a process that is killed.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zotctl.config import UploadLimits
from zotctl.errors import BlobUploadUnknown, DigestInvalid, NoSpace, TooManyRequests
from zotctl.http.counters import CELL_BYTES, shared_memory
from zotctl.http.errors import Refused
from zotctl.http.ratelimit import SharedLock, client_key, shared_key
from zotctl.http.request import Request

RECORDS = 8192
"""Of all clients together. When all are taken, what comes is not counted."""
LEASE_S = 60.0
"""For which an upload counts that no request is sent to."""
UPLOAD_RETRY_AFTER_S = 5

_ENDED = (BlobUploadUnknown, DigestInvalid, NoSpace)
"""After these nothing of an upload is left."""

_CLIENTS, _UPLOADS, _WORKERS, _BYTES, _ENDS = (column * RECORDS for column in range(5))
_FREE = 0


class SharedUploads:
    """The records; made before the fork. `clock` gives nanoseconds, the same for all processes."""

    def __init__(self, limits: UploadLimits, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._limits, self._clock = limits, clock
        self._memory = shared_memory(5 * RECORDS * CELL_BYTES)
        self._cells = memoryview(self._memory).cast("Q")
        self._lock = SharedLock("zotctl-uploads")

    def begin(self, client: int, upload: int, length: int) -> int | None:
        """Count a request that is to send `length` bytes; the number of its record, None if there is no room for one.

        Raises TooManyRequests. A client whose uploads send nothing at the moment may send as much as it likes.
        """
        with self._lock.held():
            uploads, sending = set(), 0
            for record in self._records_of(client):
                uploads.add(self._cells[_UPLOADS + record])
                sending += self._cells[_BYTES + record]
            limits = self._limits
            if limits.uploads_per_client and upload not in uploads and len(uploads) >= limits.uploads_per_client:
                raise TooManyRequests(f"{len(uploads)} uploads are open, and a client may have no more; try again")
            if limits.bytes_per_client and sending and sending + length > limits.bytes_per_client:
                raise TooManyRequests(
                    f"{sending} bytes are under way, and a client may send {limits.bytes_per_client} at once; try again"
                )
            return self._add(client, upload, worker=os.getpid(), count=length)

    def add_bytes(self, record: int, count: int) -> None:
        """Count bytes that were not announced. Only the request itself changes its record."""
        self._cells[_BYTES + record] += count

    def end(self, record: int | None, client: int, upload: int, waiting: int | None) -> None:
        """The request ended. `waiting`: the upload that now waits for the next one, None if it ended, too."""
        with self._lock.held():
            if record is not None:
                self._cells[_CLIENTS + record] = _FREE
            for other in list(self._records_of(client)):
                if not self._cells[_WORKERS + other] and self._cells[_UPLOADS + other] == upload:
                    self._cells[_CLIENTS + other] = _FREE
            if waiting is not None:
                self._add(client, waiting, worker=0, count=0)

    def forget(self, worker: int) -> None:
        """For the parent: a worker died, with the requests that it had."""
        with self._lock.held():
            for record in self._find(_WORKERS, worker):
                self._cells[_CLIENTS + record] = _FREE

    def close(self) -> None:
        """For the parent: its workers keep what they have."""
        self._lock.close()

    def _add(self, client: int, upload: int, *, worker: int, count: int) -> int | None:
        record = next(self._find(_CLIENTS, _FREE), None)
        if record is not None:
            # The client last: with it the record is one.
            self._cells[_UPLOADS + record], self._cells[_WORKERS + record] = upload, worker
            self._cells[_BYTES + record] = count
            self._cells[_ENDS + record] = self._clock() + int(LEASE_S * 1e9)
            self._cells[_CLIENTS + record] = client
        return record

    def _records_of(self, client: int) -> Iterator[int]:
        """Those that still count; others become free."""
        now = self._clock()
        for record in self._find(_CLIENTS, client):
            if self._cells[_WORKERS + record] or self._cells[_ENDS + record] > now:
                yield record
            else:
                self._cells[_CLIENTS + record] = _FREE

    def _find(self, column: int, value: int) -> Iterator[int]:
        wanted, at = value.to_bytes(CELL_BYTES, sys.byteorder), column * CELL_BYTES
        end = at + RECORDS * CELL_BYTES
        while (at := self._memory.find(wanted, at, end)) >= 0:
            if at % CELL_BYTES == 0:
                yield at // CELL_BYTES - column
            at += CELL_BYTES - at % CELL_BYTES


@dataclass(slots=True)
class UploadHold:
    """What a request counts for. `waiting`: the id of the upload if it waits for another request afterwards."""

    shared: SharedUploads | None = None
    record: int | None = None
    waiting: str | None = None

    def add_bytes(self, count: int) -> None:
        """Bytes of a body without Content-Length have come."""
        if self.shared is not None and self.record is not None:
            self.shared.add_bytes(self.record, count)


class UploadHolds:
    """The limits of the configuration, if it has any. For the event loop."""

    def __init__(self, shared: SharedUploads | None) -> None:
        self._shared = shared

    @contextmanager
    def hold(self, request: Request, upload_id: str | None = None) -> Iterator[UploadHold]:
        """Count a request as long as it lasts. `upload_id`: None if it begins an upload.

        Raises Refused, before anything is read of the body. An upload that exists waits for its next request
        afterwards, unless `waiting` is reset.
        """
        if self._shared is None:
            yield UploadHold()
            return
        client = _client(request)
        upload = shared_key(upload_id) if upload_id is not None else secrets.randbits(63)
        try:
            record = self._shared.begin(client, upload, request.length or 0)
        except TooManyRequests as error:
            raise Refused(error, [("Retry-After", str(UPLOAD_RETRY_AFTER_S))]) from None
        hold = UploadHold(self._shared, record, upload_id)
        try:
            yield hold
        except _ENDED:
            hold.waiting = None
            raise
        finally:
            waiting = shared_key(hold.waiting) if hold.waiting is not None else None
            self._shared.end(record, client, upload, waiting)

    def ended(self, request: Request, upload_id: str) -> None:
        """An upload was cancelled, which no limit refuses."""
        if self._shared is not None:
            self._shared.end(None, _client(request), shared_key(upload_id), None)


def _client(request: Request) -> int:
    user = request.identity.user
    return client_key(request.client) if user.is_anonymous else shared_key(("user", user.name))
