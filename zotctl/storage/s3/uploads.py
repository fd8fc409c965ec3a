"""Uploads to a bucket (s3.md 3)."""

from __future__ import annotations

from collections.abc import Sequence

from zotctl.oci.digest import Digest
from zotctl.storage.driver import Buffer
from zotctl.storage.s3.blobs import Blobs
from zotctl.storage.s3.budget import Budget
from zotctl.storage.s3.site import Site


class Uploads:
    def __init__(self, site: Site, blobs: Blobs, budget: Budget) -> None:
        self.site, self.blobs, self.budget = site, blobs, budget

    def start(self, name: str, algorithm: str) -> str:
        raise NotImplementedError

    def offset(self, name: str, upload_id: str) -> int:
        raise NotImplementedError

    def resume(self, name: str, upload_id: str) -> Upload:
        raise NotImplementedError


class Upload:
    id: str
    offset: int
    algorithm: str

    def write(self, buffers: Sequence[Buffer]) -> None:
        raise NotImplementedError

    def finish(self, digest: Digest) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
