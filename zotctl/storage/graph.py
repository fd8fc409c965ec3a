"""The graph of manifests: who references what, as the bytes say it, for each repository and kept up to date.

Collection, deletion, GET by digest, referrers, scrub, verify and import all ask this graph what is needed. Each
manifest is read once and its facts are kept by digest, since a manifest never changes. The facts reveal a blob of the
wrong length before any scrub does (I2), and keep what is needed from being deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from zotctl.errors import DigestInvalid, ManifestInvalid, Referenced, StorageError, Unavailable, quoted
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import essence, is_manifest_type, is_plain
from zotctl.storage.cache import Lru
from zotctl.storage.citations import Citations
from zotctl.storage.digests import Digests
from zotctl.storage.driver import Generation
from zotctl.storage.facts import (
    MISSING,
    Content,
    Fault,
    KnownFacts,
    ManifestFacts,
    ManifestNode,
    Read,
    Unusable,
    called,
    contradicts,
    is_called_manifest,
    look_at,
    read_content,
    understand,
)
from zotctl.storage.index import Index
from zotctl.storage.multimap import Multimap
from zotctl.storage.names import Names
from zotctl.storage.references import Reference

if TYPE_CHECKING:
    from zotctl.storage.protocol import Recalled, StoreProtocol

READ_AHEAD_MANIFESTS = 64
"""Manifests that are read side by side where each read is a request."""
LARGEST_READ_AHEAD_BYTES = 4 << 20
FAULTS_CHECKED = 64
"""Damaged manifests that each read looks at again, to see whether they were healed."""
GRAPHS_KEPT = 512
"""Repositories whose manifests are kept parsed."""
REFERENCES_KEPT = 200_000
"""References in the manifests that are kept parsed, when a job goes through all repositories: some 15 MB."""
SIZES_KEPT = 100_000
"""Blobs of each repository whose size is known by a hash, or by a manifest that was served."""
UNSAID_KEPT = SAID_KEPT = 10_000

LEAST_WEIGHT = REFERENCES_KEPT // GRAPHS_KEPT


Each = Callable[[Sequence[Callable[[], None]]], object]
"""Makes all of these calls side by side, and returns when the last one has ended."""


class Earlier(NamedTuple):
    """What an earlier graph knew: the facts by digest, and the subjects that were absent."""

    known: Mapping[str, KnownFacts]
    absent: Set[str]


class ManifestGraph:
    """Grows by the references that are added, each followed to its end. Not for several threads.

    Every digest that is met as a row, a child or a subject is in one of `facts` (manifests), `leaves` (content that
    references nothing, with its size, or -1 if it is not there), `faults` and `absent` (subjects that are not there, as
    they may be: distribution-spec, "Push"); a manifest that is called something unknown is a fault, too.
    """

    def __init__(self, read: Read, before: Earlier | None = None, each: Each | None = None) -> None:
        """`before`: its manifests are not read again, and its absent subjects are not looked for; it is dropped when
        all rows were added. `each`: makes many reads side by side, where a read takes its time."""
        self._read, self._each = read, each
        self._ahead: dict[str, KnownFacts | Exception] = {}
        """What was read before its turn; to the end of what is being followed, for then it may be another."""
        self.before = before
        self.known: dict[str, KnownFacts] = {}
        self.facts: dict[str, ManifestFacts] = {}
        self.leaves: dict[str, int] = {}
        self.faults: dict[str, Fault] = {}
        self.absent: set[str] = set()
        self._claims: dict[str, Mapping[str, bool]] = {}
        """By digest all media types that it is called, and whether by more than its referrers."""
        self._same_claims: dict[tuple[tuple[str, bool], ...], Mapping[str, bool]] = {}
        """Most have the same."""
        self._needed: set[str] = set()
        """What must be there: rows and children, and not what is a subject only."""
        self._only_subjects: set[str] = set()
        """What is a subject only, there or absent."""
        self._named, self._referrers = Citations(), Multimap[str, str]()
        """Who needs a blob or a manifest, and which manifests have a subject."""
        self._sizes = Multimap[str, int]()
        """What rows say, and of manifests that were read, what they have."""
        self._said: dict[str, int] = {}
        """Sizes that were found to be said, for the next one who asks."""

    def add(self, rows: Iterable[Reference]) -> None:
        """Add rows, which must be there, and follow everything that they lead to."""
        listed = list(rows)
        for row in listed:
            self._sizes.add(row.digest, row.size)
        with self._reading_ahead():
            self._follow([(row, True) for row in listed])

    def again(self, *, absent: bool = True) -> None:
        """Look again at what could not be read and, with `absent`, for what was absent and may be."""
        gone = [*self.absent, *(digest for digest, size in self.leaves.items() if size < 0)] if absent else []
        looked_at = [*self.faults, *gone]
        with self._reading_ahead():
            for start in range(0, len(looked_at), READ_AHEAD_MANIFESTS):
                some = looked_at[start : start + READ_AHEAD_MANIFESTS]
                self._read_ahead([digest for digest in some if is_called_manifest(self._claims[digest])])
                for digest in some:
                    self._look_again(digest)

    def look_for(self, digest: str) -> None:
        """Look again if this is an absent subject: it may have been pushed since, even as a blob."""
        if digest in self.absent:
            self._look_again(digest)

    @contextmanager
    def _reading_ahead(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._ahead.clear()

    def _look_again(self, digest: str) -> None:
        self.known.pop(digest, None)
        children, subjects = self._settle(digest)
        self._follow([*((child, True) for child in children), *((subject, False) for subject in subjects)])

    def _follow(self, todo: list[tuple[Reference, bool]]) -> None:
        """Follow subjects last: by then it is known whether one of them is needed as well."""
        subjects: list[Reference] = []
        while todo or subjects:
            self._look_ahead(todo, subjects)
            reference, needed = todo.pop() if todo else (subjects.pop(), False)
            if self._is_news(reference, needed):
                children, more = self._settle(reference.digest)
                todo += [(child, True) for child in children]
                subjects += more

    def _look_ahead(self, todo: list[tuple[Reference, bool]], subjects: list[Reference]) -> None:
        """If the next one has to be read, read those that come after it as well. Only what is called a manifest, and
        none that is large, since all of them are kept until their turn."""
        if self._each is not None and self._is_unread(todo[-1][0] if todo else subjects[-1]):
            some = [one for one, _ in todo[-READ_AHEAD_MANIFESTS:]] or subjects[-READ_AHEAD_MANIFESTS:]
            self._read_ahead(list({one.digest: None for one in some if self._is_unread(one)}))

    def _is_unread(self, reference: Reference) -> bool:
        digest, claim = reference.digest, essence(reference.media_type)
        before = self.before
        met = digest in self._claims or digest in self._ahead
        met = met or (before is not None and (digest in before.known or digest in before.absent))
        return not met and (not claim or is_manifest_type(claim)) and reference.size <= LARGEST_READ_AHEAD_BYTES

    def _read_ahead(self, digests: Sequence[str]) -> None:
        if self._each is not None and len(digests) > 1:
            self._each([partial(self._keep, digest) for digest in digests])

    def _keep(self, digest: str) -> None:
        """Read one manifest ahead. An error is kept, and raised when its turn comes."""
        try:
            parsed = parse_digest(digest)
            self._ahead[digest] = understand(self._read(parsed, True), parsed)
        except (StorageError, ManifestInvalid, DigestInvalid, Unusable) as error:
            self._ahead[digest] = error

    def _is_news(self, reference: Reference, needed: bool) -> bool:
        """Note a reference. True: it may change what is known of the digest, so that is looked at again."""
        digest, claim = reference.digest, essence(reference.media_type)
        claims = self._claims.get(digest, {})
        news = claim not in claims or (needed and digest in self.absent)
        if claim not in claims or (needed and not claims[claim]):
            more = {**claims, claim: needed}
            self._claims[digest] = self._same_claims.setdefault(tuple(more.items()), more)
        if needed:
            self._needed.add(digest)
            self._only_subjects.discard(digest)
        elif digest not in self._needed:
            self._only_subjects.add(digest)
        return news

    def _settle(self, digest: str) -> tuple[Sequence[Reference], Sequence[Reference]]:
        """Find out what a digest is. Returns the children and subjects to follow."""
        followed = digest in self.facts
        for answers in (self.facts, self.leaves, self.faults):
            answers.pop(digest, None)
        self.absent.discard(digest)
        facts, leaf, fault = self._look(digest)
        if facts is not None:
            self.facts[digest] = facts
        if leaf is not None:
            self.leaves[digest] = leaf
        if fault is not None:
            self._enter_fault(digest, fault)
        if facts is None or followed:
            return (), ()
        self._connect(digest, facts)
        return facts.children, facts.subjects

    def _enter_fault(self, digest: str, fault: Fault) -> None:
        if digest not in self._needed and _is_gone(fault):
            self.absent.add(digest)
        elif fault.kind == MISSING and all(map(is_plain, self._claims[digest])):
            self.leaves[digest] = -1  # a layer that is not there is no more of a fault than one of an image
        else:
            self.faults[digest] = fault

    def _look(self, digest: str) -> ManifestNode:
        known_as, before = self.known.get(digest), self.before
        if known_as is None and before is not None:
            if digest in self._needed:
                known_as = before.known.get(digest)
            elif digest in before.absent:  # one that was there may have gone since
                return ManifestNode(fault=Fault(digest, MISSING, "the manifest is not there"))
        read, ahead = self._read, self._ahead.pop(digest, None)
        if isinstance(ahead, KnownFacts):
            known_as = known_as or ahead
        elif ahead is not None:
            read = partial(_fail, ahead)
        node, learnt = look_at(digest, self._claims[digest], read, known_as)
        if learnt is not None:
            self.known[digest] = learnt
        return node

    def _connect(self, digest: str, facts: ManifestFacts) -> None:
        self._sizes.add(digest, facts.size)
        self._named.enter(digest, facts.blobs, facts.children)
        for subject in facts.subjects:
            self._referrers.add(subject.digest, digest)

    # -- answers ----------------------------------------------------------------------------------

    def reachable(self) -> Digests:
        """Every digest that the added rows keep: a copy, in which nothing changes any more."""
        found = Digests()
        for some in (self.facts, self.leaves, self.faults, self.absent):
            found.update(some)
        self._named.put_into(found)
        return found

    def reaches(self, digest: str) -> bool:
        """Is this digest reachable?"""
        return digest in self._claims or digest in self._named

    def below(self, digest: str, done: set[str]) -> Iterator[str]:
        """The manifests and faults that a digest leads to: each after what it lists and refers to, so the digest itself
        comes last. Those in `done` are skipped; the others are added to it."""
        todo = [(digest, False)]
        while todo:
            current, after = todo.pop()
            if after:
                yield current
            elif current not in done and (current in self.facts or current in self.faults):
                done.add(current)
                todo.append((current, True))
                facts = self.facts.get(current)
                todo += [(one.digest, False) for one in (*facts.subjects, *facts.children)] if facts else []

    def is_needed(self, digest: str) -> bool:
        """Must it be there? What is only a subject may be missing."""
        return digest in self._needed

    def only_subjects(self) -> set[str]:
        """The manifests that are here as subjects only: when one is deleted, no index.json tells."""
        return {digest for digest in self._only_subjects if digest in self.facts}

    def parents(self, digest: str) -> list[str]:
        """The manifests that need this blob or manifest, in the order of their digests."""
        return sorted({parent for parent, _ in self._named.of(digest)})

    def is_used_beside(self, digest: str, these: Container[str]) -> bool:
        """Does a manifest that is not among `these` need this blob or manifest? Ends at the first one."""
        return any(parent not in these for parent, _ in self._named.of(digest))

    def referrers(self, subject: str) -> list[str]:
        """The manifests whose subject this is, in the order of their digests."""
        return sorted(self._referrers.get(subject))

    def users(self, digest: str) -> list[str]:
        """Parents and referrers: while one of them is kept, so is this digest."""
        return sorted({*self.parents(digest), *self._referrers.get(digest)})

    def sizes(self, digest: str) -> set[int]:
        """What rows and manifests say, and of a manifest that was read, what it has."""
        return {*self._sizes.get(digest), *(size for _, size in self._named.of(digest))}

    def says(self, digest: str, size: int) -> bool | None:
        """Is that among its `sizes`? None: there are none. Quick where it is so."""
        if self._said.get(digest) == size:
            return True
        known = False
        for said in chain(self._sizes.get(digest), (size for _, size in self._named.of(digest))):
            known = True
            if said == size:
                if len(self._said) >= SAID_KEPT:
                    self._said.clear()
                self._said[digest] = size
                return True
        return False if known else None

    def media_type(self, digest: str) -> str | None:
        """The media type to serve a manifest with that has no row. None: no such manifest is reachable."""
        facts = self.facts.get(digest)
        if facts is None or facts.stated:
            return facts.media_type if facts else None
        fitting = sorted(claim for claim in self._claims[digest] if claim and not contradicts(facts, claim))
        return fitting[0] if fitting else facts.media_type

    def claims(self, digest: str) -> list[str]:
        """The media types that rows and parents give it. What a referrer calls its subject does not count."""
        return sorted(claim for claim, counts in self._claims.get(digest, {}).items() if claim and counts)

    def contradiction(self, digest: str) -> str | None:
        """A message if a row or an index calls a manifest something else than its bytes say."""
        facts = self.facts.get(digest)
        wrong = [claim for claim in self.claims(digest) if facts and contradicts(facts, claim)]
        return f"it is listed as {' and '.join(map(quoted, wrong))} and {called(facts)}" if facts and wrong else None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Each manifest that a row or an index calls something else than its bytes say, with a message."""
        yield from ((digest, reason) for digest in self.facts if (reason := self.contradiction(digest)) is not None)


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
        self._rows = Names()
        self._states: dict[str, Generation | None] = {}
        """Of the files that could not be read; None: there was none."""
        self._verified: Lru[str, int] = Lru(SIZES_KEPT)
        self._told: Lru[str, set[int]] = Lru(SIZES_KEPT)
        self.unsaid: Lru[str, float] = Lru(UNSAID_KEPT)
        """When no manifest told how long a blob is, by `clock.elapsed`."""
        self._read_stored = reader_of(protocol, name)
        self._each = protocol.each if protocol.index_costs_request else None
        self._graph = ManifestGraph(self._read, each=self._each)

    @contextmanager
    def at(self, index: Index, *, again: bool = False, certain: bool = False) -> Iterator[ManifestGraph]:
        """The graph of this index, of which the manifests that are new are read: O(what changed). No other thread
        brings it to another before the questions inside are answered.

        `again`: look once more at all that could not be read, and for all that is a subject only. What was healed,
        came as a blob, or was deleted by another process, changes no index.json. `certain`: by bytes that this process
        has read and hashed.
        """
        with self._mutex:
            if certain:
                self._forget_recalled()
            if again and any(self._state(digest) is None for digest in self._graph.only_subjects()):
                self._begin()
            if not self.is_fresh(index):
                self._learn(index)
            if again:
                self._graph.again()
                self._note(index)
            yield self._graph

    def is_fresh(self, index: Index) -> bool:
        """Is this the graph of that index? Decided without reading a manifest."""
        seen = self._seen
        return seen is not None and seen[0] is index and seen[1] == index.edits and not self._healed()

    def _healed(self) -> bool:
        """Has a file changed that could not be read? A push may heal it without changing index.json."""
        some = islice(tuple(self._states.items()), FAULTS_CHECKED)
        return any(self._state(digest) != state for digest, state in some)

    def _state(self, digest: str) -> Generation | None:
        try:
            return self._protocol.blobs.generation(self._name, parse_digest(digest))
        except DigestInvalid:
            return None

    def _learn(self, index: Index) -> None:
        now = index.by_digest
        if any(digest not in now for digest in now.changed_since(self._rows) if digest in self._rows):
            self._begin()  # rows went: begin anew, from what is known already
        else:
            self._graph.again(absent=False)
        changed = now.changed_since(self._rows)
        new = [digest for digest in changed if digest in now and now.get(digest) != self._rows.get(digest)]
        rows = (row for digest in new for row in index.rows_of(digest))
        recalled = self._recall(len(new))
        self._graph.add(Reference(str(row.digest), row.size, row.media_type) for row in rows)
        if recalled is not None:
            recalled.keep(self._graph.known)
        self._graph.before, self._rows = None, now.copy()
        self._note(index)

    def _recall(self, manifests: int) -> Recalled | None:
        """Before anything is read for the first time."""
        if not self._recalls or self._graph.known or self._graph.before is not None:
            return None
        recalled = self._protocol.recall(self._name, manifests)
        if recalled is not None:
            self._graph.before = Earlier(recalled.known, frozenset())
            self._recalled = set(recalled.known)
        return recalled

    def _forget_recalled(self) -> None:
        self._recalls = False
        if self._recalled:
            read = {digest: known for digest, known in self._graph.known.items() if digest not in self._recalled}
            self._seen, self._rows, self._states, self._recalled = None, Names(), {}, set()
            self._graph = ManifestGraph(self._read, Earlier(read, set()), self._each)

    def _begin(self) -> None:
        self._seen, self._rows, self._states = None, Names(), {}
        self._graph = ManifestGraph(self._read, Earlier(self._graph.known, self._graph.absent), self._each)

    def _note(self, index: Index) -> None:
        self._states = {digest: state for digest, state in self._states.items() if digest in self._graph.faults}
        # What could not be read may be readable the next time: then look again.
        self._seen = None if self._unreadable() else (index, index.edits)

    def _read(self, digest: Digest, whole: bool) -> Content:
        """Remembers the state of a file that can't be read."""
        state = None if self._protocol.index_costs_request else self._state(digest)
        try:
            return self._read_stored(digest, whole)
        except (StorageError, ManifestInvalid):
            # Where a look costs a request, it is made for what is damaged only.
            self._states[digest] = self._state(digest) if self._protocol.index_costs_request else state
            raise

    def forget(self, digest: str) -> None:
        """Forget a manifest whose bytes were deleted, which changes no index.json if it had no row."""
        with self._mutex:
            if self._graph.reaches(digest):
                self._begin()

    # -- answers --------------------------------------------------------------------------------

    def known_facts(self, digest: str) -> KnownFacts | None:
        """What its bytes say, if they were read."""
        return self._graph.known.get(digest)

    def note_verified(self, digest: str, size: int) -> None:
        """Note that a blob was hashed here: this is its size, whatever a manifest says."""
        self._verified.put(digest, size)

    def is_verified(self, digest: str, size: int) -> bool:
        """Were bytes of this length hashed here, and right?"""
        return self._verified.get(digest) == size

    def agrees(self, digest: str, size: int) -> bool | None:
        """Does the size agree with what was hashed here, or with what the manifests say (I2)? None: not known."""
        if (true := self._verified.get(digest)) is not None:
            return size == true
        if (said := self._graph.says(digest, size)) is not None:
            return said
        told = self._told.get(digest)
        return size in told if told else None

    def note_served(self, digest: Digest, body: bytes) -> None:
        """Note the sizes that a served manifest gives for its blobs, so that the others need not be read for them."""
        if digest in self._graph.facts or self._told.get(digest) is not None:
            return
        self._told.put(digest, {len(body)})
        facts = understand(Content(len(body), body), digest).facts
        for reference in facts.references if facts else ():
            sizes = self._told.get(reference.digest) or set()
            self._told.put(reference.digest, sizes | {reference.size})

    def unread(self, index: Index) -> int:
        """How many rows of this index were never read."""
        now = index.by_digest
        return sum(digest in now and digest not in self._rows for digest in now.changed_since(self._rows))

    def referrers(self, subject: str) -> list[Descriptor]:
        """In the order of their digests, so that a page can go on where the last one ended."""
        with self._mutex:
            graph = self._graph
            found = [(graph.facts[digest], graph.media_type(digest)) for digest in graph.referrers(subject)]
        return [
            msgspec.structs.replace(facts.referrer, media_type=media_type or facts.referrer.media_type)
            for facts, media_type in found
            if facts.referrer is not None
        ]

    def references(self) -> int:
        """The number of references that it remembers: its weight in the cache."""
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
    """The graphs of one root's repositories, as many as memory allows, the latest used first. Thread-safe."""

    def __init__(self, protocol: StoreProtocol) -> None:
        self._protocol = protocol
        self._kept: Lru[str, RepositoryGraph] = Lru(REFERENCES_KEPT)

    def of(self, name: str) -> RepositoryGraph:
        """The graph of a repository, made anew if it was not among those that were kept."""
        found = self._kept.get(name)
        if found is None:
            found = RepositoryGraph(self._protocol, name, recalls=True)
            self._kept.put(name, found, LEAST_WEIGHT)
        return found

    def weigh(self, name: str) -> None:
        """Weigh a graph again after it was read, so that large graphs push out others."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.put(name, found, max(LEAST_WEIGHT, found.references()))


def reader_of(protocol: StoreProtocol, name: str) -> Read:
    """The content of one repository, for a graph."""

    def read(digest: Digest, whole: bool) -> Content:
        with protocol.blobs.open_manifest(name, digest) as reader:
            return read_content(reader, digest, whole)

    return read


def read_verified(protocol: StoreProtocol, name: str, digest: Digest) -> bytes:
    """The bytes of a manifest, hashed (I2). Raises NotFound, Damaged, ManifestInvalid."""
    return reader_of(protocol, name)(digest, True).body or b""


def reach(start: Iterable[str], facts: Mapping[str, ManifestFacts]) -> Digests:
    """Everything that these digests lead to, themselves included: what is kept with them."""
    reachable, followed = Digests(), set[str]()
    todo = list(start)
    while todo:
        digest = todo.pop()
        reachable.add(digest)
        # What one manifest calls a layer may be a manifest by its row, so being there does not mean being followed.
        if digest not in followed and (found := facts.get(digest)) is not None:
            followed.add(digest)
            found.blobs.put_into(reachable)
            todo.extend(one.digest for one in (*found.children, *found.subjects))
    return reachable


def _is_gone(fault: Fault) -> bool:
    """Not there, or with a digest that can't be computed here, so that nothing that is here has it."""
    try:
        parse_digest(fault.digest)
    except DigestInvalid:
        return True
    return fault.kind == MISSING


def _fail(error: Exception, digest: Digest, whole: bool) -> Content:
    raise error
