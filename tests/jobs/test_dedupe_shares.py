"""Deduplication of a store that is there already: what is shared, what is left, what is never spread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.nfs import ByTwoRequests
from tests.faults import Crash
from tests.jobs.layouts import Counting, blob, cut, flip, lay_out, reads, run_scrub, share, store_of, told
from tests.stores import push_blob, push_image, store_over
from tests.tools import need
from zotctl.errors import NotFound, PermissionRefused
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, Info, Space
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import ReadOnlyDriver, WrappedDriver

IMAGE = images.image("one", layers=3)
LAYER = IMAGE.blobs[1]
DIGEST = digest_of(LAYER)
WHOLE = [IMAGE.manifest, *IMAGE.blobs]
SIZE = sum(map(len, WHOLE))
NAMES = ("a", "b", "c/d")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        lay_out(tmp_path, name, IMAGE, "v1")
    lay_out(tmp_path, "other", images.image("other"), "v1")
    return tmp_path


def run_dedupe(store: Store, *, repos: Sequence[str] = (), dry_run: bool = False, max_duration: float | None = None,
               undo: bool = False, workers: int = 2) -> Report:  # fmt: skip
    run = Run("dedupe", store, repos=repos, dry_run=dry_run, max_duration=max_duration)
    return run.finish(lambda: dedupe(run, DedupeOptions(undo=undo, workers=workers)))


def inodes(root: Path, body: bytes, names: Sequence[str] = NAMES) -> set[int]:
    return {blob(root, name, body).stat().st_ino for name in names}


def assert_whole(root: Path, names: Sequence[str] = NAMES) -> None:
    for name in names:
        assert [blob(root, name, body).read_bytes() for body in WHOLE] == WHOLE
        assert {path.name for path in (root / name / "blobs/sha256").iterdir()} == {digest_of(b).encoded for b in WHOLE}


@pytest.mark.parametrize("workers", [1, 4])
def test_each_content_once(root: Path, workers: int) -> None:
    report = run_dedupe(store_of(root), workers=workers)
    assert (report.exit_code, report.findings) == (0, [])
    assert report.summary["linked"] == 2 * len(WHOLE)
    assert report.summary["saved_bytes"] == 2 * SIZE
    assert {i["repository"]: i["saved_bytes"] for i in report.items} == {"b": SIZE, "c/d": SIZE}
    assert [len(inodes(root, body)) for body in WHOLE] == [1] * len(WHOLE)
    assert_whole(root)
    assert run_scrub(store_of(root)).findings == []
    assert list((root / keys.TMP).iterdir()) == []


def test_only_what_is_there_twice_is_read_and_a_second_run_reads_nothing(root: Path) -> None:
    driver = Counting(str(root))
    run_dedupe(store_over(driver))
    assert reads(driver, images.image("other").digest) == 0
    assert reads(driver, DIGEST) > 0
    driver = Counting(str(root))
    report = run_dedupe(store_over(driver))
    assert [key for key in driver.opened if "/blobs/" in key or "/pool/" in key] == []
    assert report.summary.get("linked", 0) == 0


def test_new_repositories_are_taken_in(root: Path) -> None:
    run_dedupe(store_of(root))
    lay_out(root, "new", IMAGE, "v1")
    report = run_dedupe(store_of(root))
    assert (report.summary["linked"], report.summary["saved_bytes"]) == (len(WHOLE), SIZE)


def test_a_push_finds_what_was_there(root: Path) -> None:
    run_dedupe(store_of(root))
    store = store_of(root)
    push_blob(store.repository_for_push("pushed"), LAYER)
    assert len(inodes(root, LAYER, [*NAMES, "pushed"])) == 1


def test_the_bytes_of_an_inode_are_saved_with_its_last_name(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        lay_out(tmp_path, name, IMAGE, "v1")
    blob(tmp_path, "c", LAYER).unlink()
    os.link(blob(tmp_path, "b", LAYER), blob(tmp_path, "c", LAYER))
    planned = run_dedupe(store_of(tmp_path), dry_run=True)
    report = run_dedupe(store_of(tmp_path), workers=1)
    assert report.summary["saved_bytes"] == 2 * SIZE - len(LAYER)
    assert planned.summary["saved_bytes"] == report.summary["saved_bytes"]
    assert planned.summary["linked"] == report.summary["linked"]


def test_a_dry_run_names_digests_and_bytes_and_changes_nothing(root: Path) -> None:
    store = store_of(root)
    before = {path: path.stat().st_ctime_ns for path in root.rglob("*")}
    report = run_dedupe(store, dry_run=True)
    assert {path: path.stat().st_ctime_ns for path in root.rglob("*")} == before
    assert {(i["repository"], i["digest"], i["size_bytes"]) for i in report.items} == {
        (name, str(digest_of(body)), len(body)) for name in NAMES[1:] for body in WHOLE
    }
    assert report.summary["saved_bytes"] == 2 * SIZE


# -- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [flip, lambda path: cut(path, 9)])
@pytest.mark.parametrize("which", NAMES)
def test_i2_damage_is_never_spread(root: Path, which: str, spoil: Callable[[Path], None]) -> None:
    """zot links unread. The damaged one may come first, in the middle, or last."""
    spoil(blob(root, which, LAYER))
    spoiled = blob(root, which, LAYER).read_bytes()
    report = run_dedupe(store_of(root), workers=1)
    assert {(f.repository, f.digest, f.action, f.tags) for f in report.findings} == {(which, DIGEST, "marked", ("v1",))}
    assert report.exit_code == 4
    good = [name for name in NAMES if name != which]
    assert {blob(root, name, LAYER).read_bytes() for name in good} == {LAYER}
    assert blob(root, which, LAYER).read_bytes() == spoiled
    run_dedupe(store_of(root), workers=1)
    assert len(inodes(root, LAYER, good)) == 1, "the good ones are shared, at the latest by the next run"


def test_damage_in_the_pool_is_told_for_each_repository_that_has_it(root: Path) -> None:
    for name in ("b", "c/d"):
        blob(root, name, LAYER).unlink()
        os.link(blob(root, "a", LAYER), blob(root, name, LAYER))
    flip(blob(root, "a", LAYER))
    lay_out(root, "z", IMAGE, "v1")
    report = run_dedupe(store_of(root), workers=1)
    assert told(report) == {(name, DIGEST, "digest_mismatch") for name in NAMES}
    assert blob(root, "z", LAYER).read_bytes() == LAYER
    assert (root / keys.pool(DIGEST)).stat().st_ino == blob(root, "z", LAYER).stat().st_ino


def known_damage(root: Path) -> set[tuple[str, str | None, str]]:
    """A layer of two repositories, which are one file, and the config of another, known since a scrub."""
    share(blob(root, "b", LAYER), blob(root, "c/d", LAYER))
    flip(blob(root, "b", LAYER))
    cut(blob(root, "a", IMAGE.blobs[0]), 0)
    run_scrub(store_of(root))
    return {
        ("b", DIGEST, "digest_mismatch"),
        ("c/d", DIGEST, "digest_mismatch"),
        ("a", digest_of(IMAGE.blobs[0]), "stub"),
    }


@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"undo": True}, {"undo": True, "dry_run": True}])
def test_known_damage_is_left_and_named_by_each_run(root: Path, options: dict[str, Any]) -> None:
    known = known_damage(root)
    for _ in range(2):
        report = run_dedupe(store_of(root), **options)
        assert told(report) == known
        assert {f.tags for f in report.findings} == {("v1",)} and {f.action for f in report.findings} == {"none"}
        assert (report.summary["left_damaged"], report.exit_code) == (3, 4)


def test_damage_is_named_by_the_run_after_the_one_that_found_it(root: Path) -> None:
    flip(blob(root, "b", LAYER))
    first, second = run_dedupe(store_of(root)), run_dedupe(store_of(root))
    assert told(first) == told(second) == {("b", DIGEST, "digest_mismatch")}
    assert [run.summary["left_damaged"] for run in (first, second)] == [1, 1]


# -- what can't be one inode --------------------------------------------------------------------


def test_another_mode_is_left_and_counted(root: Path) -> None:
    os.chmod(blob(root, "b", LAYER), 0o600)
    report = run_dedupe(store_of(root))
    assert (report.summary["left_unlike"], report.summary["left_unlike_bytes"]) == (1, len(LAYER))
    assert blob(root, "b", LAYER).stat().st_mode & 0o777 == 0o600
    assert len(inodes(root, LAYER, ["a", "c/d"])) == 1


def test_another_owner_is_left(root: Path) -> None:
    need("root")
    os.chown(blob(root, "b", LAYER), 1234, 5678)
    assert run_dedupe(store_of(root)).summary["left_unlike"] == 1
    found = blob(root, "b", LAYER).stat()
    assert (found.st_uid, found.st_gid, found.st_nlink) == (1234, 5678, 1)


def test_another_label_is_left(root: Path) -> None:
    try:
        os.setxattr(blob(root, "b", LAYER), "user.label", b"v")
    except OSError:
        pytest.skip("needs extended attributes")
    assert run_dedupe(store_of(root)).summary["left_unlike"] == 1
    assert os.getxattr(blob(root, "b", LAYER), "user.label") == b"v"


def test_never_across_roots(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    lay_out(other, "x", IMAGE, "v1")
    run_dedupe(store_of(root, other))
    assert blob(other, "x", LAYER).stat().st_nlink == 2, "its own name and that in its own pool"


def test_a_repository_that_is_a_link_is_left(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    lay_out(outside, "x", IMAGE, "v1")
    (root / "linked").symlink_to(outside / "x")
    run_dedupe(store_of(root))
    assert blob(outside, "x", LAYER).stat().st_nlink == 1


def test_when_an_inode_takes_no_more_names_a_second_one_does() -> None:
    """EMLINK: ext4 has 65,000."""
    driver = MemoryDriver(max_links=4)
    store = store_over(driver, dedupe=False)
    for number in range(9):
        push_image(store, f"r{number}", "v1", seed="x", layers=1)
    for workers in (1, 1, 1):
        report = run_dedupe(store, workers=workers)
        assert report.errors == []
    layer = digest_of(images.image("x", layers=1).blobs[1])
    links = sorted(driver.stat(keys.blob(f"r{n}", layer)).nlink for n in range(9))
    assert max(links) <= 4
    assert len({driver.stat(keys.blob(f"r{n}", layer)).ino for n in range(9)}) <= 4
    before = [driver.stat(keys.blob(f"r{n}", layer)).ino for n in range(9)]
    assert run_dedupe(store, workers=1).summary.get("linked", 0) == 0, "it comes to rest"
    assert [driver.stat(keys.blob(f"r{n}", layer)).ino for n in range(9)] == before
    assert run_scrub(store, workers=1).findings == []


def test_without_links_it_says_so() -> None:
    store = store_over(MemoryDriver(links=False))
    push_image(store, "a", "v1")
    report = run_dedupe(store)
    assert (report.exit_code, "no hard links" in report.errors[0]["reason"]) == (5, True)


# -- somebody acts between two steps ------------------------------------------------------------


class Between(WrappedDriver):
    """Does something once, right before a step on a key."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self.before: dict[tuple[str, str], Callable[[], object]] = {}

    def _now(self, step: str, key: str) -> None:
        act = self.before.pop((step, key), None)
        if act is not None:
            act()

    def lock(self, key: str, byte: int):  # type: ignore[no-untyped-def]
        self._now("lock", key)
        return super().lock(key, byte)

    def link(self, source: str, target: str) -> None:
        self._now("link", source)
        super().link(source, target)

    def stat(self, key: str) -> Info:
        self._now("stat", key)
        return super().stat(key)


