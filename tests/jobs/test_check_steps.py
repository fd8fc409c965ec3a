"""A scrub beside others, step by step: what is read again, what is told, what a run with errors leaves undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, Meanwhile
from tests.jobs.layouts import blob as blob_file
from tests.jobs.layouts import lay_out, only, run_scrub, share, store_of, told
from tests.jobs.test_scrub_rounds import DAY, Hand, checked
from tests.stores import push_blob, push_image, store_over, two_repositories
from zotctl.errors import IoFailed
from zotctl.jobs.check import scrub_state
from zotctl.jobs.check.hashing import Hasher, Inspector
from zotctl.jobs.check.repository import StoredCheck, view_of
from zotctl.jobs.check.scrub_state import Checked
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver

IMAGE = images.image("x")
CONFIG, LAYER = IMAGE.blobs[0], IMAGE.blobs[1]
DIGEST = digest_of(LAYER)
A, B = keys.blob("a", DIGEST), keys.blob("b", DIGEST)
LONG_AGO = 1_500_000_000 * 10**9


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def memory(clock: Hand) -> MemoryDriver:
    """Two repositories of one image that share nothing."""
    return two_repositories(clock, dedupe=False)


@pytest.fixture
def store(memory: MemoryDriver, clock: Hand) -> Store:
    return store_over(memory, clock=clock)


def spoil(memory: MemoryDriver, key: str) -> None:
    """Rot: no stamp tells of it."""
    memory.names[key].data[3] ^= 1


def rewrite(memory: MemoryDriver, key: str, body: bytes, mtime_ns: int = LONG_AGO) -> None:
    """In place."""
    with memory.append(key) as writer:
        writer.truncate(0)
        writer.write([body])
        writer.set_attributes(None, mtime_ns)


# -- one blob -----------------------------------------------------------------------------------


def test_a_blob_that_was_written_while_it_was_read_is_read_again(memory: MemoryDriver, clock: Hand) -> None:
    """As a restored backup does it: the time of modification is long ago."""
    spoil(memory, A)
    between = Meanwhile(memory, "info", lambda: rewrite(memory, A, LAYER), lambda key: key == A, n=2)
    run = Run("scrub", store_over(between, clock=clock))
    assert Inspector(run, Hasher(run)).blob(run.store.roots[0], "a", DIGEST).good
    assert between.done


def test_damage_with_a_time_stamp_of_the_future_is_damage(memory: MemoryDriver, store: Store, clock: Hand) -> None:
    spoil(memory, A)
    memory.names[A].mtime = int((clock.at + 365 * DAY) * 1e9)
    assert told(run_scrub(store)) == {("a", DIGEST, "digest_mismatch")}


def test_quick_tells_known_damage_and_stubs(memory: MemoryDriver, store: Store) -> None:
    spoil(memory, A)
    run_scrub(store)
    empty = push_blob(store.repository_for_push("b"), b"something")
    rewrite(memory, keys.blob("b", empty), b"")
    assert told(run_scrub(store, quick=True)) == {("a", DIGEST, "digest_mismatch"), ("b", empty, "stub")}


def test_a_manifest_that_rots_after_it_was_found_good_is_hashed_again(
    memory: MemoryDriver, store: Store, clock: Hand
) -> None:
    root, manifest = store.roots[0], IMAGE.digest
    state = Checked(root, clock)
    state.begin()
    for digest in (digest_of(body) for body in (*IMAGE.blobs, IMAGE.manifest)):
        state.note(digest, memory.stat(keys.blob("a", digest)))
    state.save()
    spoil(memory, keys.blob("a", manifest))
    finding = only(run_scrub(store, resume=True, repos=["a"]))
    assert (finding.digest, finding.kind, finding.action) == (manifest, "digest_mismatch", "marked")


def test_an_emptied_manifest_is_told_once(memory: MemoryDriver, store: Store) -> None:
    rewrite(memory, keys.blob("a", IMAGE.digest), b"")
    assert [finding.kind for finding in run_scrub(store).findings] == ["stub"]


def test_a_name_that_got_another_file_says_nothing_of_those_that_shared_the_first(clock: Hand) -> None:
    """They are listed, then one is healed, then it is read: the other still has the damage."""
    memory = MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9))
    for name in "ab":
        push_image(store_over(memory, clock=clock), name, "v1", seed="x")
    assert memory.stat(A).ino == memory.stat(B).ino
    spoil(memory, A)

    def heal() -> None:
        memory.unlink(A)
        with memory.create(A) as writer:
            writer.write([LAYER])
            writer.set_attributes(None, LONG_AGO)

    between: Driver = Meanwhile(memory, "open", heal, lambda key: key == A)
    report = run_scrub(store_over(between, clock=clock), workers=1)
    assert told(report) == {("b", DIGEST, "digest_mismatch")}


# -- what is missing ----------------------------------------------------------------------------


def looked_for(memory: MemoryDriver, clock: Hand, act: str) -> Store:
    """A blob is missing, and at the second look something has happened."""
    memory.unlink(A)

    def push() -> None:
        with memory.create(A) as writer:
            writer.write([LAYER])

    def remove() -> None:
        for key in [key for key in memory.names if key.startswith("a/")]:
            memory.unlink(key)
        for directory in ("a/blobs/sha256", "a/blobs", "a"):
            memory.rmdir(directory)

    between = Meanwhile(memory, "stat", {"push": push, "remove": remove}[act], lambda key: key == "a")
    return store_over(between, clock=clock)


@pytest.mark.parametrize("act", ["push", "remove"])
def test_what_came_or_went_with_its_repository_meanwhile_is_no_finding(
    memory: MemoryDriver, clock: Hand, act: str
) -> None:
    store = looked_for(memory, clock, act)
    root = store.roots[0]
    repo = StoredCheck(root, "a")
    assert len(list(repo.blobs())) == 3
    assert list(repo.findings(view_of(root, "a"), hashed=True)) == []


def test_a_dry_run_brings_nothing_back(memory: MemoryDriver, store: Store) -> None:
    memory.unlink(A)
    finding = only(run_scrub(store, repair=True, dry_run=True))
    assert (finding.kind, finding.action, A in memory.names) == ("missing_blob", "none", False)
    assert only(run_scrub(store, repair=True)).action == "repaired"
    assert A in memory.names


def test_a_repository_that_is_a_link_gets_nothing_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    lay_out(tmp_path, "a", IMAGE, "v1")
    lay_out(elsewhere, "b", IMAGE, "v1")
    (tmp_path / "b").symlink_to(elsewhere / "b")
    blob_file(elsewhere, "b", LAYER).unlink()
    assert [(f.kind, f.action) for f in run_scrub(store_of(tmp_path), repair=True).findings] == [
        ("missing_blob", "none")
    ]
    assert not blob_file(elsewhere, "b", LAYER).exists()


def test_a_dry_run_leaves_what_was_damaged(memory: MemoryDriver, store: Store, clock: Hand) -> None:
    spoil(memory, A)
    run_scrub(store)
    push_blob(store.repository_for_push("a"), LAYER)
    clock.at += 8 * DAY
    run_scrub(store, dry_run=True)
    assert memory.scan(keys.damaged_links(DIGEST))
    assert run_scrub(store).summary["freed_bytes"] == len(LAYER)


# -- what a run with errors, a quick one or one of a part leaves undone ------------------------------


def test_a_repository_with_an_error_does_not_count_as_gone_through(memory: MemoryDriver, clock: Hand) -> None:
    failing: Driver = memory
    for n in (1, 1, 1, 1):
        failing = FailOn(failing, "open", n, IoFailed("broken"), lambda key: key == keys.index("a"))
    report = run_scrub(store_over(failing, clock=clock), resume=True)
    assert report.errors
    assert set(Checked(store_over(memory, clock=clock).roots[0], clock).repositories) == {"b"}


def test_a_run_with_errors_forgets_nothing(memory: MemoryDriver, store: Store, clock: Hand) -> None:
    run_scrub(store, resume=True)
    info = memory.stat(A)
    clock.at += DAY
    failing = FailOn(memory, "scan", 1, IoFailed("broken"), lambda key: key == "a/blobs/sha256")
    assert run_scrub(store_over(failing, clock=clock), resume=True).errors
    assert Checked(store.roots[0], clock).when(DIGEST, info) > 0


def test_quick_counts_for_nothing(store: Store) -> None:
    run_scrub(store, quick=True, resume=True)
    state = Checked(store.roots[0], store.clock)
    assert (len(state._times.arrays()[0]), state.repositories) == (0, {})


def test_quick_leaves_the_place_of_a_deep_scrub(memory: MemoryDriver, store: Store, clock: Hand) -> None:
    """It has read nothing, so it neither goes on with the pass nor ends it."""
    failing = FailOn(memory, "open", 1, IoFailed("broken"), lambda key: key == keys.index("b"))
    assert run_scrub(store_over(failing, clock=clock), resume=True).errors
    before = Checked(store.roots[0], clock)
    run_scrub(store, quick=True, resume=True)
    after = Checked(store.roots[0], clock)
    assert before._times.arrays()[0], "the pass has begun"
    assert after._times.arrays() == before._times.arrays()
    assert (after.repositories, after.began) == (before.repositories, before.began)


def test_a_rolling_scrub_of_one_repository_is_none_of_the_others(store: Store) -> None:
    run_scrub(store, interval=DAY, repos=["a"])
    assert checked(run_scrub(store, interval=DAY)) == 8, "that was no pass"


def test_what_came_with_an_old_time_stamp_is_as_doubtful_after_a_stop(
    memory: MemoryDriver, store: Store, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cp -p`, or a restored backup."""
    run_scrub(store, interval=DAY)
    clock.at += 1000
    young = push_blob(store.repository_for_push("a"), b"young")
    with memory.append(keys.blob("a", young)) as writer:
        writer.set_attributes(None, LONG_AGO)
    spoil(memory, keys.blob("a", young))
    monkeypatch.setattr(scrub_state, "boot_id", lambda: "another start")
    flushing = store_over(memory, clock=clock, commit=True)
    assert told(run_scrub(flushing, interval=DAY)) == set(), "it was flushed"
    assert told(run_scrub(store, interval=DAY)) == {("a", young, "digest_mismatch")}


