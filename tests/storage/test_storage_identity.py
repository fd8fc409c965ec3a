"""What was verified is what is linked, moved or marked, whatever another process does between two steps (I2, I6).

The storage gives a freed inode number to the next file at once, as ext4 does, and the other process sets times of
modification, as a restored backup has them.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zotctl
from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Call, Faults, FlipByte
from tests.jobs.importing import blob_file, local_store, run_import
from tests.jobs.layouts import run_scrub
from tests.mounts import Mounts, mounts  # noqa: F401 - a fixture
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import CannotLink, Damaged, Exists, IoFailed, NotFound, StorageError, Unavailable
from zotctl.jobs.ages import Ages
from zotctl.jobs.check.scrub_state import Checked
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.imports.repository import RepositoryImport
from zotctl.jobs.local import gc as local_gc
from zotctl.jobs.local import jobs as local_jobs
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Info, read
from zotctl.storage.file_identity import FileIdentity, HeldFile, same_file
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of

IMAGE = images.image("x")
LAYER = IMAGE.blobs[1]
DIGEST = digest_of(LAYER)
ROTTEN = bytes([LAYER[0] ^ 1]) + LAYER[1:]
LONG_AGO = 1_500_000_000 * 10**9
A, B, C, POOL = (*(keys.blob(name, DIGEST) for name in ("a", "b", "c")), keys.pool(DIGEST))


ANY, TMP = "*", keys.TMP
"""Any key, or any in there."""


class Meanwhile(Faults):
    """Before a call that was waited for, another process acts, once; after a call that comes first, if one is named."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self._plans: list[tuple[list[tuple[str, str]], Callable[[], object]]] = []
        self.left = 0

    def before(self, call: Call) -> None:
        for plan in list(self._plans):
            steps, act = plan
            method, key = steps[0]
            if call.method == method and (key in (call.key, ANY) or key == TMP == keys.parent(call.key)):
                steps.pop(0)
                if not steps:
                    self._plans.remove(plan)
                    self.left -= 1
                    act()

    def when(self, *steps: tuple[str, str], act: Callable[[], object]) -> None:
        """Calls in this order, others may be between."""
        self._plans.append((list(steps), act))
        self.left += 1


def put(driver: Driver, key: str, body: bytes, mtime_ns: int = LONG_AGO) -> None:
    """As a foreign tool does it."""
    with driver.create(key) as writer:
        writer.write([body])
        writer.set_attributes(None, mtime_ns)


def replace(driver: Driver, body: bytes, *names: str) -> Info:
    """All names of a file go, and another takes the first: of its size, its number and its time of modification."""
    was = driver.stat(names[0])
    for name in names:
        driver.unlink(name)
    put(driver, names[0], body, was.mtime_ns)
    return was


def bytes_of(driver: Driver, key: str) -> bytes:
    return read(driver, key, 1 << 20)


def run_dedupe(store: Store) -> Report:
    run = Run("dedupe", store)
    return run.finish(lambda: dedupe(run, DedupeOptions(workers=1)))


@pytest.fixture
def memory() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def between(memory: MemoryDriver) -> Meanwhile:
    return Meanwhile(memory)


@pytest.fixture
def store(between: Meanwhile) -> Store:
    return store_over(between)


# -- the type -----------------------------------------------------------------------------------


def test_links_and_modes_change_no_content_and_a_write_does(memory: MemoryDriver) -> None:
    put(memory, "one", b"abc")
    with memory.open("one") as reader:
        held, known = HeldFile(reader), FileIdentity.of(reader.info())
        memory.link("one", "two")
        assert held.is_at(memory.stat("two")) and same_file(memory.stat("one"), memory.stat("two"))
        assert not known.is_untouched(memory.stat("one")), "what was not held may be another file by now"
        with memory.append("one") as writer:
            writer.write([b"d"])
        assert not held.is_at(memory.stat("two"))
    assert not held.is_at(None) and not known.is_untouched(None) and not same_file(None, None)
    elsewhere = memory.stat("one")._replace(dev=memory.dev + 1)
    assert not same_file(memory.stat("one"), elsewhere), "another file system has the same numbers"


