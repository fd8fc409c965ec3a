"""The id of an upload session says when it began and with which algorithm, so that a session is one file.

A UUID of version 8 (RFC 9562, section 5.8): 48 bits of milliseconds since 1970, then four bits that
number the algorithm, and 70 random bits.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import NamedTuple

_ALGORITHMS = ("sha256", "sha512", "blake3")
"""By number; only ever appended to."""
_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class UploadId(NamedTuple):
    """`started` in seconds since 1970, by the server that began it."""

    text: str
    started: float
    algorithm: str


def make_id(algorithm: str, now: float) -> str:
    """A fresh id. Raises ValueError for an algorithm that has no number."""
    chance = int.from_bytes(os.urandom(9), "big")
    value = int(now * 1000) % (1 << 48) << 80 | 8 << 76 | _ALGORITHMS.index(algorithm) << 72
    return str(uuid.UUID(int=value | (chance >> 64) << 64 | 2 << 62 | chance % (1 << 62)))


def parse_id(text: str) -> UploadId:
    """Raises ValueError for anything that `make_id` has not made."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is no id of an upload")
    value = uuid.UUID(text).int
    number = value >> 72 & 15
    if number >= len(_ALGORITHMS):
        raise ValueError(f"{text!r} is an upload with an unknown algorithm")
    return UploadId(text, (value >> 80) / 1000, _ALGORITHMS[number])
