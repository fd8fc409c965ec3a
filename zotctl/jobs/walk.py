"""What is reachable in one repository: the rows, what they list, what that needs, and the subjects of
referrers that are there (invariants.md, I5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from zotctl.errors import Damaged, DigestInvalid, ManifestInvalid, NotFound, StorageError
from zotctl.oci.digest import parse_digest
from zotctl.storage.contents import Contents, Facts, Fault, facts_of, read_stored
from zotctl.storage.index import Index
from zotctl.storage.protocol import StoreProtocol
from zotctl.storage.root import Root

ROUNDS = 10
"""How often what can't be read is looked for again while clients change the repository."""


@dataclass
class Marks:
    """The reachable digests of one index, or the faults because of which they can't be known."""

    index: Index
    generation: object
    reachable: set[str]
    faults: list[Fault]
    facts: dict[str, Facts]


def mark(root: Root, name: str) -> Marks:
    """Read each manifest once, without a lock. Raises NotFound, LayoutInvalid."""
    for _ in range(ROUNDS):
        snapshot = root.protocol.read_index(name)
        marks = mark_index(root, name, snapshot.index, snapshot.generation)
        # What is missing may have been deleted meanwhile: then the index has changed before, and is looked at again.
        if not marks.faults or root.protocol.read_index(name).generation == snapshot.generation:
            break
    return marks


def mark_index(root: Root, name: str, index: Index, generation: object) -> Marks:
    """The same for an index at hand; manifests that were read before are not read again."""
    with root.contents(name).at(index) as contents:  # held, for somebody else may bring it to another index
        facts, faults = dict(contents.facts), list(contents.faults.values())
    root.protocol.contents.weigh(name)
    if faults:
        # What was missing or damaged may have been healed since, without a new index.json.
        fresh = Contents(root.protocol, name).refresh(index)
        facts, faults = dict(fresh.facts), list(fresh.faults.values())
    nameless = sum(row.digest is None for row in index.rows())
    faults += [Fault("", "invalid_manifest", "a row of index.json names no digest")] * nameless
    faults += _subjects(root.protocol, name, facts)
    return Marks(index, generation, reach(index.digests, facts), faults, facts)


class Marker:
    """The marks of one repository, made anew only when its index.json has changed."""

    def __init__(self, root: Root, name: str) -> None:
        self._root, self._name = root, name
        self._marks: Marks | None = None

    def now(self) -> Marks:
        """Cheap while nothing changes, so it may be asked under the lock. Raises NotFound, LayoutInvalid."""
        generation = self._root.protocol.read_index(self._name).generation
        if self._marks is None or self._marks.generation != generation or self._marks.faults:
            self._marks = mark(self._root, self._name)
        return self._marks


def with_index(marks: Marks, draft: Index) -> Marks:
    """The marks that a changed index would have; its rows are among those that were read."""
    return replace(marks, index=draft, reachable=reach(draft.digests, marks.facts))


def reach(start: Iterable[str], facts: dict[str, Facts]) -> set[str]:
    """Everything that these digests lead to, themselves included."""
    reachable: set[str] = set()
    todo = list(start)
    while todo:
        digest = todo.pop()
        if digest in reachable:
            continue
        reachable.add(digest)
        if (known := facts.get(digest)) is not None:
            reachable.update(reference.digest for reference in known.blobs)
            todo.extend(child.digest for child in known.children)
            todo.extend([known.subject] if known.subject else ())
    return reachable


def _subjects(protocol: StoreProtocol, name: str, facts: dict[str, Facts]) -> list[Fault]:
    """Learn the subjects that no row names but that are there: a referrer keeps them. One that is
    missing is no fault (distribution-spec, "Push"); one that is there and unreadable is."""
    faults = []
    todo = [known.subject for known in facts.values() if known.subject and known.subject not in facts]
    while todo:
        digest = todo.pop()
        if digest in facts:
            continue
        try:
            found = facts_of(read_stored(protocol, name, parse_digest(digest), ""))
        except (NotFound, DigestInvalid):
            continue
        except Damaged as error:  # it may need what is here: not the same as absent
            faults.append(Fault(digest, "digest_mismatch", error.message))
            continue
        except ManifestInvalid as error:
            faults.append(Fault(digest, "invalid_manifest", error.message))
            continue
        except StorageError as error:
            faults.append(Fault(digest, "unreadable", error.message))
            continue
        facts[digest] = found
        todo.extend(r for r in (*(c.digest for c in found.children), found.subject) if r and r not in facts)
    return faults
