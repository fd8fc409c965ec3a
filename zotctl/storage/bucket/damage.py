"""Marks of damage: what scrub found damaged in a bucket and is not healed yet (docs/design/bucket.md#damage).

A mark is an object: `damaged/ALG/ENC/a:b` for the copy in a repository, `damaged/ALG/ENC/_blobs` for that in the
pool, which several may read. It says which object it is about, so what is written in its place is not damaged. HEAD
and GET then say 404, so that clients push it again. Which digests have a mark is looked up in the background.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from zotctl.errors import DigestInvalid, NotFound, StorageError
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.cache import Lru

MARKS_LIST_INTERVAL_S = 30.0
KNOWN_UNMARKED = 10_000


class DamagedObjects:
    """The marks of one bucket, and what this process knows of them. Safe between threads."""

    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._looked = float("-inf")
        self._unmarked: Lru[Digest, bytes] = Lru(KNOWN_UNMARKED)
        """Digests without a mark, each with the value of `context.marked` when that was looked up."""

    def refresh(self, *, now: bool = False) -> None:
        """Learn what other processes have marked: by a LIST, at most once in `MARKS_LIST_INTERVAL_S` unless `now`.
        Never raises for a bucket that is away."""
        if now or self._context.clock.elapsed() - self._looked >= MARKS_LIST_INTERVAL_S:
            self._looked = self._context.clock.elapsed()
            with suppress(StorageError):
                self._context.damaged = {digest for digest, _ in self.marks()}

    def marks(self) -> Iterable[tuple[Digest, str]]:
        """Each damaged copy: its digest, and its key."""
        for found in self._context.objects.list(keys.below(keys.DAMAGED)):
            algorithm, _, rest = found.key.removeprefix(keys.below(keys.DAMAGED)).partition("/")
            encoded, _, component = rest.partition("/")
            with suppress(DigestInvalid):
                digest = parse_digest(f"{algorithm}:{encoded}")
                if component == keys.SHARED:
                    yield digest, keys.shared(digest)
                elif name := keys.name_of(component):
                    yield digest, keys.blob(name, digest)

    def has(self, digest: Digest, found: Object) -> bool:
        """Is this object known to be damaged? A request only where some copy of the digest is."""
        return self.suspects(digest) and self.is_marked(digest, found)

    def is_marked(self, digest: Digest, found: Object) -> bool:
        """The same by its mark, which another process may have written a moment ago: one request at least."""
        with suppress(NotFound):
            got = self._context.objects.get(_mark(digest, found.key))
            # What this process wrote itself, it knows without its time.
            now = found if found.modified else self._context.objects.head(found.key)
            return got is not None and got[1] == _identity(now)
        return False

    def suspects(self, digest: Digest) -> bool:
        """Is some copy of it marked? A request where a process beside this one has marked one since the last LIST."""
        marked = self._context.marked.seen(digest)
        if digest in self._context.damaged:
            return True
        if not any(marked) or self._unmarked.get(digest) == marked:
            return False
        if next(self._context.objects.list(f"{keys.damaged_links(digest)}/"), None) is None:
            self._unmarked.put(digest, marked)
            return False
        self._context.damaged.add(digest)
        return True

    def mark(self, digest: Digest, found: Object) -> None:
        """From now on no server reads this object, until it is written again."""
        self._context.objects.put(_mark(digest, found.key), _identity(found))
        self._context.damaged.add(digest)
        self._context.marked.change(digest)
        self._context.lost.change(digest)

    def clear(self, digest: Digest, key: str) -> None:
        """Remove the mark of a copy that is whole again, or was all the time."""
        self._context.objects.delete(_mark(digest, key))


def _mark(digest: Digest, key: str) -> str:
    return keys.damaged(digest, keys.SHARED if key == keys.shared(digest) else keys.repository_of(key))


def _identity(found: Object) -> bytes:
    """Identifies one write of an object: the same bytes, written again, have another time."""
    return f"{int(found.modified)} {found.size}".encode()
