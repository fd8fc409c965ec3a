"""Repeats requests that failed: one in ten may fail, and no client notices.

Every read is repeated, and every write whose repetition changes nothing. Before a conditional write without an answer
is repeated, the object is compared with what was sent, byte for byte: otherwise our own success would be reported as
`Changed`, or half of it, which some stores keep, as success.

A request is repeated with full jitter, until a deadline. Once the object store has been away for that long, requests
fail at once, and only a probe asks whether it is back: each request may hang until its timeout, and a job has
thousands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TypeVar

from zotctl.errors import (
    Changed,
    DoneUnanswered,
    IoFailed,
    NoBucket,
    NotFound,
    OutcomeUnknown,
    StorageError,
    Unavailable,
)
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.bucket.objects.wrappers import WrappedObjects
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Reader, Stream, StreamedReader

T = TypeVar("T")

RETRY_TIMEOUT_S = 30.0
"""Seconds after which a failure is raised."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
AWAY_LOOK_EVERY_S = 2.0
"""Seconds between two probes of an object store that was away for the whole deadline."""
SWAP_LOOKS = 4
"""How often one attempt looks at what other writers have put meanwhile, before it gives up."""


class Retrying(WrappedObjects):
    """Objects whose requests are repeated until they are answered, for 30 seconds. Safe between threads."""

    def __init__(self, inner: Objects, clock: Clock | None = None, *, timeout: float = RETRY_TIMEOUT_S) -> None:
        """`timeout`: seconds after which a failure is raised."""
        super().__init__(inner)
        self._clock = clock or Clock()
        self._reads = Attempts(self._clock, timeout, probe=partial(inner.get, keys.VERSION))
        self._writes = Attempts(
            self._clock, timeout, probe=partial(inner.put, keys.WRITE_TRIAL, b"trial"), also=self._reads
        )
        """A store may be away for writes only: then an answered read must not make each write wait anew."""

    def _read(self, call: partial[T]) -> T:
        return self._reads.make(call)

    def _write(self, call: partial[T]) -> T:
        return self._writes.make(call)

    # -- reading --------------------------------------------------------------------------------

    def open(self, key: str) -> Reader:
        """A reader that asks again for each piece."""
        return RetryingReader(super().open(key), self._reads)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """One request per page. After a failure the list goes on after the last row that came."""

        def rows(last: Object | None) -> Iterator[Object]:
            return self.inner.list(prefix, after=last.key if last else after)

        return self._each(rows)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        """As `list`."""

        def rows(last: tuple[str, bool] | None) -> Iterator[tuple[str, bool]]:
            if last is None:
                return self.inner.names(directory, after=after)
            name, below = last
            return self.inner.names(directory, after=f"{name}/" if below else name)

        return self._each(rows)

    def _each(self, rows: Callable[[T | None], Iterator[T]]) -> Iterator[T]:
        last: T | None = None
        source: Iterator[T] | None = None

        def following() -> T | None:
            nonlocal source
            try:
                source = source or rows(last)
                return next(source, None)
            except StorageError:
                source = None
                raise

        while (found := self._reads.make(following)) is not None:
            last = found
            yield found

    # -- writing --------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Buffer,
        *,
        match: str = "",
        absent: bool = False,
        metadata: Mapping[str, str] | None = None,
        sha256: str = "",
    ) -> str:
        """Raises OutcomeUnknown for a conditional put that may have been done and replaced by another writer since."""
        if not (match or absent):
            return self._write(partial(self.inner.put, key, body, metadata=metadata, sha256=sha256))
        swap = _Swap(self.inner, key, body, metadata or {}, sha256, match)
        if etag := self._writes.make(swap.attempt):
            return etag
        raise OutcomeUnknown(f"{self.label}/{key}: a put without an answer, and then another writer's")

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        """Not repeated with `match`, since the second attempt would find the object of the first."""
        call = partial(self.inner.trial, key, body, checksum=checksum, wrong=wrong, cut=cut, match=match)
        self._writes.make(call, repeatable=not match)

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        """A server may answer a repeated Complete with "no such upload": then the object is looked at."""
        unsure = False

        def complete() -> str:
            nonlocal unsure
            try:
                return self.inner.complete_parts(key, upload, etags)
            except OutcomeUnknown:
                unsure = True
                raise
            except NotFound:
                if unsure and self._is_completed(key, etags):
                    return etag_of_parts(etags)
                raise

        return self._writes.make(complete)

    def _is_completed(self, key: str, etags: Sequence[str]) -> bool:
        """Was the present object made of these parts? False also where no ETag tells: then the caller has to read
        it."""
        made = etag_of_parts(etags)
        try:
            return bool(made) and self.inner.head(key).etag == made
        except NotFound:
            return False

    def execute(self, presigned: PresignedDelete) -> None:
        """Repeated while it is valid. If one attempt had no answer, a later answer does not settle it: the server may
        carry it out afterwards, even after a push was told that nothing is being deleted any more."""
        unsure: OutcomeUnknown | None = None

        def execute() -> None:
            nonlocal unsure
            try:
                self.inner.execute(presigned)
            except OutcomeUnknown as error:
                unsure = error
                raise

        try:
            self._writes.make(execute)
        except StorageError as error:
            raise unsure or error from error
        if unsure is not None:
            raise DoneUnanswered(unsure.message) from unsure


