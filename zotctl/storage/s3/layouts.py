"""A repository comes into being: its `oci-layout`, an empty index.json, and its name in the list."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import Changed
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.index import empty_index
from zotctl.storage.s3.site import Site

KNOWN = 100_000


class Layouts:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: Lru[str, bool] = Lru(KNOWN)

    def ensure(self, name: str) -> None:
        """Before the first bytes of a repository; afterwards this process needs no request for it.

        index.json comes last: what it says is there. Killed before, the next push begins again.
        """
        if self._known.get(name):
            return
        if self._site.head(keys.index(name)) is None:
            self.make(name)
            with suppress(Changed):
                self._site.objects.put(keys.index(name), empty_index().render(), absent=True)
        self.seen(name)

    def make(self, name: str) -> None:
        """All but index.json."""
        self._site.objects.put(keys.listed_name(name), b"")
        self._site.objects.put(keys.layout(name), LAYOUT_BYTES)

    def seen(self, name: str) -> None:
        """It has an index.json."""
        self._known.put(name, True)

    def forget(self, name: str) -> None:
        """It was removed, or may have been."""
        self._known.drop(name)
