"""Reads, restores, purges and healing write nothing into a repository that is served read-only (I9, I14)."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import blob, flip, run_scrub, store_of
from tests.storage.mounting import mount_at
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import BlobUnknown, ReadOnly
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.locks import Locks
from zotctl.storage.wrappers import WrappedDriver

IMAGE = images.image()
LAYER = digest_of(IMAGE.blobs[1])


def collect(root: Path, delay: float) -> Report:
    run = Run("gc", store_of(root))
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=delay)))


def trashed(root: Path) -> Path:
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
    trashed(root)
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
    trashed(tmp_path)
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


class Bound(WrappedDriver):
    """A directory is a bind mount: the same device as the root has, and yet another mount."""

    def __init__(self, inner: Driver, directory: str) -> None:
        super().__init__(inner)
        self.directory = directory

    def crosses_mount(self, key: str) -> bool:
        return super().crosses_mount(key) or f"{key}/".startswith(f"{self.directory}/")


@pytest.mark.parametrize("directory", ["a", "a/b", "a/b/blobs", "a/b/blobs/sha256"])
def test_i9_what_is_bound_to_another_place_of_the_same_device_is_only_read(tmp_path: Path, directory: str) -> None:
    push_image(store_of(tmp_path), "a/b", "v1")
    push_image(store_of(tmp_path), "ab", "v1")
    driver = Bound(LocalDriver(str(tmp_path)), directory)
    context = LocalContext(driver, Clock(), Locks(driver, Clock()))
    assert (context.owns("a/b"), context.owns("ab")) == (False, True)
    assert store_over(driver).repository("a/b").read_only


@pytest.mark.parametrize("delay", [0.0, 1.0])
@pytest.mark.parametrize("below", ["", "blobs", "blobs/sha256"])
def test_i9_a_repository_of_another_store_on_this_device_is_left_alone(
    tmp_path: Path, delay: float, below: str
) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for place in (root, other):
        place.mkdir()
        push_image(store_of(place), "x", "v1")
    push_blob(store_of(other).repository("x"), b"under way")
    for path in other.rglob("*"):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    point = root / "bound" / below
    if below:
        shutil.copytree(other / "x", root / "bound")
    point.mkdir(exist_ok=True)
    before = files(other)
    with mount_at(point, "--bind", str(other / "x" / below)):
        assert collect(root, delay).exit_code == 0
        assert store_of(root).repository("bound").blob(LAYER) == len(IMAGE.blobs[1])
        with pytest.raises(ReadOnly):
            push_image(store_of(root), "bound", "v2")
    assert files(other) == before
