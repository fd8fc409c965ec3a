"""Which tag a row of index.json has, by whichever tool it was written, and which digest a tag names.

image-spec, image-layout.md: "No semantic restriction is given for the org.opencontainers.image.ref.name
annotation of descriptors." Some tools write the bare tag, some a full name, some the full name beside it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from zotctl.errors import DigestInvalid
from zotctl.oci.digest import parse_digest
from zotctl.oci.reference import is_tag

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
OLAREG_SUBJECT = "org.olareg.referrer.subject"
"""Annotation of a row: the manifest lists the referrers of this digest, as the referrers API answers them."""

KEPT_DIGITS = 64
"""distribution-spec, "Referrers Tag Schema": so many characters of the encoded part are kept in a tag."""
_is_digest_tag = re.compile(r"(sha256|sha512|blake3)-([a-f0-9]{64,128})((?:[._-].*)?)").fullmatch
_FULL = {"sha256": 64, "sha512": 128, "blake3": 64}


class DigestTag(NamedTuple):
    """A tag that names a digest, because its manifest is about what has that digest.

    The referrers fallback tag `sha256-HEX` (distribution-spec, "Referrers Tag Schema"), cosign's `sha256-HEX.sig`,
    `.att` and `.sbom`, and what other tools put behind it. `digest` is a digest, or the beginning of one.
    """

    digest: str
    suffix: str

    def names(self, digest: str) -> bool:
        """Is this the digest that it names?"""
        return digest.startswith(self.digest)

    @property
    def is_attachment(self) -> bool:
        """Does its form alone say that it is about something else, and no image by itself?"""
        return self.suffix in (".sig", ".att", ".sbom")


def digest_tag(tag: str) -> DigestTag | None:
    """The digest that a tag names; None: it is a tag like any other."""
    match = _is_digest_tag(tag)
    if match is None:
        return None
    algorithm, encoded, suffix = match.groups()
    cut = algorithm == "sha512" and len(encoded) >= KEPT_DIGITS
    return DigestTag(f"{algorithm}:{encoded}", suffix) if cut or len(encoded) == _FULL[algorithm] else None


def digest_key(digest: str) -> str:
    """Equal for a digest and for whatever a tag keeps of it, to look one up by the other."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:KEPT_DIGITS]}"


def tag_names(ref_name: str | None, containerd_name: str | None) -> tuple[str | None, str | None]:
    """(exact, alias): the tag that `ref_name` is, or else the end of a full name; at most one is set."""
    if ref_name is not None and is_tag(ref_name):
        return ref_name, None
    return None, _tag_of(containerd_name) or _tag_of(ref_name)


def _tag_of(full_name: str | None) -> str | None:
    """The tag of `host:port/name:tag`; None for a reference by digest, with or without a name."""
    if not full_name or "@" in full_name:
        return None
    name, _, tag = full_name.rpartition("/")[2].rpartition(":")
    return tag if name and is_tag(tag) and not _is_digest(full_name) else None


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except DigestInvalid:
        return False
    return True
