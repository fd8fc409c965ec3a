"""What `jobs.stores` asks of a root that is a bucket, `gc --explain` and `verify --probe` included."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from zotctl.jobs.bucket.dedupe import deduplicating
from zotctl.jobs.bucket.eligibility import ROUNDING_S, SHARED_BY_ZOT, Eligibility, FirstUnreachable
from zotctl.jobs.bucket.gc import SETTLING_S, BucketCollector
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Deduplicate, OtherClock, Stored, Whereabouts
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

    def other_clock(self, clock: Clock, *, dry_run: bool) -> OtherClock:
        """This machine's. Nothing but the server's clock decides, so that it matters only where nothing else is
        known."""
        return OtherClock(clock.now(), "this machine", refutes=False)

    def collector(self, run: Run, options: GcOptions) -> BucketCollector:
        """Deletes under intents what has been unreachable for the grace period."""
        return BucketCollector(run, self._root, options)

    def explain(
        self, run: Run, name: str, digest: Digest, options: GcOptions, since: float | None, rows: Sequence[str] = ()
    ) -> Whereabouts | None:
        """By the copy of the repository, or else by that of the pool if the repository may read it."""
        context = bucket_of(self._root).context
        reservation = context.head(keys.reservation(digest, name))
        own, others = context.head(keys.blob(name, digest)), None
        shared = context.head(keys.shared(digest)) if own is None and reservation is not None else None
        if (found := own or shared) is None or since is None:
            return Whereabouts("") if found is not None else None
        if own is not None and bucket_of(self._root).stubs.remain(lately=True):
            return Whereabouts("kept", SHARED_BY_ZOT)
        of_name = FirstUnreachable(context, name)
        if own is not None:
            seen = of_name.at(own.key)
        else:
            others = [other for other in bucket_of(self._root).grants.of_digest(digest) if other != name]
            of_pool, held = FirstUnreachable(context, keys.SHARED), keys.reservation(digest, name)
            seen = max((at for key in (found.key, held) if (at := of_pool.at(key)) is not None), default=None)
        fate = _Fate(Eligibility(run, context, options.delay), name, found, reservation)
        return fate.told([of_name.at(f"row {row}") for row in rows], since, seen, others)

    def trash(self) -> None:
        """None: what is deleted is gone."""

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        """Moves configs and layers into the pool, or with `undo` back, all when the context is entered."""
        return deduplicating(run, roots, options)

    def require_linkable(self, info: os.stat_result) -> None:
        """Always raises OSError."""
        raise OSError(0, "it is on another file system")

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        """False: there are no links."""
        return False

    def stored(self, run: Run, top: str) -> Iterator[Stored]:
        """By one list of all objects, a request for a thousand."""
        objects = bucket_of(self._root).context.objects.list(keys.below(top) if top else "")
        for number, found in enumerate(objects):
            yield Stored(found.key, found.size, found.size, number)

    def probe(self) -> tuple[dict[str, Any], str]:
        """Tries the object store with a few small objects."""
        able = bucket_of(self._root).maintenance.try_out()
        return able._asdict(), meaning_of(able)


class _Fate:
    """When an object goes. A run notes what is unreachable, and another one after the delay deletes it, unless it was
    asked for meanwhile: then its delay begins anew (`Eligibility`)."""

    def __init__(self, eligibility: Eligibility, name: str, blob: Object, reservation: Object | None) -> None:
        self._eligibility, self._name, self._blob = eligibility, name, blob
        self._modified = eligibility.ahead.modified(blob)
        held = eligibility.ahead.modified(reservation) if reservation else 0.0
        self._newest = max(self._modified, held)

    def told(
        self, rows: list[float | None], since: float, seen: float | None, others: list[str] | None
    ) -> Whereabouts:  # fmt: skip
        """`rows`: since when a run has noted each row that goes first, if it has. `seen`: the same of the object."""
        delay, why, since = self._eligibility.delay, "no manifest reaches it", math.floor(since)
        if others:
            why += f" here; its bytes stay in the pool while others need them: {', '.join(others)}"
        if not self._eligibility.is_old(self._name, self._blob):
            why += "; it is younger than the delay, or than an upload into this repository that is still moving"
        times: dict[str, Any] = {}
        if rows:
            settling, noted = min(delay, SETTLING_S), [since if at is None else at for at in rows]
            times["noted_after_at"] = time_of(since)
            since = max(since, *(at + settling for at in noted))
            times["removed_after_at"] = time_of(since)
        if seen is not None:
            times["first_seen_at"] = time_of(seen)
            noted_at = seen
        else:
            until = self._eligibility.active_until(self._name, self._modified) or 0.0
            noted_at = max(since, math.ceil(max(self._modified + delay, until))) if delay else since
            times["unreachable_noted_after_at"] = time_of(noted_at)
        if delay and self._newest + self._eligibility.window + ROUNDING_S > noted_at:
            again = max(noted_at + delay, math.ceil(self._newest + delay), self._eligibility.now)
            times.pop("first_seen_at", None)
            why += "; it was asked for since it was seen, so its delay begins anew" if seen is not None else ""
            times["noted_again_after_at"], noted_at = time_of(again), again
        return Whereabouts("goes", why, times | {"purged_after_at": time_of(noted_at + delay)})


def meaning_of(able: Abilities) -> str:
    """One sentence that says what the abilities mean for an operator."""
    if able.keeps_halves:
        return "not fit: it keeps half of an object when a connection ends in the middle of a put"
    if not able.reads_shown:
        return "not fit: it answers reads with what was there before a write"
    if able.missing:
        return f"one process only (single_writer), and no job beside it: it lacks {', '.join(able.missing)}"
    parts = ["good for any number of servers and jobs"]
    if not able.signed_deletes:
        parts.append("gc and dedupe need single_writer, and all servers stopped: deletes that were signed don't expire")
    if not able.checksum:
        parts.append("what is damaged on its way is found by scrub only: it verifies no checksum")
    return "; ".join(parts)
