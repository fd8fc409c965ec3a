"""A wrapper round an object store that counts requests, as an access log would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from zotctl.storage.bucket.objects.seam import Objects

METHODS = (
    "head", "get", "open", "put", "delete", "list", "names", "copy", "start_parts", "put_part", "complete_parts",
    "abort_parts", "execute",
)  # fmt: skip


class Intercepted:
    """An object store whose requests go by `request`. Whatever else it has is that of the store."""

    def __init__(self, inner: Objects) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return partial(self.request, name, found) if name in METHODS else found

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The first of `args` is the key, the prefix or the presigned delete."""
        return call(*args, **options)


class Counted(Intercepted):
    """`before` is called with the method and its arguments, in front of each request."""

    def __init__(self, inner: Objects, before: Callable[[str, tuple[Any, ...]], None] | None = None) -> None:
        super().__init__(inner)
        self.before = before
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of objects and parts."""

    def taken(self) -> list[str]:
        """What was asked for since the last time."""
        taken, self.requests = [method for method, _ in self.requests], []
        return taken

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.requests.append((name, str(args[0])))
        if name in ("put", "put_part"):
            self.sent += len(args[-1])
        if self.before is not None:
            self.before(name, args)
        return call(*args, **options)


class InFlight(Intercepted):
    """How many requests were under way at once. Of those that `waits` says, the first ones wait until `together` are,
    or it turns out that no more come."""

    def __init__(self, inner: Objects, waits: Callable[[str, str], bool], patience: float = 0.2) -> None:
        super().__init__(inner)
        self.most, self._waits, self._patience = 0, waits, patience
        self._now = 0
        self._changed = threading.Condition()

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self._waits(name, str(args[0])):
            return call(*args, **options)
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            seen = self.most
            while self._changed.wait(self._patience) and self.most != seen:
                seen = self.most
        try:
            return call(*args, **options)
        finally:
            with self._changed:
                self._now -= 1


class Rounds(Counted):
    """How many requests were waited for, one after the other: each comes after all that had an answer when it began.
    It takes as long as others need that begin beside it."""

    def __init__(self, inner: Objects, linger: float = 0.05) -> None:
        self._mutex, self._deepest = threading.Lock(), 0
        super().__init__(_Lingering(inner, linger, self._begin, self._end))

    def _begin(self) -> int:
        with self._mutex:
            return self._deepest + 1

    def _end(self, depth: int) -> None:
        with self._mutex:
            self._deepest = max(self._deepest, depth)

    def rounds(self) -> int:
        """Since the last time; nothing is under way."""
        found, self._deepest = self._deepest, 0
        return found


class _Lingering(Intercepted):
    def __init__(self, inner: Objects, linger: float, begin: Callable[[], int], end: Callable[[int], None]) -> None:
        super().__init__(inner)
        self._linger, self._begin, self._end = linger, begin, end

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        depth = self._begin()
        time.sleep(self._linger)
        try:
            return call(*args, **options)
        finally:
            self._end(depth)
