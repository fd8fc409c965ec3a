"""Flushes by name: beside a collector that takes the name away, of files that are not ours to write, and of many."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Call, FailOn, Faults, Recorder
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import IoFailed, NotFound, PermissionRefused
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.index import Index
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.durable import FEW_FILES
from zotctl.storage.local.protocol import LocalProtocol, local_of
from zotctl.storage.protocol import Change, Transaction

BODY = b"a layer that a push brings"
DIGEST = digest_of(BODY)
BLOB = keys.blob("a", DIGEST)

Collector = Callable[[Driver], None]


def move_to_trash(driver: Driver) -> None:
    """As a collector in another process: into the trash, and an empty layout goes."""
    root = store_over(driver).roots[0]
    with local_of(root).context.locks.hold("a") as held:
        local_of(root).trash.add(held, "20200101T000000-other", [DIGEST])


def move_away(driver: Driver) -> None:
    """The same, with the folder that is empty then."""
    move_to_trash(driver)
    driver.rmdir(keys.blobs_of("a", "sha256"))


def remove(driver: Driver) -> None:
    """As `gc --delay 0s`."""
    driver.unlink(BLOB)
    driver.unlink(keys.pool(DIGEST))
    driver.rmdir(keys.blobs_of("a", "sha256"))


class Between(Faults):
    """Another process does something before the first flush of the blob or of its name."""

    def __init__(self, inner: Driver, act: Collector) -> None:
        super().__init__(inner)
        self.act, self.left, self.armed = act, 1, False

    def before(self, call: Call) -> None:
        if self.armed and call.method in ("sync_file", "sync_dir") and call.key in (BLOB, keys.blobs_of("a", "sha256")):
            self.left -= 1
            if not self.left:
                self.act(self.inner)


@pytest.mark.parametrize("there", ["", "other", "a"], ids=["new", "pooled", "there"])
@pytest.mark.parametrize("act", [move_to_trash, remove])
def test_i6_a_push_beside_a_collector_is_not_told_404(act: Collector, there: str) -> None:
    """Between its name and its flush."""
    inner = MemoryDriver()
    if there:
        push_blob(store_over(inner).repository_for_push(there), BODY)
    driver = Between(inner, act)
    store = store_over(driver, commit=True)
    driver.armed = True
    push_blob(store.repository_for_push("a"), BODY)
    assert driver.left <= 0, "the collector never came"
    assert store.repository("a").blob(DIGEST) == len(BODY)


def test_i6_a_push_without_links_beside_a_collector() -> None:
    """It was renamed into its place, so there is no other name of ours; a file system of this kind has no pool."""
    inner = MemoryDriver(links=False)
    driver = Between(inner, move_away)
    store = store_over(driver, commit=True)
    driver.armed = True
    push_blob(store.repository_for_push("a"), BODY)
    assert driver.left <= 0, "the collector never came"
    assert BLOB in inner.names, "by its own name, which was flushed before the answer"
    assert store.repository("a").blob(DIGEST) == len(BODY)


def test_i3_a_group_of_pushes_flushes_its_names_once_and_before_index_json() -> None:
    """With a flush each, a group would hold the lock for as many commits of the journal."""
    driver = Recorder(MemoryDriver())
    store = store_over(driver, commit=True)
    push_image(store, "a", "v1")
    protocol = local_of(store.roots[0])
    driver.calls.clear()
    assert protocol.commit_index("a", [_push_of(protocol, images.index([], n=str(n))) for n in range(5)]) == [None] * 5
    calls = [(call.method, call.key) for call in driver.calls]
    named = [n for n, (method, key) in enumerate(calls) if method == "link" and keys.parent(key) == keys.TMP]
    flushed = [n for n, call in enumerate(calls) if call == ("sync_dir", keys.blobs_of("a", "sha256"))]
    swapped = [n for n, (method, _) in enumerate(calls) if method == "exchange"]
    assert len(named) >= 5 and len(flushed) == len(swapped) == 1
    assert max(named) < flushed[0] < swapped[0]


def test_i6_a_manifest_that_goes_before_its_name_is_flushed_is_published_again() -> None:
    inner, body = MemoryDriver(), images.index([])
    gone = keys.blob("a", digest_of(body))

    def remove(driver: Driver) -> None:
        driver.unlink(gone)
        driver.unlink(keys.pool(digest_of(body)))
        driver.rmdir(keys.parent(gone))

    driver = Between(inner, remove)
    store = store_over(driver, commit=True)
    protocol = local_of(store.roots[0])
    protocol.commit_index("a", [_push_of(protocol, images.index([], n="before"))])
    inner.unlink(keys.blob("a", digest_of(images.index([], n="before"))))
    driver.armed = True
    assert protocol.commit_index("a", [_push_of(protocol, body)]) == [None]
    assert driver.left <= 0, "it was never removed"
    assert store.repository("a").manifest(str(digest_of(body))).body == body


def _push_of(protocol: LocalProtocol, body: bytes) -> Change:
    """The commit of a manifest that needs nothing."""
    staged = protocol.stage(body)

    def push(tx: Transaction, draft: Index) -> None:
        tx.publish_manifest(digest_of(body), staged)
        draft.put(digest_of(body), len(body), OCI_INDEX)

    return push


@pytest.mark.parametrize("there", [False, True])
def test_i6_a_mount_beside_a_collector(there: bool) -> None:
    inner = MemoryDriver()
    for name in ("other", "a") if there else ("other",):
        push_blob(store_over(inner).repository_for_push(name), BODY)
    driver = Between(inner, move_to_trash)
    store = store_over(driver, commit=True)
    driver.armed = True
    assert store.repository_for_push("a").mount_blob(store.repository("other"), DIGEST)
    assert driver.left <= 0, "the collector never came"
    assert store.repository("a").blob(DIGEST) == len(BODY)


def test_i7_a_mount_of_what_is_deleted_meanwhile_asks_for_the_bytes() -> None:
    inner = MemoryDriver()
    push_blob(store_over(inner).repository_for_push("other"), BODY)
    driver = Between(inner, remove)
    store = store_over(driver, commit=True)
    driver.armed = True
    assert not store.repository_for_push("a").mount_blob(store.repository("other"), DIGEST)


def test_a_flush_of_what_was_trashed_takes_it_back(tmp_path: Path) -> None:
    driver = LocalDriver(str(tmp_path))
    root = store_over(driver).roots[0]
    push_blob(store_over(driver).repository_for_push("a"), BODY)
    move_to_trash(driver)
    root.maintenance.flush("a", [DIGEST])
    assert (tmp_path / BLOB).read_bytes() == BODY
    with pytest.raises(NotFound):
        root.maintenance.flush("a", [digest_of(b"never there")])


def test_a_file_that_is_not_ours_to_write_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync(2) takes a descriptor that only reads."""
    driver = LocalDriver(str(tmp_path))
    path = tmp_path / "blob"
    path.write_bytes(BODY)
    path.chmod(0o444)
    flags: list[int] = []
    opened = driver._open
    monkeypatch.setattr(driver, "_open", lambda path, how, step: flags.append(how) or opened(path, how, step))
    assert driver.sync_file("blob").size == len(BODY)
    assert [how & 3 for how in flags] == [0], "opened for reading"
    for nothing in ("absent", "."):
        with pytest.raises(NotFound):
            driver.sync_file(nothing)


