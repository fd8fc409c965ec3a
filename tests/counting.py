"""A wrapper round an object store that counts requests, as an access log would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zotctl.storage.objects import Objects

METHODS = (
    "head", "get", "open", "put", "delete", "list", "names", "copy", "start_parts", "put_part", "complete_parts",
    "abort_parts", "execute",
)  # fmt: skip


class Counted:
    """`before` is called with the method and its arguments, in front of each request."""

    def __init__(self, inner: Objects, before: Callable[[str, tuple[Any, ...]], None] | None = None) -> None:
        self.inner, self.before = inner, before
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of objects and parts."""

    def taken(self) -> list[str]:
        """What was asked for since the last time."""
        taken, self.requests = [method for method, _ in self.requests], []
        return taken

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in METHODS:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.requests.append((name, str(args[0])))
            if name in ("put", "put_part"):
                self.sent += len(args[-1])
            if self.before is not None:
                self.before(name, args)
            return found(*args, **options)

        return call
