"""What a store must do atomically: the seam between OCI semantics above and drivers below.

`storage/local/` implements it by the steps of docs/design/local.md, with links and renames; `storage/bucket/` by those
of docs/design/bucket.md, with conditional writes. Nothing above this seam knows which of the two it talks to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self, TypeVar

from zotctl.errors import NotYetReadable, PermissionRefused, RequestRefused, StorageError, Unavailable, ZotctlError
from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Driver, Generation, Info, Reader
from zotctl.storage.facts import KnownFacts
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.graph import AllGraphs
from zotctl.storage.history import Event, Timeline
from zotctl.storage.index import Index

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of index.json. `generation` differs whenever the content does."""

    index: Index
    generation: Generation


@dataclass(frozen=True, slots=True)
class Sighting:
    """The two files that an answer came from, as they were: index.json, and a blob or manifest that it led to. Safe
    between threads."""

    driver: Driver
    index: tuple[str, Generation]
    blob: tuple[str, Info]
    """With the number of its links: a mark of damage is one more."""

    def holds(self) -> bool:
        """Are both as they were? One `stat` each."""
        try:
            return (
                self.driver.stat(self.index[0]).generation == self.index[1]
                and self.driver.stat(self.blob[0]) == self.blob[1]
            )
        except StorageError:
            return False


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
        """Tell what is known before the bytes of a request: digest and size of the blob, and the offset where these
        bytes start (None: after whatever has arrived). Raises UploadConflict, and SizeInvalid for more than the store
        takes."""
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
        """Store what has arrived, so that it outlives this process and `offset` is final. `close` does so as well, but
        after the answer was sent. Raises UploadConflict."""
        return None

    def finish(self, digest: Digest, *, wait: bool = True) -> None:
        """Publish what has arrived. Raises DigestInvalid if it is something else; nothing is kept then. With `wait`
        false, WouldBlock where it takes more than to give a file a name; then nothing has happened."""
        self.publish(digest, wait=wait)
        if self.on_published is not None:
            self.on_published(digest, self.offset)

    @abstractmethod
    def publish(self, digest: Digest, *, wait: bool = True) -> None:
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
    """What an earlier process remembered of the manifests of a repository."""

    known: Mapping[str, KnownFacts]
    """By digest, of content that has not changed since it was hashed."""
    keep: Callable[[Mapping[str, KnownFacts]], None]
    """To be called with what is known after everything was read; remembers it. Never raises."""


# -- the parts of a store --------------------------------------------------------------------------

OnSkipped = Callable[[str, StorageError], None]


def ignore(directory: str, error: StorageError) -> None:
    """For a caller that need not know which directories were skipped."""


class Catalog(Protocol):
    """The repositories of one root. Every method may be called from any thread."""

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """The names of the repositories after `last` that are `wanted`, in the order of their components."""

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
        """Note one event, of now or of an earlier moment in another store. Never raises: a push goes on without it.

        `user`: the login of the client that did it, "" without one. `by`: the job or the policy that did it, in words.
        """

    def note_pull(self, name: str, digest: str, *, wait: bool = True) -> None:
        """Note a pull, once a day for each manifest: enough for retention, and cheap. With `wait` false, raises
        WouldBlock while another process writes there."""

    def timeline(self, name: str) -> Timeline:
        """Everything that is known of a repository: what was noted, and what its objects tell."""

    def written(self, name: str) -> Timeline:
        """Only what was noted."""

    def events(self, name: str) -> list[Event]:
        """What was noted of a repository, one event after the other. Not to be changed."""

    def names(self) -> set[str]:
        """Every repository of which something was noted, also those that are gone. Raises StorageError."""


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
        """Open a blob to be read."""

    def redirect(self, name: str, digest: Digest) -> RedirectTarget | None:
        """Where a client reads the blob without this server; None: open it here."""
        return None

    def open_manifest(self, name: str, digest: Digest) -> Reader:
        """The same as `open` for a manifest that a row of index.json leads to."""
        return self.open(name, digest)

    @abstractmethod
    def still_has(self, name: str, digest: Digest, size: int) -> bool:
        """Is a manifest whose bytes the caller knows still there, of this size and not known to be damaged? Where a
        look costs a request, one of a moment ago is enough. Raises StorageError."""

    @abstractmethod
    def generation(self, name: str, digest: Digest) -> Generation | None:
        """Identifies the content of a manifest as it is now; None: there is none to read. Reserves nothing."""

    @abstractmethod
    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """Give a blob of one repository to another. False: it is not possible."""

    @abstractmethod
    def distrust(self, name: str, digest: Digest) -> bool:
        """Hash a blob whose length was called into question, and mark it as damaged if it is. True: it is good."""

    def doubt(self, name: str, digest: Digest) -> None:
        """Forget what is remembered of a blob whose bytes were found wrong, so that the next push writes them."""
        return None


