"""Layouts made by hand, as skopeo, umoci or zot leave them, and ways to damage them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import images
from tests.images import Image
from tests.stores import store_over
from zotctl.errors import NotFound, Unavailable
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.finding import Finding
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store
from zotctl.storage.driver import Entry, Info
from zotctl.storage.local.driver import LocalDriver, LocalReader

OLD = 1_500_000_000
"""A time stamp long ago: nobody is writing these files."""


def age(root: Path) -> Path:
    """Give every file below an old time stamp."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (OLD, OLD))
    return root


def lay_out(root: Path, name: str, made: Image, *tags: str, **fields: Any) -> Path:
    rows = [images.row(made, tag) for tag in tags] or [images.row(made)]
    directory = images.lay_out(root / name, made, rows, **fields)
    age(directory)
    return directory


def store_of(*roots: Path, dedupe: bool = True, **options: Any) -> Store:
    return store_over(*(LocalDriver(str(root)) for root in roots), dedupe=dedupe, **options)


def blob(root: Path, name: str, body: bytes | Digest) -> Path:
    digest = body if isinstance(body, Digest) else digest_of(body)
    return root / name / "blobs" / digest.algorithm / digest.encoded


def flip(path: Path, at: int = 7) -> None:
    """One bit, and the time stamp as it was."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path, size: int) -> None:
    before = path.stat()
    os.truncate(path, size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def share(one: Path, other: Path) -> None:
    """`other` becomes one more name of `one`."""
    other.unlink()
    os.link(one, other)


def run_scrub(store: Store, *, repos: Sequence[str] = (), dry_run: bool = False, max_duration: float | None = None,
              **options: Any) -> Report:  # fmt: skip
    run = Run("scrub", store, repos=repos, dry_run=dry_run, max_duration=max_duration)
    return run.finish(lambda: scrub(run, ScrubOptions(**options)))


def told(report: Report) -> set[tuple[str, str | None, str]]:
    return {(f.repository, f.digest, f.kind) for f in report.findings}


def only(report: Report) -> Finding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


class Counted(LocalReader):
    """Tells of the first byte that is read: what is only held is not read."""

    def __init__(self, opened: list[str], key: str, inner: LocalReader) -> None:
        super().__init__(inner.fileno(), key, inner.size)
        self._opened, self._key = opened, key

    def _read(self, offset: int) -> None:
        if not offset:
            self._opened.append(self._key)

    def read_at(self, offset: int, count: int) -> bytes:
        self._read(offset)
        return super().read_at(offset, count)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self._read(offset)
        return super().read_into(offset, buffer)


class Counting(LocalDriver):
    """Counts what is opened and read below `blobs/`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.opened: list[str] = []

    def open(self, key: str):  # type: ignore[no-untyped-def]
        return Counted(self.opened, key, super().open(key))


class Leaving(LocalDriver):
    """A file system that is gone from a certain read on: an error, or an empty directory in its place."""

    def __init__(self, path: str, at: str, *, empty: bool) -> None:
        super().__init__(path)
        self.at, self.empty, self.gone = at, empty, False

    def _go(self, key: str) -> None:
        self.gone = self.gone or self.at in key
        if self.gone and not (self.empty and not key):
            raise (NotFound if self.empty else Unavailable)(f"{self.label}/{key}: Stale file handle")

    def stat(self, key: str) -> Info:
        self._go(key)
        found = super().stat(key)
        return found._replace(ino=found.ino + 1) if self.gone else found

    def open(self, key: str) -> LocalReader:
        self._go(key)
        return super().open(key)

    def scan(self, key: str) -> Sequence[Entry]:
        self._go(key)
        return [] if self.gone else super().scan(key)


def reads(driver: Counting, digest: Digest) -> int:
    return sum(key.endswith(digest.encoded) for key in driver.opened)
