"""What other programs write beside ours: late writes, what came out of a swap, what a dead process held."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Call, Crash, FailOn, Faults, Recorder
from tests.jobs.layouts import blob, store_of
from tests.storage.test_storage_swapping import (
    THEIRS,
    JustBefore,
    collect,
    die,
    left,
    put_content,
    rename_in,
    tag_theirs,
    tags,
)
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import IoFailed, NoSpace, NotFound, StorageError
from zotctl.oci.digest import Digest
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, read
from zotctl.storage.local import index_file
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.index_file import make_layout
from zotctl.storage.local.protocol import LocalTransaction, local_of
from zotctl.storage.local.trash import Trash
from zotctl.storage.locks import Held

MANIFEST = THEIRS.digest


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    push_image(store_of(tmp_path), "a", "v1")
    put_content(tmp_path)
    return tmp_path


# -- late writes --------------------------------------------------------------------------------


class Writer:
    """A tool that has index.json open for as long as it likes."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file, self.document = file, json.load(file)

    def write(self, *names: str) -> None:
        for name in names:
            self.document["manifests"].append(images.row(THEIRS, name))
        self.put(json.dumps(self.document))

    def put(self, text: str) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.file.write(text)
        self.file.flush()


@pytest.fixture
def tool(root: Path) -> Iterator[Writer]:
    with (root / "a/index.json").open("r+") as file:
        yield Writer(file)


def test_i4_each_of_several_late_writes_is_merged(root: Path, tool: Writer) -> None:
    store = store_of(root)
    push_image(store, "a", "ours", seed="ours")
    for name in ("one", "two"):
        tool.write(name)
        store.maintain()
    assert tags(root) == ["one", "ours", "two", "v1"]


@pytest.mark.parametrize("ours", ["ours", "v1"])
def test_i4_what_a_late_write_gives_a_tag_that_is_taken_stays_without_one(root: Path, tool: Writer, ours: str) -> None:
    """Or else a collector would take what its tool was told is there."""
    store = store_of(root)
    push_image(store, "a", ours, seed="ours")
    was = store.repository("a").manifest("v1").digest
    tool.document["manifests"] = [images.row(THEIRS, "v1")]
    tool.put(json.dumps(tool.document))
    store.maintain()
    index = store.repository("a").index()
    assert index.tags_of(was) == ["v1"]
    assert [(row.digest, row.tag) for row in index.rows_of(MANIFEST)] == [(MANIFEST, None)]


def test_a_late_write_leaves_no_row_of_what_is_gone(root: Path, tool: Writer) -> None:
    """For which a collector would leave the repository alone."""
    store = store_of(root)
    push_image(store, "a", "ours", seed="ours")
    tool.document["manifests"] = [images.row(images.image("gone"), "v1")]
    tool.put(json.dumps(tool.document))
    store.maintain()
    assert images.image("gone").digest not in store.repository("a").index()


def test_i6_a_late_write_is_merged_once(root: Path, tool: Writer) -> None:
    store = store_of(root)
    push_image(store, "a", "ours", seed="ours")
    tool.write("theirs")
    store.maintain()
    store.repository_for_push("a").delete_manifest("theirs")
    tool.write("other")
    store.maintain()
    assert tags(root) == ["other", "ours", "v1"]


def test_i4_a_late_write_that_takes_its_time_is_waited_for(root: Path, tool: Writer, clock: Hand) -> None:
    store = store_of(root, clock=clock)
    push_image(store, "a", "ours", seed="ours")
    tool.put("{")
    for _ in range(2):
        clock.at += 1.2
        store.maintain()
    tool.write("theirs")
    store.maintain()
    assert tags(root) == ["ours", "theirs", "v1"]


def not_merged(root: Path, tool: Writer, method: str, error: StorageError) -> tuple[FailOn, Store]:
    """A store whose next turn of the upkeep has met this error, in the merge of a late write."""
    match: Callable[[str], bool] = (lambda key: "/.index.json" in key) if method == "create" else _is_index
    failing = FailOn(LocalDriver(str(root)), method, 1 << 30, error, match)
    store = store_over(failing)
    push_image(store, "a", "ours", seed="ours")
    tool.write("theirs")
    failing.left = 1
    store.maintain()
    return failing, store