def test_a_freed_number_is_no_identity(memory: MemoryDriver) -> None:
    put(memory, "one", b"abc")
    known = FileIdentity.of(memory.stat("one"))
    replace(memory, b"abd", "one")
    now = memory.stat("one")
    assert FileIdentity.of(now).content == known.content, "all but the time of change is the same, as on ext4"
    assert not known.is_untouched(now)


def test_a_number_that_is_held_is_not_given_away(memory: MemoryDriver) -> None:
    put(memory, "one", b"abc")
    with memory.open("one") as reader:
        replace(memory, b"abd", "one")
        assert not HeldFile(reader).is_at(memory.stat("one"))


def test_inode_numbers_are_compared_in_one_place() -> None:
    package = Path(zotctl.__file__).parent
    # Of the last one, files of passwords, certificates and credentials: not those of a store.
    allowed = {"storage/file_identity.py", "storage/driver.py", "storage/local/driver.py", "config/watched.py"}
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("ino", "st_ino")
    }
    assert found == allowed


def test_i4_an_index_that_a_tool_makes_meanwhile_is_not_replaced_by_an_empty_one(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    """Another tool makes the layout while a first push does."""
    rows = json.dumps({"schemaVersion": 2, "manifests": [images.row(IMAGE, "v1")]}).encode()
    between.when(("create", ANY), ("sync", ANY), act=lambda: put(memory, keys.index("a"), rows))
    push_blob(store.repository_for_push("a"), LAYER)
    assert not between.left
    assert store.repository("a").tags() == ["v1"]
    assert {entry.name for entry in memory.scan("a")} == {"blobs", "index.json", "oci-layout"}


# -- a push -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[POOL], [POOL, A]], ids=["moved", "number-used-again"])
@pytest.mark.parametrize("steps", [[("link", POOL)], [("link", POOL), ("link", ANY)]], ids=["first", "last"])
def test_i2_a_push_links_the_copy_that_it_compared_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store, names: list[str], steps: list[tuple[str, str]]
) -> None:
    """gc and dedupe between the look and the link: the pool has a foreign copy that nobody has read."""
    push_blob(store.repository_for_push("a"), LAYER)
    between.when(*steps, act=lambda: replace(memory, ROTTEN, *names))
    push_blob(store.repository_for_push("b"), LAYER)
    assert not between.left
    assert bytes_of(memory, B) == LAYER


def test_i2_a_push_believes_the_blob_that_it_compared_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    between.when(("open", A), ("stat", A), act=lambda: replace(memory, ROTTEN, A, POOL))
    push_blob(store.repository_for_push("a"), LAYER)
    assert not between.left
    assert bytes_of(memory, A) == LAYER


def test_a_push_marks_the_blob_that_it_compared_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    memory.unlink(POOL)
    replace(memory, ROTTEN, A)
    between.when(("open", A), ("link", A), act=lambda: replace(memory, LAYER, A))
    push_blob(store.repository_for_push("a"), LAYER)
    assert not between.left
    store.repository("a").blob(DIGEST)
    assert not list(local_of(store.roots[0]).damaged.kept(DIGEST)) and bytes_of(memory, A) == LAYER


def test_a_length_that_is_doubted_marks_what_was_hashed(memory: MemoryDriver, between: Meanwhile, store: Store) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    memory.unlink(POOL)
    replace(memory, ROTTEN, A)
    between.when(("link", A), act=lambda: replace(memory, LAYER, A))
    assert not store.roots[0].protocol.blobs.distrust("a", DIGEST)
    assert not between.left
    assert store.repository("a").blob(DIGEST)


def test_i2_healing_spreads_the_bytes_of_the_push_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    for name in "ab":
        push_blob(store.repository_for_push(name), LAYER)
    replace(memory, ROTTEN, A, POOL, B)
    memory.link(A, B)
    between.when(("rename", A), act=lambda: None)
    between.when(("scan", ""), act=lambda: (memory.unlink(A), put(memory, A, ROTTEN)))
    push_blob(store.repository_for_push("a"), LAYER)
    assert bytes_of(memory, B) == LAYER
    assert not memory.scan(keys.TMP)


