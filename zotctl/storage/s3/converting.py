"""From copies in each repository to one in the pool, and back (s3.md 2, the last lines), a digest at a time.

Only copies are made of what was hashed, and a copy goes only when another one has been there for so long that whoever
was sent to the old one has read it. A kill anywhere leaves both readable; another run goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from zotctl.errors import NotFound
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.objects import LISTED
from zotctl.storage.s3.promises import Promises
from zotctl.storage.s3.sentences import SIGNED_FOR, Sentences
from zotctl.storage.s3.site import Site

SETTLED = 60.0
"""Seconds: after so long each server has noticed that there is a pool (it looks twice a minute)."""

Sound = Callable[[str, Digest], bool]
"""Are the bytes under this key those of the digest? Reads them."""


class Converting:
    def __init__(self, site: Site, promises: Promises, sentences: Sentences) -> None:
        self._site, self._promises, self._sentences = site, promises, sentences

    def promise(self, name: str, digests: Iterable[Digest]) -> list[Digest]:
        """Holds, before anything is moved; those of which a collector doesn't have the word already."""
        return list(self._promises.promise_all(name, digests))

    def prepare(self, name: str, digest: Digest) -> None:
        """P1 and P2 for a copy that this repository is about to get. Raises Busy."""
        self._promises.hold(name, digest)
        while self._sentences.wait_out([keys.blob(name, digest)]):
            self._promises.hold(name, digest)  # the first one may have gone under that sentence

    def hold_stubs(self, name: str, digests: Iterable[Digest]) -> None:
        """What zot has left here is the right to content that lies elsewhere."""
        for digest in digests:
            self._promises.hold(name, digest)

    def copy(self, source: str, target: str, digest: Digest, sound: Sound) -> bool:
        """The source was hashed. False: what came out of it is something else, and is gone again."""
        try:
            found = self._site.objects.copy(source, target)
        except NotFound:
            return False
        self._site.pooled |= target == keys.shared(digest)
        proof = found.metadata.get("sha256", "")
        if proof and digest.algorithm == "sha256":
            right = base64.b64decode(proof).hex() == digest.encoded
        else:
            right = sound(target, digest)
        if not right:
            self._site.objects.delete(target)
        return right

    def droppable(self, name: str, digests: Iterable[Digest], age: float) -> Iterator[tuple[Digest, float]]:
        """Which copies of its own a repository doesn't need, since the pool has had them for `age` seconds, it holds
        them, and nobody collects them; or for how many seconds each has to wait."""
        wanted = list(digests)
        condemned = self._sentences.condemned()
        looks = [partial(self._site.head, keys.shared(digest)) for digest in wanted]
        for digest, there in zip(wanted, self._site.each(looks), strict=True):
            if there is None or is_stub(digest, there.size) or there.key in condemned:
                continue
            if self._site.head(keys.hold(digest, name)) is not None:
                yield digest, max(0.0, age - there.age)

    def drop(self, name: str, age: float, digests: list[Digest]) -> list[Digest]:
        """Delete them, by requests that were signed before the last look, so that none comes too late.

        A collector may be about to take the pool's copy, since there is one of its own: its last look is at the holds,
        and ours at its sentence, so that one of us sees the other (P1, P2).
        """
        done = []
        for start in range(0, len(digests), LISTED):
            some = digests[start : start + LISTED]
            warrants = {d: self._site.objects.sign_deletes([keys.blob(name, d)], SIGNED_FOR) for d in some}
            self._site.each([partial(self._promises.renew, name, digest) for digest in some])
            still = [digest for digest, wait in self.droppable(name, some, age) if not wait]
            self._site.each([partial(self._site.objects.execute, warrants[digest]) for digest in still])
            done += still
        return done
