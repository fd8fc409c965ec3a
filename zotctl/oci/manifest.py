"""Manifests: image-spec, manifest.md and image-index.md; distribution-spec, section "Pushing Manifests"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from zotctl.errors import ManifestInvalid, MediaTypeUnknown, quoted
from zotctl.oci.codec import MAX_DEPTH, check_text, decode
from zotctl.oci.descriptor import ABSENT, Descriptor, validate
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import (
    ARTIFACT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    essence,
    is_docker,
    is_image,
    is_manifest_type,
    is_media_type,
)
from zotctl.oci.readings import OtherReadings, other_readings

DOCKER_COMPAT = "docker2s2"

_OCI_TYPES = (OCI_MANIFEST, OCI_INDEX)
_DOCKER_TYPES = (DOCKER_MANIFEST, DOCKER_LIST)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the bytes of a manifest say, whatever a row or an index calls them. `size`: how many bytes they are.

    It has the fields of every shape, whichever type it has: config and layers, manifests, and as `artifacts` the
    `blobs` of an artifact manifest. `media_type`: its own (then `stated`), or else the one that its shape implies.
    `artifact_type` is the manifest's own field; what the referrers API reports is `referrer_type`.
    `more`: references that other programs read (`oci.readings`), each with its field. `irregular`: why programs may
    read different things in it.
    """

    digest: Digest
    media_type: str
    size: int
    stated: bool = False
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    artifacts: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    more: tuple[tuple[str, Descriptor], ...] = ()
    irregular: tuple[str, ...] = ()

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers, in this order; the blobs of an artifact manifest."""
        return tuple(one for one in self._contents() if not is_manifest_type(essence(one.media_type)))

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that an index lists, and what is called a manifest among layers and blobs."""
        listed = (*self.manifests, *(one for field, one in self.more if field == "manifests"))
        return (*listed, *(one for one in self._contents() if is_manifest_type(essence(one.media_type))))

    @property
    def subjects(self) -> tuple[Descriptor, ...]:
        """Its subject; several if the field is repeated."""
        others = (one for field, one in self.more if field == "subject")
        return (self.subject, *others) if self.subject else tuple(others)

    @property
    def referrer_type(self) -> str | None:
        """The artifactType in a list of referrers: distribution-spec, section "Listing Referrers"."""
        # "If the artifactType is empty or missing in the image manifest, the value of artifactType MUST be
        # set to the config descriptor mediaType value. If the artifactType is empty or missing in an index,
        # the artifactType MUST be omitted."
        return self.artifact_type or (self.config.media_type if self.config else None)

    def _contents(self) -> Iterator[Descriptor]:
        if self.config:
            yield self.config
        yield from self.layers
        yield from self.artifacts
        yield from (one for field, one in self.more if field not in ("manifests", "subject"))


class _Document(msgspec.Struct, rename="camel", gc=False):
    schema_version: int | None = None
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class _Shape(msgspec.Struct, rename="camel"):
    """Which fields there are, whatever is in them."""

    media_type: str | None = None
    config: msgspec.Raw = ABSENT
    layers: msgspec.Raw = ABSENT
    manifests: msgspec.Raw = ABSENT
    blobs: msgspec.Raw = ABSENT
    fs_layers: msgspec.Raw = ABSENT


_DOCUMENT = msgspec.json.Decoder(_Document)
_DESCRIPTORS = msgspec.json.Decoder(tuple[Descriptor, ...])
_SHAPE = msgspec.json.Decoder(_Shape)


def read_manifest(body: bytes, digest: Digest) -> Manifest:
    """Read a stored manifest, whichever tool wrote it. `digest` is not checked.

    The result depends on the bytes alone. Raises ManifestInvalid if they are no JSON of the right shape, and
    MediaTypeUnknown if they have a type or a shape that may reference more than we know of.
    """
    document, shape = decode(_DOCUMENT, body, "the manifest"), decode(_SHAPE, body, "the manifest")
    return _manifest(document, shape, other_readings(body), digest, len(body))


def _manifest(document: _Document, shape: _Shape, others: OtherReadings, digest: Digest, size: int) -> Manifest:
    own = essence(document.media_type or "")
    for name in {own, *others.types} - {""}:
        if not is_manifest_type(name):
            raise MediaTypeUnknown(f"{digest} has the unknown media type {quoted(name)}")
    if shape.fs_layers or "fsLayers" in others.fields:
        raise MediaTypeUnknown(f"{digest} has fsLayers, as a manifest of schema 1: what it references is not known")
    media_type = own or _told_type(shape, others.fields)
    if not media_type:
        raise MediaTypeUnknown(f"{digest} has neither a mediaType nor the fields of a manifest")
    return Manifest(
        digest=digest,
        media_type=media_type,
        size=size,
        stated=bool(own),
        config=document.config,
        layers=document.layers or (),
        manifests=document.manifests or (),
        artifacts=_artifacts(shape, media_type),
        subject=document.subject,
        artifact_type=document.artifact_type or None,
        annotations=document.annotations,
        more=tuple(others.references),
        irregular=(*others.reasons, *_ambiguous(shape)),
    )


