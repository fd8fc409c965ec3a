"""The facts of a repository's manifests, kept in the bucket (`.zotctl/gc/facts/KEY`) for later processes.

A list of the repository, one request for a thousand objects, shows which manifests are unchanged since they were read.
Only those that are new, were replaced, or are known to be damaged are read again.

Facts depend on the bytes of a manifest, which its digest fixes, and on the code that read them. So they are valid while
that code is the same. The object is a cache with a checksum, and may be lost at any time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import zotctl
from zotctl.errors import NotFound, StorageError
from zotctl.oci import codec, descriptor, digest, manifest, media_types, readings
from zotctl.storage import facts, keys, references
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.digests import RAW_BYTES
from zotctl.storage.facts import KnownFacts, ManifestFacts
from zotctl.storage.protocol import Recalled
from zotctl.storage.references import Reference, References

MIN_MANIFESTS = 16
"""A repository with fewer manifests is read sooner than its remembered facts."""
NEWS_SHARE = 8
"""The facts are written again when at least one in this many was read anew."""
LARGEST_KEPT_BYTES = 32 << 20
"""A larger object is neither written nor read."""
LARGEST_UNPACKED_BYTES = 8 * LARGEST_KEPT_BYTES
MAGIC = b"zotctl-facts"
READING_CODE = (codec, descriptor, digest, manifest, media_types, readings, facts, references)


class Stamp(NamedTuple):
    """The object in which a manifest lies, as a list tells of it."""

    etag: str
    size: int
    modified: int


class StampedFacts(NamedTuple):
    """What a manifest says, and the object that it was read from."""

    stamp: Stamp
    facts: ManifestFacts


def _unpacked(found: Any) -> list[Reference]:
    if not isinstance(found, References):
        raise NotImplementedError(type(found))
    return list(found)


def _packed(kind: type, found: Any) -> References:
    if kind is not References:
        raise NotImplementedError(kind)
    return References(msgspec.convert(found, list[Reference]))


_encode = msgspec.json.Encoder(enc_hook=_unpacked).encode
_decode = msgspec.json.Decoder(dict[str, StampedFacts], dec_hook=_packed).decode


def write_down(name: str, known: Mapping[str, StampedFacts]) -> bytes | None:
    """The bytes to store; None: too large, or a later process could not tell whether its code is the same."""
    # No compression makes a digest shorter than its bytes.
    digests = sum(len(one.facts.blobs) + len(one.facts.children) for one in known.values())
    if not _code_state() or digests * RAW_BYTES > LARGEST_KEPT_BYTES:
        return None
    packed = zlib.compress(_encode(known), 1)
    body = b"%s %s\n%s" % (MAGIC, _checksum(name, packed), packed)
    return body if len(body) <= LARGEST_KEPT_BYTES else None


def read_back(name: str, body: bytes) -> dict[str, StampedFacts]:
    """Parse stored facts; nothing if they are of another repository, of other code, damaged, or not ours."""
    head, _, packed = body.partition(b"\n")
    if not _code_state() or head != b"%s %s" % (MAGIC, _checksum(name, packed)):
        return {}
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, LARGEST_UNPACKED_BYTES)
        return _decode(text) if unpacking.eof else {}
    except (zlib.error, msgspec.DecodeError):
        return {}


def _checksum(name: str, packed: bytes) -> bytes:
    return hashlib.sha256(b"\0".join([_code_state().encode(), name.encode(), packed])).hexdigest().encode()


@lru_cache(1)
def _code_state() -> str:
    """A hash of the code that reads manifests; "": unknown, without its sources."""
    state = hashlib.sha256(f"{zotctl.__version__} {msgspec.__version__}".encode())
    try:
        for module in READING_CODE:
            state.update(Path(module.__file__ or "").read_bytes())
    except OSError:
        return ""
    return state.hexdigest()


class KeptFacts:
    """One repository, as it was listed before its manifests are read: what is written down of them was true then, and
    a list that came later might tell of another object than the one that was read."""

    def __init__(self, context: BucketContext, name: str) -> None:
        """Raises what a list raises."""
        self._context, self._name, self._key = context, name, keys.facts(name)
        written = self._read()
        self._listed = {
            str(digest): Stamp(found.etag, found.size, int(found.modified)) for digest, found in context.own_blobs(name)
        }
        self.known: Mapping[str, KnownFacts] = {
            digest: KnownFacts(one.facts.size, one.facts)
            for digest, one in written.items()
            if self._is_as_it_was(digest, one)
        }

    def _read(self) -> dict[str, StampedFacts]:
        with suppress(NotFound), self._context.objects.open(self._key) as reader:
            return read_back(self._name, reader.read_at(0, reader.size)) if reader.size <= LARGEST_KEPT_BYTES else {}
        return {}

    def _is_as_it_was(self, digest: str, one: StampedFacts) -> bool:
        return self._listed.get(digest) == one.stamp and digest not in self._context.damaged

    def keep(self, known: Mapping[str, KnownFacts]) -> None:
        """All manifests were read. Never raises."""
        found = {
            digest: StampedFacts(self._listed[digest], one.facts)
            for digest, one in known.items()
            if one.facts is not None and digest in self._listed
        }
        news = len(found.keys() - self.known.keys())
        if news * NEWS_SHARE < len(found) or self._context.read_only or not self._context.writes():
            return
        body = write_down(self._name, found)
        with suppress(StorageError):
            if body is not None:
                self._context.objects.put(self._key, body)


def recall(context: BucketContext, name: str, manifests: int) -> Recalled | None:
    """The remembered facts of a repository with this many manifests. None: it is quicker to read them, or the bucket is
    away, which reading them will show."""
    if manifests < MIN_MANIFESTS:
        return None
    try:
        kept = KeptFacts(context, name)
    except StorageError:
        return None
    return Recalled(kept.known, kept.keep)
