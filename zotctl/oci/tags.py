"""Which tag a row of index.json has, by whichever tool it was written.

image-spec, image-layout.md: "No semantic restriction is given for the org.opencontainers.image.ref.name
annotation of descriptors." Some tools write the bare tag, some a full name, some the full name beside it.
"""

from __future__ import annotations

from zotctl.errors import DigestInvalid
from zotctl.oci.digest import parse_digest
from zotctl.oci.reference import is_tag

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


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
