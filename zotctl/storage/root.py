"""One root of a store: a protocol, its options, and what this process remembers of it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from zotctl.config import RootConfig, Route
from zotctl.errors import LayoutInvalid, NotFound, StorageError, Unavailable
from zotctl.storage.cache import Lru
from zotctl.storage.catalog import Catalog
from zotctl.storage.committer import Committer
from zotctl.storage.contents import Contents
from zotctl.storage.driver import Driver, Info
from zotctl.storage.history import History
from zotctl.storage.local.protocol import LocalProtocol

BODY_CACHE = 8 << 20
"""Bytes of manifests kept in memory."""
CONTENTS_CACHE = 512
"""Repositories whose manifests are kept parsed."""

OWNED_FOR = 1.0
"""Seconds for which a repository is not looked at again whether it may be written."""

log = logging.getLogger("zotctl.storage")


@dataclass
class Root:
    """`marker` is what shows that the storage is there: its `version` file, or for a read-only
    directory that has none, the directory itself as it was at the start."""

    protocol: LocalProtocol
    read_only: bool
    marker: str
    first: Info
    config: RootConfig | None = None
    route: Route | None = None
    """Only for what it takes; a root without one takes whatever has no route."""

    def __post_init__(self) -> None:
        self.committer = Committer(self.protocol)
        self.history = History(self.protocol.site)
        self.bodies: Lru[str, bytes] = Lru(BODY_CACHE)
        self.catalog = Catalog(self.driver, self.protocol.site.clock)
        self._contents: Lru[str, Contents] = Lru(CONTENTS_CACHE)
        self._owned: Lru[str, tuple[float, bool]] = Lru(CONTENTS_CACHE)
        self._reported: set[str] = set()

    @property
    def label(self) -> str:
        return self.protocol.label

    @property
    def driver(self) -> Driver:
        return self.protocol.driver

    def contents(self, name: str) -> Contents:
        found = self._contents.get(name)
        if found is None:
            found = Contents(self.protocol, name)
            self._contents.put(name, found)
        return found

    def state(self) -> StorageError | None:
        """None: the root is there. Otherwise why not; it is looked at anew each time."""
        try:
            info = self.driver.stat(self.marker)
        except StorageError as error:
            return Unavailable(f"the storage root {self.label} is away: {error.message}")
        if not self.marker and (info.dev, info.ino) != (self.first.dev, self.first.ino):
            return Unavailable(f"the storage root {self.label} is away: another directory is in its place")
        return None

    def require(self) -> None:
        """Raises Unavailable (503) when the root is away: what is not found then may well exist."""
        if (error := self.state()) is not None:
            raise error

    def owns(self, name: str) -> bool:
        """May this repository be written? Not on a read-only root, and not one that is a symbolic link
        or on another file system: that one is only read (local.md, "The tree")."""
        now = self.protocol.site.clock.elapsed()
        known = self._owned.get(name)
        if known is None or not 0 <= now - known[0] < OWNED_FOR:
            known = (now, not self.read_only and self._owns(name))
            self._owned.put(name, known)
        return known[1]

    def _owns(self, name: str) -> bool:
        parts, here = name.split("/"), self.driver.stat("").dev  # a share that was mounted anew has another
        for depth in range(1, len(parts) + 1):
            info = self.protocol.site.stat("/".join(parts[:depth]))
            if info is not None and (not info.is_dir or info.dev != here):
                return False
        return True

    def serves(self, name: str) -> bool:
        """Is this layout one to serve? One that is not stays in its place and is left out of lists."""
        try:
            self.protocol.read_index(name)
        except NotFound:
            return False
        except LayoutInvalid as error:
            self.report_damage(name, "index.json", error.message)
            return False
        except StorageError:
            return True  # it is there: whoever looks into it is told why that can't be done (I15)
        return True

    def refuse_invalid(self, name: str) -> None:
        """A layout that is not served takes no push either: whoever owns it has to put it right (I9)."""
        with suppress(NotFound):
            self.protocol.read_index(name)

    def takes(self, name: str) -> bool:
        """Does its route lead `name` here? By whole components: `a/b` takes `a/b` and `a/b/c`, not
        `a/bc`; `a/b/` takes only what is below."""
        if self.route is None:
            return False
        above = self.route.prefix.rstrip("/")
        return name.startswith(f"{above}/") or (name == above == self.route.prefix)

    def report_damage(self, name: str, thing: str, reason: str) -> None:
        """Say once what can't be served, and why."""
        key = f"{name} {thing}"
        if key not in self._reported and len(self._reported) < 10_000:
            self._reported.add(key)
            fields = {"repository": name, "reference": thing, "root": self.label}
            log.warning(f"{name}: {thing} is not served: {reason}", extra={"fields": fields})
