"""Bytes on their way to an object store, with the checksum by which it refuses any others (I2).

Some stores keep what has arrived when a connection ends in the middle of a PUT. Told a checksum, they keep nothing but
the whole. So the wire takes no bytes but as `Sent`, which is made here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from zotctl.storage.bucket.objects.seam import MD5, SHA256
from zotctl.storage.driver import Buffer


class Cut(Exception):
    """A connection that we have ended in the middle of a request."""


class Sent(NamedTuple):
    """A body, and the headers that prove it."""

    body: Buffer
    headers: Mapping[str, str]


NOTHING = Sent(b"", {})
"""Of a request without a body."""


def whole(body: Buffer, checksum: str, sha256: str = "") -> Sent:
    """An object. `checksum`: as in `Objects.adapt`; `sha256` (hex) of the body, if the caller knows it."""
    if checksum == SHA256:
        digest = bytes.fromhex(sha256) if sha256 else hashlib.sha256(body).digest()
        return Sent(body, {"x-amz-checksum-sha256": _base64(digest)})
    if checksum == MD5:
        return Sent(body, {"content-md5": _base64(hashlib.md5(body, usedforsecurity=False).digest())})
    return Sent(body, {})


def part(body: Buffer) -> Sent:
    """A part needs none: the request that completes its upload names the ETag of each part as the store answered it,
    and half of a part has another."""
    return Sent(body, {})


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
