"""A bucket seen as a tree, for whoever only reads (storage.driver)."""

from __future__ import annotations

from zotctl.storage.s3.site import Site
from zotctl.storage.wrappers import Wrapped


class Tree(Wrapped):
    def __init__(self, site: Site) -> None:
        self.site = site