def check_manifest(
    body: bytes,
    content_type: str,
    *,
    compat: frozenset[str] = frozenset(),
    algorithm: str = "sha256",
    max_depth: int = MAX_DEPTH,
    strict: bool = False,
) -> Manifest:
    """Read a pushed manifest by the strict rules of the specifications; its digest is computed with `algorithm`.

    Not `strict`: media types may have parameters, and `null` stands for an empty array, as Go programs write it.

    `content_type` is the header as sent, or empty; `compat` may hold "docker2s2". Raises ManifestInvalid,
    or DigestInvalid for an algorithm that is not supported.
    """
    # "The registry SHOULD ignore parameters on the Content-Type header."
    media_type = essence(content_type) or decode(_SHAPE, body, "the manifest").media_type or ""
    _check_accepted(media_type, compat)
    document = decode(_DOCUMENT, body, "the manifest")
    check_text(body, "the manifest", max_depth)
    # "If a manifest includes a mediaType field, clients MUST set the Content-Type header to the value
    # specified by the mediaType field."
    stated = document.media_type if strict else essence(document.media_type or "")
    if stated and stated != media_type:
        raise ManifestInvalid(f"mediaType: is {quoted(document.media_type or '')}, but it was pushed as {media_type}")
    shape, others = decode(_SHAPE, body, "the manifest"), other_readings(body)
    for reason in (*others.reasons, *_ambiguous(shape)):
        raise ManifestInvalid(reason)
    _check_document(document, shape, media_type, strict)
    manifest = replace(_manifest(document, shape, others, digest_of(body, algorithm), len(body)), media_type=media_type)
    for descriptor, where in _descriptors(manifest):
        validate(descriptor, where, strict=strict)
    return manifest


def _told_type(shape: _Shape, fields: Iterable[str]) -> str:
    if shape.manifests or "manifests" in fields:
        return OCI_INDEX
    if shape.config or shape.layers or "config" in fields or "layers" in fields:
        return OCI_MANIFEST
    return ARTIFACT if _is_given(shape.blobs) else ""


def _artifacts(shape: _Shape, media_type: str) -> tuple[Descriptor, ...]:
    """The `blobs` of an artifact manifest. Other manifests have no such property: descriptors in it are followed, and
    anything else is ignored (image-spec, considerations.md, "Extensibility")."""
    if not _is_given(shape.blobs):
        return ()
    try:
        return decode(_DESCRIPTORS, bytes(shape.blobs), "the manifest's blobs")
    except ManifestInvalid:
        if media_type == ARTIFACT:
            raise
        return ()


def _is_given(field: msgspec.Raw) -> bool:
    return bytes(field) not in (b"", b"null")


def _ambiguous(shape: _Shape) -> Iterator[str]:
    # image-spec, advisory GHSA-77vh-xpmg-72qh: one body that is an index for some and an image for others.
    others = [name for name in ("config", "layers") if _is_given(getattr(shape, name))]
    if others and _is_given(shape.manifests):
        yield f"manifests: stands beside {others[0]}: some programs read an index, and others an image"


def _check_accepted(media_type: str, compat: frozenset[str]) -> None:
    accepted = _OCI_TYPES + _DOCKER_TYPES if DOCKER_COMPAT in compat else _OCI_TYPES
    if media_type in accepted:
        return
    if is_docker(media_type):
        # What users of an engine without containerd's image store meet first: one sentence that says what to do.
        raise ManifestInvalid(
            f"{quoted(media_type)} is a type of Docker's, which this registry takes if it is started with"
            f' `--compat {DOCKER_COMPAT}` (in its configuration: `compat = ["{DOCKER_COMPAT}"]`)',
            list(accepted),
        )
    reason = "is not a manifest" if media_type else "no Content-Type and no mediaType field"
    subject = f"{quoted(media_type)} " if media_type else ""
    raise ManifestInvalid(f"{subject}{reason}; accepted are {', '.join(accepted)}", list(accepted))


def _check_document(document: _Document, shape: _Shape, media_type: str, strict: bool) -> None:
    # manifest.md, schemaVersion: "this MUST be 2 to ensure backward compatibility"
    if document.schema_version != 2:
        raise ManifestInvalid(f"schemaVersion: must be 2, not {_shown(document.schema_version)}")
    # manifest.md, artifactType: "If defined, the value MUST comply with RFC 6838"
    if document.artifact_type and not is_media_type(document.artifact_type, parameters=not strict):
        raise ManifestInvalid(f"artifactType: {quoted(document.artifact_type)} is not a media type of RFC 6838")
    if is_image(media_type):
        _check_image(document, shape, strict)
    # image-index.md, manifests: "While this property MUST be present, the size of the array MAY be zero."
    elif document.manifests is None and (strict or not shape.manifests):
        raise ManifestInvalid("manifests: an index must have this array, which may be empty")


def _check_image(image: _Document, shape: _Shape, strict: bool) -> None:
    # manifest.md, config: "This REQUIRED property references a configuration object for a container"
    if image.config is None:
        raise ManifestInvalid("config: an image manifest must have this descriptor")
    # manifest.md, layers: "array of objects"; it is required by schema/image-manifest-schema.json.
    if image.layers is None and (strict or not shape.layers):
        raise ManifestInvalid("layers: an image manifest must have this array, which may be empty")
    # manifest.md, artifactType: "This MUST be set when config.mediaType is set to the empty value."
    if image.config.media_type == EMPTY and not image.artifact_type:
        raise ManifestInvalid(f"artifactType: must be set when config.mediaType is {EMPTY}")


def _descriptors(manifest: Manifest) -> Iterator[tuple[Descriptor, str]]:
    if manifest.config:
        yield manifest.config, "config"
    for name, listed in (("layers", manifest.layers), ("manifests", manifest.manifests), ("blobs", manifest.artifacts)):
        for position, descriptor in enumerate(listed):
            yield descriptor, f"{name}[{position}]"
    if manifest.subject:
        yield manifest.subject, "subject"


def _shown(version: int | None) -> str:
    return "absent" if version is None else quoted(str(version))
