"""What the manifests of a repository say, written down for the next process: a cache, which may be lost at any time.

What a manifest says is a function of its bytes, which have its digest, and of the code that has read them. So what is
written down is good for as long as that code is the same, for a manifest that lies where it lay as the object that it
was. It has a checksum; whatever is wrong with it, is as if there was none.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

import zotctl
from zotctl.oci import codec, descriptor, digest, manifest, media_types, readings
from zotctl.storage import graph
from zotctl.storage.graph import ManifestFacts

LARGEST = 32 << 20
"""Bytes; more is not written, and not read."""
_UNPACKED = 8 * LARGEST
_MAGIC = b"zotctl-facts"
_CODE = (codec, descriptor, digest, manifest, media_types, readings, graph)


class Stamp(NamedTuple):
    """The object in which a manifest lies, as a list tells of it."""

    etag: str
    size: int
    modified: int


class StampedFacts(NamedTuple):
    lying: Stamp
    facts: ManifestFacts


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, StampedFacts]).decode


def write_down(name: str, known: Mapping[str, StampedFacts]) -> bytes | None:
    """None: it is too large, or a later process could not tell whether it is of the same code."""
    if not _code():
        return None
    packed = zlib.compress(_encode(known), 1)
    body = b"%s %s\n%s" % (_MAGIC, _checksum(name, packed), packed)
    return body if len(body) <= LARGEST else None


def read_back(name: str, body: bytes) -> dict[str, StampedFacts]:
    """Nothing, if it is of another repository, of other code, damaged, or nothing that we have written."""
    head, _, packed = body.partition(b"\n")
    if not _code() or head != b"%s %s" % (_MAGIC, _checksum(name, packed)):
        return {}
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, _UNPACKED)
        return _decode(text) if unpacking.eof else {}
    except (zlib.error, msgspec.DecodeError):
        return {}


def _checksum(name: str, packed: bytes) -> bytes:
    return hashlib.sha256(b"\0".join([_code().encode(), name.encode(), packed])).hexdigest().encode()


@lru_cache(1)
def _code() -> str:
    """Another one whenever what is read in a manifest may be another; "": not to be known, without its sources."""
    state = hashlib.sha256(f"{zotctl.__version__} {msgspec.__version__}".encode())
    try:
        for module in _CODE:
            state.update(Path(module.__file__ or "").read_bytes())
    except OSError:
        return ""
    return state.hexdigest()
