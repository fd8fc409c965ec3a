"""What the jobs ask of the store that a root is: the only place that knows both `jobs.local` and `jobs.bucket`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc import GcOptions
    from zotctl.jobs.run import Run


class Collector(Protocol):
    """One root in one run."""

    @property
    def at_once(self) -> int:
        """Repositories that are collected side by side, each by a thread."""

    def begin(self) -> None:
        """What needs no walk through the repositories."""

    def order(self, names: Iterator[str]) -> Iterator[str]:
        """The repositories, those first that the last run has not come to."""

    def collect(self, name: str) -> None:
        """One repository. Raises what goes wrong in it."""

    @property
    def halted(self) -> threading.Event:
        """Set: what is under way in other threads ends at its next step."""

    def stopped(self) -> None:
        """The run ends before its end, and nothing is under way any more."""

    def end(self) -> None:
        """What can be done when all were looked at."""


class TrashJobs(Protocol):
    """Where what was deleted in one root lies for a while."""

    def restore(self, run: Run, what: str, name: str, digest: Digest | None) -> bool:
        """Link back a run (`what`) or a digest, of one repository if `name` is not empty. False: nothing answers."""

    def list(self, run: Run) -> None:
        """An item for each run and repository of which something lies there."""


class OtherClock(NamedTuple):
    """What the clock by which content expires is compared with."""

    at: float
    """Seconds since 1970."""
    whose: str
    refutes: bool
    """Far from it, that clock is doubted in any case; else only where nothing is known of earlier runs."""


Deduplicate = Callable[[Root, str], None]
"""One repository. Raises what goes wrong in it."""


class StoreJobs(Protocol):
    """The jobs of one root, for its kind of store. Each raises StorageError as the store does."""

    def now(self, clock: Clock) -> float:
        """Seconds since 1970 by the clock by which its content expires. `clock`: this machine's."""

    def other_clock(self, clock: Clock, *, rehearsed: bool) -> OtherClock | None:
        """None: there is none that can be looked at. `rehearsed`: nothing may be written."""

    def collector(self, run: Run, options: GcOptions) -> Collector:
        """Of this root, for one run."""

    def explain(self, run: Run, name: str, digest: Digest, options: GcOptions) -> Iterator[dict[str, object]]:
        """When a digest goes that no manifest of a repository reaches, and why not before: items of `gc --explain`."""

    @property
    def dedupes_on_entry(self) -> bool:
        """Whether `deduplicating` does everything when its context is entered. Such roots come first."""

    def trash(self) -> TrashJobs | None:
        """None: what is deleted there is gone."""

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        """All roots of this kind of the run, to be told of each repository while the context is open."""

    def require_linkable(self, info: os.stat_result) -> None:
        """Raises OSError where no file like this one can get a name in the root."""

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        """Give an open file that was hashed a name in a repository. False: it was changed meanwhile. Raises OSError."""

    def probe(self) -> tuple[dict[str, Any], str]:
        """What the storage can do, tried anew: answers by ability, and what that means."""


def jobs_of(root: Root) -> StoreJobs:
    """Loads nothing of the other kind of store."""
    if root.protocol.kind == "bucket":
        from zotctl.jobs.bucket.jobs import BucketJobs

        return BucketJobs(root)
    from zotctl.jobs.local.jobs import LocalJobs

    return LocalJobs(root)
