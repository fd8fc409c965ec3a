"""Checks an index and a manifest by the rules of the specifications, and finds all that is wrong. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from zotctl.errors import ManifestInvalid, quoted
from zotctl.jobs.finding import ALGORITHMS_SPEC, DESCRIPTOR_SPEC, DOCKER_SPEC, INDEX_SPEC, MANIFEST_SPEC, Finding
from zotctl.oci.codec import decode
from zotctl.oci.descriptor import Descriptor, validate
from zotctl.oci.manifest import DOCKER_COMPAT, check_manifest
from zotctl.oci.media_types import OCI_INDEX, is_artifact, is_docker, is_index
from zotctl.oci.readings import irregular_descriptor
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME
from zotctl.storage.facts import ManifestFacts
from zotctl.storage.index import Index
from zotctl.storage.rows import Row

# annotations.md, org.opencontainers.image.ref.name: "A valid reference matches the following grammar"
_NAME_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_is_ref_name = re.compile(rf"{_NAME_PART}(?:/{_NAME_PART})*").fullmatch


class _Head(msgspec.Struct, rename="camel"):
    """The fields of an index beside its rows."""

    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class _NamedRow(msgspec.Struct):
    annotations: dict[str, Any] | None = None


_decode_head = msgspec.json.Decoder(_Head)
_decode_row = msgspec.json.Decoder(Descriptor)
_decode_named = msgspec.json.Decoder(_NamedRow)


TagsOf = Callable[[str], tuple[str, ...]]
"""The tags whose clients meet a digest."""


def index_findings(name: str, index: Index, tags_of: TagsOf) -> Iterator[Finding]:
    """The rules that an index.json breaks although it can be parsed."""
    try:
        head = decode(_decode_head, index.render(), "index.json")
    except ManifestInvalid as error:
        yield Finding(name, None, "invalid_index", error.message)
    else:
        # image-index.md, mediaType: "when used, this field MUST contain the media type
        # application/vnd.oci.image.index.v1+json"
        if head.media_type not in (None, OCI_INDEX):
            reason = f"mediaType is {quoted(head.media_type or '')}, not {OCI_INDEX}"
            yield Finding(name, None, "invalid_index", reason)
    for place, row in enumerate(index.rows()):
        yield from _row_findings(name, row, f"manifests[{place}]", tags_of)
        yield from _name_findings(name, index, row, tags_of)
    for tag in index.duplicate_tags():
        digests = [str(row.digest) for row in index.rows() if row.tag == tag]
        reason = f"{len(digests)} rows have the tag {tag}: {', '.join(digests[:5])}; the last one counts"
        yield Finding(name, digests[-1], "duplicate_tag", reason, (tag,), details={"digests": digests})


def _row_findings(name: str, row: Row, where: str, tags_of: TagsOf) -> Iterator[Finding]:
    if row.digest is None and (irregular := irregular_descriptor(row.raw)) is not None:
        reason = f"index.json: {where} has {irregular}"
        yield Finding(name, None, "invalid_index", reason, (row.tag,) if row.tag else (), spec=DESCRIPTOR_SPEC)
        return
    try:
        validate(decode(_decode_row, row.raw, where), where)
    except ManifestInvalid as error:
        reason = f"index.json: {error.message}"
        tags = (row.tag,) if row.tag else tags_of(row.digest) if row.digest else ()
        yield Finding(name, row.digest, "invalid_index", reason, tags, spec=DESCRIPTOR_SPEC)
        return
    if (digest := uncomputable(row)) is not None:
        reason = f"index.json: {where} has {not_computed(digest)}"
        yield Finding(name, digest, "unreadable", reason, spec=ALGORITHMS_SPEC)


def uncomputable(row: Row) -> str | None:
    """The digest of a valid row, if its algorithm can't be computed here: it may be right, so it is no damage."""
    if row.digest is not None or irregular_descriptor(row.raw) is not None:
        return None
    try:
        found = decode(_decode_row, row.raw, "index.json")
        validate(found, "index.json")
    except ManifestInvalid:
        return None
    return found.digest


def not_computed(digest: str) -> str:
    """The words for such a digest in a reason."""
    return f"a digest of an algorithm that can't be computed here: {quoted(digest)}"


def _name_findings(name: str, index: Index, row: Row, tags_of: TagsOf) -> Iterator[Finding]:
    """The findings about the name in a row: it should be a tag; a full name counts as its tag if that is unique."""
    written = _ref_name(row)
    if written is None or row.digest is None:
        return
    shown = f"the name {quoted(written)}"
    if row.tag is not None and _is_ref_name(written):
        return
    tag = row.tag or row.alias
    tags = (tag,) if tag else tags_of(row.digest)
    if row.tag is not None:
        reason = f"{shown} is a tag, but against the grammar of names: some tools refuse it"
    elif row.alias is None:
        reason = f"{shown} is no tag and holds none: only the digest leads here"
    elif index.find(row.alias) is None:
        tags = tags_of(row.digest)
        reason = f"{shown} would be the tag {row.alias}, and so would that of another row: neither has it"
    else:
        reason = f"{shown} is no tag: it answers to {row.alias}"
    yield Finding(name, row.digest, "bad_ref_name", reason, tags)


def _ref_name(row: Row) -> str | None:
    if row.digest is None or not (REF_NAME.encode() in row.raw or CONTAINERD_NAME.encode() in row.raw):
        return None
    annotations = _decode_named.decode(row.raw).annotations or {}
    name = annotations.get(REF_NAME, annotations.get(CONTAINERD_NAME))
    return name if isinstance(name, str) else None


def manifest_findings(name: str, body: bytes, facts: ManifestFacts, digest: str) -> Iterator[Finding]:
    """The rules for pushed manifests that a stored one breaks. The findings have no tags yet: those are known when all
    manifests have been read."""
    if is_artifact(facts.media_type):
        return  # its rules are in no release of the specification
    spec = DOCKER_SPEC if is_docker(facts.media_type) else INDEX_SPEC if is_index(facts.media_type) else MANIFEST_SPEC
    try:
        check_manifest(body, facts.media_type, compat=frozenset({DOCKER_COMPAT}), strict=True)
    except ManifestInvalid as error:
        if error.message not in facts.irregular:  # which the check of the graph reports
            yield Finding(name, digest, "invalid_manifest", error.message, spec=spec)