class Uploads(Protocol):
    """The upload sessions of a root. Every method may be called from any thread."""

    def start(self, name: str, algorithm: str, owner: str = "") -> str:
        """Begin a session that any request of the user `owner` can continue. Returns its id."""

    def begin(self, name: str, algorithm: str) -> UploadSession:
        """Begin a session that no other request can resume, for a blob that comes in a single request."""

    def offset(self, name: str, upload_id: str) -> int:
        """Bytes that have arrived. Raises BlobUploadUnknown."""

    def resume(self, name: str, upload_id: str, *, wait: bool = True) -> UploadSession:
        """Continue a session. Raises BlobUploadUnknown, and UploadConflict while another request has it. With `wait`
        false, WouldBlock where what has arrived is to be read."""


class Gathering(Protocol):
    """Blobs and manifests that nothing leads to before `flush`. Safe between threads."""

    def here(self) -> AbstractContextManager[None]:
        """Gather what this thread publishes inside; it may get its name only later."""

    def flush(self) -> None:
        """Publish everything that was gathered. Its bytes are then on the device, and its names after
        `Maintenance.flush`. Raises NotFound: something was removed before it got its name."""


class Maintenance(Protocol):
    """What jobs do to a root that no request does. Every method may be called from any thread, beside any other
    process.

    Damage is known by the file, or the object, that was hashed: what takes its place is not damaged. So what is said
    of a file is said of one that is still held since its bytes were looked at (`file_identity`).
    """

    @property
    def durable(self) -> bool:
        """Does every acknowledged push survive a power cut? If not, scrub begins with what was written before one."""

    def stat(self, key: str) -> Info | None:
        """What a key leads to now; None: nothing."""

    def look(self, name: str, digest: Digest) -> Info:
        """Look for a blob, whatever is remembered. Raises NotFound: absent. Damaged: known to be damaged, or a stub."""

    def is_trashed(self, name: str, digest: Digest) -> bool:
        """Is it in the trash, from which a request brings it back?"""

    def readers(self, digest: Digest, info: Info) -> int:
        """The number of repositories that share this very copy."""

    def copies(self, digest: Digest) -> Iterator[str]:
        """The keys under which this content may lie, the likely ones first."""

    # -- damage ---------------------------------------------------------------------------------

    def damaged(self) -> set[Digest]:
        """Every digest with a known damaged copy."""

    def is_marked(self, name: str, digest: Digest, info: Info) -> bool:
        """Is this copy, which the repository has, known to be damaged?"""

    def mark(self, name: str, digest: Digest, damaged: HeldFile) -> bool:
        """Mark a copy as damaged: HEAD and GET answer 404, and a push heals it. False: another copy is there by now."""

    def clear(self, name: str, digest: Digest, good: HeldFile) -> bool:
        """Remove the mark of a copy that turned out to be good (a bad cable, a bad cache). True: it had one."""

    def sweep(self, before: float) -> int:
        """Remove damaged copies that lost their last name before then (seconds since 1970). Returns the bytes freed."""

    def heal(self, name: str, digest: Digest, damaged: HeldFile, chunks: Iterable[bytes]) -> list[str]:
        """Put good bytes in the place of a damaged copy, in every repository that shares it. Returns their names.
        Raises DigestInvalid if the bytes have another digest; nothing has changed then."""

    def lasting_damage(self) -> int:
        """The number of digests with a damaged copy that can still be reached."""

    # -- the device -----------------------------------------------------------------------------

    def gathering(self) -> AbstractContextManager[Gathering]:
        """For a job that publishes many blobs before anything leads to them."""

    def flush(self, name: str, digests: Collection[str]) -> None:
        """Flush blobs of a repository and its index, also those that other processes wrote, with `commit` and without:
        what they replace may then be removed. Raises NotFound if one was deleted meanwhile."""

    # -- files ----------------------------------------------------------------------------------

    def put_manifest(self, name: str, digest: Digest, body: bytes) -> None:
        """Write a verified manifest, durably enough for an index.json that leads to it."""

    def take(self, place: str, digest: Digest | None, chunks: Iterable[bytes]) -> Digest:
        """Write a blob into a hidden place, which no list shows, and return its digest. `digest` None: it is not known
        yet. Raises DigestInvalid."""

    def open_uploads(self) -> int:
        """The number of unfinished uploads, abandoned ones included."""

    def discard(self, place: str) -> None:
        """Remove a hidden place with everything in it. The caller holds the lease of the job that uses it."""

    def read(self, key: str, most_bytes: int) -> bytes:
        """What `write` wrote there last, at most `most_bytes` + 1 bytes of it. Raises NotFound."""

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
    """Its path or address, for messages."""
    driver: Driver
    """The tree of the store, only to be read: changes go through the verbs."""
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
    """Does a look at a file or object cost a request? Then only callers that need index.json look at it."""

    @abstractmethod
    def now(self) -> float:
        """The time by which content expires, in seconds since 1970, by the clock that stamps what lies in `driver`.
        Raises StorageError: nothing is known of that clock, and it does not answer."""

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make all of these calls, side by side where each of them is a request. Returns their results in order. Raises
        the first failure, after which no other call begins. A call may itself call `each`."""
        return [call() for call in calls]

    def read_for(self, name: str, reference: str) -> Snapshot:
        """The index.json of a repository, of which this manifest is wanted. Raises NotFound, LayoutInvalid."""
        return self.indexes.read(name)

    def sighting(self, name: str, digest: Digest, size: int, index: Generation) -> Sighting | None:
        """What shows, for as long as it holds, that a blob or manifest of this size is served as it is now. `index`:
        the index.json that leads to it. None: a look costs a request, or the blob is not as it should be. Raises
        StorageError."""
        return None

    def recall(self, name: str, manifests: int) -> Recalled | None:
        """What an earlier process remembered of a repository with so many manifests; to be called before any of them is
        read. None: nothing."""
        return None

    # -- changing -------------------------------------------------------------------------------

    @abstractmethod
    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        """Apply all changes that are not refused as one replacement of index.json, in order."""

    def make_whole(self, name: str) -> None:
        """Before the first content of a repository: finish a layout that another program has begun, and is empty."""
        return None

    @abstractmethod
    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait for the turn of this process to change an index.json; changes that come meanwhile go into the same
        commit. Nothing but speed depends on it."""

    @abstractmethod
    def stage(self, body: bytes) -> str:
        """Write a manifest, flushed, where no reader sees it. The caller must `unstage` it in the end."""

    @abstractmethod
    def unstage(self, staged: str) -> None:
        """Remove what was staged, unless it was published."""

    def prepare(self, name: str, needs: Iterable[Digest], digest: Digest, staged: str) -> None:
        """Do what a push can do before its commit, beside other pushes. It decides nothing."""
        return None

    @abstractmethod
    def delete(self, name: str, digest: Digest, check: Change) -> None:
        """Delete a blob for a client: no read brings it back. `check` sees the index, and raises to refuse."""

    # -- the root -------------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        """May this repository be written, given where it lies?"""
        return True

    @abstractmethod
    def state(self) -> StorageError | None:
        """Why the storage can't be reached; None: it can. Looks anew each time."""

    @abstractmethod
    def on_conflict(self, told: Callable[[], None]) -> None:
        """Have `told` called, from any thread, when a commit starts again because another writer came between."""

    @abstractmethod
    def maintain(self) -> None:
        """Do what is due now and then. Called about once a second, in a thread, while the storage can be reached."""

    @abstractmethod
    def close(self) -> None:
        """Write what was postponed, and close files, threads and connections."""


def no_answer(label: str, error: StorageError) -> StorageError:
    """The error for a root that gives no answer. One that refuses, or is not readable yet, is not away."""
    if isinstance(error, PermissionRefused | RequestRefused | NotYetReadable):
        return type(error)(f"the storage root {label} can't be read: {error.message}")
    return Unavailable(f"the storage root {label} is away: {error.message}")


class WouldBlock(Exception):
    """It takes longer than the caller, who wanted it at once, has time for: call again from a thread."""
