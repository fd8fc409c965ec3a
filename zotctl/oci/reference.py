"""Names of repositories, tags and references: distribution-spec, section "Pulling manifests"."""

from __future__ import annotations

import re

from zotctl.errors import NameInvalid, TagInvalid
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.quoting import quoted

MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_is_name = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*").fullmatch
_is_tag = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}").fullmatch
_inside_layout = re.compile(r"/(blobs|index\.json|oci-layout)(?:/|\Z)").search


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


def parse_reference(text: str) -> Digest | str:
    """A digest if there is a colon in `text`, else a tag; raises DigestInvalid or TagInvalid."""
    return parse_digest(text) if ":" in text else parse_tag(text)
