"""The format of the hidden directory, in its file `version`; and the sign of a root that was used."""

from __future__ import annotations

import json

from zotctl.errors import ConfigError
from zotctl.oci.codec import load_json
from zotctl.storage import keys

FORMAT = 1
BODY = json.dumps({"format": FORMAT}).encode() + b"\n"
SHOWN = 80


def refuse_unknown_format(body: bytes, store: str) -> None:
    """What a later version keeps in the hidden directory may mean something else: nothing is done there, not even
    reading, for the trash and the list of known damage take part in that. Raises ConfigError."""
    try:
        known = load_json(body or BODY)["format"] == FORMAT
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        said = body[:SHOWN].decode(errors="replace").strip()
        raise ConfigError(
            f"the store {store} has a format that this version of zotctl does not know ({keys.VERSION} says {said}): a "
            f"later version has used it; update zotctl. It knows format {FORMAT}"
        )
