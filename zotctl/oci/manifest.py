"""Manifests: image-spec, manifest.md and image-index.md; distribution-spec, section "Pushing Manifests"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from zotctl.errors import ManifestInvalid
from zotctl.oci.codec import MAX_DEPTH, check_text, decode
from zotctl.oci.descriptor import Descriptor, validate
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    essence,
    is_docker,
    is_image,
    is_media_type,
    known,
)
from zotctl.oci.quoting import quoted

DOCKER_COMPAT = "docker2s2"

_OCI_TYPES = (OCI_MANIFEST, OCI_INDEX)
_DOCKER_TYPES = (DOCKER_MANIFEST, DOCKER_LIST)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest of any kind says, without its bytes. `size` is that of the bytes.

    `artifact_type` is the manifest's own field; what the referrers API reports is `referrer_type`.
    """

    digest: Digest
    media_type: str
    size: int
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers, in this order."""
        return (self.config, *self.layers) if self.config else self.layers

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that an index lists."""
        return self.manifests

    @property
    def referrer_type(self) -> str | None:
        """The artifactType in a list of referrers: distribution-spec, section "Listing Referrers"."""
        # "If the artifactType is empty or missing in the image manifest, the value of artifactType MUST be
        # set to the config descriptor mediaType value. If the artifactType is empty or missing in an index,
        # the artifactType MUST be omitted."
        return self.artifact_type or (self.config.media_type if self.config else None)


class _Document(msgspec.Struct, rename="camel", gc=False):
    schema_version: int | None = None
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class _Image(_Document, gc=False):
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None


class _Index(_Document, gc=False):
    manifests: tuple[Descriptor, ...] | None = None


class _Hints(msgspec.Struct, rename="camel"):
    """The fields from which the type of a manifest can be told when nobody names it."""

    media_type: str | None = None
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()


_IMAGE = msgspec.json.Decoder(_Image)
_INDEX = msgspec.json.Decoder(_Index)
_HINTS = msgspec.json.Decoder(_Hints)


def read_manifest(body: bytes, media_type: str, digest: Digest) -> Manifest:
    """What a stored manifest says, by whomever it was written; `digest` is taken on trust.

    An empty `media_type` is told from the content. Raises ManifestInvalid if `body` is no JSON of the right
    shape, or the type is none that we know, so that what it references can't be known either.
    """
    media_type = essence(media_type) or _told_type(body)
    if not known(media_type):
        raise ManifestInvalid(f"{digest} has the unknown media type {quoted(media_type)}")
    return _manifest(_document(body, media_type), media_type, digest, len(body))


def check_manifest(
    body: bytes,
    content_type: str,
    *,
    compat: frozenset[str] = frozenset(),
    algorithm: str = "sha256",
    max_depth: int = MAX_DEPTH,
) -> Manifest:
    """What a pushed manifest says, if the specifications allow it; its digest is computed with `algorithm`.

    `content_type` is the header as sent, or empty; `compat` may hold "docker2s2". Raises ManifestInvalid,
    or DigestInvalid for an algorithm that is not supported.
    """
    # "The registry SHOULD ignore parameters on the Content-Type header."
    media_type = essence(content_type) or decode(_HINTS, body, "the manifest").media_type or ""
    _check_accepted(media_type, compat)
    document = _document(body, media_type)
    check_text(body, "the manifest", max_depth)
    _check_document(document, media_type)
    manifest = _manifest(document, media_type, digest_of(body, algorithm), len(body))
    for descriptor, where in _descriptors(manifest):
        validate(descriptor, where)
    return manifest


def _told_type(body: bytes) -> str:
    hints = decode(_HINTS, body, "the manifest")
    if hints.media_type:
        return hints.media_type
    if hints.manifests:
        return OCI_INDEX
    return OCI_MANIFEST if hints.config or hints.layers else ""


def _document(body: bytes, media_type: str) -> _Image | _Index:
    if is_image(media_type):
        return decode(_IMAGE, body, "the manifest")
    return decode(_INDEX, body, "the manifest")


def _manifest(document: _Image | _Index, media_type: str, digest: Digest, size: int) -> Manifest:
    image, index = (document, None) if isinstance(document, _Image) else (None, document)
    return Manifest(
        digest=digest,
        media_type=media_type,
        size=size,
        config=image.config if image else None,
        layers=image.layers or () if image else (),
        manifests=index.manifests or () if index else (),
        subject=document.subject,
        artifact_type=document.artifact_type or None,
        annotations=document.annotations,
    )


def _check_accepted(media_type: str, compat: frozenset[str]) -> None:
    accepted = _OCI_TYPES + _DOCKER_TYPES if DOCKER_COMPAT in compat else _OCI_TYPES
    if media_type in accepted:
        return
    if is_docker(media_type):
        reason = f'is accepted only with `compat = ["{DOCKER_COMPAT}"]` in the configuration'
    else:
        reason = "is not a manifest" if media_type else "no Content-Type and no mediaType field"
    subject = f"{quoted(media_type)} " if media_type else ""
    raise ManifestInvalid(f"{subject}{reason}; accepted are {', '.join(accepted)}", list(accepted))


def _check_document(document: _Image | _Index, media_type: str) -> None:
    # manifest.md, schemaVersion: "this MUST be 2 to ensure backward compatibility"
    if document.schema_version != 2:
        raise ManifestInvalid(f"schemaVersion: must be 2, not {_shown(document.schema_version)}")
    # "If a manifest includes a mediaType field, clients MUST set the Content-Type header to the value
    # specified by the mediaType field."
    if document.media_type and document.media_type != media_type:
        raise ManifestInvalid(f"mediaType: is {quoted(document.media_type)}, but it was pushed as {media_type}")
    # manifest.md, artifactType: "If defined, the value MUST comply with RFC 6838"
    if document.artifact_type and not is_media_type(document.artifact_type):
        raise ManifestInvalid(f"artifactType: {quoted(document.artifact_type)} is not a media type of RFC 6838")
    if isinstance(document, _Image):
        _check_image(document)
    # image-index.md, manifests: "While this property MUST be present, the size of the array MAY be zero."
    elif document.manifests is None:
        raise ManifestInvalid("manifests: an index must have this array, which may be empty")


def _check_image(image: _Image) -> None:
    # manifest.md, config: "This REQUIRED property references a configuration object for a container"
    if image.config is None:
        raise ManifestInvalid("config: an image manifest must have this descriptor")
    # manifest.md, layers: "array of objects"; it is required by schema/image-manifest-schema.json.
    if image.layers is None:
        raise ManifestInvalid("layers: an image manifest must have this array, which may be empty")
    # manifest.md, artifactType: "This MUST be set when config.mediaType is set to the empty value."
    if image.config.media_type == EMPTY and not image.artifact_type:
        raise ManifestInvalid(f"artifactType: must be set when config.mediaType is {EMPTY}")


def _descriptors(manifest: Manifest) -> Iterator[tuple[Descriptor, str]]:
    if manifest.config:
        yield manifest.config, "config"
    for position, descriptor in enumerate(manifest.layers):
        yield descriptor, f"layers[{position}]"
    for position, descriptor in enumerate(manifest.manifests):
        yield descriptor, f"manifests[{position}]"
    if manifest.subject:
        yield manifest.subject, "subject"


def _shown(version: int | None) -> str:
    return "absent" if version is None else quoted(str(version))
