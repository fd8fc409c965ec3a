"""A client of NFS, as far as it does otherwise than a file system of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from zotctl.errors import NotFound
from zotctl.storage import keys
from zotctl.storage.driver import Driver
from zotctl.storage.wrappers import WrappedDriver


class ByTwoRequests(WrappedDriver):
    """Replaces a file that is open on its host by two requests. `between` comes in between, with the name."""

    def __init__(self, inner: Driver, between: Callable[[str], object]) -> None:
        super().__init__(inner)
        self.between = between

    def rename(self, source: str, target: str) -> None:
        with suppress(NotFound):
            self.inner.rename(target, old := f"{keys.parent(target)}/.nfs0000000000000001")
            self.inner.unlink(old)  # by the client, when the last process that has it open closes it
            self.between(target)
        self.inner.rename(source, target)
