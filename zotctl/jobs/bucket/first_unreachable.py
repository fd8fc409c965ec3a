"""Since when something is known to be unreachable, in one object a repository and one for the pool
(docs/design/bucket.md#c1).

It takes the place of the trash: what a deletion sets free is there for the delay from the run that found it, for
a client in the middle of a pull. Lost, the delay begins anew; of two collectors the slower one's note is dropped.
"""

from __future__ import annotations

import json
from contextlib import suppress

from zotctl.errors import Changed, NotFound, OutcomeUnknown
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext

SLACK = 2.0
"""Seconds: times of a server have whole seconds, and so have differences of two of them, rounded both ways."""


class FirstUnreachable:
    """Times in seconds since 1970 by the server's clock, under the key of what is unreachable."""

    def __init__(self, context: BucketContext, name: str, *, there: bool = True) -> None:
        """`there` False: an earlier run has left nothing, so it is not looked for; left meanwhile by another one, it
        is not replaced, and what this run sees is dropped (docs/design/bucket.md#collection)."""
        self._context, self._name, self._key = context, name, keys.first_seen(name)
        self._etag, self._before = "", dict[str, float]()
        self._now: dict[str, float] = {}
        if not there:
            return
        with suppress(NotFound):
            got = context.objects.get(self._key)
            assert got is not None
            self._etag, self._before = got[0].etag, _parse(got[1])

    def note(self, key: str, now: float) -> float:
        """It is unreachable in this run, too; since when."""
        return self._now.setdefault(key, min(self._before.get(key, now), now))

    def is_new(self, key: str) -> bool:
        return key not in self._before

    def again(self, key: str, now: float) -> None:
        """It was reserved since, so that it may have been reachable between two runs."""
        self._now[key] = now

    def at(self, key: str) -> float | None:
        """As an earlier run has left it."""
        return self._before.get(key)

    def gone(self, key: str) -> None:
        self._now.pop(key, None)

    def keep(self, since: float) -> None:
        """What this run has not come to, and was first seen since then, stays as it was."""
        self._now = {key: at for key, at in self._before.items() if at >= since} | self._now

    def save(self) -> None:
        """What was not noted in this run was reachable, or is gone."""
        if self._now == self._before:
            return
        body = json.dumps({"name": self._name, "seen": self._now}).encode()
        with suppress(Changed, OutcomeUnknown):
            if self._now or not self._etag:
                self._context.objects.put(self._key, body, match=self._etag, absent=not self._etag)
            else:
                self._context.objects.delete(self._key)


def _parse(body: bytes) -> dict[str, float]:
    """Nothing, if it is nothing that we have written."""
    try:
        return {str(key): float(at) for key, at in load_json(body)["seen"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
