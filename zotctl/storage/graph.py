"""The one graph of manifests: who references what, as the bytes say it, whatever they are called.

Everything that asks what is needed asks here: collection, deletion, a GET by digest, referrers, scrub, verify, import.
A node is looked at once, and what its bytes say depends on nothing but them. What rows, descriptors and the body itself
call it are its claims: all are kept, one that contradicts the body is told, and none makes a reference disappear (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Protocol

from zotctl.errors import Damaged, DigestInvalid, ManifestInvalid, MediaTypeUnknown, NotFound, StorageError, quoted
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.oci.media_types import essence, is_artifact, is_image, is_index, is_plain, known
from zotctl.oci.readings import may_reference
from zotctl.storage.driver import Reader

LARGEST_MANIFEST = 64 << 20
MISSING = "missing_manifest"
"""The kind of a fault: it is not there."""
DAMAGED = "the manifest is damaged: it answers 404 until it is healed"
AHEAD = 64
"""Manifests that are asked for at once, where each of them is a request."""
LARGEST_AHEAD = 4 << 20
SMALL = 1 << 20
"""Bytes of content that is hashed before it is believed to be no manifest; of larger content the beginning decides."""

BEGINNING = 512
"""Bytes that tell what may be JSON from what is not."""

_NO_SIZES: set[int] = set()
_BLANK = b" \t\r\n\xef\xbb\xbf"


class Reference(NamedTuple):
    """One edge: what a manifest, or a row of index.json, names, with the size and the media type that it says."""

    digest: str
    size: int
    media_type: str


class ManifestFacts(NamedTuple):
    """What the bytes of one manifest say."""

    media_type: str
    """Its own, or if it has none (`stated` is False) what its shape tells."""
    stated: bool
    size: int
    blobs: tuple[Reference, ...]
    children: tuple[Reference, ...]
    subjects: tuple[Reference, ...]
    referrer: Descriptor | None
    """How the referrers API describes it; only of those that have a subject."""
    irregular: tuple[str, ...] = ()
    """Why some programs read it otherwise than others."""

    @property
    def subject(self) -> str | None:
        return self.subjects[0].digest if self.subjects else None

    @property
    def references(self) -> Iterator[Reference]:
        """Everything that keeping it keeps."""
        yield from self.blobs
        yield from self.children
        yield from self.subjects


class Fault(NamedTuple):
    """Content of which it can't be known what it references."""

    digest: str
    kind: str
    reason: str

    @property
    def may_pass(self) -> bool:
        """Another look may find something else: it was pushed, healed, or the storage answers again."""
        return self.kind in (MISSING, "digest_mismatch", "unreadable")


