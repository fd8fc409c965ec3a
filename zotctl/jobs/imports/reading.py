"""Content of a foreign layout, read so that what is wrong with it is told by its own words."""

from __future__ import annotations

from collections.abc import Iterator

from zotctl.errors import Damaged, NotFound, StorageError
from zotctl.jobs.imports.sources import Layout
from zotctl.oci.digest import Digest
from zotctl.storage.driver import Reader
from zotctl.storage.facts import MISSING, Content, Read, Unusable

BLOCK = 1 << 20


def source_reader(layout: Layout) -> Read:
    """Manifests as the layout has them, for a graph."""

    def read(digest: Digest, whole: bool) -> Content:
        found_size(layout, digest, MISSING)
        try:
            return layout.content(digest, whole)
        except Damaged as error:
            raise other_content(layout, digest) from error

    return read


def other_content(layout: Layout, digest: Digest) -> Unusable:
    return Unusable("digest_mismatch", f"the content of {digest} in {layout.label} has another digest")


def found_size(layout: Layout, digest: Digest, missing: str) -> int:
    """How long it is there; `missing` is the kind of fault that it is not. Raises Unusable."""
    try:
        found = layout.size(digest)
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error
    if found is None:
        absence = layout.absence(digest)
        raise Unusable(missing if absence.kind == "missing_blob" else absence.kind, str(absence))
    return found


def require_size(layout: Layout, digest: Digest, size: int, missing: str) -> None:
    """It is there, and as long as its descriptor says. Raises Unusable."""
    if (found := found_size(layout, digest, missing)) != size:
        raise other_size(layout, digest, found, size)


def other_size(layout: Layout, digest: str, found: int, said: int) -> Unusable:
    reason = f"{digest} has {found} bytes in {layout.label}, not the {said} of its descriptor"
    return Unusable("size_mismatch", reason)


def chunks(layout: Layout, digest: Digest, size: int) -> Iterator[bytes]:
    """The bytes of a blob; at most `size`. Raises Unusable where they can't be read."""
    try:
        with layout.open(digest) as reader:
            yield from pieces(reader, size)
    except NotFound as error:  # since it was looked for
        raise layout.absence(digest) from error
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error


def pieces(reader: Reader, size: int) -> Iterator[bytes]:
    """The same of an open blob."""
    try:
        for at in range(0, size, BLOCK):
            yield reader.read_at(at, min(BLOCK, size - at))
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error