@pytest.mark.parametrize("where", ["a", "c"])
def test_a_push_heals_the_pool_and_all_that_share_its_damage(memory: MemoryDriver, store: Store, where: str) -> None:
    """Also a push into a repository that did not have the blob: it meets the damage in the pool."""
    for name in "ab":
        push_blob(store.repository_for_push(name), LAYER)
    replace(memory, ROTTEN, A, POOL, B)
    memory.link(A, B)
    memory.link(A, POOL)
    push_blob(store.repository_for_push(where), LAYER)
    assert {bytes_of(memory, key) for key in (A, B, POOL)} == {LAYER}
    assert [known.nlink for _, known in local_of(store.roots[0]).damaged.kept(DIGEST)] == [1], "kept for a look"


@pytest.mark.parametrize(("where", "key"), [("a", A), ("b", POOL), ("c", POOL)])
def test_a_push_whose_own_bytes_went_marks_no_copy(
    memory: MemoryDriver, between: Meanwhile, store: Store, where: str, key: str
) -> None:
    """Its session is removed while it compares: that says nothing of the copy. `c` has a damaged one to be healed."""
    push_blob(store.repository_for_push("a"), LAYER)
    push_blob(store.repository_for_push("c"), b"other")
    put(memory, C, ROTTEN)

    def sweep() -> None:
        for entry in memory.scan(keys.UPLOADS):
            memory.unlink(f"{keys.UPLOADS}/{entry.name}")

    between.when(("open", key), act=sweep)
    with pytest.raises(NotFound):
        push_blob(store.repository_for_push(where), LAYER)
    assert not between.left
    assert not any(same_file(known, memory.stat(POOL)) for _, known in local_of(store.roots[0]).damaged.kept(DIGEST))
    assert store.repository("a").blob(DIGEST) == len(LAYER) and POOL in memory.names


def test_when_a_file_takes_no_more_names_the_next_is_the_pools() -> None:
    memory = MemoryDriver(max_links=6)
    store, names = store_over(memory), [f"r{number}" for number in range(12)]
    for name in names:
        push_blob(store.repository_for_push(name), LAYER)
    found = [memory.stat(keys.blob(name, DIGEST)) for name in names]
    assert {bytes_of(memory, keys.blob(name, DIGEST)) for name in names} == {LAYER}
    assert len({info.ino for info in found}) <= 4
    assert memory.stat(POOL).ino == found[-1].ino


def test_what_can_not_be_healed_at_once_is_known_to_be_damaged(memory: MemoryDriver, store: Store) -> None:
    """The repository is locked by a job just now."""
    for name in "ab":
        push_blob(store.repository_for_push(name), LAYER)
    replace(memory, ROTTEN, A, POOL, B)
    memory.link(A, POOL)
    local = local_of(store_over(memory).roots[0])
    with local.context.locks.hold("a"):
        push_blob(store.repository_for_push("c"), LAYER)
    with pytest.raises(Damaged):
        local.blobs.find("a", DIGEST)


def test_i7_where_files_have_no_locks_healing_waits_for_those_of_the_process() -> None:
    """Else a blob that is deleted just now would come back."""
    memory = MemoryDriver(locks=False)
    store = store_over(memory)
    for name in "ab":
        push_blob(store.repository_for_push(name), LAYER)
    replace(memory, ROTTEN, A, POOL, B)
    memory.link(A, POOL)
    local = local_of(store.roots[0])
    with local.context.locks.hold("a"):
        push_blob(store.repository_for_push("c"), LAYER)
    assert bytes_of(memory, A) == ROTTEN
    with pytest.raises(Damaged):
        local.blobs.find("a", DIGEST)


def test_i2_a_copy_that_heals_is_compared(memory: MemoryDriver, store: Store) -> None:
    """Where a file takes no more names, each repository gets a copy of it."""

    class Full(FlipByte):
        def link(self, source: str, target: str) -> None:
            if source.startswith(keys.TMP) and target.startswith(keys.TMP):
                raise CannotLink(target)
            super().link(source, target)

    for name in "ab":
        push_blob(store.repository_for_push(name), LAYER)
    replace(memory, ROTTEN, A, POOL, B)
    memory.link(A, B)
    local = local_of(store_over(Full(memory, 3, lambda key: key.startswith(keys.TMP))).roots[0])
    with memory.open(A) as reader:
        assert local.damaged.mark(DIGEST, A, HeldFile(reader))
    put(memory, keys.tmp("good"), LAYER)
    assert local.blobs.healing.heal_all(DIGEST, keys.tmp("good")) == []
    assert bytes_of(memory, B) == ROTTEN, "known damage, which answers 404, and no other"
    local_of(store.roots[0]).blobs.healing.heal_all(DIGEST, keys.tmp("good"))
    assert bytes_of(memory, B) == LAYER


