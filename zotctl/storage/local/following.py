"""Follows the links of a source that an operator has named: bazel and nix make layouts of symbolic links.

What serves or keeps a store never does so, since a link may lead out of it (I14). Here the bytes are only read, and
whoever reads them compares their digest.
"""

from __future__ import annotations

import os

from zotctl.errors import NotFound
from zotctl.storage.driver import Driver, Info, Reader
from zotctl.storage.local.driver import LocalReader, open_followed, stat_followed
from zotctl.storage.wrappers import WrappedDriver


class FollowedReader(LocalReader):
    """A file that a link led to. It has no descriptor for others, so that it is copied and never linked: it belongs to
    another tree."""

    __slots__ = ()

    def fileno(self) -> int | None:  # type: ignore[override]
        """None: read it."""
        return None


class FollowingDriver(WrappedDriver):
    """Follows a link to a regular file, and one in place of a folder of blobs; other links stay links.

    `path`: the directory that the driver shows below the key `prefix`. As safe between threads as the driver inside.
    """

    def __init__(self, inner: Driver, path: str, prefix: str = "") -> None:
        super().__init__(inner)
        self._directory, self._prefix = path, prefix

    def stat(self, key: str) -> Info:
        """What a link leads to, if it is followed; or else the link itself."""
        info = self.inner.stat(key)
        if not info.is_link:
            return info
        path = self._path(key)
        try:
            found = stat_followed(path)
        except NotFound:
            return info
        return found if found.is_file or (found.is_dir and _is_folder(key)) else info

    def open(self, key: str) -> Reader:
        """Open a file, also by a link. Raises NotFound for anything else."""
        if not self.inner.stat(key).is_link:
            return self.inner.open(key)
        if not self.stat(key).is_file:
            raise NotFound(f"{self._path(key)}: a link to no regular file")
        return FollowedReader(*open_followed(self._path(key)))

    def _path(self, key: str) -> str:
        return os.path.join(self._directory, key[len(self._prefix) :].lstrip("/"))


def _is_folder(key: str) -> bool:
    """`NAME/blobs`, or a folder in it."""
    *above, last = key.split("/")
    return bool(above) and (last == "blobs" or (above[-1] == "blobs" and len(above) > 1))
