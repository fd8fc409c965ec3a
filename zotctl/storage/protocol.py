"""What a store must do atomically: the seam between OCI semantics above and drivers below.

`storage/local/` implements it by the steps of docs/design/local.md, with links and renames. An object store
implements it with conditional writes. Nothing above this line knows which of the two it talks to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self, TypeVar

from zotctl.errors import NotYetReadable, PermissionRefused, RequestRefused, StorageError, Unavailable, ZotctlError
from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Driver, Generation, Info, Reader
from zotctl.storage.facts import KnownFacts
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.graph import AllGraphs
from zotctl.storage.history import Timeline
from zotctl.storage.index import Index

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of index.json. `generation` differs whenever the content does."""

    index: Index
    generation: Generation


class Transaction(Protocol):
    """What a change may do while the repository can't move under it."""

    @property
    def name(self) -> str:
        """The repository."""

    def require(self, digest: Digest) -> Info:
        """A referenced blob, taken back from the trash if it was trashed. Raises NotFound, Damaged."""

    def publish_manifest(self, digest: Digest, staged: str) -> None:
        """Give a staged manifest its name, durably enough for an index.json that leads to it."""


Change = Callable[[Transaction, Index], None]
"""Checks, then edits the draft; raises ZotctlError to refuse. It may be called again on a newer
draft, and must not have edited anything when it raises."""

Outcome = ZotctlError | None


def apply(change: Change, tx: Transaction, draft: Index) -> Outcome:
    """Why one change of a group is refused, which costs the others nothing; None: it is in the draft."""
    try:
        change(tx, draft)
    except ZotctlError as error:
        return error
    return None


class UploadSession(ABC):
    """One upload, held by one writer; a context manager that keeps what is not finished. For one thread at a time.

    `id`: by which another request continues it. `offset`: bytes that have arrived. `algorithm`: by which they are
    hashed. What a store needs beside that, it overrides.
    """

    id: str
    offset: int
    algorithm: str
    on_published: Callable[[Digest, int], None] | None = None
    """Called with digest and size of what was published."""

    def expect(self, digest: Digest | None = None, size: int | None = None, start: int | None = None) -> None:
        """What is known before the bytes of a request: digest and size of the blob, and where these bytes start (None:
        behind whatever is there). Raises UploadConflict."""
        return None

    @property
    def may_read_ahead(self) -> bool:
        """Is there memory for more than what is being written? If not, the caller must not read ahead."""
        return True

    def ready(self, count: int) -> bool:
        """Would `write` take so many bytes without waiting for memory? If not, ask again after a while."""
        return True

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append and hash. Raises NoSpace (the session is gone), IoFailed or Unavailable (it can be resumed)."""

    def save(self) -> None:
        """What has arrived outlives this process, and `offset` is final. `close` does it too, but tells `offset` too
        late. Raises UploadConflict."""
        return None

    def finish(self, digest: Digest) -> None:
        """Publish what has arrived. Raises DigestInvalid if it is something else; nothing is kept then."""
        self.publish(digest)
        if self.on_published is not None:
            self.on_published(digest, self.offset)

    @abstractmethod
    def publish(self, digest: Digest) -> None:
        """The store's part of `finish`."""

    @abstractmethod
    def cancel(self) -> None:
        """End the session; nothing of it is kept."""

    @abstractmethod
    def close(self) -> None:
        """Let the session go; another request may continue it, unless it was finished or cancelled."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RedirectTarget(NamedTuple):
    """Where a client reads a blob without this server: a signed URL. `size` in bytes."""

    url: str
    size: int


class Recalled(NamedTuple):
    """What an earlier process has read of the manifests of a repository."""

    known: Mapping[str, KnownFacts]
    """Of content that is there as it was when it was hashed."""
    keep: Callable[[Mapping[str, KnownFacts]], None]
    """Takes what is known when everything was read. Never raises."""


# -- the parts of a store --------------------------------------------------------------------------

OnSkipped = Callable[[str, StorageError], None]


def ignore(directory: str, error: StorageError) -> None:
    """For a caller that need not know which directories were skipped."""


class Catalog(Protocol):
    """The repositories of one root. Every method may be called from any thread."""

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """The names after `last` of all repositories, in the order of their components; of those that
        `wanted` says yes to."""

    def everything(self, on_skipped: OnSkipped = ignore) -> Iterator[str]:
        """All names, complete even where a cached list lacks some: for jobs. `on_skipped` is called for each directory
        that could not be looked into."""


class History(Protocol):
    """What was pushed and pulled, and when: in files of a directory, in objects of a bucket. Every method may be called
    from any thread."""

    def note(
        self,
        name: str,
        action: str,
        digest: str,
        tags: dict[str, str | None] | None = None,
        happened_at: float | None = None,
        *,
        user: str = "",
        by: str = "",
    ) -> None:
        """One event, of now or of an earlier moment in another store. Never raises: whatever it tells of goes on.

        `user`: the login of the client that did it, "" without one. `by`: the job or the policy that did it, in words.
        """

    def note_pull(self, name: str, digest: str) -> None:
        """Once a day for each manifest: enough for retention, and cheap."""

    def timeline(self, name: str) -> Timeline:
        """Everything that is known of a repository: what is written, and what can be told from its objects."""

    def written(self, name: str) -> Timeline:
        """What is written of it, without a look at what it is about."""


class Indexes(Protocol):
    """The index.json files of a root, to be read. Every method may be called from any thread."""

    def read(self, name: str, *, wait: bool = True) -> Snapshot:
        """The index.json of a repository. With `wait` false, WouldBlock instead of a parse.

        Raises NotFound: no layout there. LayoutInvalid: not one to serve.
        """


class Blobs(ABC):
    """The blobs of a root's repositories, manifests among them. Every method may be called from any thread.

    What finds or opens one raises NotFound: absent. Damaged: known to be damaged, or a stub.
    """

    @abstractmethod
    def find(self, name: str, digest: Digest) -> Info:
        """Is the blob there? Yes is a reservation (I6)."""

    @abstractmethod
    def open(self, name: str, digest: Digest) -> Reader:
        """The same, and its bytes."""

    def redirect(self, name: str, digest: Digest) -> RedirectTarget | None:
        """Where a client reads the blob without us; None: open it here."""
        return None

    def open_manifest(self, name: str, digest: Digest) -> Reader:
        """The same as `open` for a manifest that a row of index.json leads to."""
        return self.open(name, digest)

    @abstractmethod
    def still_has(self, name: str, digest: Digest, size: int) -> bool:
        """For a caller that knows the bytes of a manifest already: is it there, of this size and not known to be
        damaged? Where a look is a request, seen a moment ago is enough. Raises StorageError."""

    @abstractmethod
    def generation(self, name: str, digest: Digest) -> Generation | None:
        """What stands for the content of a manifest as it is now; None: there is none to read. No reservation."""

    @abstractmethod
    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """Give a blob of one repository to another; False where that can't be done."""

    @abstractmethod
    def distrust(self, name: str, digest: Digest) -> bool:
        """Hash a blob whose length was called into question, and mark it as damaged if it is. True: it is good."""

    def doubt(self, name: str, digest: Digest) -> None:
        """Its bytes were found wrong: the next push of it has to write them, whatever is remembered."""
        return None


