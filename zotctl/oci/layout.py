"""The marker file of an image layout: image-spec, image-layout.md, section "oci-layout file"."""

from __future__ import annotations

import msgspec

from zotctl.errors import LayoutInvalid, quoted
from zotctl.oci.codec import decode

LAYOUT_FILE = "oci-layout"
LAYOUT_VERSION = "1.0.0"
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}'


class _Layout(msgspec.Struct, rename="camel"):
    image_layout_version: str


_LAYOUT = msgspec.json.Decoder(_Layout)


def check_layout(body: bytes) -> None:
    """Check the content of an `oci-layout` file; raises LayoutInvalid."""
    # "It MUST be a JSON object. It MUST contain an imageLayoutVersion field."
    version = decode(_LAYOUT, body, LAYOUT_FILE, LayoutInvalid).image_layout_version
    # "The imageLayoutVersion value [...] will pin a given version until changes to the image layout are
    # required."
    if version != LAYOUT_VERSION:
        raise LayoutInvalid(f"{LAYOUT_FILE} has version {quoted(version)}; only {LAYOUT_VERSION} is known")
