"""When the tags of a layout were pushed, as far as anything tells: for retention in the store that takes them.

What the source's own store remembers counts as it is. Else the import is the push, and what is known of the images'
age (`created`, of the row, the manifest or its config) puts the tags in order: an old image that was taken over today
does not expire tomorrow, and of several the newest is the last one pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from zotctl.errors import DigestInvalid, StorageError
from zotctl.jobs.imports.plan import Wanted
from zotctl.jobs.imports.sources import Layout
from zotctl.oci.codec import load_json
from zotctl.oci.digest import parse_digest
from zotctl.storage.facts import ManifestFacts
from zotctl.storage.history import STEP
from zotctl.storage.index import annotations_of

CREATED = "org.opencontainers.image.created"
OLAREG_HISTORY = "org.olareg.history"
LARGEST = 4 << 20
"""Bytes of a manifest or a config that are read for a time."""
FIRST = datetime(1981, 1, 1, tzinfo=UTC).timestamp()
"""What is older is no time: builds that can be repeated say 1970, or 1980."""


def push_times(
    layout: Layout, rows: Iterable[Wanted], facts: Mapping[str, ManifestFacts], now: float
) -> dict[str, float]:
    """By the tag that each row gets here, in seconds since 1970; of later rows with one age, the last is the latest."""
    found: dict[str, float] = {}
    unknown: list[tuple[float, str]] = []
    history = _olareg(layout)
    for row in rows:
        if row.tag is None:
            continue
        named = row.row.tag or row.row.alias or ""
        at = layout.past.tagged.get(named) if layout.past else None
        at = history.get((named, row.digest)) if at is None else at
        if at is not None:
            found[row.tag] = min(at, now)
        else:
            made = _created(layout, row, facts)
            unknown.append((now if made is None else min(made, now), row.tag))
    ordered = sorted(unknown, key=lambda one: one[0])  # which keeps the order of rows that say the same
    for number, (_, tag) in enumerate(ordered[::-1]):
        found[tag] = now - number * STEP
    return found


def _olareg(layout: Layout) -> dict[tuple[str, str], float]:
    """By tag and digest."""
    found: dict[tuple[str, str], float] = {}
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        for tag, entries in (load_json(layout.index.field(OLAREG_HISTORY)) or {}).items():
            for entry in entries:
                if (at := _parse(entry.get("time"))) is not None:
                    found[tag, str(entry["digest"])] = at
    return found


def _created(layout: Layout, row: Wanted, facts: Mapping[str, ManifestFacts]) -> float | None:
    if (at := _parse(annotations_of(row.row).get(CREATED))) is not None or layout.each is not None:
        return at  # where each read is a request, the order of the rows has to do
    return _of_manifest(layout, row.digest, facts, depth=3)


def _of_manifest(layout: Layout, digest: str, facts: Mapping[str, ManifestFacts], depth: int) -> float | None:
    """What it says, or its config, or the first of its children that says something."""
    document = _json(layout, digest)
    at = _parse((document.get("annotations") or {}).get(CREATED)) if _is_table(document.get("annotations")) else None
    known = facts.get(digest)
    if at is not None or known is None or not depth:
        return at
    if known.blobs and (at := _parse(_json(layout, known.blobs[0].digest).get("created"))) is not None:
        return at
    children = (_of_manifest(layout, child.digest, facts, depth - 1) for child in known.children)
    return next((at for at in children if at is not None), None)


def _json(layout: Layout, digest: str) -> dict[str, Any]:
    """Nothing, if it is no such thing: a layer, say."""
    with suppress(StorageError, DigestInvalid, ValueError, RecursionError), layout.open(parse_digest(digest)) as reader:
        if reader.size <= LARGEST and reader.read_at(0, 1) == b"{":
            found = load_json(reader.read_at(0, reader.size))
            return found if isinstance(found, dict) else {}
    return {}


def _is_table(found: object) -> bool:
    return found is None or isinstance(found, dict)


def _parse(text: object) -> float | None:
    """RFC 3339."""
    with suppress(ValueError, OverflowError):
        if isinstance(text, str):
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return at.timestamp() if at.timestamp() >= FIRST else None
    return None
