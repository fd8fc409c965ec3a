"""Hard links from a layout elsewhere on the same file system, for `import-layout --link`."""

from __future__ import annotations

import os

from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root


def require_linkable(root: Root, info: os.stat_result) -> None:
    """Raises OSError: the two must share a file system, and servers must be able to read the result."""
    owner = root.driver.stat(keys.HIDDEN)
    if not os.path.isdir(root.label) or info.st_dev != owner.dev:
        raise OSError(0, "it is on another file system")
    if info.st_uid != owner.uid or not info.st_mode & 0o400:
        raise OSError(0, f"its files don't belong to uid {owner.uid}, who owns the store")


def link(root: Root, name: str, digest: Digest, held: HeldFile, fd: int) -> bool:
    """The file that was hashed gets one more name. False: it was changed meanwhile. Raises OSError."""
    context = local_of(root).context
    temp = keys.tmp(context.clock.token())
    _link_open(fd, os.path.join(root.label, temp))
    try:
        if not held.is_at(context.stat(temp)):
            return False
        local_of(root).blobs.publish(name, digest, temp)
        return True
    finally:
        context.discard(temp)


def _link_open(fd: int, path: str) -> None:
    """One more name for an open file. Outside of the driver, since its first name lies in no root."""
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without a directory descriptor Python calls link(2), which on Linux would link the link in /proc.
        os.link(str(fd), path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)