class Uploads(Protocol):
    """The upload sessions of a root. Every method may be called from any thread."""

    def start(self, name: str, algorithm: str, owner: str = "") -> str:
        """Begin a session that any request of the user `owner` can continue; its id."""

    def begin(self, name: str, algorithm: str) -> UploadSession:
        """One that no other request can resume: for a blob that comes in a single request."""

    def offset(self, name: str, upload_id: str) -> int:
        """Bytes that have arrived. Raises BlobUploadUnknown."""

    def resume(self, name: str, upload_id: str) -> UploadSession:
        """Continue a session. Raises BlobUploadUnknown, and UploadConflict while another request has it."""


class Gathering(Protocol):
    """Blobs and manifests of which nothing is told before `flush`. For several threads."""

    def here(self) -> AbstractContextManager[None]:
        """What this thread publishes meanwhile belongs to it, and may not be there yet."""

    def flush(self) -> None:
        """It is there when this returns, and what is reserved of it is true but for its names, for which
        `Maintenance.flush` is called. Raises NotFound: something was removed before it got there."""


class Maintenance(Protocol):
    """What jobs do to a root that no request does. Every method may be called from any thread, beside any other
    process.

    Damage is known by the file, or the object, that was hashed: what takes its place is not damaged. So what is said
    of a file is said of one that is still held since its bytes were looked at (`file_identity`).
    """

    @property
    def durable(self) -> bool:
        """Does what was acknowledged outlive a power cut? Else scrub begins with what was written before one."""

    def stat(self, key: str) -> Info | None:
        """As it is now; None: there is none."""

    def look(self, name: str, digest: Digest) -> Info:
        """A blob, looked for again with nothing remembered. NotFound: absent. Damaged: known to be damaged, or a
        stub."""

    def is_trashed(self, name: str, digest: Digest) -> bool:
        """It is in the trash, and a request for it brings it back."""

    def readers(self, digest: Digest, info: Info) -> int:
        """How many repositories have the very same copy."""

    def copies(self, digest: Digest) -> Iterator[str]:
        """The keys under which this content may lie, the likely ones first."""

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        """Every digest of which a damaged copy is known."""

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        """Is this copy, which the repository has, known to be damaged?"""

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        """HEAD and GET answer 404 from now on, and a push heals it. False: the repository has another copy by now."""

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        """Take the mark from a copy that was found right after all (a cable, a cache)."""

    def sweep(self, before: float) -> int:
        """Remove damaged copies that nothing leads to since before then (seconds since 1970); bytes freed."""

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        """Put these bytes in the place of a damaged copy, in every repository that has it; their names. Raises
        DigestInvalid, and nothing has changed, if they are something else."""

    def lasting_damage(self) -> int:
        """Digests of which a damaged copy can still be reached."""

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> AbstractContextManager[Gathering]:
        """For a job that publishes much and tells of it at its end."""

    def flush(self, name: str, digests: Collection[Digest]) -> None:
        """See blobs of a repository, and its index, to the device, also those of other processes, with `commit` and
        without: what they replace may then be removed. Raises NotFound if one was deleted meanwhile."""

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """Verified bytes, durably enough for an index.json that leads to them. No reader sees them before."""

    def take(self, place: str, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Verified bytes into the blobs of a hidden place, of which no list tells. Raises DigestInvalid."""

    def open_uploads(self) -> int:
        """Uploads that are not finished, be it that no client goes on with them."""

    def discard(self, place: str) -> None:
        """Remove a hidden place and all in it. The lease of the job that uses it must be held."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Replace a file of our own as a whole."""

    def lease(self, job: str) -> AbstractContextManager[None]:
        """One run of a job at a time. It saves work, never data. Raises HeldElsewhere, naming the holder."""


class StoreProtocol(ABC):
    """The parts of one root, and the verbs that need several of them. Every method may be called from any thread,
    beside any other process.

    A verb that has a body here is for stores that need no more. `name` is the name of a repository.
    """

    kind: Literal["local", "bucket"]
    """Whose jobs are its own (`jobs.stores`)."""
    label: str
    """How people call it: its path or address."""
    driver: Driver
    """The tree of the store, to be read. What changes it goes through the verbs."""
    clock: Clock
    indexes: Indexes
    blobs: Blobs
    uploads: Uploads
    catalog: Catalog
    history: History
    maintenance: Maintenance
    graphs: AllGraphs
    """What the manifests of its repositories reference."""
    may_truncate: bool
    """Can a crash leave a blob shorter than its manifests say? Then lengths are compared (I2)."""
    index_costs_request: bool
    """Does a look at index.json cost a request? Then only callers that need the index look at it."""

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make all of these calls, side by side where each of them is a request; their results in order. After a
        failure, which is raised, no other one is begun. A call may come here itself."""
        return [call() for call in calls]

    def recall(self, name: str, manifests: int) -> Recalled | None:
        """What an earlier process has read of a repository with so many manifests, asked for before any of them is
        read. None: nothing is remembered here."""
        return None

    # -- changing -------------------------------------------------------------------------------

    @abstractmethod
    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        """Apply all changes that are not refused as one replacement of index.json, in order."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait until others beside us have changed this index.json; what comes meanwhile goes into the same commit.
        Nothing to wait for where a lock is as fast as a file and the commit itself holds it."""
        return nullcontext()

    @abstractmethod
    def stage(self, body: bytes) -> str:
        """Write a manifest where no reader sees it, flushed; `unstage` it whatever happens then."""

    @abstractmethod
    def unstage(self, staged: str) -> None:
        """Remove what was staged, unless it was published."""

    def prepare(self, name: str, needs: Iterable[Digest], digest: Digest, staged: str) -> None:
        """What a push can do before its commit, side by side with others; it decides nothing."""
        return None

    @abstractmethod
    def delete(self, name: str, digest: Digest, check: Change) -> None:
        """Delete a blob on purpose: no read brings it back. `check` refuses, seeing the index."""

    # -- the root -------------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        """May this repository be written, as far as it lies?"""
        return True

    @abstractmethod
    def state(self) -> StorageError | None:
        """None: the storage is there. Otherwise why not; it is looked at anew each time."""

    @abstractmethod
    def on_conflict(self, told: Callable[[], None]) -> None:
        """`told` is called when a commit begins again because another one came between. From any thread."""

    @abstractmethod
    def maintain(self) -> None:
        """What has to be done now and then: about once a second, from a thread. Only while it is there."""

    @abstractmethod
    def close(self) -> None:
        """Write what was put off, and let go of files, threads and connections."""


def no_answer(label: str, error: StorageError) -> StorageError:
    """Why a root can't be looked into: refused and not yet readable are not the same as away."""
    if isinstance(error, PermissionRefused | RequestRefused | NotYetReadable):
        return type(error)(f"the storage root {label} can't be read: {error.message}")
    return Unavailable(f"the storage root {label} is away: {error.message}")


class WouldBlock(Exception):
    """An answer at once was asked for, and it takes a read: ask again from a thread."""