class Unusable(Exception):
    """Content of a source that is not what it should be: `Read` raises it, and it becomes a fault."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


# -- what bytes say -------------------------------------------------------------------------------


class Content(NamedTuple):
    """What was read of a digest. `body` None: it begins like nothing that is JSON, or is larger than any manifest."""

    size: int
    body: bytes | None


Each = Callable[[Sequence[Callable[[], None]]], object]
"""Makes all of these calls, side by side, and returns when all are over."""

Read = Callable[[Digest, bool], Content]
"""The verified content of a digest. True: it is called a manifest, so all of it is wanted, and what is too large for
one is refused. Raises NotFound, Damaged, ManifestInvalid, StorageError or Unusable."""


def read_content(reader: Reader, digest: Digest, whole: bool) -> Content:
    """As a `Read` does, from an open blob: hashed, but for what is no manifest by its beginning and large.

    Raises Damaged, ManifestInvalid, StorageError.
    """
    size = reader.size
    if size > LARGEST_MANIFEST:
        if whole:
            raise ManifestInvalid(f"{digest} has {size} bytes, too many for a manifest")
        return Content(size, None)
    if not whole and size > SMALL and not is_like_json(reader.read_at(0, BEGINNING)):
        return Content(size, None)
    body = reader.read_at(0, size)
    if digest_of(body, digest.algorithm) != digest:
        raise Damaged(f"{digest} is damaged: its content has another digest")
    return Content(size, body)


def is_like_json(beginning: bytes) -> bool:
    """May what begins with these bytes be JSON, for any program?"""
    text = beginning.lstrip(_BLANK)
    return text[:1] in (b"{", b"[") or not text


class KnownFacts(NamedTuple):
    """What is kept of a digest for as long as anything leads to it: a function of its bytes."""

    size: int
    facts: ManifestFacts | None = None
    error: ManifestInvalid | None = None
    is_text: bool = False
    """It may be JSON, so a program may find something in it."""
    has_references: bool = False
    """No manifest, and yet where a manifest has its references there is a digest."""


def understand(content: Content, digest: Digest) -> KnownFacts:
    """What bytes say, with no regard to what a row or an index calls them."""
    body = content.body
    if body is None or not is_like_json(body[:BEGINNING]) or not body.strip(_BLANK):
        return KnownFacts(content.size)
    try:
        return KnownFacts(content.size, facts_of(read_manifest(body, digest)))
    except ManifestInvalid as error:
        return KnownFacts(content.size, None, error, True, may_reference(body))


def facts_of(manifest: Manifest) -> ManifestFacts:
    subjects = tuple(map(_reference, manifest.subjects))
    referrer = None
    if subjects:
        referrer = Descriptor(
            media_type=manifest.media_type,
            digest=str(manifest.digest),
            size=manifest.size,
            annotations=manifest.annotations,
            artifact_type=manifest.referrer_type,
        )
    return ManifestFacts(
        manifest.media_type,
        manifest.stated,
        manifest.size,
        tuple(map(_reference, manifest.blobs)),
        tuple(map(_reference, manifest.children)),
        subjects,
        referrer,
        manifest.irregular,
    )


def _reference(descriptor: Descriptor) -> Reference:
    return Reference(descriptor.digest, descriptor.size, descriptor.media_type)


class ManifestNode(NamedTuple):
    """What is at the end of an edge: a manifest, content that references nothing, or a fault, because of which it can't
    be known what it references; for a manifest that is called something unknown, that and what is known of it."""

    facts: ManifestFacts | None = None
    leaf: int | None = None
    """Its size."""
    fault: Fault | None = None


def look_at(
    digest: str, claims: Collection[str], read: Read, known_as: KnownFacts | None = None
) -> tuple[ManifestNode, KnownFacts | None]:  # fmt: skip
    """What the content is that is called `claims`, and what is to be remembered of its bytes."""
    whole = _is_whole(claims)
    try:
        if known_as is None or (whole and known_as.facts is None):
            known_as = understand(read(parse_digest(digest), whole), parse_digest(digest))
        return _node(known_as, digest, claims), known_as
    except Damaged:
        # A subject too: it is there, and what it needs once it is healed is not to be collected meanwhile.
        fault = Fault(digest, "digest_mismatch", DAMAGED)
    except NotFound:
        fault = Fault(digest, MISSING, "the manifest is not there")
    except (ManifestInvalid, DigestInvalid) as error:
        fault = Fault(digest, "invalid_manifest", error.message)
    except StorageError as error:
        fault = Fault(digest, "unreadable", error.message)
    except Unusable as error:
        fault = Fault(digest, error.kind, error.reason)
    return ManifestNode(fault=fault), None


def _is_whole(claims: Iterable[str]) -> bool:
    """Does a row or an index call it a manifest?"""
    return any(not claim or known(claim) for claim in claims)


def _fail(error: Exception, digest: Digest, whole: bool) -> Content:
    raise error


def _node(known_as: KnownFacts, digest: str, claims: Iterable[str]) -> ManifestNode:
    """A leaf is what is never called a manifest, if its bytes are no JSON, so that there is no descriptor in them; or
    if all call it a layer or a config, in which no client follows references, and it has no descriptors where a
    manifest has them. JSON of a type that is not known here may reference something by fields not known either.
    """
    facts, error = known_as.facts, known_as.error
    strange = [claim for claim in claims if claim and not known(claim) and not is_plain(claim)]
    is_manifest = facts is not None or any(not claim or known(claim) for claim in claims)
    is_plain_json = not strange and not known_as.has_references
    if not is_manifest and (is_plain_json or not known_as.is_text):
        return ManifestNode(leaf=known_as.size)
    if strange or isinstance(error, MediaTypeUnknown):
        reason = f"{digest} has the unknown media type {quoted(strange[0])}" if strange else str(error)
        return ManifestNode(
            facts, fault=Fault(digest, "unknown_media_type", f"{reason}: what it references is not known")
        )
    if facts is None:
        reason = error.message if error else f"{digest} is not JSON, so it is no manifest"
        return ManifestNode(fault=Fault(digest, "invalid_manifest", reason))
    return ManifestNode(facts)


def called(facts: ManifestFacts) -> str:
    """How it is told what a manifest is."""
    return f"calls itself {quoted(facts.media_type)}" if facts.stated else f"is {_shape(facts.media_type)}"


def contradicts(facts: ManifestFacts, claim: str) -> bool:
    """Does the body contradict `claim`, the type that a row or an index gives? By its own type, or else by its
    shape."""
    if not claim:
        return False
    if facts.stated:
        return essence(claim) != facts.media_type
    return _shape(essence(claim)) != _shape(facts.media_type)


def _is_gone(fault: Fault) -> bool:
    """Not there, or with a digest that can't be computed here, so that nothing that is here has it."""
    try:
        parse_digest(fault.digest)
    except DigestInvalid:
        return True
    return fault.kind == MISSING


