"""A disk without room, without inodes, read-only or failing: told clearly, nothing lost, and deleting works."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from tests import images
from tests.faultproof.checks import faults_of, files_below, tags
from tests.stores import push_blob, push_image, store_over
from tests.tools import missing, need
from zotctl.errors import BlobUnknown, IoFailed, NoSpace, ReadOnlyStorage, StorageError
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import Reader
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.wrappers import WrappedDriver

NAME = "team/app"
SIZE = 2 << 20
INODES = 200


@contextmanager
def tmpfs(options: str) -> Iterator[Path]:
    need("root", "mount", "umount")
    point = Path(tempfile.mkdtemp(prefix="zotctl-full-"))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(point)], check=False, capture_output=True)
    try:
        if done.returncode:
            missing("tmpfs mounts")
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)
        with suppress(OSError):
            point.rmdir()


@pytest.fixture(params=["bytes", "inodes"])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    with tmpfs(f"size={SIZE},nr_inodes={INODES}") as point:
        yield Disk(point, request.param)


class Disk:
    """A small file system, to be filled to the last byte or the last inode."""

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what
        self._filling = root / "filling"

    def fill(self) -> None:
        self._filling.mkdir(exist_ok=True)
        try:
            if self.what == "inodes":
                for number in range(10 * INODES):
                    (self._filling / f"{number}").touch()
            with (self._filling / "bytes").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass

    def make_room(self) -> None:
        for path in self._filling.iterdir():
            path.unlink()

    def free(self) -> tuple[int, int]:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize, found.f_favail


def filled(disk: Disk, *, commit: bool = False) -> tuple[Store, Digest, Digest]:
    """A store with a tag, a second one, and a blob that nothing needs; then the disk is full."""
    store = store_over(LocalDriver(str(disk.root)), commit=commit)
    store.maintain()
    old = push_image(store, NAME, "v1", seed="old")
    push_image(store, NAME, "v2", seed="other")
    unused = push_blob(store.repository_for_push(NAME), os.urandom(50_000))
    disk.fill()
    return store, old, unused


@pytest.mark.parametrize("commit", [False, True], ids=["lazy", "commit"])
def test_i3_a_push_into_a_full_disk(disk: Disk, commit: bool) -> None:
    store, old, _ = filled(disk, commit=commit)
    before, free = files_below(disk.root), disk.free()
    for _ in range(3):
        with pytest.raises(NoSpace):
            push_image(store, NAME, "v1", seed="new")
        with pytest.raises(NoSpace):
            push_image(store, "new/one", "v1", seed="new")
    after = files_below(disk.root)
    assert faults_of(after, temps=False) == []
    assert {key: after.get(key) for key in before} == before, "nothing that was there has changed"
    assert os.listdir(disk.root / keys.UPLOADS) == []
    assert disk.free() >= free if disk.what == "bytes" else disk.free()[1] >= free[1]
    assert store.repository(NAME).manifest("v1").digest == old
    disk.make_room()
    new = push_image(store, NAME, "v1", seed="new")
    assert store.repository(NAME).manifest("v1").digest == new
    assert faults_of(files_below(disk.root), temps=False) == []
    store.close()


def test_a_large_upload_frees_its_bytes_at_once(disk: Disk) -> None:
    store = store_over(LocalDriver(str(disk.root)))
    push_image(store, NAME, "v1")
    before = disk.free()
    repository = store.repository_for_push(NAME)
    with repository.resume_upload(repository.start_upload()) as upload, pytest.raises(NoSpace):
        while True:
            upload.write([os.urandom(100_000)])
    assert disk.free() == before
    assert os.listdir(disk.root / keys.UPLOADS) == []
    push_image(store, NAME, "v2", seed="another")
    store.close()


@pytest.mark.parametrize("again", [False, True], ids=["first process", "another process"])
def test_deleting_on_a_full_disk(disk: Disk, again: bool) -> None:
    """Tags, manifests and blobs, one right after the other, by the one reserve there is."""
    store, old, unused = filled(disk)
    if again:
        store.close()
        store = store_over(LocalDriver(str(disk.root)))
    repository = store.repository_for_push(NAME)
    repository.delete_manifest("v2")
    repository.delete_manifest(images.image("other").digest)
    store.repository_for_push(NAME).delete_manifest(old)
    for digest in [unused, *(digest_of(body) for body in images.image("old").blobs)]:
        store.repository_for_push(NAME).delete_blob(digest)
        with pytest.raises(BlobUnknown):
            store.repository(NAME).blob(digest)
    files = files_below(disk.root)
    assert faults_of(files, temps=False) == []
    assert tags(files, NAME) == {}
    assert store.repository(NAME).index().digests == {}
    disk.make_room()
    push_image(store, NAME, "v3", seed="new")
    store.close()


def test_deleting_a_blob_without_room_for_the_trash_frees_its_bytes() -> None:
    """Also those of the pool's name: it is why people delete."""
    with tmpfs(f"size={SIZE},nr_inodes={INODES}") as root:
        disk = Disk(root, "inodes")
        store, _, unused = filled(disk)
        disk.fill()
        before = disk.free()
        store.repository_for_push(NAME).delete_blob(unused)
        assert not any(unused.encoded in key for key in files_below(root))
        assert disk.free()[0] > before[0] and disk.free()[1] > before[1]
        store.close()


