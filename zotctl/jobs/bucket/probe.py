"""What can an object store do?"""

from __future__ import annotations

from typing import Any

from zotctl.storage.bucket.probe import Abilities
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.root import Root


def probe(root: Root) -> tuple[dict[str, Any], str]:
    """The answers by ability, and what they mean."""
    able = bucket_of(root).maintenance.try_out()
    return able._asdict(), verdict_of(able)


def verdict_of(able: Abilities) -> str:
    """What that means for who runs a registry on it."""
    if able.keeps_halves:
        return "not fit: it keeps half of an object when a connection ends in the middle of a put"
    if able.missing:
        return f"one process only (single_writer), and no job beside it: it lacks {', '.join(able.missing)}"
    parts = ["good for any number of servers and jobs"]
    if not able.signed_deletes:
        parts.append("gc and dedupe need single_writer, and all servers stopped: deletes that were signed don't expire")
    if not able.checksum:
        parts.append("what is damaged on its way is found by scrub only: it verifies no checksum")
    return "; ".join(parts)
