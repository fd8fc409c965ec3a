"""What rows of a layout lead to, and what of it can't be had: asked where they are imported, and where they are packed
into an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import structs

from zotctl.errors import DigestInvalid
from zotctl.jobs.imports.plan import Wanted
from zotctl.jobs.imports.sources import Layout, other_size, require_size
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import is_nondistributable
from zotctl.storage.digests import DigestMap
from zotctl.storage.facts import Fault, ManifestFacts, Unusable
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.references import Reference


class Needed:
    """What rows lead to, by digest with its size: first blobs, then manifests, each after what it lists."""

    def __init__(self) -> None:
        self.blobs = DigestMap()
        self.manifests: dict[str, int] = {}

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Each digest once, with its size."""
        yield from (pair for pair in self.blobs.pairs() if pair[0] not in self.manifests)
        yield from self.manifests.items()

    def __iter__(self) -> Iterator[str]:
        return (digest for digest, _ in self.pairs())


@dataclass
class Needs:
    """What rows of one layout need, by the graph of its manifests. Used by one thread."""

    layout: Layout
    graph: ManifestGraph

    def of(self, rows: Iterable[Wanted]) -> Needed:
        """Everything that the rows lead to."""
        needed = Needed()
        done: set[str] = set()
        for row in rows:
            if row.digest in self.graph.leaves:
                needed.blobs[row.digest] = _within_64_bits(row.row.size)
            for digest in self.graph.below(row.digest, done):
                if (facts := self.graph.facts.get(digest)) is not None:
                    needed.manifests[digest] = facts.size
                    for blob in self.blobs_of(facts):
                        if not self._may_lack(blob):
                            needed.blobs[blob.digest] = _within_64_bits(blob.size)
        return needed

    def blobs_of(self, facts: ManifestFacts) -> list[Reference]:
        """The blobs that a manifest references: config and layers, and children or subjects that are no manifests."""
        leaves = self.graph.leaves
        children = [child for child in facts.children if child.digest in leaves]
        # Nothing is refused for what a referrer says of its subject, nor for a subject that is not there.
        here = [one for one in facts.subjects if leaves.get(one.digest, -1) >= 0]
        subjects = [structs.replace(one, size=leaves[one.digest]) for one in here]
        return [*facts.blobs, *children, *subjects]

    def _may_lack(self, blob: Reference) -> bool:
        """image-spec, layer.md, "Non-Distributable Layers": such a layer may be absent."""
        if not is_nondistributable(blob.media_type):
            return False
        try:
            return self.layout.size(parse_digest(blob.digest)) is None
        except DigestInvalid:
            return True

    def faults(
        self, needed: Needed, has: Callable[[Digest, int], bool] = lambda digest, size: False
    ) -> dict[str, Fault]:
        """What of `needed` the layout can't give, by digest. `has`: whether it is there already, so that the layout
        need not have it."""
        found = {digest: fault for digest, fault in self.graph.faults.items() if self.graph.is_needed(digest)}
        for text, size in needed.pairs():
            try:
                digest = parse_digest(text)
                self._require_one_size(text)
                if not has(digest, size):
                    require_size(self.layout, digest, size, "missing_blob")
            except Unusable as error:
                found[text] = Fault(text, error.kind, error.reason)
            except DigestInvalid as error:
                found[text] = Fault(text, "invalid_manifest", error.message)
        return found

    def _require_one_size(self, digest: str) -> None:
        """Raise Unusable if a row or an index states another size for a manifest."""
        facts = self.graph.facts.get(digest)
        for size in self.graph.sizes(digest) if facts else ():
            if facts and size != facts.size:
                raise other_size(self.layout, digest, facts.size, size)

    def costs(self, rows: Sequence[Wanted], faults: dict[str, Fault]) -> dict[str, list[Wanted]]:
        """The rows that lead to each fault."""
        found: dict[str, list[Wanted]] = {}
        for row in rows if faults else ():
            for digest in self._faults_below(row.digest, faults):
                found.setdefault(digest, []).append(row)
        return found

    def _faults_below(self, digest: str, faults: dict[str, Fault]) -> Iterator[str]:
        found = {digest} & self.graph.leaves.keys()
        for manifest in self.graph.below(digest, set()):
            found.add(manifest)
            if (facts := self.graph.facts.get(manifest)) is not None:
                found |= {blob.digest for blob in self.blobs_of(facts)}
        yield from (one for one in sorted(found) if one in faults)


def _within_64_bits(size: int) -> int:
    """What a `DigestMap` takes. Of a size that it does not take the rest is as wrong: no file has it."""
    return max(-1, min(size, (1 << 63) - 1))


def tags_of(rows: Iterable[Wanted]) -> tuple[str, ...]:
    """The tags of these rows, sorted."""
    return tuple(sorted({row.tag for row in rows if row.tag}))
