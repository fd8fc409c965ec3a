"""Deletes that are signed beforehand: the fence of a collector (docs/design/bucket.md#c6, C2 and C6).

Both times are the server's: it refuses a request that is late, even if its sender was frozen, and our clock doesn't
count.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from zotctl.errors import Expired, OutcomeUnknown, StorageError
from zotctl.storage.bucket.objects.listing import plain
from zotctl.storage.bucket.objects.seam import LISTED, PresignedDelete
from zotctl.storage.bucket.objects.signing import signed

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.client import Client
    from zotctl.storage.bucket.objects.connection import BucketConnection
    from zotctl.storage.bucket.objects.requests import Reply


class SignedRequest(NamedTuple):
    method: str
    target: str
    """Path and query."""
    headers: dict[str, str]
    body: bytes
    until: float
    """By the server's clock."""


def sign(client: Client, keys: Sequence[str], seconds: int, at: float) -> PresignedDelete:
    """A DELETE for one key, one POST for more; good for so many seconds after `at`."""
    if not 0 < len(keys) <= LISTED:
        raise ValueError(f"a presigned is for 1 to {LISTED} keys, not {len(keys)}")
    who = client.connection.identity()
    if len(keys) == 1:
        url = signed("DELETE", client.url(keys[0]), {}, {}, who, at, seconds)
        return PresignedDelete(tuple(keys), SignedRequest("DELETE", _target(url), {}, b"", at + seconds))
    body = _document(client.place(key)["Key"] for key in keys)
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    headers = {"content-md5": base64.b64encode(digest).decode()}
    url = signed("POST", client.connection.url, {"delete": ""}, headers, who, at, seconds)
    return PresignedDelete(tuple(keys), SignedRequest("POST", _target(url), headers, body, at + seconds))


def _target(url: str) -> str:
    return url[url.index("/", url.index("//") + 2) :]


def _document(keys: Iterable[str]) -> bytes:
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{objects}</Delete>'.encode()


def execute(connection: BucketConnection, presigned: PresignedDelete) -> None:
    """Expired, OutcomeUnknown, PermissionRefused, SlowDown."""
    request = presigned.request
    assert isinstance(request, SignedRequest)
    with connection.translated("", "DeleteObjects", write=True):
        reply = connection.wire.send(request.method, request.target, request.headers, request.body)
    late = connection.date() >= request.until
    errors = [_error(connection, reply.status, code, text, key, late) for code, text, key in _errors(reply)]
    if errors:  # of a key that was perhaps deleted before those that certainly were not
        raise next((error for error in errors if isinstance(error, OutcomeUnknown)), errors[0])


def _errors(reply: Reply) -> Iterable[tuple[str, str, str]]:
    """Code, message and key of all that was not done; a key that isn't there is done."""
    if reply.status == 204 or (reply.status == 200 and not reply.body):
        return []
    try:
        root = ElementTree.fromstring(reply.body)
    except ElementTree.ParseError:
        return [("", "an answer that is not S3's", "")]
    if plain(root.tag) == "Error":
        return [_error_fields(root)]
    if reply.status != 200 or plain(root.tag) != "DeleteResult":
        return [("", "an answer that is not S3's", "")]
    found = [_error_fields(child) for child in root if plain(child.tag) == "Error"]
    return [row for row in found if row[0] not in ("NoSuchKey", "NoSuchVersion")]


def _error_fields(node: ElementTree.Element) -> tuple[str, str, str]:
    said = {plain(child.tag): child.text or "" for child in node}
    return said.get("Code", ""), said.get("Message", ""), said.get("Key", "")


def _error(connection: BucketConnection, status: int, code: str, text: str, key: str, late: bool) -> StorageError:
    from zotctl.storage.bucket.objects.errors import HALF_HEARD, refused

    denied = (status in (400, 401, 403) and code not in HALF_HEARD) or code in (
        "AccessDenied",
        "ExpiredPresignRequest",
        "ExpiredToken",
    )
    if denied and (late or "expire" in f"{code} {text}".lower()):
        return Expired(f"{connection.where().label}: deletes were signed too long ago: {code} {text}")
    if status == 200 and code not in ("AccessDenied", "SlowDown"):
        return OutcomeUnknown(f"{connection.where().named(key)}: not deleted, or perhaps: {code} {text}")
    reply = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return refused(connection.where(), key, "DeleteObjects", reply, write=True)
