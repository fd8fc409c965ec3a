"""The repositories of one directory, by a walk in order: no list is stored (docs/design/local.md#start-and-listing).

A walk starts at `last` and may stop after a page. A directory whose time stamp has not moved is not listed again. The
order is by components: `a`, `a/b`, `a-b`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zotctl.errors import NameInvalid, NotFound, PermissionRefused, StorageError
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage.cache import Lru
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Generation
from zotctl.storage.local.context import Settling
from zotctl.storage.protocol import OnSkipped, ignore

CACHED_DIRECTORIES = 200_000


@dataclass(slots=True)
class _Listing:
    """One directory. `wanted`: the caller has said that it wants this repository."""

    below: tuple[str, ...]
    is_layout: bool
    wanted: bool = False
    stamp: Generation | None = None
    """By which it may be remembered; None: it has to be listed again, for `settling`."""
    settling: Settling | None = None


class LocalCatalog:
    """The repositories below one directory, with a cache of its listings. Safe between threads."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver, self._clock = driver, clock
        self._cache: Lru[str, _Listing] = Lru(CACHED_DIRECTORIES)

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """The names after `last` of all that have an `oci-layout`, in the order of their components.

        `wanted` is asked once for each, until its directory changes.
        """
        return self._walk("", self._list(""), last.split("/") if last else (), wanted)

    def everything(self, on_skipped: OnSkipped = ignore) -> Iterator[str]:
        """All repositories. `on_skipped` is called for a directory that can't be looked into. Raises what goes wrong
        with the root itself."""
        return self._everything("", on_skipped)

    def _everything(self, directory: str, on_skipped: OnSkipped) -> Iterator[str]:
        try:
            listing = self._look(directory)
        except NotFound:
            return
        except StorageError as error:
            if not directory:
                raise
            return on_skipped(directory, error)
        if listing is not None and listing.is_layout:
            yield directory
        for name in listing.below if listing else ():
            yield from self._everything(f"{directory}/{name}".lstrip("/"), on_skipped)

    def _walk(
        self, directory: str, listing: _Listing | None, after: Sequence[str], wanted: Callable[[str], bool] | None
    ) -> Iterator[str]:
        """The names below `directory`, whose listing this is, after the one with these components below it."""
        below = listing.below if listing else ()
        # A page costs the same wherever it begins, however many come before it.
        for place in range(bisect_left(below, after[0]) if after else 0, len(below)):
            name = below[place]
            inside = f"{directory}/{name}" if directory else name
            found = self._list(inside)
            if found is None:
                continue
            # Up to `last` itself, all come before the page.
            on_the_way = bool(after) and name == after[0]
            if found.is_layout and not on_the_way and (not wanted or self._is_wanted(inside, found, wanted)):
                yield inside
            if found.below:
                yield from self._walk(inside, found, after[1:] if on_the_way else (), wanted)

    def _is_wanted(self, directory: str, listing: _Listing, wanted: Callable[[str], bool]) -> bool:
        listing.wanted = listing.wanted or wanted(directory)
        return listing.wanted

    def _list(self, directory: str) -> _Listing | None:
        try:
            return self._look(directory)
        except (NotFound, PermissionRefused):
            return None

    def _look(self, directory: str) -> _Listing | None:
        info = self._driver.stat(directory)
        known = self._cache.get(directory)
        if known is not None and known.stamp == info.generation:
            return known
        if info.is_link and directory:
            # A repository may be a link, but nothing below one is listed: it could lead in a circle.
            listing = self._scan(directory)
            listing.below = ()
            return listing
        if not info.is_dir:
            return None
        settling = (known and known.settling) or Settling()
        stamp = settling.settled(info, self._clock)
        listing = self._scan(directory)
        listing.stamp, listing.settling = stamp, settling if stamp is None else None
        self._cache.put(directory, listing)
        return listing

    def _scan(self, directory: str) -> _Listing:
        entries = self._driver.scan(directory)
        is_layout = any(entry.name == LAYOUT_FILE for entry in entries) and bool(directory)
        below = (e.name for e in entries if not e.is_file and _may_hold(directory, e.name))
        return _Listing(tuple(sorted(below)), is_layout)


def _may_hold(directory: str, name: str) -> bool:
    try:
        parse_name(f"{directory}/{name}" if directory else name)
    except NameInvalid:
        return False
    return True
