"""A bucket seen as a tree, for jobs that only read (storage.driver): verify, scrub, import.

Each repository looks self-contained: what it may read in the pool is found below its own `blobs/`, too, with the inode
number of the pool's object, as hard links have one. A list tells sizes and times as well, so no file is asked for
singly.
"""

from __future__ import annotations

import re
import stat as modes
from collections.abc import Callable, Iterator, Set
from contextlib import suppress

from zotctl.errors import DigestInvalid, NotFound
from zotctl.oci.digest import Digest, digest_named, is_stub, parse_digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object, info_of
from zotctl.storage.bucket.pool import Grants
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Capabilities, Entry, Info, Reader, Space
from zotctl.storage.wrappers import ReadOnlyDriver

DIRECTORY = Info(0, 0, 0, 0, 1, modes.S_IFDIR | 0o755, 0, 0, 0)

KNOWN_BLOBS = 200_000
"""Blobs of which is known where they were when their folder was listed."""

_blob = re.compile(r"([^._].*)/blobs/([^/]+)/([^/]+)").fullmatch
_algorithm = re.compile(r"([^._].*)/blobs/([^/]+)").fullmatch

FindCopy = Callable[[str, Digest], Object | None]
"""The object that a repository reads under a digest, in whatever state it is."""
Reached = Callable[[str], Set[str]]
"""Every digest that the manifests of a repository name."""


class BucketTree(ReadOnlyDriver):
    """A read-only driver. Safe between threads."""

    def __init__(self, context: BucketContext, grants: Grants, copy_of: FindCopy, reached: Reached) -> None:
        self._context, self._grants, self._copy_of, self._reached = context, grants, copy_of, reached
        self._listed: Lru[str, dict[str, bool]] = Lru(KNOWN_BLOBS)
        """Of folders of blobs: is this one in the pool? A job that has listed one reads each blob with one request."""

    @property
    def label(self) -> str:
        """The address of the bucket and prefix."""
        return self._context.objects.label

    @property
    def capabilities(self) -> Capabilities:
        """None of a file system."""
        return Capabilities(links=False, locks=False, local=False, exchange=False)

    # -- one key --------------------------------------------------------------------------------

    def stat(self, key: str) -> Info:
        """One HEAD for most objects; a directory is what a LIST finds something below. Raises NotFound."""
        if not key:
            return DIRECTORY
        if (found := self._find(key)) is not None:
            return info_of(found)
        if next(self._context.objects.names(key), None) is not None or self._is_bare(key):
            return DIRECTORY
        raise NotFound(f"{self.label}/{key}: no such object")

    def open(self, key: str) -> Reader:
        """One GET for a blob whose folder was listed. Raises NotFound."""
        if (blob := _blob_of(key)) is None:
            return self._context.objects.open(key)
        with suppress(NotFound):
            if (place := self._place(key, *blob)) is not None:
                reader = self._context.objects.open(place)
                if not is_stub(blob[1], reader.size):
                    return reader
                reader.close()
        if (found := self._copy_of(*blob)) is None:
            raise NotFound(f"{self.label}/{key}: no such object")
        return self._context.objects.open(found.key)

    def _place(self, key: str, name: str, digest: Digest) -> str | None:
        """Where it was when it was listed, or else most likely is; None: see `copy_of`."""
        pooled = (self._listed.get(keys.blobs_of(name, digest.algorithm)) or {}).get(digest.encoded)
        if pooled is None:
            return None if self._context.dedupe else key
        return keys.shared(digest) if pooled else key

    def _find(self, key: str) -> Object | None:
        if (blob := _blob_of(key)) is None:
            return self._context.head(key)
        # A manifest lies in its repository, whatever the pool has.
        return self._copy_of(*blob)

    def _is_bare(self, key: str) -> bool:
        """The `blobs` of a layout, or the folder of an algorithm, in which nothing lies: no prefix says so."""
        name, slash, last = key.rpartition("/")
        if slash and last == "blobs":
            return self._context.head(keys.layout(name)) is not None
        folder = _algorithm(key)
        return folder is not None and any(self._shared(folder[1], folder[2], {}))

    # -- directories ----------------------------------------------------------------------------

    def scan(self, key: str) -> list[Entry]:
        """By LISTs, which tell sizes and times, too. Raises NotFound."""
        if (folder := _algorithm(key)) is not None:
            found = self._scan_blobs(key, folder[1], folder[2])
        else:
            found = self._scan(key)
        if not found and key and not self._is_bare(key):
            raise NotFound(f"{self.label}/{key}: nothing there")
        return found

    def _scan(self, key: str) -> list[Entry]:
        found = [Entry(name, below, not below) for name, below in self._context.objects.names(key)]
        if not key:
            return [entry for entry in found if entry.name not in (keys.HIDDEN, keys.SHARED)]
        names = {entry.name for entry in found}
        if LAYOUT_FILE in names and "blobs" not in names:
            found.append(Entry("blobs", True, False))
        if (parts := key.rpartition("/"))[2] == "blobs" and parts[0] and not key.startswith((".", "_")):
            granted = {digest.algorithm for digest, _ in self._grants.of(parts[0])}
            found += [Entry(algorithm, True, False) for algorithm in sorted(granted - names)]
        return found

    def _scan_blobs(self, key: str, name: str, algorithm: str) -> list[Entry]:
        listed = ((found.key.removeprefix(f"{key}/"), found) for found in self._context.objects.list(f"{key}/"))
        own = {encoded: info_of(found) for encoded, found in listed if encoded and "/" not in encoded}
        found = dict(self._shared(name, algorithm, own))
        pooled = {encoded: own.get(encoded) != info for encoded, info in found.items()}
        self._listed.put(keys.blobs_of(name, algorithm), pooled, len(pooled) + 1)
        return [Entry(encoded, False, True, info) for encoded, info in found.items()]

    def _shared(self, name: str, algorithm: str, own: dict[str, Info]) -> Iterator[tuple[str, Info]]:
        """Its own blobs, and what it reads in the pool: by a reservation, or because its manifests name it."""
        granted = {d.encoded: info for d, info in self._grants.of(name) if d.algorithm == algorithm}
        found = own | granted if self._context.dedupe else granted | own
        for encoded, info in own.items():
            digest = digest_named(algorithm, encoded)
            if encoded in granted and digest is not None and is_stub(digest, info.size):
                found[encoded] = granted[encoded]
        yield from found.items()
        if self._context.pooled or self._context.dedupe:
            yield from self._only_reached(name, algorithm, found)

    def _only_reached(self, name: str, algorithm: str, found: dict[str, Info]) -> Iterator[tuple[str, Info]]:
        for text in sorted(self._reached(name)):
            if text.startswith(f"{algorithm}:") and text.partition(":")[2] not in found:
                with suppress(DigestInvalid):
                    there = self._context.head(keys.shared(parse_digest(text)))
                    if there is not None:
                        yield text.partition(":")[2], info_of(there, 3)

    def space(self) -> Space:
        """Unlimited."""
        return Space(1 << 60, 1 << 60, -1)


def _blob_of(key: str) -> tuple[str, Digest] | None:
    """The repository and the digest, if it is the key of a blob."""
    parts = _blob(key)
    if parts is not None:
        with suppress(DigestInvalid):
            return parts[1], parse_digest(f"{parts[2]}:{parts[3]}")
    return None
