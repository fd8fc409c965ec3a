"""What scrub found damaged on a bucket, and nobody has healed yet (s3.md 6).

A mark is an object beside the content: `bad/ALG/ENC/a:b`. HEAD and GET of the content then say 404, so that clients
push it again. Which digests have a mark is looked up in the background; a mark is looked at where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from zotctl.errors import DigestInvalid, StorageError
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.s3.site import Site

LOOK_EVERY = 30.0


class Bad:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._looked = float("-inf")

    def refresh(self, *, now: bool = False) -> None:
        """Learn what others have marked; a LIST twice a minute, or `now`. Never raises for a bucket that is away."""
        if now or self._site.clock.elapsed() - self._looked >= LOOK_EVERY:
            self._looked = self._site.clock.elapsed()
            with suppress(StorageError):
                self._site.bad = {digest for digest, _ in self.marks()}

    def marks(self) -> Iterable[tuple[Digest, str]]:
        """Each digest that is damaged somewhere, and the repository that reads it."""
        for found in self._site.objects.list(f"{keys.BAD}/"):
            algorithm, _, rest = found.key.removeprefix(f"{keys.BAD}/").partition("/")
            encoded, _, component = rest.partition("/")
            with suppress(DigestInvalid):
                yield parse_digest(f"{algorithm}:{encoded}"), keys.name_of(component)

    def mark(self, digest: Digest, name: str, etag: str) -> None:
        """From now on this repository does not have this content, until it is written again."""
        self._site.objects.put(keys.damaged(digest, name), etag.encode())
        self._site.bad.add(digest)

    def clear(self, digest: Digest, name: str) -> None:
        self._site.objects.delete(keys.damaged(digest, name))
