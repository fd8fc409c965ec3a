"""Descriptors: image-spec, descriptor.md."""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from zotctl.errors import DigestInvalid, ManifestInvalid, quoted
from zotctl.oci.digest import ALGORITHMS, check_digest, digest_of
from zotctl.oci.media_types import is_media_type

ABSENT = msgspec.Raw()

_SIZE_LIMIT = 2**63
_MAX_CHECKED_DATA = 65536
_is_uri = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*").fullmatch


class Descriptor(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """A reference to content, as it stands in a manifest: decoded for its types, checked by `validate`.

    `size` is in bytes. `platform` is the raw JSON, empty (false) if absent; it keeps the whole document it
    came from in memory, so `copy()` it when keeping it for long. Unknown fields are ignored.
    """

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    artifact_type: str | None = None
    platform: msgspec.Raw = ABSENT


def validate(descriptor: Descriptor, where: str, *, strict: bool = True) -> None:
    """Check what descriptor.md says of a single descriptor; raises ManifestInvalid, which names `where`.

    Not `strict`: media types may have parameters, as clients send them that ask a system for the type of a file.
    """
    # mediaType: "Values MUST comply with RFC 6838, including the naming requirements in its section 4.2."
    if not is_media_type(descriptor.media_type, parameters=not strict):
        raise ManifestInvalid(f"{where}.mediaType: {quoted(descriptor.media_type)} is not a media type of RFC 6838")
    # Digests: "Implementations SHOULD allow digests with unrecognized algorithms to pass validation"
    try:
        check_digest(descriptor.digest)
    except DigestInvalid as cause:
        raise ManifestInvalid(f"{where}.digest: {cause.message}") from None
    # size: "int64 [...] The size MUST NOT be negative."
    if not 0 <= descriptor.size < _SIZE_LIMIT:
        raise ManifestInvalid(f"{where}.size: {quoted(str(descriptor.size))} is not between 0 and 2^63-1")
    if descriptor.urls or descriptor.data is not None or descriptor.artifact_type or descriptor.platform:
        _validate_optional(descriptor, where, strict)


def _validate_optional(descriptor: Descriptor, where: str, strict: bool) -> None:
    # urls: "Each entry MUST conform to RFC 3986."
    for url in descriptor.urls or ():
        if not _is_uri(url):
            raise ManifestInvalid(f"{where}.urls: {quoted(url)} is not a URI of RFC 3986")
    # artifactType: "If defined, the value MUST comply with RFC 6838"
    if descriptor.artifact_type and not is_media_type(descriptor.artifact_type, parameters=not strict):
        raise ManifestInvalid(
            f"{where}.artifactType: {quoted(descriptor.artifact_type)} is not a media type of RFC 6838"
        )
    # image-index.md, platform: "object"
    if bytes(descriptor.platform)[:1] not in (b"", b"{", b"n"):
        raise ManifestInvalid(f"{where}.platform: is not an object")
    # data: "The decoded data MUST be identical to the referenced content"
    if descriptor.data is not None and not _embeds(descriptor, descriptor.data):
        raise ManifestInvalid(
            f"{where}.data: is not the Base64 encoding of {descriptor.size} bytes of {descriptor.digest}"
        )


def _embeds(descriptor: Descriptor, data: str) -> bool:
    if len(data) != (descriptor.size + 2) // 3 * 4:
        return False
    if descriptor.size > _MAX_CHECKED_DATA:
        return True
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    algorithm = descriptor.digest.partition(":")[0]
    return len(content) == descriptor.size and (
        algorithm not in ALGORITHMS or digest_of(content, algorithm) == descriptor.digest
    )
