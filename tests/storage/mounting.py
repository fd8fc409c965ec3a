"""Mounts at a place that a test chooses, taken down whatever happens."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import missing, need


@contextmanager
def mount_at(point: Path, *arguments: str) -> Iterator[None]:
    """`mount ARGUMENTS point`; the test is skipped where that can't be done."""
    need("root", "mount", "umount")
    if subprocess.run(["mount", *arguments, str(point)], check=False, capture_output=True).returncode:
        missing("mounts")
    try:
        yield
    finally:
        for lazy in ([], [], ["-l"]):
            if not subprocess.run(["umount", *lazy, str(point)], check=False, capture_output=True).returncode:
                break
            time.sleep(0.05)
