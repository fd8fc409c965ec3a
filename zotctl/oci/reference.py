"""Names of repositories, tags and references, and what tags say of rows and digests.

distribution-spec, section "Pulling manifests"; image-spec, image-layout.md: "No semantic restriction is given for the
org.opencontainers.image.ref.name annotation of descriptors." Some tools write the bare tag, some a full name, some the
full name beside it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from zotctl.errors import DigestInvalid, NameInvalid, TagInvalid, quoted
from zotctl.oci.digest import Digest, parse_digest

MAX_NAME = 255
PARSED_KEPT = 4096
"""Names that were found good, and as many references, since clients ask for the same ones again and again."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_is_name = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*").fullmatch
_is_tag = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}").fullmatch
_inside_layout = re.compile(r"/(blobs|index\.json|oci-layout)(?:/|\Z)").search


@lru_cache(PARSED_KEPT)
def parse_name(text: str) -> str:
    """`text`, if it is a name that a repository may have here; raises NameInvalid."""
    # "Many clients impose a limit of 255 characters on the length of the concatenation of the registry
    # hostname (and optional port), /, and <name> value."
    if len(text) > MAX_NAME:
        raise NameInvalid(f"the name {quoted(text)} has more than {MAX_NAME} characters")
    # "<name> MUST match the following regular expression"
    if not _is_name(text):
        raise NameInvalid(
            f"{quoted(text)} is not a repository name: components of a-z and 0-9, "
            "inside them one of '.', '_', '__' or dashes, and '/' between them"
        )
    # A repository is an image layout: these names in it belong to the layout of the parent.
    if found := _inside_layout(text):
        raise NameInvalid(
            f"{quoted(text)} lies inside the layout of another repository: '{found[1]}' may only come first"
        )
    return text


def is_name(text: str) -> bool:
    """Whether `text` is a name that a repository may have here."""
    try:
        parse_name(text)
    except NameInvalid:
        return False
    return True


def is_tag(text: str) -> bool:
    """Whether `text` is a tag."""
    return _is_tag(text) is not None


def parse_tag(text: str) -> str:
    """`text`, if it is a tag; raises TagInvalid."""
    # "a tag MUST be at most 128 characters in length and MUST match the following regular expression"
    if not _is_tag(text):
        raise TagInvalid(
            f"{quoted(text)} is not a tag: 1 to 128 letters, digits, '_', '.', '-', the first no '.' or '-'"
        )
    return text


@lru_cache(PARSED_KEPT)
def parse_reference(text: str) -> Digest | str:
    """A digest if there is a colon in `text`, else a tag; raises DigestInvalid or TagInvalid."""
    return parse_digest(text) if ":" in text else parse_tag(text)


REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
OLAREG_SUBJECT = "org.olareg.referrer.subject"
"""Annotation of a row: the manifest lists the referrers of this digest, as the referrers API answers them."""

KEPT_DIGITS = 64
"""How many characters of the encoded part a tag keeps: distribution-spec, "Referrers Tag Schema"."""
_is_digest_tag = re.compile(r"(sha256|sha512|blake3)-([a-f0-9]{64,128})((?:[._-].*)?)").fullmatch
_FULL = {"sha256": 64, "sha512": 128, "blake3": 64}


KIND = "kind"
"""Annotation of a row in what `cosign save` and Hauler write: rows of one name are told apart by it."""
_KINDS = ("dev.cosignproject.cosign/", "dev.hauler/")
_ABOUT = {"sigs": ".sig", "atts": ".att", "sboms": ".sbom", "referrers": ""}


def attached_as(kind: str | None) -> str | None:
    """What the kind of a row says that it is to the image of the same name: ".sig", ".att" or ".sbom", which end the
    tag that cosign gives it, or "" for a manifest that has a subject. None: it is an image."""
    prefix = next((one for one in _KINDS if kind and kind.startswith(one)), None)
    return _ABOUT.get((kind or "").removeprefix(prefix).partition("/")[0]) if prefix else None


class DigestTag(NamedTuple):
    """A tag that names a digest, because its manifest is about what has that digest.

    The referrers fallback tag `sha256-HEX` (distribution-spec, "Referrers Tag Schema"), cosign's `sha256-HEX.sig`,
    `.att` and `.sbom`, and what other tools put behind it. `digest` is a digest, or the beginning of one.
    """

    digest: str
    suffix: str

    def names(self, digest: str) -> bool:
        """Whether the tag names this digest."""
        return digest.startswith(self.digest)

    @property
    def is_attachment(self) -> bool:
        """Whether its form alone says that it is about another manifest, and is no image itself."""
        return self.suffix in (".sig", ".att", ".sbom")


def digest_tag(tag: str) -> DigestTag | None:
    """Read a tag that names a digest; None: it is an ordinary tag."""
    match = _is_digest_tag(tag)
    if match is None:
        return None
    algorithm, encoded, suffix = match.groups()
    cut = algorithm == "sha512" and len(encoded) >= KEPT_DIGITS
    return DigestTag(f"{algorithm}:{encoded}", suffix) if cut or len(encoded) == _FULL[algorithm] else None


def digest_key(digest: str) -> str:
    """A key that is equal for a digest and for the part of it that a tag keeps, to look one up by the other."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:KEPT_DIGITS]}"


def tag_names(ref_name: str | None, containerd_name: str | None) -> tuple[str | None, str | None]:
    """`(exact, alias)`: the tag that `ref_name` is, or else the tag at the end of a full name. At most one is set."""
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
