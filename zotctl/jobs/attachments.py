"""What lives and goes with another manifest: signatures, SBOMs, attestations, lists of referrers.

A row of index.json is about another manifest by its `subject`, by a tag that names a digest (`oci.tags.digest_tag`), or
by olareg's annotation, which stands at a list of referrers. No such tag is the name of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from zotctl.jobs.walk import Reachable
from zotctl.oci.media_types import is_index
from zotctl.oci.reference import OLAREG_SUBJECT, DigestTag, digest_key, digest_tag
from zotctl.storage.index import Row, annotations_of


class Attachments:
    """Of one index, as its marks have it. Where a digest is named by its beginning only, that stands for it."""

    def __init__(self, marks: Reachable) -> None:
        self._marks = marks
        self._targets: dict[str, set[str]] = {}
        self._rows: dict[str, set[tuple[str, str]]] = {}
        self.tags: dict[str, str] = {}
        """Tags of rows that are about another manifest, and the digest that they name."""
        self.names: set[str] = set()
        """Tags of the same form that are names of their own manifest: they name that very digest, or one that is not
        here, on an image that may be called by a hash of its sources."""
        for row in marks.index.rows():
            for subject in self._subjects(row):
                self._attach(row, subject)
        for tag in marks.index.tags():
            self._learn(tag)

    def is_digest_tag(self, tag: str) -> bool:
        """Does it name a digest, so that it is nothing that an image is pushed or counted by?"""
        return tag in self.tags or tag in self.names

    def is_attached(self, digest: str) -> bool:
        """Is its row about another manifest, be that here or not?"""
        return digest in self._targets

    def is_here(self, target: str) -> bool:
        """Is what a row is about in this repository?"""
        return any(digest.startswith(target) for digest in self._here.get(digest_key(target), ()))

    def reach(self, start: Iterable[str]) -> tuple[set[str], set[str]]:
        """Everything that these digests lead to and, in turn, what is about any of that; and which targets of tags and
        subjects that includes."""
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
            yield from (reference.digest for reference in (*facts.blobs, *facts.children))
            # One that is missing is no fault, and leads to nothing.
            here = (self._marks.facts, self._marks.index)
            yield from (one.digest for one in facts.subjects if any(one.digest in place for place in here))

    @cached_property
    def _here(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for digest in self.reach(self._marks.index.digests)[0]:
            found.setdefault(digest_key(digest), []).append(digest)
        return found

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
    """Even when what it names is gone: cosign's ending says so, or that it is a list."""
    return named.is_attachment or is_index(row.media_type)
