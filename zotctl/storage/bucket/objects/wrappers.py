"""Wrappers round an object store: the base of all of them, and the gate before the first write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TypeVar

from zotctl.errors import ReadOnlyStorage, StorageError, ZotctlError
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.driver import Buffer, Reader

T = TypeVar("T")


class WrappedObjects:
    """Passes every call on, reads through `_read` and writes through `_write`. A wrapper overrides these two, or the
    methods that it changes. As safe between threads as what it wraps."""

    def __init__(self, inner: Objects) -> None:
        self.inner = inner

    def _read(self, call: partial[T]) -> T:
        """`call` is a method of `inner` with its arguments."""
        return call()

    def _write(self, call: partial[T]) -> T:
        """As `_read`."""
        return call()

    @property
    def label(self) -> str:
        """That of the store itself."""
        return self.inner.label

    def head(self, key: str) -> Object:
        """A read."""
        return self._read(partial(self.inner.head, key))

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        """A read."""
        return self._read(partial(self.inner.get, key, unless=unless))

    def open(self, key: str) -> Reader:
        """A read; the reader itself is not wrapped."""
        return self._read(partial(self.inner.open, key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """A read, before the first row is asked for."""
        return self._read(partial(self.inner.list, prefix, after=after))

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        """A read, before the first name is asked for."""
        return self._read(partial(self.inner.names, directory, after=after))

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
        """A write."""
        call = partial(self.inner.put, key, body, match=match, absent=absent, metadata=metadata, sha256=sha256)
        return self._write(call)

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        """No request."""
        self.inner.adapt(checksum=checksum, conditions=conditions)

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        """A write."""
        self._write(partial(self.inner.trial, key, body, checksum=checksum, wrong=wrong, cut=cut, match=match))

    def delete(self, key: str) -> None:
        """A write."""
        self._write(partial(self.inner.delete, key))

    def copy(self, source: str, target: str) -> Object:
        """A write."""
        return self._write(partial(self.inner.copy, source, target))

    def start_parts(self, key: str) -> str:
        """A write."""
        return self._write(partial(self.inner.start_parts, key))

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        """A write."""
        return self._write(partial(self.inner.put_part, key, upload, number, body))

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        """A write."""
        return self._write(partial(self.inner.complete_parts, key, upload, etags))

    def abort_parts(self, key: str, upload: str) -> None:
        """A write."""
        self._write(partial(self.inner.abort_parts, key, upload))

    def presign_get(self, key: str, seconds: int) -> str:
        """A read, for it may ask for the time."""
        return self._read(partial(self.inner.presign_get, key, seconds))

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        """A read, for it may ask for the time."""
        return self._read(partial(self.inner.sign_deletes, keys, seconds, at=at))

    def execute(self, presigned: PresignedDelete) -> None:
        """A write."""
        self._write(partial(self.inner.execute, presigned))

    def date(self) -> float:
        """A read."""
        return self._read(partial(self.inner.date))

    def close(self) -> None:
        """No request."""
        self.inner.close()


class FirstWriteGate(WrappedObjects):
    """Objects whose first write waits for `prepare`. What that finds wrong with the server is raised for each write; if
    the server is away, or refuses, the next write calls it again. `prepare` None: nothing is ever written. `leave` is
    called at the end if anything was written. Safe between threads."""

    def __init__(
        self, inner: Objects, prepare: Callable[[], None] | None, leave: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(inner)
        self._prepare, self._leave = prepare, leave
        self._mutex = Lock()
        self.crossed = False
        """Has there been a first write?"""
        self._unfit: ZotctlError | None = None

    def ready(self) -> None:
        """Raises what `prepare` raises, and ReadOnlyStorage."""
        if self.crossed:
            return
        if self._prepare is None:
            raise ReadOnlyStorage(f"{self.label} is served read-only: nothing can be changed")
        with self._mutex:
            if self.crossed:
                return
            if self._unfit is not None:
                raise self._unfit
            try:
                self._prepare()
            except StorageError:
                raise
            except ZotctlError as error:
                self._unfit = error
                raise
            self.crossed = True

    def _write(self, call: partial[T]) -> T:
        self.ready()
        return call()

    def close(self) -> None:
        """Call `leave` if there was a write, and close what is inside."""
        if self.crossed:
            self._leave()
        self.inner.close()