def test_what_is_no_file_gives_way_to_a_push_and_is_kept(memory: MemoryDriver, store: Store) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    memory.unlink(A)
    memory.mkdir(A)
    push_blob(store.repository_for_push("a"), LAYER)
    assert bytes_of(memory, A) == LAYER
    assert [entry.is_dir for entry in memory.scan(keys.DAMAGED_MOVED)] == [True]


def test_what_is_no_file_and_became_one_is_left(memory: MemoryDriver, between: Meanwhile, store: Store) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    memory.unlink(A)
    memory.mkdir(A)
    between.when(("rename", A), act=lambda: (memory.rmdir(A), put(memory, A, LAYER)))
    push_blob(store.repository_for_push("a"), LAYER)
    assert not between.left
    assert memory.stat(A).mtime_ns == LONG_AGO and not memory.scan(keys.DAMAGED_MOVED)


@pytest.mark.parametrize("there", [False, True], ids=["absent", "there"])
def test_i6_known_damage_is_mounted_by_nobody(memory: MemoryDriver, store: Store, there: bool) -> None:
    """Neither that of the source, nor what lies in the target already."""
    push_blob(store.repository_for_push("a"), LAYER)
    push_blob(store.repository_for_push("b"), b"other")
    replace(memory, ROTTEN, A, POOL)
    if there:
        memory.rename(A, B)
        put(memory, A, LAYER)
    with memory.open(B if there else A) as reader:
        assert local_of(store.roots[0]).damaged.mark(DIGEST, B if there else A, HeldFile(reader))
    assert not store.roots[0].protocol.blobs.mount("a", "b", DIGEST)
    assert there == (B in memory.names)


class Answered(Faults):
    """A link into `tmp` is done, and answered with an error: a request that was sent twice finds its own work."""

    def __init__(self, inner: Driver, error: StorageError) -> None:
        super().__init__(inner)
        self.error = error

    def link(self, source: str, target: str) -> None:
        self.inner.link(source, target)
        if keys.parent(target) == TMP:
            raise self.error


def test_an_error_for_a_link_that_was_done_is_not_believed(memory: MemoryDriver) -> None:
    push_blob(store_over(memory).repository_for_push("a"), LAYER)
    push_blob(store_over(Answered(memory, Exists("there"))).repository_for_push("b"), LAYER)
    assert same_file(memory.stat(A), memory.stat(B)) and not memory.scan(TMP)


def test_an_error_for_a_link_that_was_done_leaves_no_name(memory: MemoryDriver) -> None:
    push_blob(store_over(memory).repository_for_push("a"), LAYER)
    with pytest.raises(Unavailable):
        push_blob(store_over(Answered(memory, Unavailable("away"))).repository_for_push("b"), LAYER)
    assert not memory.scan(TMP)


@pytest.mark.parametrize("instead", [b"", ROTTEN], ids=["stub", "rotten"])
def test_i6_a_mount_links_what_it_looked_at(
    memory: MemoryDriver, between: Meanwhile, store: Store, instead: bytes
) -> None:
    push_blob(store.repository_for_push("a"), LAYER)
    push_blob(store.repository_for_push("b"), b"other")
    between.when(("link", A), act=lambda: (memory.unlink(A), put(memory, A, instead)))
    assert not store.repository_for_push("b").mount_blob(store.repository("a"), DIGEST)
    assert not between.left
    with pytest.raises(NotFound):
        memory.stat(B)


