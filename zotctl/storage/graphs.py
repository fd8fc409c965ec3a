"""The manifest graph of each repository, kept up to date with its index.json.

Each manifest is read once and its facts are kept by digest, for a manifest never changes. It is what tells a blob of
the wrong length before any scrub (I2), what answers the referrers API, what keeps what is needed from being deleted,
and what a collector marks from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from zotctl.errors import DigestInvalid, ManifestInvalid, Referenced, StorageError, Unavailable
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Generation
from zotctl.storage.graph import (
    Content,
    Earlier,
    Fault,
    KnownFacts,
    ManifestGraph,
    Read,
    Reference,
    read_content,
    understand,
)
from zotctl.storage.index import Index

if TYPE_CHECKING:
    from zotctl.storage.protocol import Recalled, StoreProtocol

REPOSITORIES = 512
"""Whose manifests are kept parsed."""
REFERENCES = 200_000
"""In the manifests that are kept parsed, where all repositories are looked into one after the other: some 100 MB."""
_LEAST = REFERENCES // REPOSITORIES
LOOKED_AT = 64
"""So many damaged manifests are looked after at each read, whether they are whole again."""


class RepositoryGraph:
    """Everything reachable from one index.json, brought up to date by what its rows have gained or lost.

    Any thread may bring it up to date; what is asked of more than one attribute is asked within `at`.
    """

    def __init__(self, protocol: StoreProtocol, name: str, *, recalls: bool = False) -> None:
        """`recalls`: not all that was read by an earlier process is read again."""
        self._protocol, self._name, self._recalls = protocol, name, recalls
        self._recalled = set[str]()
        """What this process has not read itself."""
        self._mutex = threading.RLock()
        self._seen: tuple[Index, int] | None = None
        self._rows: dict[str, tuple[int, ...]] = {}
        self._states: dict[str, Generation | None] = {}
        """Of the files that could not be read; None: there was none."""
        self._verified: dict[str, int] = {}
        self._told: dict[str, set[int]] = {}
        self.unsaid: Lru[str, float] = Lru(10_000)
        """When no manifest told how long a blob is, by `clock.elapsed`."""
        self._read_stored = reader_of(protocol, name)
        self._each = protocol.each if protocol.index_costs_request else None
        self._graph = ManifestGraph(self._read, each=self._each)

    @contextmanager
    def at(self, index: Index, *, again: bool = False, certain: bool = False) -> Iterator[ManifestGraph]:
        """The graph of this index, of which the manifests that are new are read: O(what changed). No other thread
        brings it to another before the questions inside are answered.

        `again`: look once more at all that could not be read, and for all subjects that were not there. What was
        healed, or came as a blob, changes no index.json. `certain`: by bytes that this process has read and hashed.
        """
        with self._mutex:
            if certain:
                self._forget_recalled()
            if not self.is_fresh(index):
                self._learn(index)
            if again:
                self._graph.again()
                self._note(index)
            yield self._graph

    def is_fresh(self, index: Index) -> bool:
        seen = self._seen
        return seen is not None and seen[0] is index and seen[1] == index.edits and not self._healed()

    def _healed(self) -> bool:
        """Has a file changed that could not be read? A push heals it without a change of index.json."""
        some = islice(tuple(self._states.items()), LOOKED_AT)
        return any(self._state(digest) != state for digest, state in some)

    def _state(self, digest: str) -> Generation | None:
        try:
            return self._protocol.generation(self._name, parse_digest(digest))
        except DigestInvalid:
            return None

    def _learn(self, index: Index) -> None:
        if self._rows.keys() - index.digests.keys():  # rows went: begin anew, from what is known already
            self._begin()
        else:
            self._graph.again(absent=False)
        new = [digest for digest, ids in index.digests.items() if self._rows.get(digest) != ids]
        rows = (row for digest in new for row in index.rows_of(digest))
        recalled = self._recall(len(new))
        self._graph.add(Reference(str(row.digest), row.size, row.media_type) for row in rows)
        if recalled is not None:
            recalled.keep(self._graph.known)
        self._graph.before, self._rows = None, dict(index.digests)
        self._note(index)

    def _recall(self, manifests: int) -> Recalled | None:
        """Before anything is read for the first time."""
        if not self._recalls or self._graph.known or self._graph.before is not None:
            return None
        recalled = self._protocol.recall(self._name, manifests)
        if recalled is not None:
            self._graph.before = recalled
            self._recalled = set(recalled.known)
        return recalled

    def _forget_recalled(self) -> None:
        self._recalls = False
        if self._recalled:
            read = {digest: known for digest, known in self._graph.known.items() if digest not in self._recalled}
            self._seen, self._rows, self._states, self._recalled = None, {}, {}, set()
            self._graph = ManifestGraph(self._read, Earlier(read, set()), self._each)

    def _begin(self) -> None:
        self._seen, self._rows, self._states = None, {}, {}
        self._graph = ManifestGraph(self._read, self._graph, self._each)

    def _note(self, index: Index) -> None:
        self._states = {digest: state for digest, state in self._states.items() if digest in self._graph.faults}
        # What could not be read may be readable the next time: then look again.
        self._seen = None if self._unreadable() else (index, index.edits)

    def _read(self, digest: Digest, whole: bool) -> Content:
        """Remembers the state of a file that can't be read."""
        state = self._state(digest) if self._protocol.may_truncate else None
        try:
            return self._read_stored(digest, whole)
        except (StorageError, ManifestInvalid):
            # Where a look is a request, only at what is damaged.
            self._states[digest] = state if self._protocol.may_truncate else self._state(digest)
            raise

    def forget(self, digest: str) -> None:
        """Its bytes were deleted, which changes no index.json if no row named it."""
        with self._mutex:
            if self._graph.reaches(digest):
                self._begin()

    # -- answers --------------------------------------------------------------------------------

    def known(self, digest: str) -> KnownFacts | None:
        """What its bytes say, if they were read."""
        return self._graph.known.get(digest)

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
        sizes = self._graph.sizes(digest) or self._told.get(digest)
        return size in sizes if sizes else None

    def told(self, digest: Digest, body: bytes) -> None:
        """A manifest was served: it says how long its blobs are, before all of the others are read."""
        if digest in self._graph.facts or digest in self._told:
            return
        if len(self._told) > 100_000:
            self._told.clear()
        self._told[digest] = {len(body)}
        facts = understand(Content(len(body), body), digest).facts
        for reference in facts.references if facts else ():
            self._told.setdefault(reference.digest, set()).add(reference.size)

    def unread(self, index: Index) -> int:
        """How many rows of this index were never read."""
        return len(index.digests.keys() - self._rows.keys())

    def referrers(self, subject: str) -> list[Descriptor]:
        """In the order of their digests, so that a page can go on where the last one ended."""
        with self._mutex:
            graph = self._graph
            found = [(graph.facts[digest], graph.media_type(digest)) for digest in graph.referrers(subject)]
        return [_called(facts.referrer, media_type) for facts, media_type in found if facts.referrer is not None]

    def references(self) -> int:
        """How many it remembers, which is what it weighs."""
        return sum(len(facts.blobs) + len(facts.children) for facts in list(self._graph.facts.values()))

    def require_known(self, index: Index, *, but: str | None = None, damaged: bool = False) -> None:
        """Before something is deleted: while a manifest can't be read, what it needs can't be known (I5).

        `but`: the one that shall go itself. `damaged`: nor while one is missing, damaged or of an unknown
        type, or something in `index` is unclear; another try won't change that. Raises Unavailable, Referenced.
        """
        for fault in self._unreadable():
            if fault.digest != but:
                reason = f"{fault.digest} can't be read now, so nothing is deleted: {fault.reason}"
                raise Unavailable(f"{self._name}: {reason}")
        faults = [fault for fault in self._graph.faults.values() if fault.digest != but]
        if damaged and faults:
            fault = faults[0]
            raise Referenced(
                f"{self._name}: what {fault.digest} needs can't be known, so nothing is deleted: {fault.reason}; "
                "push it again or delete it first",
                [fault.digest for fault in faults],
            )

        for reason in index.unclear() if damaged else ():
            raise Referenced(f"{self._name}: what it needs can't be known, so nothing is deleted: {reason}")

    def _unreadable(self) -> list[Fault]:
        return [fault for fault in self._graph.faults.values() if fault.kind == "unreadable"]


