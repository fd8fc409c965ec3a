"""`jobs.stores` on a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from zotctl.jobs.bucket.collector import BucketCollector
from zotctl.jobs.bucket.dedupe import deduplicating
from zotctl.jobs.bucket.explain import fate
from zotctl.jobs.bucket.probe import probe
from zotctl.jobs.stores import Deduplicate, OtherClock
from zotctl.oci.digest import Digest
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc_plan import GcOptions
    from zotctl.jobs.run import Run


class BucketJobs:
    def __init__(self, root: Root) -> None:
        self._root = root

    def now(self, clock: Clock) -> float:
        return bucket_of(self._root).context.objects.date()

    def other_clock(self, clock: Clock, *, rehearsed: bool) -> OtherClock:
        """This machine's. Nothing but the server's clock decides, so that it matters only where nothing else is
        known."""
        return OtherClock(clock.now(), "this machine", refutes=False)

    def collector(self, run: Run, options: GcOptions) -> BucketCollector:
        return BucketCollector(run, self._root, options)

    def fate(self, run: Run, name: str, digest: Digest, options: GcOptions) -> Iterator[dict[str, object]]:
        return fate(run, self._root, name, digest, options.delay)

    def trash(self) -> None:
        return None

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        return deduplicating(run, roots, undo=options.undo)

    def require_linkable(self, info: os.stat_result) -> None:
        raise OSError(0, "it is on another file system")

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        return False

    def probe(self) -> tuple[dict[str, Any], str]:
        return probe(self._root)