def test_without_a_reserve_the_index_stays(disk: Disk) -> None:
    """The guard of the tests above: it is the reserve that makes it work."""
    store, _, _ = filled(disk)
    (disk.root / keys.RESERVE).unlink()
    store.close()
    disk.fill()
    with pytest.raises(NoSpace):
        store.repository_for_push(NAME).delete_manifest("v2")
    files = files_below(disk.root)
    assert faults_of(files, temps=False) == []
    assert set(tags(files, NAME)) == {"v1", "v2"}


def without_an_inode(root: Path, *, reserve: bool, leased: bool = False) -> None:
    """A store with a blob that nothing needs, on a file system without a free inode. `leased`: gc was here before."""
    store = store_over(LocalDriver(str(root)))
    if reserve:
        store.maintain()
    push_image(store, NAME, "v1", seed="old")
    push_image(store, NAME, "v2", seed="other")
    push_blob(store.repository_for_push(NAME), os.urandom(50_000))
    store.close()
    if leased:
        with store.roots[0].maintenance.lease("gc"):
            pass
    for path in (root / NAME / "blobs").rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000))
    Disk(root, "inodes").fill()
    assert os.statvfs(root).f_favail == 0


def free_inodes(root: Path) -> int:
    return os.statvfs(root).f_favail


def collected(root: Path, delay: float) -> Report:
    run = Run("gc", store_over(LocalDriver(str(root))))
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=delay)))


@contextmanager
def few_inodes() -> Iterator[Path]:
    with tmpfs(f"size=16m,nr_inodes={4 * INODES}") as root:
        yield root


@pytest.mark.parametrize("reserve", [True, False], ids=["reserve", "none"])
def test_gc_needs_no_inode_to_free_one(reserve: bool) -> None:
    with few_inodes() as root:
        without_an_inode(root, reserve=reserve)
        report = collected(root, 0.0)
        assert (report.exit_code, report.errors, report.summary["purged"]) == (0, [], 1)
        assert free_inodes(root) > 0
        assert set(tags(files_below(root), NAME)) == {"v1", "v2"}
        assert faults_of(files_below(root)) == []


@pytest.mark.parametrize("leased", [False, True])
def test_gc_with_a_delay_takes_its_folders_from_the_reserve(leased: bool) -> None:
    with few_inodes() as root:
        without_an_inode(root, reserve=True, leased=leased)
        report = collected(root, 3600.0)
        assert (report.exit_code, report.errors, report.summary["unreachable"]) == (0, [], 1)
        assert faults_of(files_below(root)) == []


def test_gc_with_a_delay_and_no_reserve_names_the_way_out_and_purges_what_lay_long_enough() -> None:
    with few_inodes() as root:
        store = store_over(LocalDriver(str(root)))
        push_image(store, NAME, "v1")
        gone = push_blob(store.repository_for_push(NAME), os.urandom(5000))
        os.utime(root / keys.blob(NAME, gone), (1_500_000_000, 1_500_000_000))
        assert collected(root, 3600.0).summary["unreachable"] == 1
        for path in (root / keys.TRASH).rglob("sha256"):
            os.utime(path, (1_500_000_000, 1_500_000_000))
        unused = push_blob(store.repository_for_push(NAME), os.urandom(5000))
        os.utime(root / keys.blob(NAME, unused), (1_500_000_000, 1_500_000_000))
        store.close()
        Disk(root, "inodes").fill()
        report = collected(root, 3600.0)
        assert report.summary["purged"] == 1
        assert free_inodes(root) > 0
        assert all("--delay 0s" in error["reason"] for error in report.errors)


@pytest.mark.parametrize("reserve", [True, False], ids=["reserve", "none"])
def test_scrub_needs_no_inode(reserve: bool) -> None:
    with few_inodes() as root:
        without_an_inode(root, reserve=reserve)
        layer = root / keys.blob(NAME, digest_of(images.image("old").blobs[1]))
        data = bytearray(layer.read_bytes())
        data[7] ^= 1
        with layer.open("r+b") as file:
            file.write(data)
        run = Run("scrub", store_over(LocalDriver(str(root))))
        report = run.finish(lambda: scrub(run, ScrubOptions()))
        assert [finding.kind for finding in report.findings] == ["digest_mismatch"]
        assert report.findings[0].action == ("marked" if reserve else "none")


