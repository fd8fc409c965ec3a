"""What a repository has beside its index.json: `oci-layout`, and its name in the list."""

from __future__ import annotations

from functools import partial

from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.cache import Lru

KNOWN = 100_000


class BucketLayouts:
    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._known: Lru[str, bool] = Lru(KNOWN)

    def is_known(self, name: str) -> bool:
        """This process has seen its index.json."""
        return self._known.get(name) is not None

    def make(self, name: str) -> None:
        """All but index.json."""
        put = self._context.objects.put
        self._context.each([partial(put, keys.listed_name(name), b""), partial(put, keys.layout(name), LAYOUT_BYTES)])

    def seen(self, name: str) -> None:
        """It has an index.json."""
        self._known.put(name, True)

    def forget(self, name: str) -> None:
        """It was removed, or may have been."""
        self._known.drop(name)
