"""A bucket seen as a tree, for whoever only reads (storage.driver): verify, scrub, import.

Each repository looks self-contained: what it holds in the pool is found below its own `blobs/`, too, with
the inode number of the pool's object, as hard links have one.
"""

from __future__ import annotations

import stat as modes

from zotctl.errors import NotFound
from zotctl.storage.driver import Capabilities, Entry, Info, Reader, Space
from zotctl.storage.s3.infos import info_of
from zotctl.storage.s3.site import Site
from zotctl.storage.wrappers import ReadOnly

DIRECTORY = Info(0, 0, 0, 0, 1, modes.S_IFDIR | 0o755, 0, 0, 0)


class Tree(ReadOnly):
    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def label(self) -> str:
        return self._site.objects.label

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(links=False, locks=False, local=False)

    def stat(self, key: str) -> Info:
        found = self._site.head(key) if key else None
        if found is not None:
            return info_of(found)
        if not key or next(self._site.objects.names(key), None) is not None:
            return DIRECTORY
        raise NotFound(f"{self.label}/{key}: no such object")

    def open(self, key: str) -> Reader:
        return self._site.objects.open(key)

    def scan(self, key: str) -> list[Entry]:
        found = [Entry(name, below, not below) for name, below in self._site.objects.names(key)]
        if not found and key:
            raise NotFound(f"{self.label}/{key}: nothing there")
        return found

    def space(self) -> Space:
        return Space(1 << 60, 1 << 60, -1)