# -- layouts that have lost a file ---------------------------------------------------------------


@pytest.fixture
def stray(memory: MemoryDriver) -> MemoryDriver:
    memory.unlink(keys.layout("b"))
    return memory


def test_a_layout_that_is_being_made_is_no_finding(stray: MemoryDriver, store: Store, clock: Hand) -> None:
    assert told(run_scrub(store)) == {("b", None, "invalid_layout")}
    clock.sleep = lambda seconds: stray.create(keys.layout("b")).close()  # type: ignore[method-assign]
    assert told(run_scrub(store)) == set()


def test_a_layout_that_was_made_meanwhile_is_no_finding(stray: MemoryDriver, clock: Hand) -> None:
    def make() -> None:
        with stray.create(keys.layout("b")) as writer:
            writer.write([b'{"imageLayoutVersion":"1.0.0"}'])

    between = Meanwhile(stray, "stat", make, lambda key: key == keys.layout("b"))
    assert told(run_scrub(store_over(between, clock=clock))) == set()
    assert between.done


def test_a_stray_layout_is_told_by_runs_that_are_about_it(stray: MemoryDriver, store: Store) -> None:
    assert told(run_scrub(store, repos=["a"])) == set()
    assert told(run_scrub(store, repos=["b"])) == {("b", None, "invalid_layout")}


