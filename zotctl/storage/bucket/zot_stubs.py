"""Empty objects in the place of content that another repository has: how zot deduplicates a bucket.

Such a bucket is read as it is; `dedupe` and `dedupe --undo` make it whole. HEAD of a stub is 404, so that a client that
pushes fills it: no manifest comes to rely on the blob of another repository (I7).
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress

from zotctl.errors import NotFound, StorageError
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.catalog import BucketCatalog
from zotctl.storage.bucket.context import BucketContext

AGAIN_AFTER = 300.0
"""Seconds in which what was not found is not looked for again: that lists the bucket."""


class ZotStubs:
    def __init__(self, context: BucketContext, names: BucketCatalog) -> None:
        self._context, self._names = context, names
        self._mutex = threading.Lock()
        self._origins: dict[str, str] = {}
        self._looked = float("-inf")

    def origin(self, name: str, digest: Digest) -> str | None:
        """The key of the content; None: the repository has no stub of it, or no repository has the content."""
        there = self._context.head(keys.blob(name, digest))
        if there is None or not is_stub(digest, there.size):
            return None
        with self._mutex:
            for look in (self._remembered, self._list):
                if self._is_there(digest):
                    break
                look()
            return keys.blob(self._origins[digest], digest) if self._is_there(digest) else None

    def remain(self) -> bool:
        """Does any repository need the content of another one? Then nothing of it may be collected. That there are
        none is looked up once in the life of a bucket, for only zot makes them."""
        if self._context.head(keys.WHOLE) is not None:
            return False
        for name in self._names.everything():
            if any(is_stub(digest, found.size) for digest, found in self._context.own(name)):
                return True
        with suppress(StorageError):
            if self._context.writes() and not self._context.read_only:
                self._context.objects.put(keys.WHOLE, b"")
        return False

    def _is_there(self, digest: Digest) -> bool:
        name = self._origins.get(digest)
        found = self._context.head(keys.blob(name, digest)) if name else None
        return found is not None and not is_stub(digest, found.size)

    def _remembered(self) -> None:
        """By this process or another one."""
        with suppress(NotFound, ValueError):
            got = self._context.objects.get(keys.ORIGINS)
            self._origins = {str(d): str(n) for d, n in load_json(got[1]).items()} if got else {}

    def _list(self) -> None:
        """All blobs of all repositories, once: a request for a thousand."""
        now = self._context.clock.elapsed()
        if now - self._looked < AGAIN_AFTER:
            return
        self._looked = now
        whole: dict[str, str] = {}
        stubs: set[str] = set()
        for name in self._names.everything():
            for digest, found in self._context.own(name):
                whole.setdefault(digest, name) if found.size else stubs.add(digest)
        self._origins = {digest: whole[digest] for digest in stubs if digest in whole}
        with suppress(StorageError):
            if self._context.writes() and not self._context.read_only:
                self._context.objects.put(keys.ORIGINS, json.dumps(self._origins).encode())
