"""What is reachable in one repository, as its manifest graph says, at one moment (docs/design/invariants.md#i5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zotctl.storage.facts import Fault, ManifestFacts
from zotctl.storage.graph import reach
from zotctl.storage.index import Index
from zotctl.storage.protocol import Snapshot
from zotctl.storage.root import Root

ROUNDS = 10
"""How often what can't be read is looked for again while clients change the repository."""


@dataclass
class Reachable:
    """The reachable digests of one index, or the faults because of which they can't be known."""

    index: Index
    generation: object
    reachable: set[str]
    faults: list[Fault]
    facts: dict[str, ManifestFacts]


def mark(root: Root, name: str, read: Snapshot | None = None, *, certain: bool = False) -> Reachable:
    """Read each manifest once, without a lock. `read`: the index, if it was read just now. `certain`: what is
    remembered of an earlier process doesn't count. Raises NotFound, LayoutInvalid."""
    for _ in range(ROUNDS):
        snapshot, read = read or root.protocol.read_index(name), None
        marks = mark_index(root, name, snapshot.index, snapshot.generation, certain=certain)
        # What is missing may have been deleted meanwhile: then the index has changed before, and is looked at again.
        if not marks.faults or root.protocol.read_index(name).generation == snapshot.generation:
            break
    return marks


def mark_index(root: Root, name: str, index: Index, generation: object, *, certain: bool = False) -> Reachable:
    """The same for an index at hand; manifests that were read before are not read again."""
    # What was missing or damaged may have been healed since, and a subject have come as a blob: no index.json tells.
    with root.graph(name).at(index, again=True, certain=certain) as graph:
        facts, faults, reachable = dict(graph.facts), list(graph.faults.values()), graph.reachable()
    root.protocol.graphs.weigh(name)
    faults += [Fault("", "invalid_manifest", reason) for reason in index.unclear()]
    return Reachable(index, generation, reachable, faults, facts)


class ReachableBlobs:
    """The marks of one repository, made anew only when its index.json has changed."""

    def __init__(self, root: Root, name: str, *, certain: bool = False) -> None:
        self._root, self._name, self._certain = root, name, certain
        self._marks: Reachable | None = None

    def now(self) -> Reachable:
        """Cheap while nothing changes, so it may be asked under the lock. Raises NotFound, LayoutInvalid."""
        read = self._root.protocol.read_index(self._name)
        if self._marks is None or self._marks.generation != read.generation or self._marks.faults:
            self._marks = mark(self._root, self._name, read, certain=self._certain)
        return self._marks


def with_index(marks: Reachable, draft: Index) -> Reachable:
    """The marks that a changed index would have; its rows are among those that were read."""
    return replace(marks, index=draft, reachable=reach(draft.digests, marks.facts))