# -- repairs ------------------------------------------------------------------------------------


def test_i2_a_manifest_comes_back_by_its_own_bytes_only(tmp_path: Path, memory: MemoryDriver, store: Store) -> None:
    """Of as many bytes, of too many, and then the right ones."""
    memory.unlink(keys.blob("a", IMAGE.digest))
    memory.unlink(keys.blob("b", IMAGE.digest))
    lay_out(tmp_path, "a", IMAGE, "v1")
    source = blob_file(tmp_path, "a", IMAGE.manifest)
    for body in (IMAGE.manifest[:-1] + b" ", IMAGE.manifest + b" " * (5 << 20)):
        source.write_bytes(body)
        report = run_scrub(store, repair=True, repair_from=str(tmp_path), repos=["a"])
        assert (only(report).action, report.errors) == ("none", [])
        assert keys.blob("a", IMAGE.digest) not in memory.names
    source.write_bytes(IMAGE.manifest)
    assert only(run_scrub(store, repair=True, repair_from=str(tmp_path), repos=["a"])).action == "repaired"
    assert store.repository("a").manifest("v1").body == IMAGE.manifest


def test_a_repair_that_fails_leaves_no_upload(memory: MemoryDriver, clock: Hand) -> None:
    memory.unlink(A)
    before = set(memory.names)
    failing = FailOn(memory, "read_at", 1, IoFailed("broken"), lambda key: key == B)
    report = run_scrub(store_over(failing, clock=clock), repair=True, workers=1, repos=["a"])
    assert (only(report).action, failing.left <= 0) == ("none", True)
    assert {key for key in memory.names if key.startswith((keys.UPLOADS, keys.TMP))} <= before


def test_undo_leaves_a_repository_that_is_a_link(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    lay_out(tmp_path, "a", IMAGE, "v1")
    lay_out(elsewhere, "b", IMAGE, "v1")
    lay_out(elsewhere, "c", IMAGE, "v1")
    share(blob_file(elsewhere, "b", LAYER), blob_file(elsewhere, "c", LAYER))
    (tmp_path / "b").symlink_to(elsewhere / "b")
    before = blob_file(elsewhere, "b", LAYER).stat().st_ino
    run = Run("dedupe", store_of(tmp_path))
    assert run.finish(lambda: dedupe(run, DedupeOptions(undo=True))).exit_code == 0
    assert blob_file(elsewhere, "b", LAYER).stat().st_ino == before
