"""An object store in memory, with S3's semantics: strong reads, conditional PUT, a clock of its own in whole seconds.

For tests and for the deterministic simulation. It is as unkind as the servers that were measured: `a` can't
lie beside `a/b`, times have whole seconds, an ETag tells nothing but "the same bytes", a repeated Complete is NotFound.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import RLock
from typing import NamedTuple

from zotctl.errors import Changed, Expired, IoFailed, NotFound, RequestRefused, StorageError
from zotctl.storage.bucket.objects.seam import MD5, PAGE_KEYS, SHA256, Object, PresignedDelete, info_of
from zotctl.storage.driver import Buffer, BytesReader, Info

SMALLEST_PART = 5 << 20
LONGEST_KEY = 1024


Page = list[Object]


class Stored(NamedTuple):
    body: bytes
    etag: str
    modified: int
    metadata: Mapping[str, str]


class MemoryObjects:
    """`clock`: the server's, seconds since 1970. Safe between threads; each method is one atomic step."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        label: str = "s3://memory/test",
        smallest_part: int = SMALLEST_PART,
        conditions: bool | None = True,
        checksums: Sequence[str] = (SHA256, MD5),
        takes: Sequence[str] = (SHA256, MD5),
        keeps_halves: bool = False,
    ) -> None:
        """`conditions` False: a server that ignores them, as some do; None: that refuses them. `checksums` are
        verified, those of `takes` are not refused. `keeps_halves`: of a put without checksum whose connection ends."""
        self.clock, self.label, self._smallest, self._conditions = clock, label, smallest_part, conditions
        self._verified, self._taken, self._keeps_halves = checksums, takes, keeps_halves
        self._checksum, self._looks = SHA256, False
        self.stored: dict[str, Stored] = {}
        self.parts: dict[str, tuple[str, dict[int, bytes]]] = {}
        """By upload id: the key, and the parts."""
        self._keys: list[str] | None = None
        self._ids = itertools.count(1)
        self._mutex = RLock()

    # -- reading --------------------------------------------------------------------------------

    def head(self, key: str) -> Object:
        with self._mutex:
            return self._object(key, self._get(key))

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        with self._mutex:
            found = self._get(key)
            return None if found.etag == unless else (self._object(key, found), found.body)

    def open(self, key: str) -> MemoryObjectReader:
        with self._mutex:
            found = self._get(key)
            return MemoryObjectReader(self._object(key, found), found.body)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        while page := self._page(prefix, after):
            yield from page
            if len(page) < PAGE_KEYS:
                return
            after = page[-1].key

    def _page(self, prefix: str, after: str) -> Page:
        with self._mutex:
            if self._keys is None:
                self._keys = sorted(self.stored)
            page: Page = []
            for at in range(bisect_right(self._keys, max(after, prefix[:-1] if prefix else "")), len(self._keys)):
                key = self._keys[at]
                if key.startswith(prefix) and key > after:
                    page.append(self._object(key, self.stored[key])._replace(metadata={}))
                elif key > prefix and not key.startswith(prefix):
                    break
                if len(page) == PAGE_KEYS:
                    break
            return page

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        prefix = f"{directory}/" if directory else ""
        with self._mutex:
            found: dict[str, bool] = {}
            for key in sorted(self.stored):
                if key.startswith(prefix):
                    name, below, _ = key[len(prefix) :].partition("/")
                    if name + below > after:
                        found[name] = bool(below)
        return iter(found.items())

    def _get(self, key: str) -> Stored:
        found = self.stored.get(key)
        if found is None:
            raise NotFound(f"{self.label}/{key}: no such object")
        return found

    def _object(self, key: str, found: Stored) -> Object:
        return Object(
            key, len(found.body), found.etag, found.modified, int(self.clock()) - found.modified, found.metadata
        )

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
        content = bytes(body)
        wrong = self._checksum == SHA256 and sha256 not in ("", hashlib.sha256(content).hexdigest())
        return self._put(key, content, self._checksum, match=match, absent=absent, metadata=metadata, wrong=wrong)

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        self._checksum, self._looks = checksum, not conditions

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        if not cut:
            self._put(key, bytes(body), checksum, match=match, wrong=wrong)
        elif self._keeps_halves and checksum not in self._verified:
            self._put(key, bytes(body[: len(body) // 2]), checksum, match=match)

    def _put(
        self, key: str, content: bytes, checksum: str, *, match: str = "", absent: bool = False,
        metadata: Mapping[str, str] | None = None, wrong: bool = False,
    ) -> str:  # fmt: skip
        if checksum and checksum not in self._taken:
            raise RequestRefused(f"{self.label}/{key}: 501: a header that is not known here")
        if wrong and checksum in self._verified:
            raise IoFailed(f"{self.label}/{key}: the bytes that arrived have another checksum than was said")
        if (match or absent) and self._conditions is None and not self._looks:
            raise RequestRefused(f"{self.label}/{key}: 501: a condition that is not known here")
        with self._mutex:
            if self._conditions or self._looks:
                self._check(key, match, absent)
            return self._store(key, content, f'"{hashlib.md5(content).hexdigest()}"', metadata or {})

    def _check(self, key: str, match: str, absent: bool) -> None:
        there = self.stored.get(key)
        if (absent and there is not None) or (match and (there is None or there.etag != match)):
            raise Changed(f"{self.label}/{key}: it is not what it was")

    def _store(self, key: str, body: bytes, etag: str, metadata: Mapping[str, str]) -> str:
        self._refuse(key)
        if key not in self.stored:
            self._keys = None
        self.stored[key] = Stored(body, etag, int(self.clock()), dict(metadata))
        return etag

    def _refuse(self, key: str) -> None:
        if not key or len(key.encode()) > LONGEST_KEY or any(len(part.encode()) > 255 for part in key.split("/")):
            raise StorageError(f"{self.label}/{key}: not a key that every server takes")
        above = key
        while above := above.rpartition("/")[0]:
            if above in self.stored:
                raise StorageError(f"{self.label}/{key}: there is an object {above}, and not every server takes both")

    def delete(self, key: str) -> None:
        with self._mutex:
            if self.stored.pop(key, None) is not None:
                self._keys = None

    def copy(self, source: str, target: str) -> Object:
        with self._mutex:
            found = self._get(source)
            self._store(target, found.body, found.etag, {})
            sha256 = base64.b64encode(hashlib.sha256(found.body).digest()).decode()
            return self._object(target, self.stored[target])._replace(metadata={"sha256": sha256})

    # -- parts ----------------------------------------------------------------------------------

    def start_parts(self, key: str) -> str:
        with self._mutex:
            upload = f"upload-{next(self._ids)}"
            self.parts[upload] = (key, {})
            return upload

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        content = bytes(body)
        with self._mutex:
            self._parts(key, upload)[number] = content
        return f'"{hashlib.md5(content).hexdigest()}"'

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        with self._mutex:
            parts = self._parts(key, upload)
            bodies = [parts.get(number, b"") for number in range(1, len(etags) + 1)]
            if [f'"{hashlib.md5(body).hexdigest()}"' for body in bodies] != list(etags) or not etags:
                raise NotFound(f"{self.label}/{key}: the parts are not those that were sent")
            if any(len(body) < self._smallest or len(body) != len(bodies[0]) for body in bodies[:-1]):
                raise StorageError(f"{self.label}/{key}: parts of other sizes than every server takes")
            whole = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
            etag = self._store(key, b"".join(bodies), f'"{whole}-{len(bodies)}"', {})
            del self.parts[upload]
            return etag

    def _parts(self, key: str, upload: str) -> dict[int, bytes]:
        found = self.parts.get(upload)
        if found is None or found[0] != key:
            raise NotFound(f"{self.label}/{key}: no such upload")
        return found[1]

    def abort_parts(self, key: str, upload: str) -> None:
        with self._mutex:
            self.parts.pop(upload, None)

    # -- signed requests ------------------------------------------------------------------------

    def presign_get(self, key: str, seconds: int) -> str:
        return f"memory://{self.label}/{key}?until={self.clock() + seconds}"

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        at = self.clock() if at is None else at
        return PresignedDelete(tuple(keys), None, at, at + seconds)

    def execute(self, presigned: PresignedDelete) -> None:
        with self._mutex:
            if self.clock() > presigned.ends:
                raise Expired(f"{self.label}: the request was signed too long ago")
            for key in presigned.keys:
                self.delete(key)

    def date(self) -> float:
        return float(int(self.clock()))

    def close(self) -> None:
        pass


class MemoryObjectReader(BytesReader):
    """The bytes as they were when it was opened."""

    def __init__(self, found: Object, body: bytes) -> None:
        super().__init__(body)
        self._found = found

    def info(self) -> Info:
        return info_of(self._found)
