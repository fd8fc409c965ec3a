"""What the manifests of one repository say: the sizes of blobs, who refers to whom, who is below whom.

Read once for each manifest and kept by digest, for a manifest never changes. It is what tells a blob
of the wrong length before any scrub (I2), what answers the referrers API, what keeps a child of an
index from being deleted, and what a collector marks from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from zotctl.errors import Damaged, DigestInvalid, ManifestInvalid, NotFound, Referenced, StorageError, Unavailable
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.oci.media_types import known
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Generation
from zotctl.storage.index import Index

if TYPE_CHECKING:
    from zotctl.storage.protocol import StoreProtocol

REPOSITORIES = 512
"""Whose manifests are kept parsed."""
REFERENCES = 200_000
"""In the manifests that are kept parsed, where whoever looks into all repositories says how many: some 100 MB."""
_LEAST = REFERENCES // REPOSITORIES
LARGEST_MANIFEST = 64 << 20
ASIDE = "the manifest is damaged: it answers 404 until it is healed"
LOOKED_AT = 64
"""So many damaged manifests are looked after at each read, whether they are whole again."""


class Reference(NamedTuple):
    """One edge: what a manifest names, with the size that it says."""

    digest: str
    size: int
    media_type: str


class Facts(NamedTuple):
    """What is kept of one manifest."""

    media_type: str
    size: int
    blobs: tuple[Reference, ...]
    children: tuple[Reference, ...]
    subject: str | None
    referrer: Descriptor | None
    """How the referrers API describes it; only of those that have a subject."""


class Fault(NamedTuple):
    """A manifest that can't be read: what it kept alive can't be known."""

    digest: str
    kind: str
    reason: str
    media_type: str = ""
    state: Generation | None = None
    """Of the file that could not be read; None: there was none."""


def facts_of(manifest: Manifest) -> Facts:
    subject = manifest.subject.digest if manifest.subject else None
    referrer = None
    if subject is not None:
        referrer = Descriptor(
            media_type=manifest.media_type,
            digest=str(manifest.digest),
            size=manifest.size,
            annotations=manifest.annotations,
            artifact_type=manifest.referrer_type,
        )
    return Facts(
        manifest.media_type,
        manifest.size,
        tuple(_reference(d) for d in manifest.blobs),
        tuple(_reference(d) for d in manifest.children),
        subject,
        referrer,
    )


def _reference(descriptor: Descriptor) -> Reference:
    return Reference(descriptor.digest, descriptor.size, descriptor.media_type)


class Contents:
    """Everything reachable from one index.json, brought up to date by what its rows have gained or lost."""

    def __init__(self, protocol: StoreProtocol, name: str) -> None:
        self._protocol, self._name = protocol, name
        self._mutex = threading.RLock()
        self._seen: tuple[Index, int] | None = None
        self._rows: set[str] = set()
        self.facts: dict[str, Facts] = {}
        self.faults: dict[str, Fault] = {}
        self._sizes: dict[str, set[int]] = {}
        self._verified: dict[str, int] = {}
        self._referrers: dict[str, list[str]] = {}
        self._parents: dict[str, list[str]] = {}

    def refresh(self, index: Index) -> Contents:
        """Read the manifests that are new in this index. O(what changed)."""
        with self._mutex:
            if not self.is_fresh(index):
                gone = not self._rows <= index.digests.keys()
                kept = self._forget() if gone else {}
                self._learn(index, kept)
                # What could not be read may be readable the next time: then look again.
                self._seen = None if self._unreadable() else (index, index.edits)
        return self

    @contextmanager
    def at(self, index: Index) -> Iterator[Contents]:
        """The same, and nobody brings it to another index before the questions inside are answered."""
        with self._mutex:
            yield self.refresh(index)

    def is_fresh(self, index: Index) -> bool:
        seen = self._seen
        return seen is not None and seen[0] is index and seen[1] == index.edits and not self._healed()

    def _healed(self) -> bool:
        """Has a file changed that could not be read? A push heals it without a change of index.json."""
        some = islice(tuple(self.faults.values()), LOOKED_AT)
        return any(self._state(fault.digest) != fault.state for fault in some)

    def _state(self, digest: str) -> Generation | None:
        try:
            return self._protocol.generation(self._name, parse_digest(digest))
        except DigestInvalid:
            return None

    def _forget(self) -> dict[str, Facts]:
        """Rows went: begin anew, from the manifests that are known already."""
        self._seen = None
        kept = self.facts
        self.facts, self.faults, self._sizes, self._referrers, self._parents = {}, {}, {}, {}, {}
        self._rows = set()
        return kept

    def _learn(self, index: Index, kept: dict[str, Facts]) -> None:
        new = [digest for digest in index.digests if digest not in self._rows]
        again = [(fault.digest, fault.media_type) for fault in self.faults.values()]
        self._walk([*again, *((digest, index.rows_of(digest)[0].media_type) for digest in new)], kept)
        for digest in new:
            self._sizes.setdefault(digest, set()).update(row.size for row in index.rows_of(digest))
        self._rows.update(new)

    def _walk(self, todo: list[tuple[str, str]], kept: dict[str, Facts]) -> None:
        while todo:
            digest, media_type = todo.pop()
            if digest in self.facts:
                continue
            facts = kept.get(digest) or self._read(digest, media_type)
            if facts is not None:
                self.faults.pop(digest, None)
                self._add(digest, facts)
                todo.extend((child.digest, child.media_type) for child in facts.children)

    def _read(self, digest: str, media_type: str) -> Facts | None:
        state = self._state(digest) if self._protocol.torn else None
        try:
            return facts_of(read_stored(self._protocol, self._name, parse_digest(digest), media_type))
        except Damaged:
            fault = Fault(digest, "digest_mismatch", ASIDE)
        except NotFound:
            fault = Fault(digest, "missing_manifest", "the manifest is not there")
        except (ManifestInvalid, DigestInvalid) as error:
            unknown = media_type and not known(media_type)
            fault = Fault(digest, "unknown_media_type" if unknown else "invalid_manifest", error.message)
        except StorageError as error:
            fault = Fault(digest, "unreadable", error.message)
        if not self._protocol.torn:
            state = self._state(digest)  # a request: only for what is damaged
        self.faults[digest] = fault._replace(media_type=media_type, state=state)
        return None

    def _add(self, digest: str, facts: Facts) -> None:
        self.facts[digest] = facts
        self._sizes.setdefault(digest, set()).add(facts.size)
        for reference in (*facts.blobs, *facts.children):
            self._sizes.setdefault(reference.digest, set()).add(reference.size)
            self._parents.setdefault(reference.digest, []).append(digest)
        if facts.subject is not None:
            self._referrers.setdefault(facts.subject, []).append(digest)

    # -- answers --------------------------------------------------------------------------------

    def verified(self, digest: str, size: int) -> None:
        """These bytes were hashed here: that is their size, whatever a manifest says."""
        if len(self._verified) > 100_000:
            self._verified.clear()
        self._verified[digest] = size

    def is_verified(self, digest: str, size: int) -> bool:
        """Were bytes of this length hashed here, and right?"""
        return self._verified.get(digest) == size

    def agrees(self, digest: str, size: int) -> bool | None:
        """False: it was hashed here, or the manifests say, with another length (I2). None: not known."""
        if (true := self._verified.get(digest)) is not None:
            return size == true
        sizes = self._sizes.get(digest)
        return size in sizes if sizes else None

    def referrers(self, subject: str) -> list[Descriptor]:
        """In the order of their digests, so that a page can go on where the last one ended."""
        with self._mutex:
            found = [self.facts[digest].referrer for digest in sorted(self._referrers.get(subject, ()))]
        return [descriptor for descriptor in found if descriptor is not None]

    def named(self) -> set[str]:
        """Every manifest, and everything that one of them needs."""
        return {*self.facts, *self._parents}

    def names(self, digest: str) -> bool:
        """Is it among those?"""
        return digest in self.facts or digest in self._parents

    def parents(self, digest: str) -> list[str]:
        """The manifests of this repository that need this blob or manifest."""
        return sorted(set(self._parents.get(digest, ())))

    def require_known(self, *, but: str | None = None, damaged: bool = False) -> None:
        """Before something is deleted: while a manifest can't be read, what it needs can't be known (I5).

        `but`: the one that shall go itself. `damaged`: nor while one is missing, damaged or of an unknown
        type, which another try won't change. Raises Unavailable, Referenced.
        """
        for fault in self._unreadable():
            if fault.digest != but:
                reason = f"{fault.digest} can't be read now, so nothing is deleted: {fault.reason}"
                raise Unavailable(f"{self._name}: {reason}")
        if damaged and self.faults:
            fault = next(iter(self.faults.values()))
            raise Referenced(
                f"{self._name}: what {fault.digest} needs can't be known, so nothing is deleted: {fault.reason}; "
                "push it again or delete it first",
                [*self.faults],
            )

    def _unreadable(self) -> list[Fault]:
        return [fault for fault in self.faults.values() if fault.kind == "unreadable"]

    def child_type(self, digest: str) -> str | None:
        """The media type of a manifest that is listed in no row, only within an index."""
        facts = self.facts.get(digest)
        return facts.media_type if facts else None

    def edges(self) -> Iterator[tuple[str, Facts]]:
        return iter(self.facts.items())


class AllContents:
    """The contents of the repositories of one root that were looked into last."""

    def __init__(self, protocol: StoreProtocol) -> None:
        self._protocol = protocol
        self._kept: Lru[str, Contents] = Lru(REFERENCES)

    def of(self, name: str) -> Contents:
        found = self._kept.get(name)
        if found is None:
            found = Contents(self._protocol, name)
            self._kept.put(name, found, _LEAST)
        return found

    def weigh(self, name: str) -> None:
        """After one was read: the largest are not all kept, for that would be the memory of a whole root."""
        found = self._kept.get(name)
        if found is not None:
            references = sum(len(facts.blobs) + len(facts.children) for _, facts in list(found.edges()))
            self._kept.put(name, found, max(_LEAST, references))


def read_stored(protocol: StoreProtocol, name: str, digest: Digest, media_type: str) -> Manifest:
    """A manifest from the store, checked against its digest. Raises NotFound, Damaged, ManifestInvalid."""
    return read_manifest(read_verified(protocol, name, digest), media_type, digest)


def read_verified(protocol: StoreProtocol, name: str, digest: Digest) -> bytes:
    """The bytes of a manifest, hashed. Raises NotFound; Damaged when they are not what the digest says (I2)."""
    with protocol.open_manifest(name, digest) as reader:
        if reader.size > LARGEST_MANIFEST:
            raise ManifestInvalid(f"{digest} has {reader.size} bytes, too many for a manifest")
        body = reader.read_at(0, reader.size)
    if digest_of(body, digest.algorithm) != digest:
        raise Damaged(f"{digest} is damaged: its content has another digest")
    return body
