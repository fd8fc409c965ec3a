"""Through which tags a client meets a digest: up from blobs and children to manifests, indexes and tags, and
from a referrer to what it refers to."""

from __future__ import annotations

from collections.abc import Mapping

from zotctl.storage.facts import ManifestFacts
from zotctl.storage.index import Index


class Affected:
    """The way up in one repository, made once and asked for each damaged digest."""

    def __init__(self, index: Index, facts: Mapping[str, ManifestFacts]) -> None:
        self._index = index
        self._above: dict[str, list[str]] = {}
        for digest, known in facts.items():
            for reference in (*known.blobs, *known.children):
                self._above.setdefault(reference.digest, []).append(digest)
            for subject in known.subjects:
                # A client that asks for the referrers of the subject meets this one.
                self._above.setdefault(digest, []).append(subject.digest)
        for digest, known in facts.items():
            for subject in known.subjects:
                if subject.digest not in index:  # only its referrers lead to it
                    self._above.setdefault(subject.digest, []).append(digest)

    def tags(self, digest: str) -> tuple[str, ...]:
        """Each once, in byte order."""
        return tuple(sorted({tag for above in self._all_above(digest) for tag in self._index.tags_of(above)}))

    def parents(self, digest: str) -> list[str]:
        """The manifests that name it."""
        return sorted(set(self._above.get(digest, ())))

    def _all_above(self, digest: str) -> set[str]:
        seen: set[str] = set()
        todo = [digest]
        while todo:
            if (one := todo.pop()) not in seen:
                seen.add(one)
                todo.extend(self._above.get(one, ()))
        return seen
