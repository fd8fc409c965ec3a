"""Reads, restores, purges and healing write nothing into a repository that is served read-only (I9, I14)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import blob, flip, run_scrub, store_of
from tests.storage.mounting import mount_at
from tests.stores import push_blob, push_image
from zotctl.errors import BlobUnknown
from zotctl.jobs.gc import gc
from zotctl.jobs.gc_plan import GcOptions
from zotctl.jobs.local.restore import restore
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import keys

IMAGE = images.image()
LAYER = digest_of(IMAGE.blobs[1])


def collect(root: Path, delay: float) -> Report:
    run = Run("gc", store_of(root))
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=delay)))


def condemned(root: Path) -> Path:
    """A layer of `a` lies in the trash, from when the repository was ours. Its file there."""
    push_image(store_of(root), "a", "v1")
    folder = root / keys.TRASH / "run" / "a" / "blobs" / "sha256"
    folder.mkdir(parents=True)
    return blob(root, "a", LAYER).rename(folder / LAYER.encoded)


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """The root and the place outside of it that the repository has moved to."""
    root = tmp_path / "root"
    root.mkdir()
    condemned(root)
    (root / "a").rename(tmp_path / "elsewhere")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    return root, tmp_path / "elsewhere"


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def test_i9_a_read_brings_nothing_back_through_a_link(linked: tuple[Path, Path]) -> None:
    root, elsewhere = linked
    before, repository = files(elsewhere), store_of(root).repository("a")
    assert repository.read_only
    for ask in (repository.blob, repository.open_blob):
        with pytest.raises(BlobUnknown):
            ask(LAYER)
    assert not store_of(root).repository_for_push("b").mount_blob(repository, LAYER)
    assert files(elsewhere) == before


def test_i9_nor_does_a_purge_or_a_restore(linked: tuple[Path, Path]) -> None:
    root, elsewhere = linked
    before, kept = files(elsewhere), root / keys.TRASH / "run" / "a" / "blobs" / "sha256" / LAYER.encoded
    os.utime(kept.parent, (time.time() - 7200, time.time() - 7200))
    collect(root, 3600.0)
    assert (files(elsewhere), kept.exists()) == (before, True), "what is needed there is not thrown away either"
    run = Run("gc", store_of(root))
    report = run.finish(lambda: restore(run, f"a@{LAYER}"))
    assert [(error["error"], error["repository"]) for error in report.errors] == [("ReadOnly", "a")]
    assert (files(elsewhere), kept.exists()) == (before, True)


def test_i9_the_same_read_of_another_mount_is_no_fault_of_the_storage(tmp_path: Path) -> None:
    condemned(tmp_path)
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "a").mkdir()
    with mount_at(tmp_path / "a", "-t", "tmpfs", "none"):
        images.lay_out(tmp_path / "a", IMAGE, [images.row(IMAGE, "v1")])
        blob(tmp_path, "a", LAYER).unlink()
        with pytest.raises(BlobUnknown):
            store_of(tmp_path).repository("a").blob(LAYER)
        assert not blob(tmp_path, "a", LAYER).exists()


def test_i9_healing_leaves_a_store_below_the_root_alone(tmp_path: Path) -> None:
    """It has locks of its own, and gets no file of ours."""
    store = store_of(tmp_path)
    push_image(store, "a", "v1")
    (tmp_path / "inner").mkdir()
    push_image(store_of(tmp_path / "inner"), "b", "v1")
    theirs = blob(tmp_path, "inner/b", LAYER)
    theirs.unlink()
    os.link(blob(tmp_path, "a", LAYER), theirs)
    flip(theirs)
    run_scrub(store)
    before = theirs.stat().st_ino
    push_blob(store.repository("a"), IMAGE.blobs[1])
    assert blob(tmp_path, "a", LAYER).read_bytes() == IMAGE.blobs[1]
    assert theirs.stat().st_ino == before
