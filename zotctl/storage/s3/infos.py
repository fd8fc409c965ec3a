"""An object as a driver tells of a file."""

from __future__ import annotations

import stat as modes
import zlib

from zotctl.storage.driver import Info
from zotctl.storage.objects import Object


def info_of(found: Object) -> Info:
    """Its inode number means "the same bytes under the same key", and nothing else."""
    at = int(found.modified * 1e9)
    ino = zlib.crc32(f"{found.key} {found.etag}".encode())
    return Info(ino, found.size, at, at, 1, modes.S_IFREG | 0o644, 0, 0, 0)
