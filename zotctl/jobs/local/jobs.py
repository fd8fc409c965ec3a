"""`jobs.stores` on a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from zotctl.errors import StorageError
from zotctl.jobs.local import link
from zotctl.jobs.local.dedupe import deduplicating
from zotctl.jobs.local.explain import fate
from zotctl.jobs.local.gc import LocalCollector
from zotctl.jobs.local.probe import probe
from zotctl.jobs.local.restore import LocalTrash
from zotctl.jobs.local.undo import undoing
from zotctl.jobs.stores import Deduplicate, OtherClock
from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc_plan import GcOptions
    from zotctl.jobs.run import Run


class LocalJobs:
    def __init__(self, root: Root) -> None:
        self._root = root

    def now(self, clock: Clock) -> float:
        return clock.now()

    def other_clock(self, clock: Clock, *, rehearsed: bool) -> OtherClock | None:
        """That of the file system, which takes a file to be made."""
        if not rehearsed:
            with suppress(StorageError):
                return OtherClock(local_of(self._root).trash.now() / 1e9, "the file system", refutes=True)
        return None

    def collector(self, run: Run, options: GcOptions) -> LocalCollector:
        return LocalCollector(run, self._root, options)

    def fate(self, run: Run, name: str, digest: Digest, options: GcOptions) -> Iterator[dict[str, object]]:
        return fate(run, self._root, name, digest, options)

    def trash(self) -> LocalTrash:
        return LocalTrash(self._root)

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        return undoing(run, roots) if options.undo else deduplicating(run, roots, options.workers)

    def require_linkable(self, info: os.stat_result) -> None:
        link.require_linkable(self._root, info)

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        return link.link(self._root, name, digest, held, fd)

    def probe(self) -> tuple[dict[str, Any], str]:
        return probe(self._root)
