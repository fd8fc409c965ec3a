"""What a store must do atomically: the seam between OCI semantics above and drivers below.

`storage/local/` implements it by the steps of local.md, with links and renames. An object store
implements it with conditional writes. Nothing above this line knows which of the two it talks to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zotctl.errors import ZotctlError
from zotctl.oci.digest import Digest
from zotctl.storage.driver import Buffer, Generation, Info, Reader
from zotctl.storage.index import Index


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of index.json. `generation` differs whenever the content does."""

    index: Index
    generation: Generation


class Transaction(Protocol):
    """What a change may do while the repository can't move under it."""

    @property
    def name(self) -> str: ...

    def require(self, digest: Digest) -> Info:
        """A referenced blob, taken back from the trash if it was condemned. Raises NotFound."""

    def publish_manifest(self, digest: Digest, staged: str) -> None:
        """Give a staged manifest its name, durably enough for an index.json that leads to it."""


Change = Callable[[Transaction, Index], None]
"""Checks, then edits the draft; raises ZotctlError to refuse. It may be called again on a newer
draft, and must not have edited anything when it raises."""

Outcome = ZotctlError | None


class UploadSession(Protocol):
    """One upload, held by one writer."""

    id: str
    offset: int
    algorithm: str

    def write(self, buffers: Sequence[Buffer]) -> None: ...
    def finish(self, digest: Digest) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class StoreProtocol(Protocol):
    """The verbs. Every method may be called from any thread, beside any other process."""

    @property
    def label(self) -> str: ...

    def find(self, name: str, digest: Digest) -> Info:
        """Is the blob there? Yes is a promise (I6). NotFound if absent, known bad or a stub."""

    def open(self, name: str, digest: Digest) -> Reader:
        """The same, and its bytes."""

    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """Give a blob of one repository to another; False where that can't be done."""

    def read_index(self, name: str, *, wait: bool = True) -> Snapshot:
        """NotFound: no layout there. LayoutInvalid: not one to serve. With `wait` false, WouldBlock
        instead of a parse."""

    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        """Apply all changes that are not refused as one replacement of index.json, in order."""

    def stage(self, body: bytes) -> str:
        """Write a manifest where nobody sees it, flushed; `unstage` it whatever happens then."""

    def unstage(self, staged: str) -> None: ...
    def distrust(self, name: str, digest: Digest) -> bool:
        """Hash a blob whose length was called into question, and set it aside if it is wrong."""

    def delete(self, name: str, digest: Digest, check: Change) -> None:
        """Delete a blob on purpose: no read brings it back. `check` refuses, seeing the index."""

    def start_upload(self, name: str, algorithm: str) -> str: ...
    def upload_offset(self, name: str, upload_id: str) -> int: ...
    def resume_upload(self, name: str, upload_id: str) -> UploadSession: ...


class WouldBlock(Exception):
    """An answer at once was asked for, and it takes a read: ask again from a thread."""
