"""From copies in each repository to one in the pool, and back (docs/design/bucket.md#the-tree), a digest at a time.

Only copies are made of what was hashed, and a copy goes only when another one has been there for so long that a
client that was sent to the old one has read it. A kill anywhere leaves both readable; another run goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from zotctl.errors import NotFound
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, DeletionIntents
from zotctl.storage.bucket.objects.seam import PAGE_KEYS
from zotctl.storage.bucket.reservations import Reservations

SETTLED = 60.0
"""Seconds: after so long each server has noticed that there is a pool (it looks twice a minute)."""

Sound = Callable[[str, Digest], bool]
"""Are the bytes under this key those of the digest? Reads them."""


class Converting:
    def __init__(self, context: BucketContext, reservations: Reservations, intents: DeletionIntents) -> None:
        self._context, self._reservations, self._intents = context, reservations, intents

    def reserve(self, name: str, digests: Iterable[Digest]) -> list[Digest]:
        """Holds, before anything is moved; those of which a collector doesn't have the word already."""
        return list(self._reservations.reserve_all(name, digests))

    def prepare(self, name: str, digest: Digest) -> None:
        """P1 and P2 for a copy that this repository is about to get. Raises Busy."""
        self._reservations.ensure(name, digest)
        while self._intents.wait_out([keys.blob(name, digest)]):
            self._reservations.ensure(name, digest)  # the first one may have gone under that intent

    def reserve_stubs(self, name: str, digests: Iterable[Digest]) -> None:
        """What zot has left here is the right to content that lies elsewhere."""
        for digest in digests:
            self._reservations.ensure(name, digest)

    def copy(self, source: str, target: str, digest: Digest, sound: Sound) -> bool:
        """The source was hashed. False: what came out of it is something else, and is gone again."""
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
        """Which copies of its own a repository doesn't need, since the pool has had them for `age` seconds, it holds
        them, and no collector deletes them; or for how many seconds each has to wait."""
        wanted = list(digests)
        announced = self._intents.look().announced
        looks = [partial(self._context.head, keys.shared(digest)) for digest in wanted]
        for digest, there in zip(wanted, self._context.each(looks), strict=True):
            if there is None or is_stub(digest, there.size) or there.key in announced:
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
            self._context.each([partial(self._context.objects.execute, presigned_deletes[digest]) for digest in still])
            done += still
        return done