@dataclass(slots=True)
class _Swap:
    """A conditional put, repeated until its outcome is known. `match` "": there must be no object."""

    inner: Objects
    key: str
    body: Buffer
    metadata: Mapping[str, str]
    sha256: str
    match: str
    unsure: bool = False
    """Has an attempt had no answer?"""

    def attempt(self) -> str:
        """Returns the ETag; "": another writer's object is there, put after ours or instead of it."""
        for _ in range(SWAP_LOOKS):
            if self.unsure and (known := self._look()) is not None:
                return known
            try:
                return self.inner.put(
                    self.key, self.body, match=self.match, absent=not self.match,
                    metadata=self.metadata, sha256=self.sha256,
                )  # fmt: skip
            except OutcomeUnknown:
                self.unsure = True
                raise
            except Changed:
                if not self.unsure:
                    raise
        return ""

    def _look(self) -> str | None:
        """What became of the attempt without an answer. None: it was not done, or only half, and can be repeated."""
        try:
            got = self.inner.get(self.key)
        except NotFound:
            return "" if self.match else None
        assert got is not None
        found, content = got
        ours = self.metadata.items() <= found.metadata.items() and self.body[: len(content)] == content
        if ours and len(content) == len(self.body):
            return found.etag
        if ours:
            self.match = found.etag
        return None if found.etag == self.match else ""


class RetryingReader:
    """A reader that requests a piece again as a whole after a failure. For one thread at a time."""

    def __init__(self, inner: Reader, attempts: Attempts) -> None:
        self._inner, self._attempts = inner, attempts
        self.info, self.fileno, self.once, self.labels = inner.info, inner.fileno, inner.once, inner.labels
        self.uncache, self.close = inner.uncache, inner.close

    @property
    def size(self) -> int:
        """In bytes."""
        return self._inner.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Asked for anew as a whole after a failure."""
        return self._attempts.make(partial(self._inner.read_at, offset, count))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Asked for anew as a whole after a failure, which may have left anything in `buffer`."""
        return self._attempts.make(partial(self._inner.read_into, offset, buffer))

    def stream(self, offset: int) -> Stream | None:
        """Asked for anew until it begins; what ends early is read on by `read_at`."""
        inner = self._inner
        return self._attempts.make(partial(inner.stream, offset)) if isinstance(inner, StreamedReader) else None

    def passed(self, count: int) -> None:
        """Told as it is."""
        if isinstance(self._inner, StreamedReader):
            self._inner.passed(count)

    def __enter__(self) -> RetryingReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def etag_of_parts(etags: Sequence[str]) -> str:
    """The ETag that most servers give an object of these parts; "" where the parts' ETags are no MD5."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return ""
    return f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"'


class Attempts:
    """The retries of all threads that talk to one object store, which share what is known of an outage.

    `probe`: a request of the same kind that every available store answers; it tells an outage from one object that
    can't be read. `also`: attempts whose outage is one for these as well.
    """

    def __init__(
        self,
        clock: Clock,
        timeout: float = RETRY_TIMEOUT_S,
        *,
        probe: Callable[[], object],
        also: Attempts | None = None,
    ) -> None:
        self.clock, self.timeout, self._probe, self._also = clock, timeout, probe, also
        self._mutex = Lock()
        self._away: tuple[float, StorageError] | None = None
        """When the store is probed again, and the error until then; None: it is not away."""
        self._failing: tuple[float, float] | None = None
        """No request was answered between these two times."""

    def make(self, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """Returns what `call` returns, or raises its last error. `repeatable` False: not again if it may have been
        done."""
        began, pause = self.clock.elapsed(), FIRST_PAUSE_S
        self._require(began)
        while True:
            try:
                done = call()
            except StorageError as error:
                if not _is_hopeful(error, repeatable):
                    raise
                if not self._may_wait(began, pause):
                    self._look_around()
                    raise
            else:
                self._failing = self._away = None
                return done
            # Full jitter: from nothing to the whole pause.
            self.clock.sleep(pause * (self.clock.jitter() - 0.5))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _require(self, now: float) -> None:
        """Raise Unavailable, without a request, while the store is away. The first caller after a while probes it for
        all."""
        if self._also is not None:
            self._also._require(now)
        with self._mutex:
            if self._away is None:
                return
            due, error = self._away
            if now < due:
                raise Unavailable(error.message)
            if now > due + self.timeout:
                self._away = None  # it was noted too long ago to count
                return
            self._away = (now + AWAY_LOOK_EVERY_S, error)
        self._look_around()
        if self._away is not None:
            raise Unavailable(error.message)
        self._failing = None

    def _look_around(self) -> None:
        """Probe: is the store away, and not only what was asked for?"""
        try:
            self._probe()
        except Unavailable as error:
            with self._mutex:
                self._away = (self.clock.elapsed() + AWAY_LOOK_EVERY_S, error)
        except StorageError:
            self._away = None  # any other error is an answer, too
        else:
            self._away = None

    def _may_wait(self, began: float, pause: float) -> bool:
        """Does the deadline leave time for the pause? After an outage of a whole deadline the first failure is raised
        at once, until a request succeeds."""
        now = self.clock.elapsed()
        with self._mutex:
            since, last = self._failing or (now, now)
            if now - last > self.timeout:
                since = now
            self._failing = (since, now)
        return now + pause < min(began, since) + self.timeout


def _is_hopeful(error: StorageError, repeatable: bool) -> bool:
    """May another attempt end otherwise? Not if the bucket does not exist, or the bytes have another checksum."""
    if not isinstance(error, Unavailable) or isinstance(error, NoBucket | IoFailed):
        return False
    return repeatable or not isinstance(error, OutcomeUnknown)