@pytest.mark.parametrize("method", ["create", "stat"])
def test_a_late_write_that_can_not_be_merged_fails_no_commit(
    root: Path, tool: Writer, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """Which is done."""
    failing, _ = not_merged(root, tool, method, IoFailed("broken"))
    assert failing.left <= 0
    assert "can't be taken over: broken" in caplog.text
    assert tags(root) == ["ours", "v1"]


@pytest.mark.parametrize("method", ["create", "stat"])
def test_i4_a_late_write_that_can_not_be_merged_now_is_merged_later(root: Path, tool: Writer, method: str) -> None:
    """Its tool has ended, and was told that all is well."""
    _, store = not_merged(root, tool, method, NoSpace("full"))
    assert tags(root) == ["ours", "v1"]
    store.maintain()
    assert tags(root) == ["ours", "theirs", "v1"]


def test_i6_a_late_write_that_is_merged_later_brings_back_nothing_that_was_removed(root: Path, tool: Writer) -> None:
    """The merge was done, and only what follows it failed."""
    failing = FailOn(LocalDriver(str(root)), "sync_dir", 1 << 30, IoFailed("broken"))
    store = store_over(failing, commit=True)
    push_image(store, "a", "ours", seed="ours")
    tool.write("theirs")
    failing.left = 1
    store.maintain()
    store.repository_for_push("a").delete_manifest("theirs")
    store.maintain()
    assert failing.left <= 0 and tags(root) == ["ours", "v1"]


def test_i4_what_was_written_late_is_read_before_a_full_disk_takes_the_file(root: Path, tool: Writer) -> None:
    """An index.json that lost its name gives its room to the next one."""
    failing = FailOn(LocalDriver(str(root)), "create", 1 << 30, NoSpace("full"), lambda key: "a/.index.json" in key)
    store = store_over(failing)
    repository = store.repository_for_push("a")
    push_image(store, "a", "ours", seed="ours")
    tool.write("theirs")
    failing.left = 1
    repository.delete_manifest("ours")
    assert failing.left <= 0
    store.maintain()
    assert tags(root) == ["theirs", "v1"]


def _is_index(key: str) -> bool:
    return key == "a/index.json"


def test_i4_of_too_many_that_are_watched_the_oldest_is_looked_at(
    root: Path, tool: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was found in it waits for its own turn, whatever is committed elsewhere meanwhile."""
    monkeypatch.setattr(index_file, "WATCHED_FILES", 1)
    store = store_of(root)
    push_image(store, "b", "v1")
    push_image(store, "a", "ours", seed="ours")
    tool.write("theirs")
    push_image(store, "b", "v2", seed="v2")
    push_image(store, "b", "v3", seed="v3")
    store.maintain()
    assert tags(root) == ["ours", "theirs", "v1"]


# -- one commit ---------------------------------------------------------------------------------


def test_i3_an_index_is_on_the_device_before_it_has_its_name() -> None:
    driver = Recorder(MemoryDriver())
    store = store_over(driver)
    push_image(store, "a", "v1")
    driver.calls.clear()
    push_image(store, "a", "v2", seed="v2")
    steps = [(call.method, call.key) for call in driver.calls if "/.index.json" in call.key]
    assert [method for method, _ in steps if method in ("sync", "exchange")] == ["sync", "exchange"]


def test_two_indexes_of_one_moment_have_two_time_stamps(clock: Hand) -> None:
    """Of one size, and with a number that was used again, they would look like one."""
    memory = MemoryDriver(clock=lambda: int(clock.at * 1e9))
    store = store_over(memory, clock=clock)
    push_image(store, "a", "v1")
    stamps = []
    for tag in ("v2", "v3"):
        clock.at += 1
        push_image(store, "a", tag, seed=tag)
        stamps.append(memory.stat(keys.index("a")).mtime_ns)
    assert len(set(stamps)) == 2


def test_i10_a_lock_that_was_held_too_long_is_taken_anew_before_the_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have taken it for that of a dead process."""
    store = store_over(MemoryDriver())
    push_image(store, "a", "v1")
    answers, renewed = [False, True, True], list[Held]()
    monkeypatch.setattr(Held, "too_long", lambda held: bool(answers) and answers.pop(0))
    locks = local_of(store.roots[0]).context.locks
    monkeypatch.setattr(locks, "renew", renewed.append)
    store.repository_for_push("a").delete_manifest("v1")
    assert (len(renewed), answers) == (1, [])


class Frozen(JustBefore):
    """Where a rename has to do."""

    def rename(self, source: str, target: str) -> None:
        if target == keys.index("a") and self.moments:
            self.moments.pop(0)()
        self.inner.rename(source, target)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "rename"])
