"""What is done before the first write to a bucket, and the end of all writing where it is only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

from zotctl.errors import ReadOnlyStorage, StorageError, ZotctlError
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.driver import Buffer, Reader


class FirstWriteGate:
    """Objects, of which the first write of all waits for `prepare`. What it finds wrong with the server stays wrong;
    a server that is away, or refuses, is asked again. `prepare` None: nothing is ever written. `leave`: after the last
    write, if there was one."""

    def __init__(
        self, inner: Objects, prepare: Callable[[], None] | None, leave: Callable[[], None] = lambda: None
    ) -> None:
        self.inner, self._prepare, self._leave = inner, prepare, leave
        self._mutex, self._done = Lock(), False
        self._unfit: ZotctlError | None = None

    def ready(self) -> None:
        """Raises what `prepare` raises, and ReadOnlyStorage."""
        if self._done:
            return
        if self._prepare is None:
            raise ReadOnlyStorage(f"{self.label} is served read-only: nothing can be changed")
        with self._mutex:
            if not self._done:
                self._try(self._prepare)

    def _try(self, prepare: Callable[[], None]) -> None:
        if self._unfit is not None:
            raise self._unfit
        try:
            prepare()
        except StorageError:
            raise
        except ZotctlError as error:
            self._unfit = error
            raise
        self._done = True

    @property
    def crossed(self) -> bool:
        """Was there a first write?"""
        return self._done

    @property
    def label(self) -> str:
        return self.inner.label

    # -- reading --------------------------------------------------------------------------------

    def head(self, key: str) -> Object:
        return self.inner.head(key)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        return self.inner.get(key, unless=unless)

    def open(self, key: str) -> Reader:
        return self.inner.open(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        return self.inner.list(prefix, after=after)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        return self.inner.names(directory, after=after)

    def presign_get(self, key: str, seconds: int) -> str:
        return self.inner.presign_get(key, seconds)

    def date(self) -> float:
        return self.inner.date()

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
        self.ready()
        return self.inner.put(key, body, match=match, absent=absent, metadata=metadata, sha256=sha256)

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        self.inner.adapt(checksum=checksum, conditions=conditions)

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        self.ready()
        self.inner.trial(key, body, checksum=checksum, wrong=wrong, cut=cut, match=match)

    def delete(self, key: str) -> None:
        self.ready()
        self.inner.delete(key)

    def copy(self, source: str, target: str) -> Object:
        self.ready()
        return self.inner.copy(source, target)

    def start_parts(self, key: str) -> str:
        self.ready()
        return self.inner.start_parts(key)

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        self.ready()
        return self.inner.put_part(key, upload, number, body)

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        self.ready()
        return self.inner.complete_parts(key, upload, etags)

    def abort_parts(self, key: str, upload: str) -> None:
        self.ready()
        self.inner.abort_parts(key, upload)

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        return self.inner.sign_deletes(keys, seconds, at=at)

    def execute(self, presigned: PresignedDelete) -> None:
        self.ready()
        self.inner.execute(presigned)

    def close(self) -> None:
        if self._done:
            self._leave()
        self.inner.close()
