"""Lists: their pages, the links between pages, and a cache of rendered answers."""

from __future__ import annotations

from collections.abc import Hashable
from urllib.parse import quote

from zotctl.errors import PageInvalid
from zotctl.http.request import Request
from zotctl.storage.cache import Lru

CACHED_BYTES = 16 << 20
_OVERHEAD = 1000
_MOST_DIGITS = 18


class Pages:
    """Rendered answers, each good for one generation of its repository; what was used last stays. Thread-safe."""

    def __init__(self, limit_bytes: int = CACHED_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: Lru[Hashable, tuple[Hashable, bytes]] = Lru(limit_bytes)

    def get(self, key: Hashable, generation: Hashable) -> bytes | None:
        """The bytes kept under `key`, if they are of this generation."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] == generation else None

    def put(self, key: Hashable, generation: Hashable, body: bytes) -> None:
        """Keep `body` in place of what was under `key`."""
        weight = len(body) + _OVERHEAD
        if weight > self._limit:
            self._kept.drop(key)
        else:
            self._kept.put(key, (generation, body), weight)


def page_size(request: Request) -> int | None:
    """The query parameter `n`; None if absent. Raises PageInvalid."""
    value = request.param("n")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        raise PageInvalid(f"n={value[:100]!r} is not a number of entries, 0 or more")
    return int(value)


def next_link(path: str, **query: str | int | None) -> tuple[str, str]:
    """The Link header for the page that follows (RFC 8288)."""
    words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    return "Link", f'<{path}?{words}>; rel="next"'