@pytest.fixture
def world() -> tuple[Between, Store]:
    driver = Between(MemoryDriver())
    store = store_over(driver, dedupe=False)
    for name in ("a", "b"):
        push_blob(store.repository_for_push(name), LAYER)
    return driver, store


def test_i7_a_blob_deleted_before_the_lock_does_not_come_back(world: tuple[Between, Store]) -> None:
    driver, store = world
    driver.before["lock", keys.LOCK] = lambda: driver.inner.unlink(keys.blob("b", DIGEST))
    report = run_dedupe(store, workers=1)
    assert report.summary["left_moved"] == 1
    with pytest.raises(NotFound):
        driver.stat(keys.blob("b", DIGEST))


def test_a_blob_replaced_before_the_lock_is_left(world: tuple[Between, Store]) -> None:
    driver, store = world

    def replace() -> None:
        with driver.inner.create("new") as writer:
            writer.write([LAYER])
        driver.inner.rename("new", keys.blob("b", DIGEST))

    driver.before["lock", keys.LOCK] = replace
    assert run_dedupe(store, workers=1).summary["left_moved"] == 1
    assert driver.stat(keys.blob("b", DIGEST)).nlink == 1


def test_a_pool_copy_that_was_collected_or_replaced_meanwhile(world: tuple[Between, Store]) -> None:
    """What is linked is what was hashed."""
    driver, store = world

    def replace() -> None:
        with driver.inner.create("rotten") as writer:
            writer.write([bytes(len(LAYER))])
        driver.inner.rename("rotten", keys.pool(DIGEST))

    driver.before["link", keys.pool(DIGEST)] = replace
    assert run_dedupe(store, workers=1).summary["left_moved"] == 1
    for name in ("a", "b"):
        with driver.open(keys.blob(name, DIGEST)) as reader:
            assert reader.read_at(0, reader.size) == LAYER
    driver.before["link", keys.pool(DIGEST)] = lambda: driver.inner.unlink(keys.pool(DIGEST))
    run_dedupe(store, workers=1)
    run_dedupe(store, workers=1)
    assert len({driver.stat(keys.blob(name, DIGEST)).ino for name in ("a", "b")}) == 1