class AllGraphs:
    """Those of the repositories of one root that were looked into last."""

    def __init__(self, protocol: StoreProtocol) -> None:
        self._protocol = protocol
        self._kept: Lru[str, RepositoryGraph] = Lru(REFERENCES)

    def of(self, name: str) -> RepositoryGraph:
        found = self._kept.get(name)
        if found is None:
            found = RepositoryGraph(self._protocol, name, recalls=True)
            self._kept.put(name, found, _LEAST)
        return found

    def weigh(self, name: str) -> None:
        """After one was read: the largest are not all kept, for that would be the memory of a whole root."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.put(name, found, max(_LEAST, found.references()))


def reader_of(protocol: StoreProtocol, name: str) -> Read:
    """The content of one repository, for a graph."""

    def read(digest: Digest, whole: bool) -> Content:
        with protocol.open_manifest(name, digest) as reader:
            return read_content(reader, digest, whole)

    return read


def read_verified(protocol: StoreProtocol, name: str, digest: Digest) -> bytes:
    """The bytes of a manifest, hashed (I2). Raises NotFound, Damaged, ManifestInvalid."""
    return reader_of(protocol, name)(digest, True).body or b""


def _called(descriptor: Descriptor, media_type: str | None) -> Descriptor:
    return msgspec.structs.replace(descriptor, media_type=media_type or descriptor.media_type)
