"""What descriptors and configs say of platforms: image-spec, image-index.md and config.md."""

from __future__ import annotations

from typing import Any

from zotctl.oci.codec import load_json
from zotctl.oci.descriptor import Descriptor

MOST_LETTERS = 60
"""Of each part, of which the specifications name short ones."""
ATTESTATION = "vnd.docker.reference.type"
"""The annotation by which BuildKit marks what is no image of a platform."""


def platform_of(descriptor: Descriptor) -> str:
    """`linux/arm64/v8`; "" if it has none, or is an attestation."""
    if is_attestation(descriptor):
        return ""
    try:
        return in_words(load_json(bytes(descriptor.platform)))
    except ValueError:
        return ""


def is_attestation(descriptor: Descriptor) -> bool:
    """Is it about an image rather than one?"""
    return ATTESTATION in (descriptor.annotations or {})


def in_words(fields: Any) -> str:
    """From the fields of a platform, or of a config, which has the same."""
    if not isinstance(fields, dict):
        return ""
    parts = [fields.get(name) for name in ("os", "architecture", "variant")]
    found = "/".join(part[:MOST_LETTERS] for part in parts if isinstance(part, str) and part)
    return "" if found.startswith("unknown") else found
