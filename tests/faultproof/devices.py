"""A file system whose power can be cut (docs/design/proof.md#power-cuts)."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounts import mounted
from tests.tools import need

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number: everything after it gives EIO, as after a power cut."""


class Device:
    """A file system in a file, to be cut off and mounted again."""

    def __init__(self, kind: str, point: Path) -> None:
        self.kind, self.point = kind, point

    def settle(self) -> None:
        """All that was written is on the device."""
        subprocess.run(["sync", "-f", str(self.point)], check=True)

    def flush_names(self) -> None:
        """Another program flushes a file of its own, which takes the whole log with it, and no bytes of others."""
        fd = os.open(self.point / "of another program", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, b"x")
            os.fsync(fd)
        finally:
            os.close(fd)

    def cut(self) -> None:
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def mount_again(self) -> Path:
        subprocess.run(["umount", str(self.point)], check=True)
        image = str(self.point.parent / "image")
        subprocess.run(["mount", "-t", self.kind, "-o", "loop", image, str(self.point)], check=True)
        return self.point


@contextmanager
def made(kind: str) -> Iterator[Device]:
    need("root", f"mkfs.{kind}")
    with mounted(kind) as point:
        yield Device(kind, point)
