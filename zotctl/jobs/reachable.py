"""What is reachable in one repository at one moment, by its manifest graph (docs/design/invariants.md#i5), and its
attachments: signatures, SBOMs, attestations and lists of referrers, which live and go with another manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property

from zotctl.oci.media_types import is_index
from zotctl.oci.reference import OLAREG_SUBJECT, DigestTag, digest_key, digest_tag
from zotctl.storage import keys
from zotctl.storage.facts import Fault, ManifestFacts
from zotctl.storage.graph import reach
from zotctl.storage.index import Index
from zotctl.storage.protocol import Snapshot
from zotctl.storage.root import Root
from zotctl.storage.rows import Row, annotations_of

MARK_ROUNDS = 10
"""How often a repository with faults is marked again while clients change it."""


@dataclass
class Reachable:
    """The reachable digests of one index. If there are `faults`, they can't be known, and nothing may be deleted.

    `generation` identifies the index; `facts`: what each manifest says, by digest.
    """

    index: Index
    generation: object
    reachable: Set[str]
    faults: list[Fault]
    facts: dict[str, ManifestFacts]


def mark(root: Root, name: str, read: Snapshot | None = None, *, certain: bool = False) -> Reachable:
    """Mark a repository: find what is reachable. Takes no lock.

    `read`: the index, if the caller has just read it. `certain`: don't rely on what an earlier process wrote down.
    Raises NotFound, LayoutInvalid.
    """
    for _ in range(MARK_ROUNDS):
        snapshot, read = read or root.protocol.indexes.read(name), None
        marks = mark_index(root, name, snapshot.index, snapshot.generation, certain=certain)
        # What is missing may have been deleted meanwhile. Then the index has changed too, and is marked again.
        if not marks.faults or root.protocol.indexes.read(name).generation == snapshot.generation:
            break
    return marks


def mark_index(root: Root, name: str, index: Index, generation: object, *, certain: bool = False) -> Reachable:
    """Mark what `index` leads to. Manifests that were read before are not read again; `certain` as in `mark`."""
    # What was missing or damaged may have been healed since, and a subject have come as a blob: no index.json tells.
    with root.graphs.of(name).at(index, again=True, certain=certain) as graph:
        facts, faults, reachable = dict(graph.facts), list(graph.faults.values()), graph.reachable()
    root.protocol.graphs.weigh(name)
    faults += [Fault("", "invalid_manifest", reason) for reason in index.unclear()]
    return Reachable(index, generation, reachable, faults, facts)


class ReachableBlobs:
    """What is reachable in one repository, found again only when its index.json has changed. Used by one thread."""

    def __init__(self, root: Root, name: str, *, certain: bool = False) -> None:
        self._root, self._name, self._certain = root, name, certain
        self._marks: Reachable | None = None

    def now(self) -> Reachable:
        """What is reachable now. Cheap while nothing changes, so it may be called under the lock. Raises NotFound,
        LayoutInvalid."""
        read = self._root.protocol.indexes.read(self._name)
        if self._marks is None or self._marks.generation != read.generation or self._marks.faults:
            self._marks = mark(self._root, self._name, read, certain=self._certain)
        return self._marks

    def has_index(self) -> bool:
        """Is there an index.json, be it in no layout?"""
        return self._root.stat(keys.index(self._name)) is not None


def with_index(marks: Reachable, draft: Index) -> Reachable:
    """What would be reachable from `draft`, all of whose rows were in the index of `marks`."""
    return replace(marks, index=draft, reachable=reach(draft.digests, marks.facts))


# -- attachments ----------------------------------------------------------------------------------


class Attachments:
    """The attachments of one index. A target that a tag names only by the beginning of its digest is kept in that
    form."""

    def __init__(self, marks: Reachable) -> None:
        self._marks = marks
        self._targets: dict[str, set[str]] = {}
        self._rows: dict[str, set[tuple[str, str]]] = {}
        self.tags: dict[str, str] = {}
        """The tags of attachments, with the digest that each names."""
        self.names: set[str] = set()
        """Tags of the same form that are ordinary names: they name the digest of their own manifest, or one that is not
        here, since an image may be tagged with a hash of its sources."""
        for row in marks.index.rows():
            for subject in self._subjects(row):
                self._attach(row, subject)
        for tag in marks.index.tags():
            self._learn(tag)

    def is_digest_tag(self, tag: str) -> bool:
        """Whether the tag names a digest, so that policies neither match nor count it."""
        return tag in self.tags or tag in self.names

    def is_attached(self, digest: str) -> bool:
        """Whether the row of this digest is an attachment, even if its target is not here."""
        return digest in self._targets

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The digest of each attachment with each of its targets."""
        yield from ((digest, target) for digest, targets in self._targets.items() for target in targets)

    def is_here(self, target: str) -> bool:
        """Whether the target of an attachment is in this repository."""
        return any(digest.startswith(target) for digest in self._here.get(digest_key(target), ()))

    def reach(self, start: Iterable[str]) -> tuple[set[str], set[str]]:
        """Everything that these digests lead to, with the attachments of any of that; and those targets of attachments
        that were met on the way."""
        reached: set[str] = set()
        met: set[str] = set()
        todo = list(start)
        while todo:
            digest = todo.pop()
            if digest in reached:
                continue
            reached.add(digest)
            for target, row in self._rows.get(digest_key(digest), ()):
                if digest.startswith(target):
                    met.add(target)
                    todo.append(row)
            todo += self._references(digest)
        return reached, met

    def _references(self, digest: str) -> Iterator[str]:
        if (facts := self._marks.facts.get(digest)) is not None:
            yield from facts.blobs.digests()
            yield from facts.children.digests()
            # One that is missing is no fault, and leads to nothing.
            here = (self._marks.facts, self._marks.index)
            yield from (one.digest for one in facts.subjects if any(one.digest in place for place in here))

    @cached_property
    def _here(self) -> dict[str, set[str]]:
        """What the rows lead to, as far as it may be a target: nobody asks for the millions of layers."""
        tagged = (named.digest for tag in self._marks.index.tags() if (named := digest_tag(tag)) is not None)
        found: dict[str, set[str]] = {key: set() for key in (*map(digest_key, tagged), *self._rows)}
        for digest in self._led_to(self._marks.index.digests):
            if (some := found.get(digest_key(digest))) is not None:
                some.add(digest)
        return found

    def _led_to(self, start: Iterable[str]) -> Iterator[str]:
        """Everything that these digests lead to, some of it several times."""
        followed, todo = set[str](), list(start)
        while todo:
            digest = todo.pop()
            yield digest
            if digest in self._marks.facts and digest not in followed:
                followed.add(digest)
                for reference in self._references(digest):
                    if reference in self._marks.facts:
                        todo.append(reference)
                    else:
                        yield reference

    def _learn(self, tag: str) -> None:
        named, row = digest_tag(tag), self._marks.index.find(tag)
        if named is None or row is None or row.digest is None:
            return
        if named.names(row.digest) or not (self.is_here(named.digest) or _is_attachment(named, row)):
            self.names.add(tag)
        else:
            self.tags[tag] = named.digest
            self._attach(row, named.digest)

    def _subjects(self, row: Row) -> Iterator[str]:
        facts = self._marks.facts.get(row.digest) if row.digest else None
        if facts is not None:
            yield from (subject.digest for subject in facts.subjects)
        if row.digest and OLAREG_SUBJECT.encode() in row.raw and (named := annotations_of(row).get(OLAREG_SUBJECT)):
            yield named

    def _attach(self, row: Row, target: str) -> None:
        if row.digest is not None:
            self._targets.setdefault(row.digest, set()).add(target)
            self._rows.setdefault(digest_key(target), set()).add((target, row.digest))


def _is_attachment(named: DigestTag, row: Row) -> bool:
    """Whether it is an attachment even if its target is gone: cosign's suffix says so, or it is a list of referrers."""
    return named.is_attachment or is_index(row.media_type)
