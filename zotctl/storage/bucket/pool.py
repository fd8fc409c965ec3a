"""The pool of a bucket, `_blobs/`: who may read what in it, how content gets there and back, and zot's stubs.

A reservation is the grant of a repository to read the pool's copy of a digest (I7). Reservations are listed by digest,
jobs go by repository: so one pass over the two sorted lists, the pool and the reservations, is kept for a while, at
about a hundred bytes a reservation.

`dedupe` and `dedupe --undo` move content a digest at a time. Only copies are made of what was hashed, and a copy goes
only when another one has been there for so long that a client that was sent to the old one has read it. A kill anywhere
leaves both readable; another run goes on.

zot deduplicates a bucket by empty objects in the place of content that another repository has. Such a bucket is read as
it is; `dedupe` and `dedupe --undo` make it whole. HEAD of a stub is 404, so that a client that pushes fills it: no
manifest comes to rely on the blob of another repository.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import groupby

from zotctl.errors import DigestInvalid, DoneUnanswered, Expired, NotFound, StorageError
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, check_digest, is_stub, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.catalog import BucketCatalog
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.damage import DamagedObjects
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, DeletionIntents
from zotctl.storage.bucket.objects.seam import PAGE_KEYS, Object, PresignedDelete, info_of
from zotctl.storage.bucket.reservations import Reservations
from zotctl.storage.driver import Info

GRANTS_LIFETIME_S = 60.0
"""Seconds after which the lists are made again, or ten times what they took, if that is longer."""
POOL_SETTLED_S = 60.0
"""Seconds after which each server has noticed that there is a pool, for which it looks twice a minute."""
ORIGINS_LIFETIME_S = 300.0
"""Seconds before the origins of stubs are looked for again, which lists the whole bucket."""


class Grants:
    """Which repository may read what in the pool. Safe between threads; each method may raise what a list raises."""

    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._mutex = threading.Lock()
        self._lines: dict[str, bytearray] = {}
        self._until = float("-inf")

    def of(self, name: str) -> Iterator[tuple[Digest, Info]]:
        """The pool's objects that this repository has a reservation for, as they were when they were listed."""
        if not (self._context.pooled or self._context.dedupe):
            return
        with self._mutex:
            if self._context.clock.elapsed() >= self._until:
                self._list()
            lines = bytes(self._lines.get(name, b""))
        for line in lines.splitlines():
            text, size, etag, modified, names = line.decode().split(" ")
            digest = check_digest(text)
            found = Object(keys.shared(digest), int(size), etag, float(modified), 0.0)
            yield digest, info_of(found, int(names))

    def _list(self) -> None:
        began = self._context.clock.elapsed()
        self._lines = {}
        for digest, holders, found in self._pooled():
            line = f"{digest} {found.size} {found.etag} {int(found.modified)} {len(holders) + 1}\n".encode()
            for name in holders:
                self._lines.setdefault(name, bytearray()).extend(line)
        now = self._context.clock.elapsed()
        self._until = now + max(GRANTS_LIFETIME_S, 10 * (now - began))

    def _pooled(self) -> Iterator[tuple[Digest, list[str], Object]]:
        """The pool's objects that are reserved, with their repositories."""
        pool = self._context.objects.list(keys.below(keys.SHARED))
        found = next(pool, None)
        for text, holders in self.holders():
            while found is not None and found.key.removeprefix(keys.below(keys.SHARED)) < text:
                found = next(pool, None)
            if found is None:
                return
            if found.key.removeprefix(keys.below(keys.SHARED)) == text:
                with suppress(DigestInvalid):
                    yield parse_digest(text.replace("/", ":", 1)), holders, found

    def holders(self) -> Iterator[tuple[str, list[str]]]:
        """Each ALG/ENC with the repositories that have a reservation for it, in the order of ALG/ENC."""
        reservations = (
            found.key.removeprefix(keys.below(keys.RESERVATIONS))
            for found in self._context.objects.list(keys.below(keys.RESERVATIONS))
        )
        for text, group in groupby(reservations, lambda key: key.rpartition("/")[0]):
            yield text, [name for key in group if (name := keys.reserved_for(key))]

    def of_digest(self, digest: Digest) -> list[str]:
        """The repositories with a reservation of it now: one LIST."""
        reservations = self._context.objects.list(keys.reservations(digest))
        return [name for found in reservations if (name := keys.reserved_for(found.key))]


Sound = Callable[[str, Digest], bool]
"""Are the bytes under this key those of the digest? Reads them."""


