"""What `jobs.stores` asks of a root that is a bucket, `gc --explain` and `verify --probe` included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from zotctl.jobs.bucket.dedupe import deduplicating
from zotctl.jobs.bucket.eligibility import ROUNDING_S, SHARED_BY_ZOT, Eligibility, FirstUnreachable
from zotctl.jobs.bucket.gc import BucketCollector
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Deduplicate, OtherClock
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.probe import Abilities
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc import GcOptions
    from zotctl.jobs.run import Run


class BucketJobs:
    """The jobs of a root that is a bucket. See `jobs.stores.StoreJobs`; safe between threads."""

    dedupes_on_entry = True

    def __init__(self, root: Root) -> None:
        self._root = root

    def now(self, clock: Clock) -> float:
        """By the object store's clock, which takes a request."""
        return bucket_of(self._root).context.objects.date()

    def other_clock(self, clock: Clock, *, dry_run: bool) -> OtherClock:
        """This machine's. Nothing but the server's clock decides, so that it matters only where nothing else is
        known."""
        return OtherClock(clock.now(), "this machine", refutes=False)

    def collector(self, run: Run, options: GcOptions) -> BucketCollector:
        """Deletes under intents what has been unreachable for the grace period."""
        return BucketCollector(run, self._root, options)

    def explain(self, run: Run, name: str, digest: Digest, options: GcOptions) -> Iterator[dict[str, object]]:
        """An item for the copy of the repository, or else for that of the pool if the repository may read it."""
        context = bucket_of(self._root).context
        eligibility = Eligibility(run, context, options.delay)
        reservation = context.head(keys.reservation(digest, name))
        if (own := context.head(keys.blob(name, digest))) is not None:
            if bucket_of(self._root).stubs.remain():
                yield {"verdict": "kept", "why": SHARED_BY_ZOT}
                return
            yield _item(eligibility, name, own, reservation, FirstUnreachable(context, name).at(own.key))
        elif reservation is not None and (shared := context.head(keys.shared(digest))) is not None:
            others = [other for other in bucket_of(self._root).grants.of_digest(digest) if other != name]
            seen = FirstUnreachable(context, keys.SHARED)
            since = [at for key in (shared.key, reservation.key) if (at := seen.at(key)) is not None]
            yield _item(eligibility, name, shared, reservation, max(since, default=None), others)

    def trash(self) -> None:
        """None: what is deleted is gone."""

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        """Moves configs and layers into the pool, or with `undo` back, all when the context is entered."""
        return deduplicating(run, roots, undo=options.undo)

    def require_linkable(self, info: os.stat_result) -> None:
        """Always raises OSError."""
        raise OSError(0, "it is on another file system")

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        """False: there are no links."""
        return False

    def probe(self) -> tuple[dict[str, Any], str]:
        """Tries the object store with a few small objects."""
        able = bucket_of(self._root).maintenance.try_out()
        return able._asdict(), meaning_of(able)


def _item(
    eligibility: Eligibility,
    name: str,
    blob: Object,
    reservation: Object | None,
    seen: float | None,
    others: list[str] | None = None,
) -> dict[str, object]:
    newest = max(blob.modified, reservation.modified if reservation else 0.0)
    why = "no manifest reaches it"
    if others:
        why += f" here; its bytes stay in the pool while others need them: {', '.join(others)}"
    if not eligibility.is_old(name, blob):
        why += "; it is younger than the delay, or than an upload into this repository that is still moving"
    if seen is not None and newest + eligibility.window + ROUNDING_S > seen:
        why, seen = f"{why}; it was asked for since it was seen, so its delay begins anew", None
    found: dict[str, object] = {"verdict": "goes", "why": why}
    if seen is not None:
        found["first_seen_at"] = time_of(seen)
    begins = seen if seen is not None else max(eligibility.now, newest + eligibility.delay)
    return found | {"purged_after_at": time_of(begins + eligibility.delay)}


def meaning_of(able: Abilities) -> str:
    """One sentence that says what the abilities mean for an operator."""
    if able.keeps_halves:
        return "not fit: it keeps half of an object when a connection ends in the middle of a put"
    if able.missing:
        return f"one process only (single_writer), and no job beside it: it lacks {', '.join(able.missing)}"
    parts = ["good for any number of servers and jobs"]
    if not able.signed_deletes:
        parts.append("gc and dedupe need single_writer, and all servers stopped: deletes that were signed don't expire")
    if not able.checksum:
        parts.append("what is damaged on its way is found by scrub only: it verifies no checksum")
    return "; ".join(parts)
