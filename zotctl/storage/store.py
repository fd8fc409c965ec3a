"""Several roots behind one name space (subpaths, routes), and the repositories in them."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from zotctl.errors import Denied, IndexMissing, LayoutInvalid, NameUnknown, NotFound, StorageError, ZotctlError
from zotctl.oci.digest import Digest
from zotctl.storage.clock import Clock
from zotctl.storage.protocol import Sighting, Snapshot, WouldBlock
from zotctl.storage.repository import Repository
from zotctl.storage.root import Root

REPORTED_NAMES = 10_000

log = logging.getLogger("zotctl.storage")


class Store:
    """All roots as one name space. Reading looks in every root; the first that has a name wins. Thread-safe."""

    def __init__(self, roots: Sequence[Root], clock: Clock, *, only: str | None = None) -> None:
        self.roots, self.clock, self.only = tuple(roots), clock, only
        self._shadowed: set[str] = set()
        self._index_costs_request = len(self.roots) == 1 and self.roots[0].protocol.index_costs_request
        """One root, where a look costs a request: a repository then looks at its index only when it has to."""
        self.nonblocking = all(root.driver.capabilities.local for root in self.roots)

    def repository(self, name: str, *, wait: bool = True) -> Repository:
        """An existing repository. Raises NameUnknown, and Unavailable when a root that may have it is away: any, but
        for a name with a route only the one that this leads to. With `wait` false, WouldBlock from here or from a
        method of it instead of a longer read."""
        if self._index_costs_request and self.only in (None, name):
            return Repository(self.roots[0], name, None, wait=wait, index_costs_request=True)
        found = self._find(name, wait=wait)
        if found is None:
            raise NameUnknown(f"no repository {name} here", name)
        root, snapshot = found
        return Repository(root, name, snapshot, wait=wait)

    def repository_for_push(self, name: str, *, wait: bool = True) -> Repository:
        """An existing repository, or a new one: in the root of the longest matching route, else in the first root."""
        if self._index_costs_request and self.only in (None, name):
            return Repository(self.roots[0], name, None, wait=wait, index_costs_request=True)
        found = self._find(name, wait=wait)
        root, snapshot = found or (self._root_for(name), None)
        if found is None:
            root.require()
            root.refuse_invalid(name)
        return Repository(root, name, snapshot, wait=wait)

    def sighting(self, repository: Repository, digest: Digest, size: int, *, is_manifest: bool) -> Sighting | None:
        """For a blob or manifest that was found there: see `Repository.sighting`. None also if a root before that one
        could get the name, and would be served instead; and behind a network, where each look takes its time."""
        if repository.root is not self.roots[0] or not self.nonblocking:
            return None
        return repository.sighting(digest, size, is_manifest=is_manifest)

    def repositories(self, n: int | None = None, last: str | None = None) -> list[str]:
        """Names after `last`, `n` at the most, ordered by their components. Raises Unavailable while a root is away:
        without its names a list would say that they are gone."""
        self._require_all()
        found = self._names(n, last)
        self._require_all()  # it may have gone meanwhile
        return found

    def _require_all(self) -> None:
        for root in self.roots:
            if not root.protocol.index_costs_request:  # a list of a bucket fails by itself
                root.require()

    def _names(self, n: int | None, last: str | None) -> list[str]:
        if self.only is not None:
            return [self.only][:n] if last is None or _components(self.only) > _components(last) else []
        walks = [root.catalog.walk(last, root.serves) for root in self.roots]
        if len(walks) == 1:
            return list(islice(walks[0], n))
        return list(islice(self._once(heapq.merge(*walks, key=_components)), n))

    def maintain(self) -> None:
        """Do what is due now and then. Called about once a second, in a thread."""
        for root in self.roots:
            root.maintain()

    def close(self) -> None:
        """Close every root. Nothing may be asked of the store afterwards."""
        for root in self.roots:
            root.protocol.close()

    def _once(self, names: Iterator[str]) -> Iterator[str]:
        """A name in two roots is listed once, and reported once."""
        previous = None
        for name in names:
            if name != previous:
                yield name
            elif name not in self._shadowed and len(self._shadowed) < REPORTED_NAMES:
                self._shadowed.add(name)
                message = f"{name}: it is in more than one root; the first of them is served"
                log.warning(message, extra={"fields": {"repository": name}})
            previous = name

    # -- which root -----------------------------------------------------------------------------

    def _find(self, name: str, *, wait: bool) -> tuple[Root, Snapshot] | None:
        failed: list[tuple[Root, ZotctlError]] = []
        for root in self.roots:
            try:
                return root, root.protocol.indexes.read(name, wait=wait)
            except NotFound:
                failure: ZotctlError | None = root.state()
            except IndexMissing as error:
                failure = error  # its tags are not known, so nobody may be told that there are none
            except LayoutInvalid as error:
                root.report_damage(name, "index.json", error.message)
                continue
            except StorageError as error:
                failure = error
            if failure is not None:
                failed.append((root, failure))
        self._refuse_to_guess(name, failed)
        return None

    def _refuse_to_guess(self, name: str, failed: list[tuple[Root, ZotctlError]]) -> None:
        """Raise the error of a root that gave no answer for a name that no other root has. One that is away may have
        it, unless a route leads the name elsewhere; one that is there but could not read it has it."""
        home = self._routed(name) if failed else None
        for root, failure in failed:
            if home in (None, root) or root.state() is None:
                raise failure

    def _routed(self, name: str) -> Root | None:
        """The root that the longest route leads the name to."""
        roots = [root for root in self.roots if root.takes(name)]
        return max(roots, key=lambda root: len(root.route.prefix if root.route else ""), default=None)

    def _root_for(self, name: str) -> Root:
        if self.only is not None and name != self.only:
            raise NameUnknown(f"no repository {name} here: only {self.only} is served", name)
        routed = self._routed(name)
        if routed is not None:
            return routed
        rest = next((root for root in self.roots if root.route is None), None)
        if rest is None:
            raise Denied(f"no route leads {name} anywhere, and no root takes the rest", name)
        return rest


def _components(name: str) -> list[str]:
    return name.split("/")


__all__ = ["Store", "WouldBlock"]
