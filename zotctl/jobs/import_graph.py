"""What the rows of a foreign layout lead to, read from it manifest by manifest, each hashed and read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from zotctl.errors import DigestInvalid, ManifestInvalid, NotFound, StorageError
from zotctl.jobs.report import Kind
from zotctl.jobs.sources import Layout
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import read_manifest
from zotctl.oci.media_types import known
from zotctl.oci.quoting import quoted
from zotctl.storage.contents import LARGEST_MANIFEST, Facts, Reference, facts_of
from zotctl.storage.driver import Reader

BLOCK = 1 << 20


class Fault(NamedTuple):
    """Why something can't be taken."""

    kind: Kind
    reason: str


class Unusable(Exception):
    """Content of the source that is not what it should be."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(kind, reason)


Read = Callable[[Digest, int], bytes]
"""The bytes of a manifest, verified. Raises Unusable."""


class Graph:
    """Grows row by row. `facts` and `faults` are by digest of a manifest."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.facts: dict[str, Facts] = {}
        self.faults: dict[str, Fault] = {}

    def walk(self, digest: str, size: int, media_type: str) -> None:
        todo = [Reference(digest, size, media_type)]
        while todo:
            reference = todo.pop()
            if reference.digest not in self.facts and reference.digest not in self.faults:
                todo += self._learn(reference)

    def _learn(self, reference: Reference) -> tuple[Reference, ...]:
        try:
            facts = self._facts(reference)
        except Unusable as error:
            self.faults[reference.digest] = error.fault
            return ()
        self.facts[reference.digest] = facts
        return facts.children

    def _facts(self, reference: Reference) -> Facts:
        if reference.media_type and not known(reference.media_type):
            reason = f"{reference.digest} is of the unknown type {quoted(reference.media_type)}"
            raise Unusable("unknown_media_type", reason)
        try:
            digest = parse_digest(reference.digest)
            return facts_of(read_manifest(self._read(digest, reference.size), reference.media_type, digest))
        except (ManifestInvalid, DigestInvalid) as error:
            raise Unusable("invalid_manifest", error.message) from error

    def manifests_below(self, digest: str, done: set[str]) -> Iterator[str]:
        """Children before those that list them, this one last; `done` is passed over and grows."""
        todo = [(digest, False)]
        while todo:
            current, after = todo.pop()
            if after:
                yield current
            elif current not in done:
                done.add(current)
                todo.append((current, True))
                facts = self.facts.get(current)
                todo += [(child.digest, False) for child in facts.children] if facts else []


def source_reader(layout: Layout) -> Read:
    """Manifests as the layout has them."""

    def read(digest: Digest, size: int) -> bytes:
        require_size(layout, digest, size, "missing_manifest")
        if size > LARGEST_MANIFEST:
            raise Unusable("invalid_manifest", f"{digest} has {size} bytes, too many for a manifest")
        body = b"".join(chunks(layout, digest, size))
        if digest_of(body, digest.algorithm) != digest:
            raise other_content(layout, digest)
        return body

    return read


def other_content(layout: Layout, digest: Digest) -> Unusable:
    return Unusable("digest_mismatch", f"the content of {digest} in {layout.label} has another digest")


def require_size(layout: Layout, digest: Digest, size: int, missing: Kind) -> None:
    """It is there, and as long as its descriptor says. Raises Unusable."""
    try:
        found = layout.size(digest)
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error
    if found is None:
        kind, reason = layout.absence(digest)
        raise Unusable(missing if kind == "missing_blob" else kind, reason)
    if found != size:
        reason = f"{digest} has {found} bytes in {layout.label}, not the {size} of its descriptor"
        raise Unusable("size_mismatch", reason)


def chunks(layout: Layout, digest: Digest, size: int) -> Iterator[bytes]:
    """The bytes of a blob; at most `size`. Raises Unusable where they can't be read."""
    try:
        with layout.open(digest) as reader:
            yield from pieces(reader, size)
    except NotFound as error:  # since it was looked for
        raise Unusable(*layout.absence(digest)) from error
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error


def pieces(reader: Reader, size: int) -> Iterator[bytes]:
    """The same of an open blob."""
    try:
        for at in range(0, size, BLOCK):
            yield reader.read_at(at, min(BLOCK, size - at))
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error


__all__ = ["Fault", "Graph", "Read", "Unusable", "chunks", "other_content", "pieces", "require_size", "source_reader"]
