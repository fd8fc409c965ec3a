"""A copy on the server's side, however large: one request, or parts of it where the server wants them.

It is asked for a SHA-256 of the copy, which not every server makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zotctl.errors import RequestRefused
from zotctl.storage.bucket.objects.replies import told
from zotctl.storage.bucket.objects.seam import Object

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.client import Client

WHOLE = 5 << 30
"""The largest object that CopyObject takes (AWS, "CopyObject")."""
PART = 1 << 30


def copy(client: Client, source: str, target: str) -> Object:
    try:
        _whole(client, source, target)
    except RequestRefused:  # too large is told as a mistake like any other
        found = client.head(source)
        if found.size <= WHOLE:
            raise
        in_parts(client, found, target)
    return client.copied(target)


def _whole(client: Client, source: str, target: str) -> None:
    with client.connection.translated(source, "CopyObject", write=True):
        reply = client.connection.patient.copy_object(
            **client.place(target),
            CopySource=client.place(source),
            ChecksumAlgorithm="SHA256",
            MetadataDirective="REPLACE",
            **client.settings.written(),
        )
        told(reply, "CopyObjectResult")


def in_parts(client: Client, found: Object, target: str, part: int = PART) -> None:
    """Of the very object that was found: `Changed` if it is another one meanwhile."""
    upload = client.start_parts(target)
    try:
        ranges = enumerate(_ranges(found.size, part), 1)
        etags = [_part(client, found, target, upload, number, span) for number, span in ranges]
        client.complete_parts(target, upload, etags)
    except BaseException:
        client.abort_parts(target, upload)
        raise


def _ranges(size: int, part: int) -> Iterator[str]:
    for start in range(0, size, part):
        yield f"bytes={start}-{min(start + part, size) - 1}"


def _part(client: Client, found: Object, target: str, upload: str, number: int, span: str) -> str:
    asked: dict[str, Any] = {"UploadId": upload, "PartNumber": number, "CopySourceRange": span}
    asked |= {"CopySource": client.place(found.key)} | ({"CopySourceIfMatch": found.etag} if found.etag else {})
    with client.connection.translated(found.key, "UploadPartCopy", write=True):
        reply = client.connection.patient.upload_part_copy(**client.place(target), **asked)
        return told(reply, "CopyPartResult", "ETag")
