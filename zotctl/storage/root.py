"""One root of a store: a protocol, its options, and what this process remembers of it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from zotctl.config import RootConfig, Route
from zotctl.errors import ConfigError, LayoutInvalid, NoSuchStore, NotFound, StorageError
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.committer import Committer
from zotctl.storage.distribution import is_distribution, way_over
from zotctl.storage.protocol import StoreProtocol

BODY_CACHE_BYTES = 8 << 20
"""Bytes of manifests that are kept in memory."""
OWNED_KEPT = 512
"""Repositories for which it is remembered whether they may be written."""

OWNED_FOR_S = 1.0
"""Seconds for which it is remembered whether a repository may be written."""

STORE_FORMAT = 1
"""The format of the hidden directory; its file `version`, which says so, is also the sign of a root that was used."""
FORMAT_BODY = json.dumps({"format": STORE_FORMAT}).encode() + b"\n"

log = logging.getLogger("zotctl.storage")


@dataclass
class Root:
    """One root and its options. Thread-safe."""

    protocol: StoreProtocol
    read_only: bool
    config: RootConfig | None = None
    route: Route | None = None
    """The names that it takes. A root without a route takes every name that no route matches."""
    is_archive: bool = False
    """Whether it is a tar, in which there is nothing to collect and never will be."""

    def __post_init__(self) -> None:
        protocol = self.protocol
        self.label, self.driver, self.catalog = protocol.label, protocol.driver, protocol.catalog
        self.history, self.maintenance, self.graphs = protocol.history, protocol.maintenance, protocol.graphs
        self.stat, self.state = protocol.maintenance.stat, protocol.state
        """`stat`: what a key leads to, None for nothing. `state`: why the root can't be reached, None if it can. Both
        look anew."""
        self.by_requests = protocol.index_costs_request
        """Is it reached by requests? Then each look costs one, there is no mount point, and it may be away for writes
        only."""
        self.committer = Committer(protocol)
        self.bodies: Lru[str, bytes] = Lru(BODY_CACHE_BYTES)
        self._owned: Lru[str, tuple[float, bool]] = Lru(OWNED_KEPT)
        self._reported: set[str] = set()

    def require(self) -> None:
        """Raises Unavailable (503) when the root is away: what is not found then may well exist."""
        if (error := self.state()) is not None:
            raise error

    def maintain(self) -> None:
        """Do what is due now and then, but not in a directory that is read-only or away: what lies below a mount point
        is not ours. A bucket knows both by itself, and a look each second would cost a request."""
        if self.by_requests or (not self.read_only and self.state() is None):
            self.protocol.maintain()

    def owns(self, name: str) -> bool:
        """May this repository be written? Not on a read-only root, and not one that is a symbolic link
        or on another file system: that one is only read (docs/design/local.md#the-tree)."""
        now = self.protocol.clock.elapsed()
        known = self._owned.get(name)
        if known is None or not 0 <= now - known[0] < OWNED_FOR_S:
            known = (now, not self.read_only and self.protocol.owns(name))
            self._owned.put(name, known)
        return known[1]

    def serves(self, name: str) -> bool:
        """Is this a layout to serve? An invalid one stays in its place and is left out of lists. Where a look costs a
        request, everything is listed."""
        if self.by_requests:
            return True
        try:
            self.protocol.indexes.read(name)
        except NotFound:
            return False
        except LayoutInvalid as error:
            self.report_damage(name, "index.json", error.message)
            return False
        except StorageError:
            return True  # it is there: a caller that looks into it is told why that can't be done (I15)
        return True

    def refuse_invalid(self, name: str) -> None:
        """Raise LayoutInvalid for a layout that is not served: its owner has to repair it before a push (I9). One that
        is only begun, and empty, is made whole."""
        try:
            self.protocol.indexes.read(name)
        except NotFound:
            if not self.read_only:
                self.protocol.make_whole(name)
        except LayoutInvalid as error:
            raise LayoutInvalid(
                f"{name} is damaged on the server and takes no push: {error.message}; `zotctl verify` shows it"
            ) from error

    def takes(self, name: str) -> bool:
        """Does its route lead `name` here?"""
        return self.route is not None and is_below(name, self.route.prefix)

    def report_damage(self, name: str, thing: str, reason: str) -> None:
        """Log once what can't be served, and why."""
        key = f"{name} {thing}"
        if key not in self._reported and len(self._reported) < 10_000:
            self._reported.add(key)
            fields = {"repository": name, "reference": thing, "root": self.label}
            log.warning(f"{name}: {thing} is not served: {reason}", extra={"fields": fields})


def no_store(path: str) -> NoSuchStore:
    """The error for a directory that was never a root and has no image layout in it."""
    if is_distribution(path):
        return NoSuchStore(way_over(path))
    return NoSuchStore(f"{path}: no store, and no image layout is in it; is it mounted?")


def refuse_unknown_format(body: bytes, store: str) -> None:
    """Raise ConfigError for a store of a later version. Its hidden directory may mean something else, and even reading
    uses the trash and the marks of damage there."""
    try:
        known = load_json(body or FORMAT_BODY)["format"] == STORE_FORMAT
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        said = body[:80].decode(errors="replace").strip()
        raise ConfigError(
            f"the store {store} has a format that this version of zotctl does not know ({keys.VERSION} says {said}): a "
            f"later version has used it; update zotctl. It knows format {STORE_FORMAT}"
        )


def is_below(name: str, prefix: str) -> bool:
    """Whether a name begins with these whole components: `a/b` is for `a/b` and `a/b/c`, not for `a/bc`; `a/b/` is only
    for what is below."""
    return name == prefix or name.startswith(f"{prefix.rstrip('/')}/")