_KILLED = """
import sys
from pathlib import Path
from tests.jobs.layouts import store_of
from tests.jobs.test_dedupe_shares import run_dedupe
print("ready", flush=True)
run_dedupe(store_of(Path(sys.argv[1])), undo=sys.argv[2] == "undo")
"""


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.08])
@pytest.mark.parametrize("what", ["do", "undo"])
def test_killed_in_the_middle_and_run_again(tmp_path: Path, after: float, what: str) -> None:
    names = [f"r{n}" for n in range(20)]
    for name in names:
        lay_out(tmp_path, name, IMAGE, "v1")
    if what == "undo":
        run_dedupe(store_of(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path), what], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert_whole(tmp_path, names)
    assert run_dedupe(store_of(tmp_path), undo=what == "undo").exit_code == 0
    assert_whole(tmp_path, names)
    assert len(inodes(tmp_path, LAYER, names)) == (1 if what == "do" else len(names))


# -- on a network ------------------------------------------------------------------------------------


@pytest.fixture
def far() -> MemoryDriver:
    driver = MemoryDriver(local=False)
    for name in NAMES:
        push_image(store_over(driver, dedupe=False), name, "v1")
    return driver


def assert_served(store: Store, key: str) -> None:
    """The blob under this key, by its repository."""
    name, _, encoded = key.partition("/blobs/sha256/")
    with store.repository(name).open_blob(parse_digest(f"sha256:{encoded}")) as reader:
        assert digest_of(reader.read_at(0, reader.size)).encoded == encoded