# -- many at once -------------------------------------------------------------------------------


class AtOnce(Recorder):
    """A file system that can be flushed as a whole."""

    flushed_at = 0

    def checkpoint(self) -> AtOnce:
        return self

    def sync(self) -> None:
        self.before(Call("sync_all", ""))
        assert isinstance(self.inner, MemoryDriver)
        self.flushed_at = self.inner.clock()

    def covers(self, info: Info) -> bool:
        return info.ctime_ns < self.flushed_at

    def close(self) -> None:
        pass


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Path]:
    made = images.image("one", layers=4 * FEW_FILES)
    yield images.lay_out(tmp_path / "many", made, [images.row(made, "v1")])


def flushes(recorder: Recorder) -> list[str]:
    return [call.method for call in recorder.calls if call.method in ("sync", "sync_file", "sync_all")]


def imported(driver: Recorder, source: Path, *, commit: bool = True, move: bool = False) -> list[str]:
    """The flushes that it took, but for those of index.json and of an empty layout."""
    store = store_over(driver, commit=commit)
    driver.calls.clear()
    run = Run("import-layout", store)
    report = run.finish(lambda: import_layout(run, str(source), ImportOptions(move=move)))
    assert not report.errors
    layout = [call for call in driver.calls if call.method == "sync" and keys.INDEX_TEMP_PREFIX in call.key]
    assert len(layout) == 3
    return [method for method in flushes(driver) if method != "sync"]


