"""What jobs do to a root that no request does: the second half of the seam of `storage.protocol`.

Damage is known by the file, or the object, that was hashed: what takes its place is not damaged. So what is said of a
file is said of one that is still held since its bytes were looked at (`file_identity`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from zotctl.oci.digest import Digest
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import HeldFile


class Gathering(Protocol):
    """Blobs and manifests of which nothing is told before `flush`. For several threads."""

    def here(self) -> AbstractContextManager[None]:
        """What this thread publishes meanwhile belongs to it, and may not be there yet."""

    def flush(self) -> None:
        """It is there when this returns, and what is reserved of it is true but for its names, for which
        `Maintenance.flush` is called. Raises NotFound: something was removed before it got there."""


class Maintenance(Protocol):
    """Every method may be called from any thread, beside any other process."""

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
        """Let go of damaged copies that nothing leads to since before then (seconds since 1970); bytes freed."""

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
