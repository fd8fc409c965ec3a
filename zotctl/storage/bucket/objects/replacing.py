"""Bytes written under a key only if they are what they should be (I2): small ones by one PUT, others by parts that
become an object when all were hashed."""

from __future__ import annotations

from collections.abc import Iterable

from zotctl.errors import DigestInvalid, StorageError
from zotctl.oci.digest import Digest, digest_of_hash, new_hash
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.bucket.uploads.memory_budget import PART
from zotctl.storage.bucket.uploads.parts import Parts

HASH_BLOCK = 1 << 20


def replace(objects: Objects, key: str, digest: Digest, chunks: Iterable[bytes], part: int = PART) -> None:
    """Raises DigestInvalid, and nothing has changed; StorageError where the object can't be written."""
    state, tail, size, parts = new_hash(digest.algorithm), bytearray(), 0, None
    try:
        for chunk in chunks:
            state.update(chunk)
            tail += chunk
            size += len(chunk)
            while len(tail) > part:
                parts = parts or Parts(objects, key, objects.start_parts(key), (), None)
                parts.send(0, memoryview(bytes(tail[:part])))
                del tail[:part]
        if state.hexdigest() != digest.encoded:
            raise DigestInvalid(f"these bytes are not {digest}", digest)
        _finish(objects, key, digest, parts, bytes(tail), size)
    except BaseException:
        if parts is not None:
            parts.abandon()
            objects.abort_parts(key, parts.upload)
        raise


def hashed(objects: Objects, key: str, algorithm: str) -> Digest:
    """The digest of an object, read whole. NotFound."""
    state = new_hash(algorithm)
    with objects.open(key) as reader:
        reader.once()
        for at in range(0, reader.size, HASH_BLOCK):
            state.update(reader.read_at(at, HASH_BLOCK))
    return digest_of_hash(algorithm, state)


def _finish(objects: Objects, key: str, digest: Digest, parts: Parts | None, tail: bytes, size: int) -> Object | None:
    if parts is None:
        sha256 = digest.encoded if digest.algorithm == "sha256" else ""
        objects.put(key, tail, sha256=sha256)
        return None
    done = parts.complete(memoryview(tail), size)
    if done is None or not (parts.completed or hashed(objects, key, digest.algorithm) == digest):
        raise StorageError(f"{key}: another process ended its upload; run it again")
    return done
