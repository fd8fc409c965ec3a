"""What is reachable, from the bytes alone: whatever any row, descriptor or media type claims of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

FIELDS = ("config", "layers", "manifests", "blobs")


def reachable(rows: Iterable[str], bodies: Mapping[str, bytes], *, subjects: bool = True) -> set[str]:
    """`bodies`: by digest, as they should be. Of a damaged manifest is known what it said when it was whole."""
    found, todo = set[str](), list(rows)
    while todo:
        if (digest := todo.pop()) not in found:
            found.add(digest)
            todo += named(bodies.get(digest, b""), (*FIELDS, "subject") if subjects else FIELDS)
    return found


def named(body: bytes, fields: tuple[str, ...] = (*FIELDS, "subject")) -> list[str]:
    """What a manifest names, in every field of either shape, each of them if a key is there twice or in another case,
    for there are decoders that read it so. Nothing, of what is no manifest."""
    values = [value for key, value in pairs_of(body) if key.lower() in fields]
    descriptors = [one for value in values for one in ([value] if isinstance(value, _Pairs) else value)]
    return [digest for one in descriptors for key, digest in one if key.lower() == "digest"]


def pairs_of(body: bytes) -> list[tuple[str, Any]]:
    """A JSON object as it is written, or nothing."""
    try:
        document = json.loads(body, object_pairs_hook=_Pairs)
    except ValueError:
        return []
    return document if isinstance(document, _Pairs) and ("schemaVersion", 2) in document else []


class _Pairs(list[tuple[str, Any]]):
    """Told apart from an array."""
