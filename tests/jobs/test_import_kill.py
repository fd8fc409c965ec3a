"""import-layout killed, stopped, and on a full disk: the next run just works, and nothing is half there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.images import Image, descriptor, image, row
from tests.jobs.importing import (
    actions,
    index_bytes,
    left_behind,
    local_store,
    members_of,
    run_import,
    tar_bytes,
    tar_of,
    write_layout,
)
from tests.jobs.test_import_layouts import crafted, pulls
from tests.stores import push_image, store_over
from zotctl.errors import NoSpace
from zotctl.jobs.imports import archives
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.run import Run
from zotctl.jobs.staging import STAGING
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.storage import Store
from zotctl.storage.driver import Writer
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.wrappers import WrappedDriver

CHILD = """
import sys
from tests.jobs.importing import local_store, run_import
from pathlib import Path
print("ready", flush=True)
sys.exit(run_import(local_store(Path(sys.argv[1])), sys.argv[2]).exit_code)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight images of some megabytes."""
    made = [heavy(number) for number in range(8)]
    return write_layout(tmp_path / "app", *made, rows=[row(one, f"v{number}") for number, one in enumerate(made)])


def heavy(number: int) -> Image:
    rng = random.Random(number)
    config = json.dumps({"os": "linux", "number": number}).encode()
    layers = [rng.randbytes(1 << 20) for _ in range(2)]
    layer = "application/vnd.oci.image.layer.v1.tar"
    fields = {
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(body, layer) for body in layers],
    }
    return crafted([config, *layers], **fields)


@pytest.mark.parametrize("packed", [False, True])
def test_killed_at_any_moment_and_run_again(source: Path, tmp_path: Path, packed: bool) -> None:
    given = source
    if packed:
        given = tmp_path / "app.tar"
        given.write_bytes(tar_of(source))
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15):
        _killed_after(tmp_path / "store", given, delay)
        seen = local_store(tmp_path / "store")
        assert seen.repositories() in ([], ["app"])
        assert not seen.repositories() or len(seen.repository("app").tags()) in (0, 8)
    store = local_store(tmp_path / "store")
    assert run_import(store, given).exit_code == 0
    assert all(pulls(store, "app", heavy(number), f"v{number}") for number in range(8))
    assert not Path(store.roots[0].label, STAGING).exists()


def _killed_after(store: Path, source: Path, delay: float) -> None:
    command = [sys.executable, "-c", CHILD, str(store), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)


def test_what_a_killed_run_staged_is_used(
    store: Store, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(source))
    report = run_import(store, path, max_duration=-1)
    assert report.exit_code == 16
    taken: list[int] = []
    take = archives.Staging.take

    def count(stage: archives.Staging, digest: Any, size: int, chunks: Any) -> None:
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(size)
        take(stage, digest, size, chunks)

    monkeypatch.setattr(archives.Staging, "take", count)
    with pytest.raises(KeyboardInterrupt):
        run_import(store, path)
    assert store.repositories() == [] and len(taken) == 5
    monkeypatch.setattr(archives.Staging, "take", lambda s, d, size, c: (taken.append(size), take(s, d, size, c))[1])
    assert run_import(store, path).exit_code == 0
    assert len(taken) == sum(1 for _ in (source / "blobs" / "sha256").iterdir())


@pytest.mark.parametrize("least", [0, 1 << 20])
def test_what_a_power_cut_left_of_staged_blobs_is_not_used(
    store: Store, source: Path, tmp_path: Path, least: int
) -> None:
    """They are not flushed: sizes may be right, and bytes not. `least`: of the manifests as well, or of layers only."""
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(source))
    assert run_import(store, path, max_duration=-1).exit_code == 16
    for blob in sorted((source / "blobs" / "sha256").iterdir()):
        store.roots[0].maintenance.take(STAGING, parse_digest(f"sha256:{blob.name}"), [blob.read_bytes()])
        staged = Path(store.roots[0].label, STAGING, "blobs", "sha256", blob.name)
        if staged.stat().st_size >= least:
            with staged.open("r+b") as file:  # the pool has the same file
                file.write(bytes(staged.stat().st_size))
    assert run_import(local_store(tmp_path / "store"), path).exit_code == 0
    assert all(pulls(local_store(tmp_path / "store"), "app", heavy(number), f"v{number}") for number in range(8))
    for blob in (tmp_path / "store" / "app" / "blobs" / "sha256").iterdir():
        assert digest_of(blob.read_bytes()).encoded == blob.name


def test_stopped_in_time_and_resumed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = local_store(tmp_path / "store")
    ticks = iter(range(10_000))
    monkeypatch.setattr(store.clock, "elapsed", lambda: float(next(ticks)))
    report = run_import(store, source, max_duration=30.0)
    assert report.exit_code == 16
    assert store.repositories() == [] or store.repository("app").tags() == []
    copied = report.summary.get("blobs", 0)
    monkeypatch.undo()
    report = run_import(store, source)
    assert report.exit_code == 0 and report.summary["blobs"] == 32 - copied and copied > 0


class _Full(WrappedDriver):
    """No room after so many bytes."""

    def __init__(self, inner: LocalDriver, room: int) -> None:
        super().__init__(inner)
        self.room = room

    def create(self, key: str) -> Writer:
        return _Counting(self, self.inner.create(key))

    def append(self, key: str, *, create: bool = True) -> Writer:
        return _Counting(self, self.inner.append(key, create=create))


class _Counting:
    def __init__(self, driver: _Full, inner: Writer) -> None:
        self._driver, self._inner = driver, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, buffers: Any) -> int:
        self._driver.room -= sum(map(len, buffers))
        if self._driver.room < 0:
            raise NoSpace("the disk is full")
        return self._inner.write(buffers)

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


@pytest.mark.parametrize("room", [150, 1000, 1 << 20, 5 << 20, (16 << 20) + 3000, (16 << 20) + 6000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_full_disk_changes_no_index(source: Path, tmp_path: Path, room: int, packed: bool) -> None:
    (tmp_path / "store").mkdir()
    full = _Full(LocalDriver(str(tmp_path / "store")), 1 << 40)
    store = store_over(full)
    push_image(store, "app", "before")
    before = index_bytes(store, "app")
    given: Path = source
    if packed:
        given = tmp_path / "app.tar"
        given.write_bytes(tar_of(source))
    full.room = room
    report = run_import(store, given)
    assert report.exit_code == 13 and "full" in report.errors[0]["reason"]
    assert index_bytes(store, "app") == before
    assert not any("/uploads/" in name or "/tmp/" in name for name in left_behind(store))
    full.room = 1 << 40
    assert run_import(store, given).exit_code == 0 and len(store.repository("app").tags()) == 9


def test_a_second_run_says_who_is_at_it(store: Store, source: Path) -> None:
    first = Run("import-layout", store)
    with first.leases():
        second = run_import(local_store(Path(store.roots[0].label)), source)
    assert second.exit_code == 11 and str(os.getpid()) in second.errors[0]["reason"]


def test_a_pause_between_any_two_blobs_shows_no_tag(store: Store, source: Path) -> None:
    seen: list[int] = []

    def look() -> None:
        server = local_store(Path(store.roots[0].label))
        seen.append(len(server.repository("app").tags()) if server.repositories() else 0)

    run = Run("import-layout", store, pause=look)
    assert run.finish(lambda: import_layout(run, str(source))).exit_code == 0
    assert len(seen) >= 32 and set(seen) == {0}
    assert len(local_store(Path(store.roots[0].label)).repository("app").tags()) == 8


def test_many_images_are_one_commit(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [image(str(number), layers=1) for number in range(50)]
    source = write_layout(tmp_path / "app", *made, rows=[row(one, f"v{n}") for n, one in enumerate(made)])
    commits: list[str] = []
    commit = store.roots[0].committer.commit
    monkeypatch.setattr(store.roots[0].committer, "commit", lambda n, c: (commits.append(n), commit(n, c))[1])
    assert run_import(store, source).exit_code == 0
    assert commits == ["app"] and len(store.repository("app").tags()) == 50


def test_an_archive_beside_a_server_that_pushes(store: Store, tmp_path: Path) -> None:
    made = image("busybox")
    path = tmp_path / "app.tar"
    path.write_bytes(tar_bytes(members_of(made)))
    server = local_store(Path(store.roots[0].label))
    push_image(server, "app", "pushed")
    assert run_import(store, path).exit_code == 0
    push_image(server, "app", "later", seed="y")
    assert server.repository("app").tags() == ["1.36", "later", "pushed"]
    assert actions(run_import(store, path), "unchanged")[0]["digest"] == digest_of(made.manifest)
