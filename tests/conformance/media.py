"""What the repository suite needs of that on which a store lies: another process, a look, and damage."""

from __future__ import annotations

from typing import Protocol

from tests.stores import bucket_store, store_over
from zotctl.oci.digest import Digest
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.driver import Driver


class Medium(Protocol):
    links: bool
    """Do equal blobs of two repositories have one inode number?"""
    mounts: bool

    @property
    def tree(self) -> Driver:
        """To be read."""

    def store(self) -> Store:
        """As another process opens it."""

    def identity(self, name: str, digest: Digest) -> object:
        """Of the bytes that a repository reads: equal if they are stored once."""

    def overwrite(self, name: str, digest: Digest, body: bytes) -> None:
        """Other bytes in the place of a blob, here and where it is shared."""


class OnDriver:
    def __init__(self, driver: Driver) -> None:
        self.tree = driver
        self.links = self.mounts = driver.capabilities.links

    def store(self) -> Store:
        return store_over(self.tree)

    def identity(self, name: str, digest: Digest) -> object:
        return self.tree.stat(keys.blob(name, digest)).ino

    def overwrite(self, name: str, digest: Digest, body: bytes) -> None:
        for key in (keys.blob(name, digest), keys.pool(digest)) if self.links else (keys.blob(name, digest),):
            self.tree.unlink(key)
            with self.tree.create(key) as writer:
                writer.write([body])


class OnObjects:
    mounts = True

    def __init__(self, objects: Objects, *, dedupe: bool) -> None:
        self._objects, self.links = objects, dedupe
        self.tree = self.store().roots[0].driver

    def store(self) -> Store:
        return bucket_store(self._objects, dedupe=self.links)

    def identity(self, name: str, digest: Digest) -> object:
        places = (keys.blob(name, digest), keys.shared(digest))
        return tuple(found.key for place in places for found in self._objects.list(place))

    def overwrite(self, name: str, digest: Digest, body: bytes) -> None:
        for key in (keys.blob(name, digest), keys.shared(digest)):
            if next(self._objects.list(key), None) is not None:
                self._objects.put(key, body)
