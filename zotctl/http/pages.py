"""Lists: their pages, the links between pages, and a cache of rendered answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from urllib.parse import quote

from zotctl.errors import PageInvalid
from zotctl.http.request import Request

CACHED_BYTES = 16 << 20
_OVERHEAD = 1000
_MOST_DIGITS = 18


class Pages:
    """Rendered answers, each good for one generation of its repository; the oldest go first. Thread-safe."""

    def __init__(self, limit: int = CACHED_BYTES) -> None:
        self._limit, self._size, self._lock = limit, 0, Lock()
        self._kept: OrderedDict[Hashable, tuple[Hashable, bytes]] = OrderedDict()

    def get(self, key: Hashable, generation: Hashable) -> bytes | None:
        """The bytes kept under `key`, if they are of this generation."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != generation:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: Hashable, generation: Hashable, body: bytes) -> None:
        """Keep `body` in place of what was under `key`."""
        with self._lock:
            self._drop(key)
            self._kept[key] = (generation, body)
            self._size += len(body) + _OVERHEAD
            while self._size > self._limit:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._size -= len(old[1]) + _OVERHEAD


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