def test_a_name_in_tmp_is_as_old_as_the_link_and_not_as_the_file(memory: MemoryDriver, store: Store) -> None:
    """gc leaves alone what a push or a job holds there."""
    push_blob(store.repository_for_push("a"), LAYER)
    replace(memory, LAYER, A, POOL)
    with memory.append(A) as writer:
        writer.set_attributes(None, LONG_AGO)
    memory.link(A, keys.tmp("held"))
    run = Run("gc", store)
    local_gc.sweep(run, store.roots[0], 60.0, Ages(store.roots[0].driver, run.clock.now(), run.clock))
    assert memory.stat(keys.tmp("held")).nlink == 2


# -- scrub --------------------------------------------------------------------------------------


def spoiled(driver: Driver) -> None:
    """The layer of `a` is damaged, and no other copy is there."""
    driver.unlink(POOL)
    was = driver.stat(A)
    driver.unlink(A)
    put(driver, A, ROTTEN, was.mtime_ns // 10**9 * 10**9 - 3600 * 10**9)


def test_scrub_marks_no_good_blob_that_got_the_number_of_a_damaged_one(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    """Hours lie between the hash and what follows from it: a backup of the blob is restored meanwhile."""
    push_image(store, "a", "v1", seed="x")
    spoiled(memory)
    between.when(("open", A), ("stat", keys.index("a")), act=lambda: replace(memory, LAYER, A))
    report = run_scrub(store, workers=1)
    assert not between.left
    assert report.findings == []
    assert store.repository("a").blob(DIGEST) == len(LAYER)


def test_scrub_on_ext4_marks_no_good_blob(mounts: Mounts, tmp_path: Path) -> None:  # noqa: F811
    """The same where the kernel gives the number to the next file."""
    place = mounts.get("ext4") / tmp_path.name
    place.mkdir()
    local = LocalDriver(str(place))
    between = Meanwhile(local)
    store = store_over(between)
    push_image(store, "a", "v1", seed="x")
    spoiled(local)
    before = local.stat(A)
    between.when(("open", A), ("stat", keys.index("a")), act=lambda: replace(local, LAYER, A))
    report = run_scrub(store, workers=1)
    assert not between.left and local.stat(A).ino == before.ino
    assert report.findings == []
    assert store.repository("a").blob(DIGEST) == len(LAYER)


def test_scrub_takes_a_mark_from_what_it_hashed_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    """Another run marks a damaged file that got the number of the good one."""
    push_image(store, "a", "v1", seed="x")
    memory.unlink(POOL)
    put(memory, "stray", ROTTEN)
    other = local_of(store.roots[0]).damaged
    with memory.open("stray") as reader:
        assert other.mark(DIGEST, "stray", HeldFile(reader))

    def damage() -> None:
        replace(memory, ROTTEN, A)
        with memory.open(A) as reader:
            assert local_of(store_over(memory).roots[0]).damaged.mark(DIGEST, A, HeldFile(reader))

    between.when(("open", A), ("stat", keys.damaged_links(DIGEST)), act=damage)
    run_scrub(store, workers=1)
    assert not between.left
    with pytest.raises(Damaged):
        store.roots[0].protocol.blobs.find("a", DIGEST)


def test_i15_what_can_not_even_be_looked_at_again_is_an_error_and_not_gone(memory: MemoryDriver) -> None:
    class Failing(Faults):
        def before(self, call: Call) -> None:
            if call.method in ("open", "stat") and call.key == A and failing:
                raise IoFailed(f"{A}: Input/output error")

    failing: list[bool] = []
    between = Meanwhile(Failing(memory))
    store = store_over(between)
    push_image(store, "a", "v1", seed="x")
    spoiled(memory)
    between.when(("open", A), ("stat", keys.index("a")), act=lambda: failing.append(True))
    report = run_scrub(store, workers=1)
    assert not between.left
    assert [error["error"] for error in report.errors] == ["IoFailed"] and report.exit_code == 5


def test_one_mark_goes_and_the_others_stay(memory: MemoryDriver, store: Store) -> None:
    bad = local_of(store.roots[0]).damaged
    for key in ("one", "two"):
        put(memory, key, ROTTEN)
        with memory.open(key) as reader:
            assert bad.mark(DIGEST, key, HeldFile(reader))
    with memory.open("one") as reader:
        assert bad.clear(DIGEST, HeldFile(reader))
    assert not bad.has(DIGEST, memory.stat("one")) and bad.has(DIGEST, memory.stat("two"))


def test_damage_whose_last_name_went_by_a_clock_ahead_is_kept_from_now_on() -> None:
    clock = Hand()
    memory = MemoryDriver(clock=lambda: int(clock.at * 1e9))
    bad = local_of(store_over(memory, clock=clock).roots[0]).damaged
    for key in ("gone", "named"):
        put(memory, key, ROTTEN)
        with memory.open(key) as reader:
            assert bad.mark(DIGEST, key, HeldFile(reader))
    memory.unlink("gone")
    named = memory.stat("named")
    clock.at -= 1e7
    assert bad.sweep(DIGEST, int((clock.at - 100) * 1e9)) == 0
    clock.at += 200
    assert bad.sweep(DIGEST, int((clock.at - 100) * 1e9)) == len(ROTTEN)
    assert memory.stat("named").ctime_ns == named.ctime_ns and bad.has(DIGEST, named)


def test_known_damage_is_cleared_from_no_memory(memory: MemoryDriver) -> None:
    """`bad` was empty, and is not within the same tick of the storage's clock."""
    tick = 1_800_000_000 * 10**9
    memory.clock = lambda: tick
    store = store_over(memory, clock=Hand())
    push_blob(store.repository_for_push("a"), LAYER)
    local = local_of(store.roots[0])
    memory.mkdir(keys.DAMAGED)
    assert local.blobs.find("a", DIGEST)
    with memory.open(A) as reader:
        assert local_of(store_over(memory, clock=Hand()).roots[0]).damaged.mark(DIGEST, A, HeldFile(reader))
    with pytest.raises(Damaged):
        local.blobs.find("a", DIGEST)


def test_a_file_with_the_number_of_a_checked_one_was_not_checked(memory: MemoryDriver, store: Store) -> None:
    """What a rolling scrub remembers; links, which every push of shared content makes, leave it."""
    push_blob(store.repository_for_push("a"), LAYER)
    checked = Checked(store.roots[0], Clock())
    checked.note(DIGEST, memory.stat(A))
    memory.link(A, "another")
    assert checked.when(DIGEST, memory.stat(A))
    memory.unlink("another")
    was = replace(memory, ROTTEN, A, POOL)
    with memory.append(A) as writer:
        writer.set_attributes(None, was.mtime_ns + 1)
    assert memory.stat(A).ino == was.ino and not checked.when(DIGEST, memory.stat(A))


def test_damage_that_was_touched_is_read_again_and_marked(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    push_image(store, "a", "v1", seed="x")
    spoiled(memory)
    between.when(("open", A), ("stat", keys.index("a")), act=lambda: memory.link(A, "another"))
    report = run_scrub(store, workers=1)
    assert not between.left
    assert [finding.action for finding in report.findings] == ["marked"]


# -- dedupe -------------------------------------------------------------------------------------


def test_i2_dedupe_looks_again_at_a_copy_that_it_knew(memory: MemoryDriver, between: Meanwhile) -> None:
    """Verdicts on the pool's copies are kept for a whole run."""
    store = store_over(between, dedupe=False)
    for name in ("a", "b", "c"):
        push_blob(store.repository_for_push(name), LAYER)
    between.when(("open", C), act=lambda: replace(memory, ROTTEN, POOL, A, B))
    report = run_dedupe(store)
    assert not between.left
    assert bytes_of(memory, C) == LAYER
    assert report.summary["linked"] == 1


def test_dedupe_leaves_what_has_become_unlike(memory: MemoryDriver, between: Meanwhile) -> None:
    """Since it was listed: an inode has one mode."""
    store = store_over(between, dedupe=False)
    for name in ("a", "b"):
        push_blob(store.repository_for_push(name), LAYER)

    def change() -> None:
        with memory.append(B) as writer:
            writer.set_attributes(memory.stat(B)._replace(mode=0o100600), LONG_AGO)

    between.when(("open", B), act=change)
    report = run_dedupe(store)
    assert not between.left and report.summary["left_unlike"] == 1
    assert memory.stat(B).mode & 0o777 == 0o600 and not same_file(memory.stat(A), memory.stat(B))


def test_dedupe_reads_a_copy_in_the_pool_once(memory: MemoryDriver) -> None:
    class Reads(Faults):
        count = 0

        def before(self, call: Call) -> None:
            self.count += call.method == "read_at" and call.key == POOL

    driver = Reads(memory)
    store = store_over(driver, dedupe=False)
    for name in ("a", "b", "c", "d", "e"):
        push_blob(store.repository_for_push(name), LAYER)
    assert run_dedupe(store).summary["linked"] == 4
    assert driver.count == 2, "its bytes, and its end"


def test_undo_replaces_the_file_that_it_copied_and_no_other(
    memory: MemoryDriver, between: Meanwhile, store: Store
) -> None:
    for name in ("a", "b"):
        push_blob(store.repository_for_push(name), LAYER)
    between.when(("copy", TMP), ("lock", keys.LOCK), act=lambda: (memory.unlink(A), put(memory, A, LAYER)))
    run = Run("dedupe", store)
    report = run.finish(lambda: dedupe(run, DedupeOptions(undo=True)))
    assert not between.left
    assert memory.stat(A).mtime_ns == LONG_AGO
    assert report.summary.get("copied", 0) == 0


# -- import-layout --link -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["swapped", "written"])
def test_i2_import_links_what_it_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The name of the source leads to right bytes while it is hashed, and to others when it was opened; or it is
    written to between the two."""
    store, source = local_store(tmp_path / "store"), images.lay_out(tmp_path / "source", IMAGE, [images.row(IMAGE)])
    path = blob_file(source, LAYER)
    require: Any = local_jobs.LocalJobs.require_linkable
    publish: Any = local_jobs._link_open
    if how == "swapped":
        path.write_bytes(ROTTEN)

    def swap(self: Any, info: os.stat_result) -> None:
        if how == "swapped" and info.st_ino == path.stat().st_ino:
            path.unlink()
            path.write_bytes(LAYER)
        require(self, info)

    def write(fd: int, target: str) -> None:
        if how == "written" and os.fstat(fd).st_ino == path.stat().st_ino:
            path.write_bytes(ROTTEN)
        publish(fd, target)

    monkeypatch.setattr(local_jobs.LocalJobs, "require_linkable", swap)
    monkeypatch.setattr(local_jobs, "_link_open", write)
    report = run_import(store, source, link=True, repo="a")
    blob = tmp_path / "store" / A
    assert not blob.exists() or blob.read_bytes() == LAYER
    assert "digest_mismatch" in {finding.kind for finding in report.findings}


def test_i2_import_links_nothing_that_is_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, source = local_store(tmp_path / "store"), images.lay_out(tmp_path / "source", IMAGE, [images.row(IMAGE)])
    hashed: Any = RepositoryImport._link_hashed

    def grow(self: Any, digest: Digest, size: int) -> bool:
        if digest == DIGEST:
            with blob_file(source, LAYER).open("ab") as file:
                file.write(b"more")
        return bool(hashed(self, digest, size))

    monkeypatch.setattr(RepositoryImport, "_link_hashed", grow)
    run_import(store, source, link=True, repo="a")
    blob = tmp_path / "store" / A
    assert not blob.exists() or blob.read_bytes() == LAYER


# -- import-layout --move -----------------------------------------------------------------------


def test_i4_a_row_that_is_written_while_a_layout_is_moved_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at its index.json, and before it is set aside."""
    store, source = local_store(tmp_path / "store"), images.lay_out(tmp_path / "source", IMAGE, [images.row(IMAGE)])
    index, rename = source / "index.json", LocalDriver.rename

    def add(self: LocalDriver, one: str, other: str) -> None:
        if other.endswith("zotctl-moved"):
            document = json.loads(index.read_bytes())
            document["manifests"].append(images.row(IMAGE, "new"))
            index.write_text(json.dumps(document))
        rename(self, one, other)

    monkeypatch.setattr(LocalDriver, "rename", add)
    report = run_import(store, source, move=True, repo="a")
    assert report.exit_code != 0 and "changed while it was imported" in report.errors[0]["reason"]
    assert len(json.loads(index.read_bytes())["manifests"]) == 2
    assert blob_file(source, LAYER).exists() and {path.name for path in source.iterdir()} == {
        "blobs", "index.json", "oci-layout",
    }  # fmt: skip