@pytest.mark.parametrize("commit", [False, True])
def test_an_import_flushes_twice(many: Path, commit: bool) -> None:
    """Bytes before they are seen, and then names. Without `commit` that is the manifest only."""
    driver = AtOnce(MemoryDriver())
    assert imported(driver, many, commit=commit) == ["sync_all" if commit else "sync_file"] * 2


def test_a_move_flushes_once_more(many: Path) -> None:
    assert imported(AtOnce(MemoryDriver()), many, commit=False, move=True) == ["sync_file", "sync_file", "sync_all"]


def test_an_import_flushes_each_where_that_is_all_there_is(many: Path) -> None:
    driver = Recorder(MemoryDriver())
    assert imported(driver, many) == ["sync_file"] * 2 * (4 * FEW_FILES + 2)
    folder = keys.blobs_of("many", "sha256")
    assert sum(call.method == "sync_dir" and call.key == folder for call in driver.calls) == 1


def test_an_import_of_what_is_there_flushes_nothing(many: Path) -> None:
    driver = AtOnce(MemoryDriver())
    imported(driver, many)
    driver.calls.clear()
    run = Run("import-layout", store_over(driver, commit=True))
    run.finish(lambda: import_layout(run, str(many), ImportOptions()))
    assert flushes(driver) == []


@pytest.mark.parametrize("late", [False, True])
def test_dedupe_flushes_once_and_what_comes_later(late: bool) -> None:
    """Four repositories with a copy each, and with `late` one of a push beside it, which is what all are linked to."""
    inner, names = MemoryDriver(), ("a", "b", "c", "d")
    for name in names:
        push_blob(store_over(inner, dedupe=False).repository_for_push(name), BODY)

    class Beside(AtOnce):
        def sync(self) -> None:
            super().sync()
            if late:
                push_blob(store_over(inner).repository_for_push("0"), BODY)

    driver = Beside(inner)
    store = store_over(driver, commit=True)
    driver.calls.clear()
    run = Run("dedupe", store)
    report = run.finish(lambda: dedupe(run, DedupeOptions(workers=1)))
    assert report.summary["linked"] == len(names) - (not late)
    assert [call.method for call in driver.calls if call.method in ("sync_file", "sync_dir", "sync_all")] == (
        ["sync_all", "sync_file"] if late else ["sync_all"]
    )


def test_what_a_checkpoint_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = LocalDriver(str(tmp_path), filesystem="ext4")
    path = tmp_path / "file"
    path.write_bytes(BODY)
    checkpoint = driver.checkpoint()
    assert checkpoint is not None
    assert not checkpoint.covers(driver.stat("file")), "nothing was flushed"
    time.sleep(0.2)
    checkpoint.sync()
    assert checkpoint.covers(driver.stat("file"))
    before = path.stat()
    path.write_bytes(BODY)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not checkpoint.covers(driver.stat("file")), "its time of change can't be set"
    path.rename(tmp_path / "other")
    old = driver.stat("other")._replace(ctime_ns=0)
    assert checkpoint.covers(old)
    shifted = time.monotonic() + 60
    monkeypatch.setattr("zotctl.storage.local.driver.time.monotonic", lambda: shifted)
    assert not checkpoint.covers(old), "somebody has set the clock"
    checkpoint.close()


def test_a_push_in_another_thread_is_not_postponed() -> None:
    driver = Recorder(MemoryDriver())
    store = store_over(driver, commit=True)
    durable = local_of(store.roots[0]).context.durable
    with durable.postponing():
        assert not durable.waits
        _in_a_thread(lambda: push_blob(store.repository_for_push("a"), BODY))
    assert durable.waits
    assert any(call.method == "sync" and call.key.startswith(keys.UPLOADS) for call in driver.calls)


