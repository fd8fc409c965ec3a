"""What the specifications ask of an index and of a manifest, as remarks: all of them, not the first only. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from zotctl.errors import ManifestInvalid, quoted
from zotctl.jobs.report import Kind
from zotctl.oci.codec import decode
from zotctl.oci.descriptor import Descriptor, validate
from zotctl.oci.manifest import DOCKER_COMPAT, check_manifest
from zotctl.oci.media_types import OCI_INDEX, is_artifact, is_docker, is_index
from zotctl.oci.readings import irregular_descriptor
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME
from zotctl.storage.facts import ManifestFacts
from zotctl.storage.index import Index, Row

DESCRIPTOR = 'image-spec, descriptor.md, "Properties"'
LAYOUT_FILE_SPEC = 'image-spec, image-layout.md, "oci-layout file"'
CONTENT = 'image-spec, image-layout.md, "Content"'
INDEX = 'image-spec, image-index.md, "Image Index Property Descriptions"'
MANIFEST = 'image-spec, manifest.md, "Image Manifest Property Descriptions"'
DOCKER = "Docker Image Manifest Version 2, Schema 2"

SPECS: dict[Kind, str] = {
    "digest_mismatch": 'image-spec, descriptor.md, "Verification"',
    "size_mismatch": DESCRIPTOR,
    "stub": DESCRIPTOR,
    "missing_blob": 'image-spec, image-layout.md, "Blobs"',
    "missing_manifest": 'image-spec, image-layout.md, "Blobs"',
    "invalid_manifest": MANIFEST,
    "media_type_mismatch": DESCRIPTOR,
    "unknown_media_type": 'image-spec, image-layout.md, "index.json file"',
    "bad_ref_name": 'image-spec, annotations.md, "Pre-Defined Annotation Keys"',
    "duplicate_tag": 'image-spec, image-layout.md, "index.json file"',
    "invalid_layout": LAYOUT_FILE_SPEC,
    "invalid_index": INDEX,
    "bad_name": 'distribution-spec, "Pulling manifests"',
}
"""Where the rule stands that a finding of a kind breaks, unless a remark names a nearer place."""

# annotations.md, org.opencontainers.image.ref.name: "A valid reference matches the following grammar"
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_is_ref_name = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*").fullmatch


class Remark(NamedTuple):
    """One thing that is wrong. `tags` None: all through which the digest is met."""

    kind: Kind
    reason: str
    digest: str | None = None
    tags: tuple[str, ...] | None = None
    spec: str | None = None
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def rule(self) -> str | None:
        return self.spec or SPECS.get(self.kind)

    @property
    def text(self) -> str:
        return f"{self.reason} ({self.rule})" if self.rule else self.reason


class _Head(msgspec.Struct, rename="camel"):
    """The fields of an index beside its rows."""

    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class _NamedRow(msgspec.Struct):
    annotations: dict[str, Any] | None = None


_HEAD = msgspec.json.Decoder(_Head)
_ROW = msgspec.json.Decoder(Descriptor)
_NAMED = msgspec.json.Decoder(_NamedRow)


def index_remarks(index: Index) -> Iterator[Remark]:
    """Whatever an index.json that can be parsed still gets wrong."""
    yield from _head(index)
    for place, row in enumerate(index.rows()):
        yield from _row(row, f"manifests[{place}]")
        yield from _name(index, row)
    yield from _duplicates(index)


def _head(index: Index) -> Iterator[Remark]:
    try:
        head = decode(_HEAD, index.render(), "index.json")
    except ManifestInvalid as error:
        yield Remark("invalid_index", error.message)
        return
    # image-index.md, mediaType: "when used, this field MUST contain the media type
    # application/vnd.oci.image.index.v1+json"
    if head.media_type not in (None, OCI_INDEX):
        yield Remark("invalid_index", f"mediaType is {quoted(head.media_type or '')}, not {OCI_INDEX}")


def _row(row: Row, where: str) -> Iterator[Remark]:
    tags = (row.tag,) if row.tag else None if row.digest else ()
    if row.digest is None and (reason := irregular_descriptor(row.raw)) is not None:
        yield Remark("invalid_index", f"index.json: {where} has {reason}", None, tags, DESCRIPTOR)
        return
    try:
        validate(decode(_ROW, row.raw, where), where)
    except ManifestInvalid as error:
        yield Remark("invalid_index", f"index.json: {error.message}", row.digest, tags, DESCRIPTOR)
        return
    if (digest := uncomputable(row)) is not None:
        reason = f"index.json: {where} has {not_computed(digest)}"
        yield Remark("unreadable", reason, digest, (), 'image-spec, descriptor.md, "Registered algorithms"')


def uncomputable(row: Row) -> str | None:
    """The digest of a valid row whose algorithm is not one of ours: it may be right, so it is no damage."""
    if row.digest is not None or irregular_descriptor(row.raw) is not None:
        return None
    try:
        found = decode(_ROW, row.raw, "index.json")
        validate(found, "index.json")
    except ManifestInvalid:
        return None
    return found.digest


def not_computed(digest: str) -> str:
    return f"a digest of an algorithm that can't be computed here: {quoted(digest)}"


def _name(index: Index, row: Row) -> Iterator[Remark]:
    """The reading rule: a tag, else the tag within a full name if that is unique, else no tag."""
    name = _ref_name(row)
    if name is None:
        return
    shown = f"the name {quoted(name)}"
    if row.tag is not None:
        if not _is_ref_name(name):
            yield Remark("bad_ref_name", f"{shown} is a tag, but against the grammar of names: some tools refuse it",
                         row.digest, (row.tag,))  # fmt: skip
    elif row.alias is None:
        yield Remark("bad_ref_name", f"{shown} is no tag and holds none: only the digest leads here", row.digest)
    elif index.find(row.alias) is None:
        reason = f"{shown} would be the tag {row.alias}, and so would that of another row: neither has it"
        yield Remark("bad_ref_name", reason, row.digest)
    else:
        yield Remark("bad_ref_name", f"{shown} is no tag: it answers to {row.alias}", row.digest, (row.alias,))


def _ref_name(row: Row) -> str | None:
    if row.digest is None or not (REF_NAME.encode() in row.raw or CONTAINERD_NAME.encode() in row.raw):
        return None
    annotations = _NAMED.decode(row.raw).annotations or {}
    name = annotations.get(REF_NAME, annotations.get(CONTAINERD_NAME))
    return name if isinstance(name, str) else None


def _duplicates(index: Index) -> Iterator[Remark]:
    for tag in index.duplicate_tags():
        digests = [str(row.digest) for row in index.rows() if row.tag == tag]
        reason = f"{len(digests)} rows have the tag {tag}: {', '.join(digests[:5])}; the last one counts"
        yield Remark("duplicate_tag", reason, digests[-1], (tag,), details={"digests": digests})


def manifest_remarks(body: bytes, facts: ManifestFacts, digest: str) -> Iterator[Remark]:
    """The strict rules, for a manifest that can be read; what it is called elsewhere is told from the graph."""
    if is_artifact(facts.media_type):
        return  # its rules are in no release of the specification
    spec = DOCKER if is_docker(facts.media_type) else INDEX if is_index(facts.media_type) else MANIFEST
    try:
        check_manifest(body, facts.media_type, compat=frozenset({DOCKER_COMPAT}))
    except ManifestInvalid as error:
        if error.message not in facts.irregular:  # that is told from the graph, too
            yield Remark("invalid_manifest", error.message, digest, spec=spec)
