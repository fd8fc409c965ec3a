"""The repositories of one root, in the order of their components: `a`, `a/b`, `a-b`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from zotctl.errors import StorageError

Passed = Callable[[str, StorageError], None]


def ignore(directory: str, error: StorageError) -> None:
    """For a caller that need not know what was passed over."""


class Catalog(Protocol):
    """Every method may be called from any thread."""

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """The names after `last` of all repositories, in the order of their components; of those that
        `wanted` says yes to."""

    def everything(self, passed: Passed = ignore) -> Iterator[str]:
        """All of them, as a job wants them: whatever a list says, a repository that is there is among them. `passed`
        is told of each directory that could not be looked into."""