def _in_a_thread(work: Callable[[], object]) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


def test_everything_at_once_on_a_real_file_system(tmp_path: Path) -> None:
    driver = LocalDriver(str(tmp_path), filesystem="ext4")
    checkpoint = driver.checkpoint()
    assert checkpoint is not None
    checkpoint.sync()
    checkpoint.close()
    for unsure in ("overlay", "fuse.sshfs", "nfs4", ""):
        assert LocalDriver(str(tmp_path), filesystem=unsure).checkpoint() is None


def test_i10_a_lease_goes_also_where_its_note_can_not_be_removed() -> None:
    """Or in a server that lives on, the job would be taken for running for ever."""
    driver = FailOn(MemoryDriver(), "unlink", 1, IoFailed("EIO"), lambda key: key.endswith(".holder"))
    maintenance = store_over(driver).roots[0].maintenance
    for _ in range(2):
        with maintenance.lease("gc"):
            pass
    assert driver.left < 0


# -- the trash ------------------------------------------------------------------------------------


def test_i5_what_cant_go_back_stays_in_the_trash() -> None:
    """The repository takes no writes just now; what it needs again is not purged for that."""

    class Refused(Faults):
        def link(self, source: str, target: str) -> None:
            if target == BLOB:
                raise PermissionRefused(target)
            super().link(source, target)

    inner = MemoryDriver()
    push_blob(store_over(inner).repository_for_push("a"), BODY)
    move_to_trash(inner)
    root = store_over(Refused(inner)).roots[0]
    trash, folder = local_of(root).trash, next(iter(local_of(root).trash.folders()))
    with local_of(root).context.locks.hold("a") as held:
        assert trash.purge(held, folder, dict(trash.contents(folder)), {str(DIGEST)}) == []
    assert [digest for digest, _ in trash.contents(folder)] == [DIGEST]


def test_another_index_is_flushed_again() -> None:
    """A deletion acts on the index.json that there is by then, not on the one that was flushed."""
    driver = Recorder(MemoryDriver())
    durable = local_of(store_over(driver).roots[0]).context.durable
    flushed = []
    for tag in ("v1", "v1", "v2"):
        push_image(store_over(driver.inner), "a", tag)
        for _ in range(2):
            driver.calls.clear()
            durable.flush_index("a")
            flushed.append(sum(call.method == "sync_dir" for call in driver.calls))
    assert flushed == [1, 0, 0, 0, 1, 0]
    durable.flush_index("never/there")


# -- directories that lead to it ------------------------------------------------------------------


class OneNumber(Recorder):
    """Each directory gets the number of the last one that was removed."""

    def stat(self, key: str) -> Info:
        found = super().stat(key)
        return found._replace(ino=7) if found.is_dir else found


@pytest.mark.parametrize("other", [False, True], ids=["by us", "by another"])
def test_i4_a_repository_that_was_made_again_is_flushed_again(other: bool) -> None:
    """A collector removed the empty one: its directories are others by now. Another process made them, and may have
    died before it has flushed them, or this one did, and they have the numbers of the old ones."""
    driver = Recorder(MemoryDriver()) if other else OneNumber(MemoryDriver())
    store = store_over(driver, commit=True)
    push_image(store, "a/b", "v1", seed="one", layers=1)
    _remove_all(driver.inner, "a")
    if other:
        for number in range(30):
            driver.inner.create(f"takes-a-number-{number}").close()
        push_blob(store_over(driver.inner).repository_for_push("a/b"), BODY)
    driver.calls.clear()
    push_image(store, "a/b", "v1", seed="one", layers=1)
    synced = {call.key for call in driver.calls if call.method == "sync_dir"}
    assert synced >= {"", "a", "a/b", "a/b/blobs", "a/b/blobs/sha256"}


def _remove_all(driver: Driver, key: str) -> None:
    for entry in driver.scan(key):
        below = f"{key}/{entry.name}"
        _remove_all(driver, below) if entry.is_dir else driver.unlink(below)
    driver.rmdir(key)
