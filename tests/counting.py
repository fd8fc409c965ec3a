"""A wrapper round an object store that counts requests, as an access log would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
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
        self._now = self._settled = 0
        self._changed, self._looks = threading.Condition(), threading.Lock()

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self._waits(name, str(args[0])):
            return call(*args, **options)
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
        seen = 0
        while seen != self.most:
            seen = self.most
            with self._changed:
                more = self._changed.wait_for(lambda: self.most != seen, self._patience)  # noqa: B023
            if not more:
                self._settle()
        try:
            return call(*args, **options)
        finally:
            with self._changed:
                self._now -= 1

    def _settle(self) -> None:
        """Wait until no other thread would go on; one looks for all that wait meanwhile."""
        asked = self._settled
        with self._looks:
            if self._settled == asked:
                until_all_wait()
                self._settled += 1


class Rounds(Counted):
    """How many requests were waited for, one after the other: each comes after all that had an answer when it began.
    None has its answer before every thread waits for one, so that those which are asked for side by side have begun,
    however slow the machine is. `lingers`: or else each is answered at once."""

    def __init__(self, inner: Objects) -> None:
        self._mutex, self._deepest, self.lingers = threading.Lock(), 0, True
        self._answers: threading.Event | None = None
        super().__init__(inner)

    def request(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with self._mutex:
            depth = self._deepest + 1
        if self.lingers:
            self._linger()
        try:
            return super().request(name, call, *args, **options)
        finally:
            with self._mutex:
                self._deepest = max(self._deepest, depth)

    def _linger(self) -> None:
        """The first request looks at the threads, for all that come meanwhile."""
        with self._mutex:
            others, mine = self._answers, threading.Event()
            if others is None:
                self._answers = mine
        if others is not None:
            others.wait()
            return
        until_all_wait()
        with self._mutex:
            self._answers = None
        mine.set()

    def rounds(self) -> int:
        """Since the last time; nothing is under way."""
        found, self._deepest = self._deepest, 0
        return found


_LOOKS = 3
"""One after the other, that have to find the same: who waits for the interpreter has it between two of them."""
_LOOK_S = 0.002
_PATIENCE_S = 10.0
"""For a thread that does something else for long."""


def until_all_wait() -> None:
    """Until no other thread of this process would go on by itself."""
    found, end = 0, time.monotonic() + _PATIENCE_S
    while found < _LOOKS and time.monotonic() < end:
        time.sleep(_LOOK_S)
        found = found + 1 if _all_wait() else 0


def _all_wait() -> bool:
    """Whether no other thread of this process runs, or would if it got a processor (proc_pid_stat(5))."""
    states = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            states.append(int(task.name) == threading.get_native_id() or b") R " not in (task / "stat").read_bytes())
    return all(states)
