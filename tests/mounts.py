"""Real file systems for tests: loop mounts, small tmpfs and a FUSE mount, taken down whatever happens.

Each test process (xdist worker) makes its own, once, in a directory of its own.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.tools import missing, need, program

IMAGE_SIZE = 400 << 20
"""Bytes, sparse. xfs needs 300 MB."""
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-N", "4096"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-m", "single"],
}
KINDS = (*MAKE, "tmpfs", "fuse")


class Mounts:
    """What this process has mounted, by kind. `close` takes all of it down."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[str, Path] = {}
        atexit.register(self.close)

    def get(self, kind: str) -> Path:
        """The mount point; the test is skipped where the machine can't do it."""
        if kind not in self._made:
            self._made[kind] = self._stack.enter_context(mounted(kind))
        return self._made[kind]

    def close(self) -> None:
        self._made.clear()
        self._stack.close()


@pytest.fixture(scope="session")
def mounts() -> Iterator[Mounts]:
    made = Mounts()
    yield made
    made.close()


@contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """One file system, in a new temporary directory."""
    need("root", "mount", "umount")
    base = Path(tempfile.mkdtemp(prefix=f"zotctl-{kind}-"))
    point = base / "mnt"
    point.mkdir()
    try:
        if kind == "fuse":
            with _fuse(base, point):
                yield point
            return
        with _mount(_arguments(kind, base), point, kind):
            yield point
    finally:
        if not is_mounted(point):
            shutil.rmtree(base, ignore_errors=True)


def is_mounted(point: Path) -> bool:
    """Not `os.path.ismount`: that is a stat, which fails where a test has shut the file system down."""
    return f" {point} " in Path("/proc/self/mounts").read_text()


def control_file(point: Path) -> Path:
    """Where a FUSE mount looks for the fault it shall make (see `fuse_passthrough`)."""
    return point.parent / "control"


def _arguments(kind: str, base: Path) -> list[str]:
    if kind == "tmpfs":
        return ["-t", "tmpfs", "-o", "size=16m,nr_inodes=300", "none"]
    make, *options = MAKE[kind]
    need(make, "/dev/loop-control")
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_SIZE)
    subprocess.run([program(make), *options, str(image)], check=True, capture_output=True)
    return ["-t", kind, "-o", "loop", str(image)]


@contextmanager
def _mount(arguments: list[str], point: Path, kind: str) -> Iterator[None]:
    done = subprocess.run(["mount", *arguments, str(point)], check=False, capture_output=True)
    if done.returncode:
        missing(f"{kind} mounts")
    try:
        yield
    finally:
        _unmount(["umount"], point)


@contextmanager
def _fuse(base: Path, point: Path) -> Iterator[None]:
    need("mfusepy", "fusermount3", "/dev/fuse")
    source = base / "source"
    source.mkdir()
    script = Path(__file__).with_name("fuse_passthrough.py")
    server = subprocess.Popen(
        [sys.executable, str(script), str(source), str(point), str(control_file(point))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while not is_mounted(point):
            if server.poll() is not None or time.monotonic() > until:
                missing("FUSE mounts")
            time.sleep(0.02)
        yield
    finally:
        _unmount(["fusermount3", "-u"], point)
        server.terminate()
        server.wait()


def _unmount(command: list[str], point: Path) -> None:
    """Lazily at last: a test that failed may have left a file open."""
    if not is_mounted(point):
        return
    for lazy in ([], [], ["-l" if command == ["umount"] else "-z"]):
        done = subprocess.run([*command, *lazy, str(point)], check=False, capture_output=True)
        if not done.returncode:
            return
        time.sleep(0.1)
