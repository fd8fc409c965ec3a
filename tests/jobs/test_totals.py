"""What progress says of `verify --deep` and `dedupe` ends at its total, which says how much is to be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import lay_out
from zotctl.config import RootConfig, StorageConfig
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.report import Sink
from zotctl.jobs.run import Run
from zotctl.storage import open_store

IMAGE, OTHER = images.image(), images.image("other")


class Told(Sink):
    """Remembers the last progress."""

    def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        self.last = (done, total, unit)


def told(root: Path, work: Callable[[Run], None], read_only: bool = False) -> tuple[int, int | None, str]:
    sink = Told()
    store = open_store(StorageConfig(roots=(RootConfig(path=str(root)),), read_only=read_only))
    try:
        run = Run("job", store, sink=sink)
        report = run.finish(lambda: work(run))
        assert report.exit_code == 0, report.document()
    finally:
        store.close()
    return sink.last


def sizes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*/blobs/sha256/*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        lay_out(tmp_path, name, IMAGE, "v1")
    lay_out(tmp_path, "c", OTHER, "v2")
    return tmp_path


def test_the_totals_are_what_is_read(root: Path) -> None:
    one = sizes(root)
    deep = VerifyOptions(deep=True, measure=True)
    assert told(root, lambda run: verify(run, deep), read_only=True) == (one, one, "bytes")
    done, total, unit = told(root, lambda run: dedupe(run, DedupeOptions(measure=True)))
    assert done == total and unit == "bytes"
    assert told(root, lambda run: dedupe(run, DedupeOptions(measure=True))) == (0, 0, "bytes"), "nothing is left to do"
    once = sum({path.stat().st_ino: path.stat().st_size for path in root.glob("*/blobs/sha256/*")}.values())
    assert told(root, lambda run: verify(run, deep), read_only=True) == (once, once, "bytes")
    done, total, unit = told(root, lambda run: dedupe(run, DedupeOptions(undo=True, measure=True)))
    assert (done, total) == (one - once, one - once)


def test_what_another_tool_has_linked_is_taken_off_the_total(root: Path) -> None:
    for first in root.glob("a/blobs/sha256/*"):
        second = root / "b" / first.relative_to(root / "a")
        second.unlink()
        os.link(first, second)
    done, total, unit = told(root, lambda run: dedupe(run, DedupeOptions(measure=True)))
    assert done == total and unit == "bytes"