class PoolConversion:
    """The steps of `dedupe` on a bucket. Safe between threads; each method may raise what a request raises."""

    def __init__(
        self, context: BucketContext, damaged: DamagedObjects, reservations: Reservations, intents: DeletionIntents
    ) -> None:
        self._context, self._damaged, self._reservations, self._intents = context, damaged, reservations, intents

    def prepare(self, name: str, digest: Digest) -> None:
        """P1 and P2 for a copy that this repository is about to get. Raises Busy."""
        self._reservations.ensure(name, digest)
        while self._intents.wait_out([keys.blob(name, digest)]):
            self._reservations.ensure(name, digest)  # the first one may have gone under that intent

    def copy(self, source: str, target: str, digest: Digest, sound: Sound) -> bool:
        """Copy a source that was hashed. False: the copy has other bytes, and was deleted again."""
        try:
            found = self._context.objects.copy(source, target)
        except NotFound:
            return False
        self._context.pooled |= target == keys.shared(digest)
        proof = found.metadata.get("sha256", "")
        if proof and digest.algorithm == "sha256":
            right = base64.b64decode(proof).hex() == digest.encoded
        else:
            right = sound(target, digest)
        if not right:
            self._context.objects.delete(target)
        return right

    def droppable(self, name: str, digests: Iterable[Digest], age: float) -> Iterator[tuple[Digest, float]]:
        """The copies that a repository does not need, since the pool has the content, no scrub has marked that, it has
        a reservation, and no collector deletes it. Each comes with the seconds until the pool has had it for `age`
        seconds."""
        wanted = list(digests)
        self._damaged.refresh(now=True)
        announced = self._intents.look().announced
        looks = [partial(self._context.head, keys.shared(digest)) for digest in wanted]
        for digest, there in zip(wanted, self._context.each(looks), strict=True):
            if there is None or is_stub(digest, there.size) or there.key in announced:
                continue
            if self._damaged.has(digest, there):
                continue
            if self._context.head(keys.reservation(digest, name)) is not None:
                yield digest, max(0.0, age - there.age)

    def drop(self, name: str, age: float, digests: list[Digest]) -> list[Digest]:
        """Delete them, by requests that were signed before the last look, so that none comes too late.

        A collector may be about to take the pool's copy, since there is one of its own: its last look is at the
        reservations, and ours at its intent, so that one of us sees the other (P1, P2).
        """
        done = []
        for start in range(0, len(digests), PAGE_KEYS):
            some = digests[start : start + PAGE_KEYS]
            presigned_deletes = {
                d: self._context.objects.sign_deletes([keys.blob(name, d)], DELETES_SIGNED_FOR_S) for d in some
            }
            self._context.each([partial(self._reservations.renew, name, digest) for digest in some])
            still = [digest for digest, wait in self.droppable(name, some, age) if not wait]
            gone = self._context.each([partial(self._drop, presigned_deletes[digest]) for digest in still])
            done += [digest for digest, it_is in zip(still, gone, strict=True) if it_is]
        return done

    def _drop(self, presigned: PresignedDelete) -> bool:
        """Is the copy gone? One that it was too late for is left to another run."""
        try:
            self._context.carry_out(presigned)
        except DoneUnanswered:
            pass  # and may be done once more; a reservation of just now spares the pool's copy for longer than that
        except Expired:
            return False
        return True


class ZotStubs:
    """Where the content of stubs lies. Safe between threads."""

    def __init__(self, context: BucketContext, names: BucketCatalog) -> None:
        self._context, self._names = context, names
        self._mutex = threading.Lock()
        self._origins: dict[str, str] = {}
        self._looked = self._counted = float("-inf")
        self._remain = False

    def origin(self, name: str, digest: Digest) -> str | None:
        """The key of the content; None: the repository has no stub of it, or no repository has the content."""
        there = self._context.head(keys.blob(name, digest))
        if there is None or not is_stub(digest, there.size):
            return None
        with self._mutex:
            for look in (self._remembered, self._list):
                if self._is_there(digest):
                    break
                look()
            return keys.blob(self._origins[digest], digest) if self._is_there(digest) else None

    def remain(self, *, lately: bool = False) -> bool:
        """Is any stub left, so that a repository needs the content of another one and nothing may be collected?

        Only zot makes stubs; but it may have had the bucket again since the last run, and left no trace of that beside
        them. So they are looked for anew, by a list of all blobs. `lately`: what this process has found in the last
        minutes will do, for a caller that deletes nothing.
        """
        now = self._context.clock.elapsed()
        if not lately or now - self._counted >= ORIGINS_LIFETIME_S:
            everything = (one for name in self._names.everything() for one in self._context.own_blobs(name))
            self._remain = any(is_stub(digest, found.size) for digest, found in everything)
            self._counted = now
        return self._remain

    def _is_there(self, digest: Digest) -> bool:
        name = self._origins.get(digest)
        found = self._context.head(keys.blob(name, digest)) if name else None
        return found is not None and not is_stub(digest, found.size)

    def _remembered(self) -> None:
        """Read the origins that this process or another one has stored."""
        with suppress(NotFound, ValueError):
            got = self._context.objects.get(keys.ORIGINS)
            self._origins = {str(d): str(n) for d, n in load_json(got[1]).items()} if got else {}

    def _list(self) -> None:
        """List all blobs of all repositories for stubs and origins: one request for a thousand objects."""
        now = self._context.clock.elapsed()
        if now - self._looked < ORIGINS_LIFETIME_S:
            return
        self._looked = now
        whole: dict[str, str] = {}
        stubs: set[str] = set()
        for name in self._names.everything():
            for digest, found in self._context.own_blobs(name):
                whole.setdefault(digest, name) if found.size else stubs.add(digest)
        self._origins = {digest: whole[digest] for digest in stubs if digest in whole}
        with suppress(StorageError):
            if self._context.writes() and not self._context.read_only:
                self._context.objects.put(keys.ORIGINS, json.dumps(self._origins).encode())