@pytest.mark.parametrize("undo", [False, True])
def test_i6_a_blob_is_served_while_its_name_leads_nowhere(far: MemoryDriver, undo: bool) -> None:
    """A client of NFS replaces a file that is open on its host, as it is here, by two requests."""
    met = list[str]()

    def between(key: str) -> None:
        if "/blobs/" in key:
            met.append(key)
            assert_served(store_over(far), key)

    if undo:
        run_dedupe(store_over(far))
    report = run_dedupe(store_over(ByTwoRequests(far, between)), undo=undo, workers=1)
    assert (report.exit_code, report.errors) == (0, []) and met
    assert run_scrub(store_over(far)).findings == []
    assert not [key for key, _, _ in far.files() if key.startswith((keys.TRASH, keys.TMP))]


def killed_between(far: MemoryDriver) -> list[str]:
    """A run on a host that dies while the name of a blob leads nowhere. Returns all blobs."""
    blobs = [key for key, _, _ in far.files() if "/blobs/" in key and not key.startswith(keys.HIDDEN)]

    def die(key: str) -> None:
        if key in blobs:
            raise Crash

    with pytest.raises(Crash):
        run_dedupe(store_over(ByTwoRequests(far, die)), workers=1)
    return blobs


def test_i6_a_kill_while_the_name_of_a_blob_leads_nowhere_loses_nothing(far: MemoryDriver) -> None:
    for key in killed_between(far):
        assert_served(store_over(far), key)


def test_i6_nor_where_an_inode_takes_no_more_names() -> None:
    far = MemoryDriver(local=False, max_links=3)
    for name in NAMES:
        push_image(store_over(far, dedupe=False), name, "v1")
    for key in killed_between(far):
        assert_served(store_over(far), key)


