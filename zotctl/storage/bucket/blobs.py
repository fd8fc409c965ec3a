"""Blobs on a bucket: find, open, redirect, mount, publish, delete (docs/design/bucket.md#uploads and
#deleting-by-a-client)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from zotctl.errors import Busy, Damaged, DoneUnanswered, Expired, NotFound, StorageError
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.content import ContentReader
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.damage import DamagedObjects
from zotctl.storage.bucket.history import PUSHED_METADATA
from zotctl.storage.bucket.index import IndexObjects
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, DeletionIntents
from zotctl.storage.bucket.objects.multipart import digest_of_object
from zotctl.storage.bucket.objects.seam import Object, info_of
from zotctl.storage.bucket.objects.states import note_put
from zotctl.storage.bucket.pool import ZotStubs
from zotctl.storage.bucket.reservations import Look, Reservations
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Generation, Info, Reader
from zotctl.storage.protocol import Blobs, RedirectTarget

REDIRECT_MIN_BYTES = 64 << 10
"""A smaller blob is sent sooner than a client asks a second time."""
KNOWN_REDIRECTS = 100_000
KNOWN_MANIFESTS = 100_000

T = TypeVar("T")

_Key = tuple[str, str, Digest]
"""A repository, its epoch, and a digest: what is known under it is void when something was deleted there."""


class BucketBlobs(Blobs):
    """The blobs of one bucket. Safe between threads and processes. Each method may raise what a request raises."""

    def __init__(
        self,
        context: BucketContext,
        damaged: DamagedObjects,
        stubs: ZotStubs,
        indexes: IndexObjects,
        reservations: Reservations,
        intents: DeletionIntents,
        redirect_lifetime_s: float | None = None,
    ) -> None:
        """`redirect_lifetime_s`: the lifetime of the signed URL of a blob; None: clients read blobs through this
        server."""
        self._context, self._damaged, self._stubs, self._indexes = context, damaged, stubs, indexes
        self._reservations, self._intents = reservations, intents
        self.redirect_lifetime_s = redirect_lifetime_s
        self._redirected: Lru[_Key, tuple[Object, Look]] = Lru(KNOWN_REDIRECTS)
        self._manifests: Lru[_Key, Look] = Lru(KNOWN_MANIFESTS)
        """When each manifest was last seen."""

    # -- reading --------------------------------------------------------------------------------

    def find(self, name: str, digest: Digest) -> Info:
        """Reserve a blob (I6). Raises NotFound: absent, no right to it, or being collected. Damaged: known to be
        damaged, or a stub."""
        return self.require_sound(name, digest, self._reservations.reserve(name, digest))

    def open(self, name: str, digest: Digest) -> Reader:
        """Open a blob, without a reservation, which a reader does not need. Raises NotFound, Damaged."""
        return ContentReader(partial(self._open_blob, name, digest))

    def _open_blob(self, name: str, digest: Digest) -> Reader:
        try:
            return self._first_sound(name, digest, partial(self._open, name, digest))
        except (NotFound, Damaged):
            if (origin := self._stubs.origin(name, digest)) is not None:
                with suppress(NotFound):
                    return self._open(name, digest, origin)
            self._reservations.forget(name, digest)
            raise

    def _first_sound(self, name: str, digest: Digest, read: Callable[[str], T], *, lasting: bool = False) -> T:
        """What `read` returns for the first key at which it finds a sound blob. Raises NotFound, Damaged."""
        damaged: Damaged | None = None
        for place in self._readable(name, digest, lasting=lasting):
            try:
                return read(place)
            except NotFound:
                pass
            except Damaged as error:
                damaged = error
        raise damaged or NotFound(f"no {digest} in {name}")

    def redirect(self, name: str, digest: Digest) -> RedirectTarget | None:
        """A signed URL, after the access check; None: the blob is small, or nothing is redirected. Raises NotFound,
        Damaged."""
        if self.redirect_lifetime_s is None:
            return None
        lasting = self._context.dedupe or not self._context.pooled  # else a `dedupe` may remove what was confirmed
        found = self._reservations.confirmed(name, digest) if lasting else None
        if found is None:
            key, looked = self._key(name, digest), self._reservations.begin_look(digest)
            known = self._redirected.get(key)
            if known is None or not self._reservations.believes(digest, known[1]):
                known = self._locate(name, digest), looked
                self._redirected.put(key, known)
            found = known[0]
        if found.size < REDIRECT_MIN_BYTES:
            return None
        return RedirectTarget(self._context.objects.presign_get(found.key, int(self.redirect_lifetime_s)), found.size)

    def _locate(self, name: str, digest: Digest) -> Object:
        def look(place: str) -> Object:
            found = self._context.objects.head(place)
            self.require_sound(name, digest, found)
            return found

        try:
            return self._first_sound(name, digest, look, lasting=True)  # since a client reads it later
        except NotFound:
            self._reservations.forget(name, digest)
            raise

    def open_manifest(self, name: str, digest: Digest) -> Reader:
        """Open a manifest; the row of index.json is the right to read it. Raises NotFound, Damaged."""
        return ContentReader(partial(self._open_manifest, name, digest))

    def _open_manifest(self, name: str, digest: Digest) -> Reader:
        looked, key = self._reservations.begin_look(digest), self._key(name, digest)
        try:
            reader = self._open(name, digest, keys.blob(name, digest))
        except (NotFound, Damaged):
            if self._context.pooled:
                with suppress(NotFound, Damaged):
                    return self._open(name, digest, keys.shared(digest))
            self._reservations.forget(name, digest)
            raise
        self._manifests.put(key, looked)
        return reader

    def believes(self, name: str, digest: Digest) -> bool:
        """Was this manifest read, written or seen within `BELIEVED_FOR_S`?"""
        known = self._manifests.get(self._key(name, digest))
        return known is not None and self._reservations.believes(digest, known)

    def still_has(self, name: str, digest: Digest, size: int) -> bool:
        """From memory if it `believes` so; else by HEAD."""
        if self.believes(name, digest):
            return True
        looked, key = self._reservations.begin_look(digest), self._key(name, digest)
        for place in (keys.blob(name, digest), *([keys.shared(digest)] if self._context.pooled else [])):
            found = self._context.head(place)
            if found is not None and found.size == size and not self._damaged.has(digest, found):
                self._manifests.put(key, looked)
                return True
        self._reservations.forget(name, digest)
        return False

    def _key(self, name: str, digest: Digest) -> _Key:
        return name, self._reservations.now(name).epoch, digest

    def copy_of(self, name: str, digest: Digest) -> Object | None:
        """The object that this repository reads under a digest, whole or damaged; preferably not a stub."""
        stub: Object | None = None
        for place in self._readable(name, digest):
            found = self._context.head(place)
            if found is not None and not is_stub(digest, found.size):
                return found
            stub = stub or found
        return stub

    def _open(self, name: str, digest: Digest, place: str) -> Reader:
        reader = self._context.objects.open(place)
        try:
            info = reader.info()
            self.require_sound(name, digest, Object(place, info.size, "", info.mtime_ns / 1e9, 0.0))
        except BaseException:
            reader.close()
            raise
        return reader

    def _readable(self, name: str, digest: Digest, *, lasting: bool = False) -> Iterator[str]:
        """The keys at which this repository may read a digest, one after the other: its own blob, and the pool's if it
        has a reservation or reaches it (I7). A `dedupe` may remove its own at any time, which is why the other follows.
        `lasting`: the pool's first, which stays."""
        own = keys.blob(name, digest)
        for place in sorted(self._context.places(name, digest), key=lambda place: lasting and place == own):
            if place == own or self._may(name, digest):
                yield place

    def _may(self, name: str, digest: Digest) -> bool:
        if self._reservations.since(name, digest) is not None:
            return True
        return self._context.head(keys.reservation(digest, name)) is not None or self._reservations.right(name, digest)

    def require_sound(self, name: str, digest: Digest, found: Object) -> Info:
        """The `Info` of an object. Raises Damaged if it is marked, or a stub."""
        if is_stub(digest, found.size) or self._damaged.has(digest, found):
            self._reservations.forget(name, digest)
            raise Damaged(f"{digest} is damaged here; push it again to heal it")
        return info_of(found)

    def generation(self, name: str, digest: Digest) -> Generation | None:
        """ETag and time of the repository's own object."""
        try:
            found = self._context.head(keys.blob(name, digest))
        except StorageError:
            return None
        return f"{found.etag} {found.modified}" if found else None

    def distrust(self, name: str, digest: Digest) -> bool:
        """Hash a blob whose length a manifest disputes, and mark it if it is wrong. True: it is right."""
        found = self.copy_of(name, digest)
        if found is None or digest_of_object(self._context.objects, found.key, digest.algorithm) == digest:
            return found is not None
        self._damaged.mark(digest, found)
        return False

    def doubt(self, name: str, digest: Digest) -> None:
        """Forget everything that is remembered of a blob whose bytes were found wrong."""
        self._reservations.forget(name, digest)
        self._redirected.drop(self._key(name, digest))

    # -- publishing -----------------------------------------------------------------------------

    def begin(self, name: str, start: Callable[[], T]) -> T:
        """The first request of an upload, and beside it a look for the repository that its blob is for."""
        if self._indexes.knows(name):
            return start()
        found: list[T] = []
        calls: list[Callable[[], None]] = [lambda: found.append(start()), partial(self._indexes.foresee, name)]
        self._context.each(calls)
        return found[0]

    def publish(self, name: str, digest: Digest, make: Callable[[str], Object], *, new: bool = False) -> Object:
        """Reserve, let `make` write verified bytes under their key, and remove the mark of damage."""
        place = self._context.blob(name, digest)
        self._indexes.ensure(name)
        found = self._reservations.publish(name, digest, place, lambda: make(place), new=new)
        self._heal(digest, place)
        return found

    def require_reserved(self, name: str, digest: Digest) -> None:
        """Reserve once more before an answer that may come late: from memory, or by P1 to P3. Raises NotFound."""
        self._reservations.reserve(name, digest)

    def publish_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """M3: a manifest lies in its repository, and its own time stamp is its reservation."""
        if self._reservations.confirmed(name, digest) is not None:
            return
        place, since = keys.blob(name, digest), self._reservations.now(name)  # which is when it begins to be put, too
        looked = self._reservations.begin_look(digest)
        sha256 = digest.encoded if digest.algorithm == "sha256" else ""
        etag = self._context.objects.put(place, body, sha256=sha256, metadata=PUSHED_METADATA)
        note_put(self._context.objects, etag, body)
        while self._intents.wait_out([place]):
            since = self._reservations.now(name)
            etag = self._context.objects.put(place, body, sha256=sha256, metadata=PUSHED_METADATA)
        looked = looked._replace(at=since.at)
        self._reservations.confirm(name, digest, Object(place, len(body), etag, 0.0, 0.0), since, looked)
        self._heal(digest, place)

    def _heal(self, digest: Digest, place: str) -> None:
        """Remove the mark of the object that was replaced."""
        if self._damaged.suspects(digest):
            self._damaged.clear(digest, place)

    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """Mount without the bytes. False: the source has no such blob, or may not read it."""
        own = keys.blob(source, digest)
        for place in self._readable(source, digest):
            if place == own and ((found := self._context.head(own)) is None or is_stub(digest, found.size)):
                continue  # a reservation is a right: none is written before the source has shown that it has one (I7)
            with suppress(NotFound, Damaged):
                self.publish(name, digest, partial(self._take, source, digest, place), new=True)
                return True
        return False

    def _take(self, source: str, digest: Digest, place: str, target: str) -> Object:
        """Copy the blob on the server's side, unless both repositories read it in the pool. A copy has no mark, so a
        damaged source is refused first."""
        if place != target and self._damaged.suspects(digest):
            self.require_sound(source, digest, self._context.objects.head(place))
        found = self._context.objects.head(place) if place == target else self._context.objects.copy(place, target)
        self.require_sound(source, digest, found)
        return found

    def delete(self, name: str, digest: Digest, void: Callable[[], None]) -> None:
        """Delete a blob for a client, whatever was reserved (I6 is about collection). `void` makes reservations void,
        or raises to refuse.

        The repository's own object goes by a delete that was signed beforehand, under an intent, as a collector's does;
        of the pool only the right goes. Raises NotFound.
        """
        own = keys.blob(name, digest)
        if self._context.head(own) is None and not self._may(name, digest):
            raise NotFound(f"no {digest} in {name}")
        presigned = self._context.objects.sign_deletes([keys.reservation(digest, name), own], DELETES_SIGNED_FOR_S)
        intent = self._intents.announce([own])
        over = True
        try:
            void()
            over = False
            self._context.carry_out(presigned)
            over = True
        except DoneUnanswered:
            pass  # but it may be done once more
        except Expired as error:
            over = True
            raise Busy(f"the deletion of {digest} took too long; try again") from error
        finally:
            self._context.deletions.change()
            if over:  # else the intent stays until nothing can happen any more
                self._intents.withdraw(intent)
