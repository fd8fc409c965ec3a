"""Requests that are repeated: one in ten may fail, and no client hears of it.

What is repeated after a failure: every read, and every write whose repetition changes nothing. Before a conditional
write without an answer is repeated, what is there is compared with what was sent, to the last byte: else our own
success would be reported as `Changed`, or half of it, which some stores keep, as success.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from zotctl.errors import Changed, DoneUnanswered, NotFound, OutcomeUnknown, StorageError
from zotctl.storage import keys
from zotctl.storage.bucket.objects.attempts import PATIENCE, Attempts
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Info, Reader

T = TypeVar("T")

LOOKS = 4
"""At what others have written meanwhile, before one attempt is given up."""


class Retrying:
    def __init__(self, inner: Objects, clock: Clock | None = None, *, patience: float = PATIENCE) -> None:
        self.inner, self._clock = inner, clock or Clock()
        self._attempts = Attempts(self._clock, patience, probe=partial(inner.get, keys.VERSION))
        self._writes = Attempts(
            self._clock, patience, probe=partial(inner.put, keys.WRITE_TRIAL, b"trial"), also=self._attempts
        )
        """A store may be away for writes only: then an answered read must not make each write wait anew."""

    @property
    def label(self) -> str:
        return self.inner.label

    # -- reading --------------------------------------------------------------------------------

    def head(self, key: str) -> Object:
        return self._attempts.make(partial(self.inner.head, key))

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        return self._attempts.make(partial(self.inner.get, key, unless=unless))

    def open(self, key: str) -> Reader:
        return RetryingReader(self._attempts.make(partial(self.inner.open, key)), self._attempts)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        def rows(last: Object | None) -> Iterator[Object]:
            return self.inner.list(prefix, after=last.key if last else after)

        return self._each(rows)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        def rows(last: tuple[str, bool] | None) -> Iterator[tuple[str, bool]]:
            return self.inner.names(directory, after=_listed(*last) if last else after)

        return self._each(rows)

    def _each(self, rows: Callable[[T | None], Iterator[T]]) -> Iterator[T]:
        """A page is one request, and a failure in it goes on behind the last row that came."""
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

        while (found := self._attempts.make(following)) is not None:
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
        """`OutcomeUnknown` of a conditional one: it may have been done, and replaced by another writer since."""
        if not (match or absent):
            call = partial(self.inner.put, key, body, metadata=metadata, sha256=sha256)
            return self._writes.make(call)
        swap = _Swap(self.inner, key, body, metadata or {}, sha256, match)
        if etag := self._writes.make(swap.attempt):
            return etag
        raise OutcomeUnknown(f"{self.label}/{key}: a put without an answer, and then another writer's")

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        self.inner.adapt(checksum=checksum, conditions=conditions)

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        call = partial(self.inner.trial, key, body, checksum=checksum, wrong=wrong, cut=cut, match=match)
        self._writes.make(call, repeatable=not match)

    def delete(self, key: str) -> None:
        self._writes.make(partial(self.inner.delete, key))

    def copy(self, source: str, target: str) -> Object:
        return self._writes.make(partial(self.inner.copy, source, target))

    # -- parts ----------------------------------------------------------------------------------

    def start_parts(self, key: str) -> str:
        """One that was begun without an answer is never used; the server forgets it by its own rules."""
        return self._writes.make(partial(self.inner.start_parts, key))

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        return self._writes.make(partial(self.inner.put_part, key, upload, number, body))

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        """A server may say of a repeated one that there is no such upload: then the object is looked at."""
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
        """Is what is there made of these parts? Where no ETag tells that, the caller has to read it."""
        made = etag_of_parts(etags)
        try:
            return bool(made) and self.inner.head(key).etag == made
        except NotFound:
            return False

    def abort_parts(self, key: str, upload: str) -> None:
        self._writes.make(partial(self.inner.abort_parts, key, upload))

    # -- signed requests ------------------------------------------------------------------------

    def presign_get(self, key: str, seconds: int) -> str:
        return self._attempts.make(partial(self.inner.presign_get, key, seconds))

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        return self._attempts.make(partial(self.inner.sign_deletes, keys, seconds, at=at))

    def execute(self, presigned: PresignedDelete) -> None:
        """Repeated while it is valid. When an attempt was without an answer, a later one doesn't tell its end: the
        server may carry it out after that, and after a push that was told that nothing is being deleted any more."""
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

    def date(self) -> float:
        return self._attempts.make(self.inner.date)

    def close(self) -> None:
        self.inner.close()


@dataclass(slots=True)
class _Swap:
    """A conditional put, until it is known what became of it. `match` "": there must be none."""

    inner: Objects
    key: str
    body: Buffer
    metadata: Mapping[str, str]
    sha256: str
    match: str
    unsure: bool = False
    """An attempt is without an answer."""

    def attempt(self) -> str:
        """The ETag; "": what is there is another writer's, who came after ours or instead of it."""
        for _ in range(LOOKS):
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
        """None: it was not done, or by half, and can be made again."""
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
    """Each piece is asked for again from its beginning: a reader knows where it was."""

    def __init__(self, inner: Reader, attempts: Attempts) -> None:
        self._inner, self._attempts = inner, attempts

    @property
    def size(self) -> int:
        return self._inner.size

    def info(self) -> Info:
        return self._inner.info()

    def fileno(self) -> int | None:
        return self._inner.fileno()

    def read_at(self, offset: int, count: int) -> bytes:
        return self._attempts.make(partial(self._inner.read_at, offset, count))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        return self._attempts.make(partial(self._inner.read_into, offset, buffer))

    def once(self) -> None:
        self._inner.once()

    def labels(self) -> dict[str, bytes]:
        return self._inner.labels()

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> RetryingReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _listed(name: str, below: bool) -> str:
    return f"{name}/" if below else name


def etag_of_parts(etags: Sequence[str]) -> str:
    """What most servers call an object of these parts; "" where the parts' ETags are no MD5."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return ""
    return f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"'
