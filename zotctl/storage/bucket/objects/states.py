"""Reads whose ETag a swap relies on: the bytes and the ETag have to be of one state."""

from __future__ import annotations

import hashlib
import re
from weakref import WeakKeyDictionary

from zotctl.errors import Unavailable
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.driver import Buffer

MOST_READS = 6
"""Of a store that mixes one read in three, one in 700 is then given up."""
EQUAL_READS = 2
"""So many in a row count, though the ETag is not that of the bytes; all, where the store makes ETags of bytes."""

_hashing: WeakKeyDictionary[Objects, bool] = WeakKeyDictionary()
"""Does a single put get the MD5 of its bytes as ETag?"""


def note_put(objects: Objects, etag: str, body: Buffer) -> None:
    """Learn from the answer to a put, which is of one state, how this store makes ETags. Costs a hash, once."""
    if objects not in _hashing:
        _hashing[objects] = etag.strip('"') == _md5(body)


_OF_ONE_PUT = re.compile(r'"?[0-9a-f]{32}"?')


def read_state(objects: Objects, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
    """`objects.get` of an object that is to be replaced by its ETag.

    Some gateways answer a read beside a write with the ETag of one state and the bytes of another. A swap by that ETag
    would replace what was never read. Most stores make the ETag of a single put by MD5: where it is not that of the
    bytes, the read counts only if the next one is equal, for other stores (and AWS with keys of KMS) make it otherwise;
    of a store that makes it so (`note_put`), only if all are, for a gateway may go on mixing for a while.

    Raises NotFound, and Unavailable if every read differs from the one before.
    """
    last: tuple[str, bytes] | None = None
    equal = 0
    for _ in range(MOST_READS):
        got = objects.get(key, unless=unless)
        if got is None:
            return None
        found, body = got
        equal = equal + 1 if (found.etag, body) == last else 1
        if _fits(found.etag, body) or equal == (MOST_READS if _hashing.get(objects) else EQUAL_READS):
            return got
        last = found.etag, body
    raise Unavailable(f"{key}: the object store answers every read with other bytes or another ETag; try again")


def _fits(etag: str, body: bytes) -> bool:
    if not _OF_ONE_PUT.fullmatch(etag):
        return True  # nothing is known of it
    return etag.strip('"') == _md5(body)


def _md5(body: Buffer) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
