"""What an object store must be able to do: the seam below `storage.bucket`, one request per call.

`storage.bucket.objects.client` does it over the wire, `tests/doubles/objects.py` in memory with the same semantics. A
wrapper round either (`wrappers`) can count, delay, lose, repeat or schedule every request. A key is a relative path
made by `storage.keys` alone; the prefix of the root is the client's affair.

There is no method for what docs/design/bucket.md does not rely on: conditional deletes, conditional copies, tags,
versions, ETags as digests. Times are the server's: an age is the Date of the reply minus LastModified.
"""

from __future__ import annotations

import stat as modes
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from zotctl.storage.clock import is_ahead
from zotctl.storage.driver import Buffer, Info, Reader

SHA256, MD5, UNCHECKED = "sha256", "md5", ""
"""The checksums of a put, in the order in which `probe` tries them."""

PAGE_KEYS = 1000
"""Keys in one page of a list, or in one request that deletes many, at most."""


class Object(NamedTuple):
    """One object, as one reply described it. `etag` is "" where the store has none, as for a file that was copied into
    the directory of a gateway: it can be read, but not be replaced by `match`. `modified` in seconds since 1970, `age`
    in seconds, both by the server's clock and in whole seconds. `metadata` only where a reply has it (head, get)."""

    key: str
    size: int
    etag: str
    modified: float
    age: float
    metadata: Mapping[str, str] = {}

    @property
    def is_ahead(self) -> bool:
        """Is its time in the future by the server's clock, so that it says nothing?"""
        return is_ahead(self.modified, self.modified + self.age)

    def is_younger(self, seconds: float) -> bool:
        """Was it certainly written within this time? Not if it is dated ahead."""
        return self.age < seconds and not self.is_ahead


def info_of(found: Object, names: int = 1) -> Info:
    """An object as a driver describes a file. Its inode number stands for one write of one key: the same bytes, written
    again, have another. `names`: its link count."""
    at = int(found.modified) * 1_000_000_000
    ino = zlib.crc32(f"{found.key} {found.etag} {int(found.modified)}".encode())
    return Info(ino, found.size, at, at, names, modes.S_IFREG | 0o644, 0, 0, 0)


class PresignedDelete(NamedTuple):
    """A delete that was signed in advance: the server carries it out until it expires by its own clock, and no later,
    even if the process was frozen meanwhile (docs/design/bucket.md#c6). `begins`, `ends`: from when to when it is good,
    in seconds since 1970 by the server's clock."""

    keys: tuple[str, ...]
    request: object
    begins: float
    ends: float


class Objects(Protocol):
    """Each method is one request, except `list` and `names`, which make one per page.

    Every method may raise: Unavailable (away, time-out, reset), SlowDown, PermissionRefused (with the
    identity that was refused), NoSpace. For a write, Unavailable means that it may have been done
    all the same (`OutcomeUnknown`) or that it has certainly not (`SlowDown` and the rest).
    """

    @property
    def label(self) -> str:
        """s3://BUCKET/PREFIX"""

    def head(self, key: str) -> Object:
        """NotFound."""

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        """Read a small object whole; None: its ETag still is `unless`. Raises NotFound."""

    def open(self, key: str) -> Reader:
        """Open a large object, to be read by ranges or from beginning to end. Raises NotFound; the reader raises
        `Changed` when the object was replaced meanwhile. `info().generation` stands for the ETag."""

    def put(
        self,
        key: str,
        body: Buffer,
        *,
        match: str = "",
        absent: bool = False,
        metadata: Mapping[str, str] | None = None,
        sha256: str = "",
    ) -> str:
        """Write an object whole and return its ETag. With `match`, only in place of one with this ETag; with `absent`,
        only if there is none: else `Changed`. The store is told length and checksum (`adapt`) and refuses other bytes
        (`IoFailed`). `sha256` (hex): of the body, or of what it should be."""

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        """Adapt to a store that was tried out (`probe`): from now on, each put carries this checksum. Without
        `conditions`, the client looks before each put, which is enough for a single writer."""

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        """Put an object wrongly, so that `probe` learns what the store makes of it. `wrong`: with the checksum of other
        bytes. `cut`: the connection ends in the middle of the body, and no error is raised for that."""

    def delete(self, key: str) -> None:
        """Delete an object. No error if there is none."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """All objects whose keys begin with `prefix`, in the order of their UTF-8, after the key `after`."""

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        """The names in a "directory" ("" or without "/" at its end), with True for those that have objects below them.
        In the order of a list, where the name of a directory ends in "/"; so does `after`, if it is one."""

    def copy(self, source: str, target: str) -> Object:
        """Copy an object on the server's side, however large. Returns the head of the copy, with the server's SHA-256
        (base64) as metadata `sha256` where it gives one. Raises NotFound."""

    def start_parts(self, key: str) -> str:
        """Begin a multipart upload of `key` and return its id."""

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        """Send part `number` (from 1) and return its ETag. All but the last must be of one size, at least 5 MiB. Raises
        NotFound: the upload was ended."""

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        """Make the object of its parts and return its ETag. Raises NotFound: the upload was ended, or completed
        already."""

    def abort_parts(self, key: str, upload: str) -> None:
        """Forget the parts; no error if they are gone."""

    def presign_get(self, key: str, seconds: int) -> str:
        """A URL by which any client may read the object for so many seconds."""

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        """A presigned delete of at most `PAGE_KEYS` keys, good for `seconds` after `at` (server time; now). No
        request."""

    def execute(self, presigned: PresignedDelete) -> None:
        """Carry out a presigned delete. Raises Expired: it was refused for some keys at least. OutcomeUnknown: it may
        have been done. DoneUnanswered: it was done, and the server may do it once more, whatever is put there
        meanwhile."""

    def date(self) -> float:
        """The server's clock in seconds since 1970: the Date of the last reply, plus the time since."""

    def close(self) -> None:
        """Close what is not in use."""
