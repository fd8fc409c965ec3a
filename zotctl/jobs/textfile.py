"""The file of --metrics-file, which the textfile collector of a node exporter reads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from zotctl.jobs.metrics import Totals
from zotctl.jobs.report import Report
from zotctl.storage.root import Root


def write(path: str, report: Report, roots: Iterable[Root]) -> None:
    """Add a run to what the file tells. It is replaced as a whole, so that no reader sees half of it. Raises
    OSError."""
    path = os.path.realpath(path)
    with _alone(os.path.dirname(path)):
        totals = Totals(_text(path))
        totals.add(report, roots)
        _replace(path, totals.text())


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Several jobs may share a file: no run is lost. Where a directory can't be locked, that is a matter of luck."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _text(path: str) -> str:
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _replace(path: str, text: bytes) -> None:
    temp = f"{path}.tmp"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o644)  # whatever cron's umask: the exporter is another user
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.rename(temp, path)