def test_i10_a_process_that_was_frozen_before_its_rename_undoes_no_commit(exchange: bool) -> None:
    """It has lost its lock meanwhile: each store here has locks of its own."""
    memory = MemoryDriver(locks=False, exchange=exchange)
    push_image(store_over(memory), "a", "v1")

    def commit() -> None:
        push_image(store_over(memory), "a", "v2", seed="v2")

    push_image(store_over(Frozen(memory, commit)), "a", "v3", seed="v3")
    assert store_over(memory).repository("a").tags() == ["v1", "v2", "v3"]
    assert not [key for key in memory.names if keys.parse_swap(key.rpartition("/")[2])]


class JustAfter(Faults):
    then: Callable[[], None] | None = None

    def exchange(self, one: str, other: str) -> None:
        self.inner.exchange(one, other)
        if self.then is not None:
            self.then()
            self.then = None


def test_i9_what_a_tool_renames_in_right_after_us_is_served(root: Path) -> None:
    """With an old time, as of a copy: a file with two equal times would be read again because of that."""

    def copy_in() -> None:
        rename_in(root, tag_theirs)
        os.utime(root / "a/index.json", (1, 1))

    driver = JustAfter(LocalDriver(str(root)))
    store = store_over(driver)
    push_image(store, "a", "ours", seed="ours")
    driver.then = copy_in
    store.repository_for_push("a").delete_manifest("ours")
    assert store.repository("a").tags() == ["theirs", "v1"]


# -- what came out of a swap ----------------------------------------------------------------------


