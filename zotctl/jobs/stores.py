"""What jobs need from each kind of store (`StoreJobs`). The only module that knows both `jobs.local` and
`jobs.bucket`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from zotctl.config import StorageConfig, is_bucket
from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

if TYPE_CHECKING:
    from zotctl.jobs.dedupe import DedupeOptions
    from zotctl.jobs.gc import GcOptions
    from zotctl.jobs.run import Run


class Collector(Protocol):
    """Collects one root in one run: `begin`, `order`, `collect` for each repository, then `end` or `stopped`."""

    @property
    def parallel(self) -> int:
        """How many repositories are collected in parallel, each by a thread of its own."""

    def begin(self) -> None:
        """Do what needs no walk through the repositories."""

    def order(self, names: Iterator[str]) -> Iterator[str]:
        """Sort the repositories: first those that the last run did not reach."""

    def collect(self, name: str) -> None:
        """Collect one repository. Raises ZotctlError."""

    @property
    def halted(self) -> threading.Event:
        """While it is set, `collect` in other threads ends at its next step."""

    def stopped(self) -> None:
        """The run was stopped early; no `collect` is running any more."""

    def end(self) -> None:
        """Do what can be done only after all repositories."""


class Trashed(NamedTuple):
    """What one run moved to the trash from one repository. `size` in bytes, at least, where it is not `counted` whole.
    `moved`: when something was last moved there, in seconds since 1970. `deleted`: a client deleted it on purpose."""

    run: str
    repository: str
    blobs: int
    size: int
    counted: bool
    moved: float
    deleted: bool


class TrashedBlob(NamedTuple):
    """One blob in the trash. `run`: the name of the folder. `size` in bytes. `deleted`: a client deleted it."""

    run: str
    repository: str
    digest: Digest
    size: int
    deleted: bool


class TrashJobs(Protocol):
    """The trash of one root."""

    def look(self, most: int, most_blobs: int) -> Iterator[Trashed]:
        """The first `most` folders of the trash. The sizes of at most `most_blobs` blobs of each are added up."""

    def contents(self) -> Iterator[TrashedBlob]:
        """Everything that lies there."""

    def bring_back(self, found: TrashedBlob) -> bool:
        """Put it back into its place, without a row, if it is not there. False: it is gone from the trash."""

    def list(self, run: Run) -> None:
        """Report an item for each run and repository that has something in the trash."""


class Whereabouts(NamedTuple):
    """What `gc --explain` says of the bytes of a digest. `verdict`: "kept", "goes", "in trash" or, if it is reachable
    and in its place, "". `times`: further fields, mostly times before which nothing happens. `deleted`: a client
    deleted it."""

    verdict: str
    why: str = ""
    times: Mapping[str, Any] = MappingProxyType({})
    deleted: bool = False

    def fields(self) -> dict[str, Any]:
        """The fields of an item."""
        return {"verdict": self.verdict, "why": self.why, **self.times}


class OtherClock(NamedTuple):
    """Another clock, with which the clock by which content expires is compared."""

    at: float
    """Seconds since 1970."""
    whose: str
    refutes: bool
    """Whether a large difference alone is a reason to doubt. False: only if no earlier run has noted anything."""


class Stored(NamedTuple):
    """One name of something that lies in a root."""

    key: str
    size: int
    """Bytes of its content; 0 for a directory."""
    disk: int
    """Bytes that it takes on the disk."""
    content: int
    """Equal for all names of what the disk has only once. Counted from 0: a number that is new is the next one."""


Deduplicate = Callable[[Root, str], None]
"""Deduplicates one repository. Raises ZotctlError."""


class StoreJobs(Protocol):
    """What jobs need from one root. All methods raise StorageError where the storage fails."""

    def other_clock(self, clock: Clock, *, dry_run: bool) -> OtherClock | None:
        """Another clock to compare with; None: there is none. `dry_run`: nothing may be written to read it."""

    def collector(self, run: Run, options: GcOptions) -> Collector:
        """A collector of this root for one run."""

    def explain(
        self, run: Run, name: str, digest: Digest, options: GcOptions, since: float | None, rows: Sequence[str] = ()
    ) -> Whereabouts | None:
        """Where the content of a digest is, and when it goes, and why not before, if no row leads to it from `since`
        on (seconds since 1970, by `StoreProtocol.now`); None: it is reachable. `rows`: the rows that go then. The
        result None: the content is nowhere."""

    @property
    def dedupes_on_entry(self) -> bool:
        """Whether `deduplicating` does all work when its context is entered. Such roots come first."""

    def trash(self) -> TrashJobs | None:
        """The trash of the root; None: it has none."""

    def deduplicating(
        self, run: Run, roots: Sequence[Root], options: DedupeOptions
    ) -> AbstractContextManager[Deduplicate]:
        """Deduplicate `roots`, which are all roots of this kind in the run. The caller passes each repository to what
        the context returns."""

    def require_linkable(self, info: os.stat_result) -> None:
        """Raise OSError if a file like this one can't be hard-linked into the root."""

    def link(self, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
        """Link an open file `fd`, which was hashed, into a repository. False: it was changed meanwhile. Raises
        OSError."""

    def stored(self, run: Run, top: str) -> Iterator[Stored]:
        """Every name at and below the directory `top` ("" is the root). What can't be listed is reported."""

    def probe(self) -> tuple[dict[str, Any], str]:
        """Try what the storage can do: the answers by ability, and one sentence that sums them up."""


def preload(config: StorageConfig) -> None:
    """Import what the jobs of these roots need, before processes are forked."""
    for root in config.every_root:
        if is_bucket(root.path):
            import zotctl.jobs.bucket.jobs
        else:
            import zotctl.jobs.local.jobs  # noqa: F401


def jobs_of(root: Root) -> StoreJobs:
    """The jobs of a root. Imports only the modules of its kind of store."""
    if root.protocol.kind == "bucket":
        from zotctl.jobs.bucket.jobs import BucketJobs

        return BucketJobs(root)
    from zotctl.jobs.local.jobs import LocalJobs

    return LocalJobs(root)
