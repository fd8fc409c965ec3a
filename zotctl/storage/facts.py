"""What the bytes of one manifest say: its facts, whatever rows, descriptors and the manifest itself call it.

Content is read once, and its facts depend on its bytes alone. The media types that it is called by are claims: a claim
that contradicts the body is reported, and none makes a reference disappear (I5). `storage.graph` joins the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from zotctl.errors import Damaged, DigestInvalid, ManifestInvalid, MediaTypeUnknown, NotFound, StorageError, quoted
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.oci.media_types import essence, is_artifact, is_image, is_index, is_manifest_type, is_plain
from zotctl.oci.readings import may_reference
from zotctl.storage.driver import Reader
from zotctl.storage.references import NONE, Reference, References

LARGEST_MANIFEST_BYTES = 64 << 20
MISSING = "missing_manifest"
"""The kind of a fault: it is not there."""
DAMAGED_REASON = "the manifest is damaged: it answers 404 until it is healed"
SMALL_CONTENT_BYTES = 1 << 20
"""Content up to here is hashed before it is believed to be no manifest; of larger content the beginning decides."""

BEGINNING_BYTES = 512
"""Bytes that are enough to tell whether content may be JSON."""

_BLANK = b" \t\r\n\xef\xbb\xbf"


class ManifestFacts(NamedTuple):
    """What the bytes of one manifest say."""

    media_type: str
    """Its own, or if it has none (`stated` is False) what its shape tells."""
    stated: bool
    size: int
    blobs: References
    children: References
    subjects: tuple[Reference, ...]
    referrer: Descriptor | None
    """How the referrers API describes it; only of those that have a subject."""
    irregular: tuple[str, ...] = ()
    """Why some programs read it otherwise than others."""

    def digests(self) -> Iterator[str]:
        """Those of `references`."""
        yield from self.blobs.digests()
        yield from self.children.digests()
        yield from (subject.digest for subject in self.subjects)

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
    """A source has content that is not what it should be. A `Read` raises it, and it becomes a fault."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


# -- what bytes say -------------------------------------------------------------------------------


class Content(NamedTuple):
    """What was read of a digest. `body` None: it begins like nothing that is JSON, or is larger than any manifest."""

    size: int
    body: bytes | None


Read = Callable[[Digest, bool], Content]
"""The verified content of a digest. True: it is called a manifest, so all of it is wanted, and what is too large for
one is refused. Raises NotFound, Damaged, ManifestInvalid, StorageError or Unusable."""


def read_content(reader: Reader, digest: Digest, whole: bool) -> Content:
    """A `Read` of an open blob. The content is hashed, unless it is large and does not begin like a manifest.

    Raises Damaged, ManifestInvalid, StorageError.
    """
    size = reader.size
    if size > LARGEST_MANIFEST_BYTES:
        if whole:
            raise ManifestInvalid(f"{digest} has {size} bytes, too many for a manifest")
        return Content(size, None)
    if not whole and size > SMALL_CONTENT_BYTES and not is_like_json(reader.read_at(0, BEGINNING_BYTES)):
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
    """What is remembered of a digest while anything leads to it. It depends on the bytes alone."""

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
    if body is None or not is_like_json(body[:BEGINNING_BYTES]) or not body.strip(_BLANK):
        return KnownFacts(content.size)
    try:
        return KnownFacts(content.size, facts_of(read_manifest(body, digest)))
    except ManifestInvalid as error:
        return KnownFacts(content.size, None, error, True, may_reference(body))


def facts_of(manifest: Manifest) -> ManifestFacts:
    """The facts of a manifest that was read."""
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
        _references(manifest.blobs),
        _references(manifest.children),
        subjects,
        referrer,
        manifest.irregular,
    )


def _references(descriptors: Iterable[Descriptor]) -> References:
    return References(map(_reference, descriptors)) or NONE


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
    """Find out what the content is that is called by `claims`, and what to remember of its bytes."""
    whole = is_called_manifest(claims)
    try:
        if known_as is None or (whole and known_as.facts is None):
            known_as = understand(read(parse_digest(digest), whole), parse_digest(digest))
        return _node(known_as, digest, claims), known_as
    except Damaged:
        # A subject too: it is there, and what it needs once it is healed is not to be collected meanwhile.
        fault = Fault(digest, "digest_mismatch", DAMAGED_REASON)
    except NotFound:
        fault = Fault(digest, MISSING, "the manifest is not there")
    except (ManifestInvalid, DigestInvalid) as error:
        fault = Fault(digest, "invalid_manifest", error.message)
    except StorageError as error:
        fault = Fault(digest, "unreadable", error.message)
    except Unusable as error:
        fault = Fault(digest, error.kind, error.reason)
    return ManifestNode(fault=fault), None


def is_called_manifest(claims: Iterable[str]) -> bool:
    """Does a row or an index call it a manifest?"""
    return any(not claim or is_manifest_type(claim) for claim in claims)


def _node(known_as: KnownFacts, digest: str, claims: Iterable[str]) -> ManifestNode:
    """A leaf is what is never called a manifest, if its bytes are no JSON, so that there is no descriptor in them; or
    if all call it a layer or a config, in which no client follows references, and it has no descriptors where a
    manifest has them. JSON of a type that is not known here may reference something by fields not known either.
    """
    facts, error = known_as.facts, known_as.error
    strange = [claim for claim in claims if claim and not is_manifest_type(claim) and not is_plain(claim)]
    is_manifest = facts is not None or any(not claim or is_manifest_type(claim) for claim in claims)
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
    """What a manifest is, for a message."""
    return f"calls itself {quoted(facts.media_type)}" if facts.stated else f"is {_shape(facts.media_type)}"


def contradicts(facts: ManifestFacts, claim: str) -> bool:
    """Does the body contradict `claim`, the type that a row or an index gives? By its own type, or else by its
    shape."""
    if not claim:
        return False
    if facts.stated:
        return essence(claim) != facts.media_type
    return _shape(essence(claim)) != _shape(facts.media_type)


def _shape(media_type: str) -> str:
    shapes = (("an index", is_index), ("an image", is_image), ("an artifact", is_artifact))
    return next((shape for shape, fits in shapes if fits(media_type)), "no manifest")
