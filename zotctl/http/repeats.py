"""Answers to what clients ask again in the same words, as the nodes of a cluster do when an image is rolled out.

An answer is given again for as long as the files that it came from are as they were, which each request looks at anew:
nothing is served that a first request would not be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from zotctl.errors import ZotctlError
from zotctl.http.answer import JOINED_BYTES, Answer
from zotctl.http.request import FIELD_OVERHEAD_BYTES, Head, Request
from zotctl.storage import Sighting
from zotctl.storage.cache import Lru

KEPT_BYTES = 4 << 20
"""Of all answers that are kept."""
OVERHEAD_BYTES = 3000
"""That an answer takes beside its body: the head of its request, but for each of its fields, and what it came from."""
KEPT_FOR_S = 60.0
"""What is only noted of a pull, as retention does and caches do, is noted as often."""


class _Kept(NamedTuple):
    body: bytes
    length: int
    fields: bytes
    sighting: Sighting
    until: float


class Repeats:
    """The answers that one worker may give again. Thread-safe, but `get` belongs to the event loop."""

    def __init__(self) -> None:
        self._kept: Lru[Head, _Kept] = Lru(KEPT_BYTES)

    def get(self, request: Request) -> Answer | None:
        """The answer to this request, if nothing has changed since it was given."""
        kept = self._kept.get(request.said)
        if kept is None:
            return None
        if time.monotonic() < kept.until and kept.sighting.holds():
            return Answer(200, body=kept.body, length=kept.length, fields=kept.fields)
        self._kept.drop(request.said)
        return None

    def keep(self, request: Request, answer: Answer, look: Callable[[], Sighting | None]) -> Answer:
        """Keep a 200 with rendered fields, if it is small and was asked for before. `look`: what it came from."""
        if request.is_repeated and answer.fields is not None and len(answer.body) <= JOINED_BYTES:
            try:
                sighting = look()
            except ZotctlError:
                return answer
            if sighting is not None:
                kept = _Kept(answer.body, answer.length, answer.fields, sighting, time.monotonic() + KEPT_FOR_S)
                overhead = OVERHEAD_BYTES + len(request.headers) * FIELD_OVERHEAD_BYTES
                self._kept.put(request.said, kept, len(answer.body) + overhead)
        return answer