def test_serve_deletes_without_an_inode() -> None:
    """Tags, a manifest and a blob, by the one reserve there is."""
    with few_inodes() as root:
        without_an_inode(root, reserve=True)
        store = store_over(LocalDriver(str(root)))
        store.repository_for_push(NAME).delete_manifest("v2")
        store.repository_for_push(NAME).delete_manifest(images.image("other").digest)
        assert set(tags(files_below(root), NAME)) == {"v1"}
        assert faults_of(files_below(root)) == []


def test_the_reserve_comes_back(disk: Disk) -> None:
    store, _, _ = filled(disk)
    store.repository_for_push(NAME).delete_manifest("v2")
    assert not (disk.root / keys.RESERVE).exists()
    disk.make_room()
    store.maintain()
    assert (disk.root / keys.RESERVE).stat().st_size > 0
    store.close()


def test_opening_a_full_disk(disk: Disk) -> None:
    store, old, _ = filled(disk)
    store.close()
    disk.fill()
    again = store_over(LocalDriver(str(disk.root)))
    assert again.repository(NAME).manifest("v1").digest == old
    assert again.repositories() == [NAME]


def test_i9_a_read_only_remount(tmp_path: Path) -> None:
    """As ext4 does after an error: reading goes on, writing is refused, and comes back with the mount."""
    with tmpfs("size=8m") as root:
        store = store_over(LocalDriver(str(root)), commit=True)
        old = push_image(store, NAME, "v1", seed="old")
        unused = push_blob(store.repository_for_push(NAME), b"unused")
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        before = files_below(root)
        repository, body = store.repository_for_push(NAME), images.image("old").manifest
        writes: list[Callable[[], object]] = [
            lambda: push_image(store, NAME, "v1", seed="new"),
            lambda: push_image(store, "new/one", "v1", seed="new"),
            lambda: repository.delete_manifest("v1"),
            lambda: repository.delete_manifest(old),
            lambda: repository.delete_blob(unused),
            lambda: repository.put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v9"]),
        ]
        for write in writes:
            with pytest.raises(ReadOnlyStorage) as refused:
                write()
            assert (refused.value.code, refused.value.exit_code) == ("DENIED", 12)
        store.maintain()
        assert files_below(root) == before
        assert store.repository(NAME).manifest("v1").digest == old
        for blob in images.image("old").blobs:
            with store.repository(NAME).open_blob(digest_of(blob)) as reader:
                assert reader.read_at(0, reader.size) == blob
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        push_image(store, NAME, "v1", seed="new")
        store.close()


class Unreadable(WrappedDriver):
    """Some keys can't be read: the device says EIO."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalDriver(str(root)))
        self.broken: set[str] = set()

    def open(self, key: str) -> Reader:
        reader = super().open(key)
        if key in self.broken:
            return cast(Reader, _Failing(reader))
        return reader


class _Failing:
    """A reader, but for reading."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read_at(self, *_: object) -> bytes:
        raise IoFailed("Input/output error (read)")

    read_into = read_at

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


def test_i15_io_error_on_read_is_no_absence(tmp_path: Path) -> None:
    """A manifest, a layer, index.json: 503, never 404; and it is asked again when the device is back."""
    driver = Unreadable(tmp_path)
    push_image(store_over(driver), NAME, "v1")
    made = images.image()
    layer = keys.blob(NAME, digest_of(made.blobs[1]))
    for key in (keys.index(NAME), keys.layout(NAME), keys.blob(NAME, made.digest)):
        driver.broken = {key}
        store = store_over(driver)
        with pytest.raises(IoFailed):
            store.repository(NAME).manifest("v1")
        driver.broken = set()
        assert store.repository(NAME).manifest("v1").body == made.manifest
    driver.broken = {layer}
    with store_over(driver).repository(NAME).open_blob(digest_of(made.blobs[1])) as reader, pytest.raises(IoFailed):
        reader.read_at(0, 10)


def test_i5_an_unreadable_manifest_keeps_what_it_may_need(tmp_path: Path) -> None:
    driver = Unreadable(tmp_path)
    push_image(store_over(driver), NAME, "v1")
    made = images.image()
    driver.broken = {keys.blob(NAME, made.digest)}
    store = store_over(driver)
    for body in made.blobs:
        with pytest.raises(StorageError):
            store.repository_for_push(NAME).delete_blob(digest_of(body))
    driver.broken = set()
    assert faults_of(files_below(tmp_path)) == []
    assert store.repository(NAME).referrers(made.digest) == []


def test_i2_a_push_heals_a_layer_that_can_not_be_read(tmp_path: Path) -> None:
    driver = Unreadable(tmp_path)
    push_image(store_over(driver), NAME, "v1")
    layer = images.image().blobs[1]
    digest = digest_of(layer)
    driver.broken = {keys.blob(NAME, digest), keys.pool(digest)}
    ino = driver.stat(keys.blob(NAME, digest)).ino
    push_blob(store_over(driver).repository_for_push(NAME), layer)
    driver.broken = set()
    assert driver.stat(keys.blob(NAME, digest)).ino != ino, "our bytes, which were just written, took its place"
    assert faults_of(files_below(tmp_path)) == []
