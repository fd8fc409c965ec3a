"""A bucket that is imported from: each look at it is a request, so that a folder of blobs is listed once, and
manifests are read once and side by side."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from zotctl.errors import DigestInvalid, NotFound
from zotctl.oci.digest import parse_digest
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Driver, Info, Reader
from zotctl.storage.history import Timeline
from zotctl.storage.protocol import StoreProtocol
from zotctl.storage.wrappers import WrappedDriver

KEPT = 64 << 20
"""Bytes of manifests: each is read to see what it lists, and again to be copied."""
LARGEST = 4 << 20
"""Bytes of one that is kept; a larger one is read twice."""


class BucketSource(WrappedDriver):
    """The tree of a bucket, each folder of blobs as it was when it was first looked into: after the index.json that
    leads there was read, so that all it names was there. Safe between threads."""

    def __init__(self, protocol: StoreProtocol, tree: Driver) -> None:
        """`tree`: of the bucket's driver, or a part of that."""
        super().__init__(tree)
        self._protocol = protocol
        self._folders: dict[str, dict[str, Info]] = {}
        self._mutex = threading.Lock()
        self._bodies: Lru[str, bytes] = Lru(KEPT)

    def require(self) -> None:
        """Raises Unavailable when the bucket is away."""
        if (error := self._protocol.state()) is not None:
            raise error

    def stat(self, key: str) -> Info:
        folder, _, name = key.rpartition("/")
        if folder.rpartition("/")[2] == "blobs" and self._listed(key):
            return Info(0, 0, 0, 0, 1, stat.S_IFDIR | 0o755, 0, 0, 0)
        if not _is_blob(key):
            return self.inner.stat(key)
        if (found := self._listed(folder).get(name)) is None:
            raise NotFound(f"{self.label}/{key}: no such object")
        return found

    def _listed(self, folder: str) -> dict[str, Info]:
        with self._mutex:
            if folder not in self._folders:
                found: dict[str, Info] = {}
                with suppress(NotFound):
                    found = {entry.name: entry.info for entry in self.inner.scan(folder) if entry.info is not None}
                self._folders[folder] = found
            return self._folders[folder]

    def open(self, key: str) -> Reader:
        body = self._bodies.get(key)
        return self.inner.open(key) if body is None else ObjectBody(body)

    def past(self, name: str) -> Timeline:
        """What the store there remembers of a repository, by what is written."""
        return self._protocol.history.told(name)

    def each(self, calls: Sequence[Callable[[], None]]) -> None:
        self._protocol.each(calls)

    def keep(self, key: str) -> None:
        """A manifest, which is opened now, and again to be copied. Raises StorageError."""
        if self._bodies.get(key) is None and self.stat(key).size <= LARGEST:
            with self.inner.open(key) as reader:
                if reader.size <= LARGEST:
                    body = reader.read_at(0, reader.size)
                    self._bodies.put(key, body, len(body) + 200)


def _is_blob(key: str) -> bool:
    *_, blobs, algorithm, encoded = ["", "", *key.split("/")]
    with suppress(DigestInvalid):
        return blobs == "blobs" and bool(parse_digest(f"{algorithm}:{encoded}"))
    return False


class ObjectBody:
    """A `Reader` of bytes that are in memory."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @property
    def size(self) -> int:
        return len(self._body)

    def info(self) -> Info:
        return Info(0, self.size, 0, 0, 1, stat.S_IFREG | 0o444, 0, 0, 0)

    def fileno(self) -> int | None:
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        return self._body[offset : offset + count]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        piece = self.read_at(offset, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def once(self) -> None:
        pass

    def labels(self) -> dict[str, bytes]:
        return {}

    def close(self) -> None:
        pass

    def __enter__(self) -> ObjectBody:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