def test_i6_a_server_that_may_write_nothing_serves_it_then(far: MemoryDriver) -> None:
    """And while the name leads nowhere, which is the same."""
    blobs, store = killed_between(far), store_over(far)
    local_of(store.roots[0]).context.driver = ReadOnlyDriver(far)
    for key in blobs:
        name, _, encoded = key.partition("/blobs/sha256/")
        assert store.repository(name).blob(parse_digest(f"sha256:{encoded}"))
        assert_served(store, key)
    assert len(far.scan(keys.trash_run(keys.REPLACED_RUN))) == 1, "and nothing has come back by that"


# -- undo ---------------------------------------------------------------------------------------


def test_undo_gives_each_repository_its_own(root: Path) -> None:
    run_dedupe(store_of(root))
    os.chmod(blob(root, "a", LAYER), 0o640)
    planned = run_dedupe(store_of(root), undo=True, dry_run=True)
    report = run_dedupe(store_of(root), undo=True)
    assert (report.exit_code, report.findings) == (0, [])
    assert (report.summary["copied"], report.summary["copied_bytes"]) == (2 * len(WHOLE), 2 * SIZE)
    assert (planned.summary["copied"], planned.summary["copied_bytes"]) == (2 * len(WHOLE), 2 * SIZE)
    assert len(planned.items) == 2 * len(WHOLE)
    assert [len(inodes(root, body)) for body in WHOLE] == [3] * len(WHOLE)
    assert {blob(root, name, body).stat().st_nlink for name in NAMES for body in WHOLE} == {1}
    assert {blob(root, name, LAYER).stat().st_mode & 0o777 for name in NAMES} == {0o640}
    assert {blob(root, name, LAYER).stat().st_mtime for name in NAMES} == {1_500_000_000}
    assert_whole(root)
    assert run_dedupe(store_of(root), undo=True).summary.get("copied", 0) == 0


def test_undo_of_one_repository(root: Path) -> None:
    run_dedupe(store_of(root))
    run_dedupe(store_of(root), undo=True, repos=["b"])
    assert blob(root, "b", LAYER).stat().st_nlink == 1
    assert len(inodes(root, LAYER, ["a", "c/d"])) == 1


def test_undo_checks_the_space_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dedupe(store_of(root))
    store = store_of(root)
    monkeypatch.setattr(store.roots[0].driver, "space", lambda: Space(1 << 30, 2 * SIZE - 1, -1))
    report = run_dedupe(store, undo=True)
    assert report.exit_code == 13
    assert str(2 * SIZE) in report.errors[0]["reason"]
    assert len(inodes(root, LAYER)) == 1
    monkeypatch.setattr(store.roots[0].driver, "space", lambda: Space(1 << 30, 2 * SIZE, -1))
    assert run_dedupe(store, undo=True).exit_code == 0


def test_undo_does_not_multiply_damage(root: Path) -> None:
    run_dedupe(store_of(root))
    flip(blob(root, "a", LAYER))
    report = run_dedupe(store_of(root), undo=True)
    assert told(report) >= {("a", DIGEST, "digest_mismatch")}
    assert len(inodes(root, LAYER)) == 1
    assert len(inodes(root, IMAGE.blobs[2])) == 3


def test_undo_after_a_scrub_leaves_known_damage(root: Path) -> None:
    run_dedupe(store_of(root))
    flip(blob(root, "a", LAYER))
    run_scrub(store_of(root))
    assert run_dedupe(store_of(root), undo=True).exit_code == 4
    assert len(inodes(root, LAYER)) == 1


def test_the_second_run_sees_the_first(root: Path) -> None:
    store = store_of(root)
    with Run("dedupe", store).leases():
        assert run_dedupe(store).exit_code == 11


@pytest.mark.parametrize("commit", [False, True])
def test_the_copy_that_stays_is_flushed(root: Path, monkeypatch: pytest.MonkeyPatch, commit: bool) -> None:
    """Who wrote it may not have done so. Opened for reading only: other tools leave blobs with mode 0444."""
    synced: list[str] = []
    driver = LocalDriver(str(root))
    sync = driver.sync_file

    def sync_file(key: str) -> Info:
        synced.append(key)
        return sync(key)

    def append(key: str, *, create: bool = True) -> None:
        raise PermissionRefused(f"{key}: not ours to write")

    store = store_over(driver, commit=commit)
    monkeypatch.setattr(driver, "sync_file", sync_file)
    monkeypatch.setattr(driver, "append", append)
    assert run_dedupe(store).summary["linked"] == 2 * len(WHOLE)
    assert len([key for key in synced if key.startswith(f"{keys.TMP}/")]) == 2 * len(WHOLE)