def _shape(media_type: str) -> str:
    shapes = (("an index", is_index), ("an image", is_image), ("an artifact", is_artifact))
    return next((shape for shape, fits in shapes if fits(media_type)), "no manifest")


def reach(start: Iterable[str], facts: Mapping[str, ManifestFacts]) -> set[str]:
    """Everything that these digests lead to, themselves included: what is kept with them."""
    reachable: set[str] = set()
    todo = list(start)
    while todo:
        digest = todo.pop()
        if digest in reachable:
            continue
        reachable.add(digest)
        if (found := facts.get(digest)) is not None:
            reachable.update(reference.digest for reference in found.blobs)
            todo.extend(one.digest for one in (*found.children, *found.subjects))
    return reachable


# -- the graph ------------------------------------------------------------------------------------


class Before(Protocol):
    """What was learnt earlier of the same content."""

    @property
    def known(self) -> Mapping[str, KnownFacts]: ...
    @property
    def absent(self) -> Set[str]: ...


class Earlier(NamedTuple):
    known: Mapping[str, KnownFacts]
    absent: Set[str]


class ManifestGraph:
    """Grows by the references that are added, each followed to its end. Not for several threads.

    Every digest that is met as a row, a child or a subject is in one of `facts` (manifests), `leaves` (content that
    references nothing, with its size, or -1 if it is not there), `faults` and `absent` (subjects that are not there, as
    they may be: distribution-spec, "Push"); a manifest that is called something unknown is a fault, too.
    """

    def __init__(self, read: Read, before: Before | None = None, each: Each | None = None) -> None:
        """`before`: such as another graph over the same content; its manifests are not read again, and its absent
        subjects are not looked for; it is let go when all rows were added. `each`: where a read takes its time, by
        which many are made side by side."""
        self._read, self._each = read, each
        self._ahead: dict[str, KnownFacts | Exception] = {}
        """What was read before its turn; to the end of what is being followed, for then it may be another."""
        self.before = before
        self.known: dict[str, KnownFacts] = {}
        self.facts: dict[str, ManifestFacts] = {}
        self.leaves: dict[str, int] = {}
        self.faults: dict[str, Fault] = {}
        self.absent: set[str] = set()
        self._claims: dict[str, dict[str, bool]] = {}
        """By digest all media types that it is called, and whether by more than its referrers."""
        self._needed: set[str] = set()
        """What must be there: rows and children, and not what is a subject only."""
        self._parents: dict[str, list[str]] = {}
        self._referrers: dict[str, list[str]] = {}
        self._sizes: dict[str, set[int]] = {}

    def add(self, rows: Iterable[Reference]) -> None:
        """Follow these, which must be there, and all that they lead to."""
        listed = list(rows)
        for row in listed:
            self._sizes.setdefault(row.digest, set()).add(row.size)
        with self._reading_ahead():
            self._follow([(row, True) for row in listed])

    def again(self, *, absent: bool = True) -> None:
        """Look once more at what could not be read and, with `absent`, for what need not be there and was not."""
        gone = [*self.absent, *(digest for digest, size in self.leaves.items() if size < 0)] if absent else []
        looked_at = [*self.faults, *gone]
        with self._reading_ahead():
            for start in range(0, len(looked_at), AHEAD):
                some = looked_at[start : start + AHEAD]
                self._read_ahead([digest for digest in some if _is_whole(self._claims[digest])])
                for digest in some:
                    self._look_again(digest)

    def look_for(self, digest: str) -> None:
        """Look once more, if this is a subject that was not there: it may have come, as a blob too."""
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
        """Subjects last: one that is needed, too, is known to be needed by then."""
        subjects: list[Reference] = []
        while todo or subjects:
            self._look_ahead(todo, subjects)
            reference, needed = todo.pop() if todo else (subjects.pop(), False)
            if self._is_news(reference, needed):
                children, more = self._settle(reference.digest)
                todo += [(child, True) for child in children]
                subjects += more

    def _look_ahead(self, todo: list[tuple[Reference, bool]], subjects: list[Reference]) -> None:
        """If the next one is to be read, read those with it that come after. Only what is called a manifest, and no
        large ones, for all are kept for a moment."""
        if self._each is not None and self._is_unread(todo[-1][0] if todo else subjects[-1]):
            some = [one for one, _ in todo[-AHEAD:]] or subjects[-AHEAD:]
            self._read_ahead(list({one.digest: None for one in some if self._is_unread(one)}))

    def _is_unread(self, reference: Reference) -> bool:
        digest, claim = reference.digest, essence(reference.media_type)
        before = self.before
        met = digest in self._claims or digest in self._ahead
        met = met or (before is not None and (digest in before.known or digest in before.absent))
        return not met and (not claim or known(claim)) and reference.size <= LARGEST_AHEAD

    def _read_ahead(self, digests: Sequence[str]) -> None:
        if self._each is not None and len(digests) > 1:
            self._each([partial(self._keep, digest) for digest in digests])

    def _keep(self, digest: str) -> None:
        """Whatever goes wrong is told in its turn."""
        try:
            parsed = parse_digest(digest)
            self._ahead[digest] = understand(self._read(parsed, True), parsed)
        except (StorageError, ManifestInvalid, DigestInvalid, Unusable) as error:
            self._ahead[digest] = error

    def _is_news(self, reference: Reference, needed: bool) -> bool:
        """May what is known now be another result?"""
        digest, claim = reference.digest, essence(reference.media_type)
        claims = self._claims.setdefault(digest, {})
        news = claim not in claims or (needed and digest in self.absent)
        claims[claim] = claims.get(claim, False) or needed
        if needed:
            self._needed.add(digest)
        return news

    def _settle(self, digest: str) -> tuple[Sequence[Reference], Sequence[Reference]]:
        """Find out what it is. Returns what is to be followed: children, subjects."""
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
        self._sizes.setdefault(digest, set()).add(facts.size)
        for reference in (*facts.blobs, *facts.children):
            self._parents.setdefault(reference.digest, []).append(digest)
            self._sizes.setdefault(reference.digest, set()).add(reference.size)
        for subject in facts.subjects:
            self._referrers.setdefault(subject.digest, []).append(digest)

    # -- answers ----------------------------------------------------------------------------------

    def reachable(self) -> set[str]:
        """All that is kept with what was added."""
        return {*self.facts, *self.leaves, *self.faults, *self.absent, *self._parents}

    def reaches(self, digest: str) -> bool:
        """Is it among those?"""
        return digest in self._claims or digest in self._parents

    def below(self, digest: str, done: set[str]) -> Iterator[str]:
        """The manifests and faults that it leads to: each after what it lists and refers to, this one last. `done` is
        passed over and grows."""
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

    def parents(self, digest: str) -> list[str]:
        """The manifests that need this blob or manifest, in the order of their digests."""
        return sorted(set(self._parents.get(digest, ())))

    def referrers(self, subject: str) -> list[str]:
        """The manifests whose subject this is, in the order of their digests."""
        return sorted(set(self._referrers.get(subject, ())))

    def users(self, digest: str) -> list[str]:
        """Both: while one of them is kept, so is this."""
        return sorted({*self._parents.get(digest, ()), *self._referrers.get(digest, ())})

    def sizes(self, digest: str) -> set[int]:
        """What rows and manifests say, and of a manifest that was read, what it has. Not to be changed."""
        return self._sizes.get(digest, _NO_SIZES)

    def media_type(self, digest: str) -> str | None:
        """What a manifest is served as that no row names; None: it is no manifest that is reached from here."""
        facts = self.facts.get(digest)
        if facts is None or facts.stated:
            return facts.media_type if facts else None
        fitting = sorted(claim for claim in self._claims[digest] if claim and not contradicts(facts, claim))
        return fitting[0] if fitting else facts.media_type

    def claims(self, digest: str) -> list[str]:
        """All that rows and parents call it. A referrer may call its subject what it likes: nothing is read by that."""
        return sorted(claim for claim, counts in self._claims.get(digest, {}).items() if claim and counts)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Each manifest that a row or an index calls something else than its bytes say, and how that is told."""
        for digest, facts in self.facts.items():
            if wrong := [claim for claim in self.claims(digest) if contradicts(facts, claim)]:
                yield digest, f"it is listed as {' and '.join(map(quoted, wrong))} and {called(facts)}"
