"""Files that a configuration names, and that are read again when they change."""

from __future__ import annotations

import os

FileState = tuple[int, ...]


def file_state(path: str) -> FileState:
    """What tells a change of a file, also of one that was written in place and dated back. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
