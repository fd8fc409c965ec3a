"""A repository comes to be: directories first, then index.json, and `oci-layout` last (I1).

Until the last file is there no reader takes the directory for a layout.
"""

from __future__ import annotations

from zotctl.errors import CannotLink, Exists
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.index import empty_index
from zotctl.storage.local.context import LocalContext
from zotctl.storage.locks import Held


class LocalLayouts:
    def __init__(self, context: LocalContext) -> None:
        self._context = context

    def make(self, name: str, algorithm: str, held: Held | None) -> None:
        """Make what is missing of a layout. Under the lock, since a collector removes empty ones under it."""
        if held is None:
            with self._context.locks.hold(name) as taken:
                return self.make(name, algorithm, taken)
        self._context.make_dirs(keys.blobs_of(name, algorithm))
        if self._context.stat(keys.layout(name)) is not None and self._context.stat(keys.index(name)) is not None:
            return None
        if self._context.stat(keys.index(name)) is None:
            self._place(name, keys.index(name), empty_index().render())
            self._flush(name)
        if self._context.stat(keys.layout(name)) is None:
            self._place(name, keys.layout(name), LAYOUT_BYTES)
        self._flush(name)
        return None

    def _flush(self, name: str) -> None:
        """[commit] At once, even where the flush of blobs is postponed: `oci-layout` comes after index.json (I1)."""
        if self._context.commit:
            self._context.durable.names(name)

    def _place(self, name: str, key: str, body: bytes) -> None:
        """Over nothing: another tool may be making this layout just now, and its index.json has rows (I4)."""
        driver, temp = self._context.driver, keys.index_temp(name, self._context.clock.token())
        try:
            with driver.create(temp) as writer:
                writer.write([body])
                writer.sync()
            try:
                driver.link(temp, key)
            except CannotLink:
                driver.rename(temp, key)
            except Exists:
                pass
        finally:
            self._context.discard(temp)