def test_i4_a_merge_that_is_refused_leaves_the_file(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its content can't be looked at: gc does it."""
    failing = FailOn(LocalDriver(str(root)), "stat", 1, IoFailed("broken"), lambda key: key == keys.blob("a", MANIFEST))
    push_image(store_over(JustBefore(failing, lambda: rename_in(root, tag_theirs))), "a", "ours", seed="ours")
    assert (tags(root), len(left(root))) == (["ours", "v1"], 1)
    assert collect(store_of(root), 3600.0).exit_code == 0
    assert (tags(root), left(root)) == (["ours", "theirs", "v1"], [])


def test_i5_what_is_merged_comes_back_from_the_trash(root: Path) -> None:
    """A collector trashed its content, and then came the tag."""
    store = store_over(JustBefore(LocalDriver(str(root)), lambda: rename_in(root, tag_theirs)))
    local = local_of(store.roots[0])
    with local.context.locks.hold("a") as held:
        local.trash.add(held, "run", [MANIFEST])
    assert not blob(root, "a", THEIRS.manifest).exists()
    push_image(store, "a", "ours", seed="ours")
    assert blob(root, "a", THEIRS.manifest).exists()


class DoneAndFailed(Faults):
    """The exchange takes place, and an error is told: over NFS, say."""

    def exchange(self, one: str, other: str) -> None:
        self.inner.exchange(one, other)
        raise IoFailed("broken")


def test_i4_what_came_out_of_a_swap_that_failed_is_not_thrown_away(root: Path) -> None:
    driver: Driver = DoneAndFailed(JustBefore(LocalDriver(str(root)), lambda: rename_in(root, tag_theirs)))
    with pytest.raises(StorageError):
        push_image(store_over(driver), "a", "ours", seed="ours")
    assert len(left(root)) == 1
    assert collect(store_of(root), 3600.0).exit_code == 0
    assert "theirs" in tags(root)


# -- what a dead process had in its hands ---------------------------------------------------------


class DieBefore(Faults):
    dead = False

    def before(self, call: Call) -> None:
        self.dead = self.dead or call.method == "exchange"
        if self.dead and call.method not in ("close", "release"):
            raise Crash(str(call))


def test_an_index_that_never_got_its_name_is_no_debt(root: Path) -> None:
    with pytest.raises(Crash):
        push_image(store_over(DieBefore(LocalDriver(str(root)))), "a", "ours", seed="ours")
    assert len(left(root)) == 1
    assert local_of(store_of(root).roots[0]).indexes.unmerged("a") == []


def test_i4_what_can_not_be_taken_over_now_is_the_next_time(root: Path) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    failing = FailOn(LocalDriver(str(root)), "create", 1, IoFailed("broken"), lambda key: "/.index.json" in key)
    assert collect(store_over(failing)).exit_code != 0
    assert len(left(root)) == 1
    assert collect(store_of(root)).exit_code == 0
    assert (tags(root), left(root)) == (["ours", "theirs", "v1"], [])


def test_i4_nor_what_can_not_be_looked_at(root: Path) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    failing = FailOn(LocalDriver(str(root)), "stat", 1, IoFailed("broken"), lambda key: key == keys.blob("a", MANIFEST))
    with pytest.raises(IoFailed):
        local_of(store_over(failing).roots[0]).take_over("a")
    assert len(left(root)) == 1


def test_i5_a_row_whose_content_is_gone_is_not_taken_over(root: Path) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    blob(root, "a", THEIRS.manifest).unlink()
    local_of(store_of(root).roots[0]).take_over("a")
    assert (tags(root), left(root)) == (["ours", "v1"], [])


def test_i4_a_row_whose_manifest_is_damaged_is_taken_over(root: Path) -> None:
    """The next push heals it, and every other row of it stays."""
    die(root, lambda: rename_in(root, tag_theirs))
    local = local_of(store_of(root).roots[0])
    blob(root, "a", THEIRS.manifest).write_bytes(b"")
    local.take_over("a")
    assert (tags(root), left(root)) == (["ours", "theirs", "v1"], [])


def test_i14_nothing_is_taken_over_in_a_repository_that_is_a_link(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a"
    os.rename(root / "a", elsewhere)
    (root / "a").symlink_to(elsewhere)
    before = {path.name: path.stat().st_mtime_ns for path in elsewhere.iterdir()}
    local_of(store_of(root).roots[0]).take_over("a")
    assert {path.name: path.stat().st_mtime_ns for path in elsewhere.iterdir()} == before


# -- a list of the trash that is old ---------------------------------------------------------------


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another process has begun since it was listed; its folder's time stamp tells nothing yet."""
    listed = Trash.runs
    monkeypatch.setattr(Trash, "runs", lambda self, *, fresh=False: listed(self, fresh=True) if fresh else [])


def trashed(store: Store, *digests: Digest) -> None:
    local = local_of(store.roots[0])
    with local.context.locks.hold("a") as held:
        local.trash.add(held, "run", list(digests))


@pytest.mark.usefixtures("stale")
def test_i6_a_commit_finds_what_was_trashed_just_now() -> None:
    store = store_over(MemoryDriver())
    push_image(store, "a", "v1")
    digest = push_blob(store.repository_for_push("a"), b"stray")
    trashed(store, digest)
    local = local_of(store.roots[0])
    with local.context.locks.hold("a") as held:
        assert LocalTransaction(local, held).require(digest).size == 5


@pytest.mark.usefixtures("stale")
def test_i6_a_flush_finds_what_was_trashed_just_now() -> None:
    store = store_over(MemoryDriver())
    push_image(store, "a", "v1")
    digest = push_blob(store.repository_for_push("a"), b"stray")
    trashed(store, digest)
    local_of(store.roots[0]).blobs.flush("a", [digest])
    assert read(store.roots[0].driver, keys.blob("a", digest), 99) == b"stray"


@pytest.mark.usefixtures("stale")
def test_i7_a_deletion_finds_what_was_trashed_just_now() -> None:
    store = store_over(MemoryDriver())
    push_image(store, "a", "v1")
    digest = push_blob(store.repository_for_push("a"), b"stray")
    trashed(store, digest)
    store.repository_for_push("a").delete_blob(digest)
    with pytest.raises(NotFound):
        local_of(store.roots[0]).blobs.find("a", digest)


# -- a repository comes to be ----------------------------------------------------------------------


def test_i1_a_layout_is_made_in_order_under_its_lock() -> None:
    """Directories, then index.json, and `oci-layout` last, each flushed before the next is seen."""
    driver = Recorder(MemoryDriver())
    store = store_over(driver, commit=True)
    store.roots[0].protocol.driver.scan("")
    driver.calls.clear()
    make_layout(local_of(store.roots[0]).context, "a", "sha256")
    steps = [(call.method, call.target or call.key) for call in driver.calls]
    locked = next(at for at, (method, _) in enumerate(steps) if method == "lock")
    made = steps.index(("mkdir", "a/blobs/sha256"))
    index, layout = steps.index(("link", keys.index("a"))), steps.index(("link", keys.layout("a")))
    assert locked < made < index < layout
    assert ("sync_dir", "a") in steps[index:layout]
    assert ("sync_dir", "a") in steps[layout:]
    assert [method for method, _ in steps[made:]].count("sync") == 2


def test_i3_a_half_made_layout_gets_its_index() -> None:
    memory = MemoryDriver()
    make_layout(local_of(store_over(memory).roots[0]).context, "a", "sha256")
    memory.unlink(keys.index("a"))
    make_layout(local_of(store_over(memory).roots[0]).context, "a", "sha256")
    assert json.loads(read(memory, keys.index("a"), 999))["manifests"] == []
