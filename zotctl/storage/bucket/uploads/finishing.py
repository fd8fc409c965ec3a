"""An upload becomes a blob: the three ways to its name (docs/design/bucket.md#uploads), each through the reservation
that a push makes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import partial

from zotctl.errors import Busy, DigestInvalid, IoFailed, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.multipart import Parts, hashed
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.uploads.state import UploadSessionState, unknown


def verify(digest: Digest, found: str) -> None:
    if found != digest:
        raise DigestInvalid(
            f"the content has the digest {found}, not {digest}; send it again",
            {"expected": digest, "found": found},
        )


@dataclass(frozen=True, slots=True)
class Finishing:
    """`tail`: bytes that are in no part; `size`: of the whole blob."""

    context: BucketContext
    blobs: BucketBlobs
    session: UploadSessionState
    tail: memoryview
    size: int

    def whole(self, digest: Digest) -> None:
        """It is all in memory, and verified."""
        self.blobs.publish(self.session.name, digest, partial(self._put, digest))

    def _put(self, digest: Digest, key: str) -> Object:
        """The server refuses other bytes, too."""
        sha256 = digest.encoded if digest.algorithm == "sha256" else ""
        etag = self.context.objects.put(key, self.tail, sha256=sha256)
        return Object(key, self.size, etag, 0.0, 0.0)

    def direct(self, parts: Parts, digest: Digest) -> None:
        """Parts of the blob itself, verified."""
        self.blobs.publish(self.session.name, digest, lambda _: self._complete(parts, digest))

    def _complete(self, parts: Parts, digest: Digest) -> Object:
        done = parts.complete(self.tail, self.size)
        # What is there of this size, after another request has ended the upload, may be older than it.
        if done is None or not (parts.completed or hashed(self.context.objects, done.key, digest.algorithm) == digest):
            raise Busy(f"upload {self.session.id} was ended, or its blob collected, meanwhile; send it again")
        return done

    def staged(self, parts: Parts, digest: Digest, *, verified: bool) -> None:
        """Parts of another object, which is copied. Raises DigestInvalid, BlobUploadUnknown."""
        if parts.complete(self.tail, self.size) is None:
            self._find(digest)
            return
        if not (verified and parts.completed):  # else another request may have ended it with other bytes
            # Bytes that came to more than one process are read once.
            verify(digest, hashed(self.context.objects, self.session.target, digest.algorithm))
        self.blobs.publish(self.session.name, digest, partial(self._copy, digest))

    def _find(self, digest: Digest) -> None:
        """Another request has finished it, and this one is its repetition: else the upload is unknown."""
        try:
            self.blobs.find(self.session.name, digest)
        except NotFound as error:
            raise unknown(self.session.id) from error

    def _copy(self, digest: Digest, key: str) -> Object:
        found = self.context.objects.copy(self.session.target, key)
        sha256 = found.metadata.get("sha256", "")
        wrong = digest.algorithm == "sha256" and sha256 and base64.b64decode(sha256).hex() != digest.encoded
        if wrong or found.size != self.size:
            self.context.objects.delete(key)
            raise IoFailed(f"{key} came out of its copy with other bytes than were sent; send it again")
        return found
