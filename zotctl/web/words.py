"""How sizes, times, digests and media types are written for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from zotctl.oci.media_types import EMPTY, is_artifact, is_image, is_index

_AGES = ((60, "second"), (3600, "minute"), (86400, "hour"), (86400 * 60, "day"), (86400 * 730, "month"))
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 86400 * 30.44}
_DIGITS = 12
MOST = 1 << 70
_PREFIXES = ("application/vnd.oci.image.", "application/vnd.docker.", "application/vnd.", "application/")


def size(count: int) -> str:
    """`1536` as "1.5 KiB". A manifest may claim any size: what no store has is shown as `MOST`."""
    shown = float(min(count, MOST))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if shown < 1024:
            return f"{shown:.0f} {unit}" if unit == "B" or shown >= 100 else f"{shown:.1f} {unit}"
        shown /= 1024
    return f"{shown:.1f} TiB"


def number(count: int) -> str:
    """With commas between thousands."""
    return f"{count:,}"


def ago(at: float, now: float | None = None) -> str:
    """How long a moment (seconds since 1970) is ago, in one unit; "just now" for what is not past."""
    seconds = (time.time() if now is None else now) - at
    if seconds < 1:
        return "just now"
    unit = next((unit for limit, unit in _AGES if seconds < limit), "year")
    count = int(seconds / _SECONDS.get(unit, 86400 * 365.25))
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


def span(seconds: float) -> str:
    """A span of time in its largest unit: "3 hours"."""
    return ago(0.0, max(1.0, seconds)).removesuffix(" ago")


def moment(at: float) -> str:
    """Seconds since 1970 as `2026-11-29 15:41 UTC`; "unknown" if no calendar has that."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "unknown"


def stamp(at: float) -> str:
    """Seconds since 1970 for a program: RFC 3339, "" if no calendar has that."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return ""


def short(digest: str) -> str:
    """The beginning of a digest, enough to tell it from others on a page."""
    algorithm, colon, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:_DIGITS]}…" if colon and len(encoded) > _DIGITS else digest


def in_path(tag: str, digest: str) -> str:
    """What names the manifest behind a tag in the path of its page: the digest, where the tag would be taken for one of
    the lists that end a path."""
    return digest if tag in ("tags", "untagged") else tag


def media(media_type: str) -> str:
    """A media type without what all of them begin with."""
    for prefix in _PREFIXES:
        if media_type.startswith(prefix):
            return media_type.removeprefix(prefix)
    return media_type


def kind(media_type: str, artifact_type: str | None, config_type: str = "") -> str:
    """What a manifest is: "image", "index", or the type of an artifact."""
    if is_index(media_type):
        return "index"
    if artifact_type:
        return media(artifact_type)
    if is_artifact(media_type):
        return "artifact"
    if config_type and not config_type.startswith(_PREFIXES[:2]) and config_type != EMPTY:
        return media(config_type)
    return "image" if is_image(media_type) else media(media_type) or "unknown"
