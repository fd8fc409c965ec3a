"""What may go, and when: what the walk has found, and the times that are compared (docs/design/bucket.md#c1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from zotctl.jobs.bucket.active_uploads import ActiveBucketUploads
from zotctl.jobs.bucket.ahead import Ahead
from zotctl.jobs.bucket.first_unreachable import SLACK, FirstUnreachable
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Object

SHARED_BY_ZOT = "zot has deduplicated this bucket, so nothing is freed: run `zotctl dedupe --undo` first"


class Reached:
    """What the walk has found, in eight bytes for each digest of each repository. A collision only keeps something."""

    def __init__(self) -> None:
        self._reached = set[int]()
        self._needed = set[int]()
        self._own = set[int]()
        self.left_alone = set[str]()
        """Repositories of which something is not known: they keep all that they hold."""
        self.walked = set[str]()

    def reaches(self, name: str, digest: str) -> bool:
        return _number(name, digest) in self._reached

    def needs(self, digest: str) -> bool:
        """Does some repository need the pool's copy?"""
        return _number("", digest) in self._needed

    def has_own(self, name: str, digest: str) -> bool:
        return _number(name, digest) in self._own

    def enter(self, name: str, reachable: Iterable[str], own: set[str], *, shared: bool) -> None:
        """`shared`: the pool's copy is needed even where there is one of its own."""
        for digest in reachable:
            self._reached.add(_number(name, digest))
            if shared or digest not in own:
                self._needed.add(_number("", digest))
        self._own.update(_number(name, digest) for digest in own)
        self.walked.add(name)
        self.left_alone.discard(name)


def _number(name: str, digest: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name} {digest}".encode(), digest_size=8).digest())


class Eligibility:
    """`delay` in seconds. Every time is the server's."""

    def __init__(self, run: Run, context: BucketContext, delay: float) -> None:
        self._run, self._context, self.delay = run, context, delay
        self.ahead = Ahead(context, float(int(context.objects.date())), at_once=not delay)
        self._moving = ActiveBucketUploads(context, delay, self.ahead)
        self.now = float(int(context.objects.date()))

    @property
    def window(self) -> float:
        """w: that of the servers, or what it would be by a shorter delay, if one is asked for."""
        return min(self._context.window, self.delay / 4)

    def is_old(self, name: str, found: Object) -> bool:
        """Not written within the delay, nor since the oldest upload began that is still moving."""
        return self.ahead.age(found) >= self.delay and self.ahead.modified(found) < self._moving.since(name)

    def tell(self, name: str, seen: FirstUnreachable, digest: Digest, blob: Object) -> None:
        """It is unreachable; from the first run that finds it so, its delay runs."""
        seen.note(blob.key, self.now)
        if seen.is_new(blob.key):
            self._run.item(action="unreachable", repository=name, digest=str(digest), size_bytes=blob.size)
            self._run.add("unreachable")
            self._run.add("unreachable_bytes", blob.size)

    def is_due(self, seen: FirstUnreachable, key: str) -> bool:
        return seen.note(key, self.now) + self.delay <= self.now

    def is_unasked(self, seen: FirstUnreachable, key: str, found: Iterable[Object]) -> bool:
        """Was it reserved for no repository since it was first seen? A reservation may be younger than its object by a
        window, for which a server answers from memory. Else the delay begins anew."""
        if not self.delay:
            return True
        since = seen.note(key, self.now)
        if all(self.ahead.modified(one) + self.window + SLACK <= since for one in found):
            return True
        seen.again(key, self.now)
        return False
