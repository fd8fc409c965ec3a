"""`verify` in one process, step by step: known damage, shared files, what is being made, whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn
from tests.jobs.layouts import told
from tests.jobs.test_scrub_rounds import Hand
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import IoFailed, PermissionRefused, UsageError
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of

IMAGE = images.image("x")
LAYER = IMAGE.blobs[1]
DIGEST = digest_of(LAYER)
A, B = keys.blob("a", DIGEST), keys.blob("b", DIGEST)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def memory(clock: Hand) -> MemoryDriver:
    """Two repositories that share an image."""
    made = MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9))
    for name in "ab":
        push_image(store_over(made, clock=clock), name, "v1", seed="x")
    return made


def check(
    driver: Driver, clock: Hand, *, deep: bool = True, repos: Sequence[str] = (), others: Sequence[Driver] = ()
) -> Report:
    run = Run("verify", store_over(driver, *others, clock=clock), repos=repos, dry_run=True)
    return run.finish(lambda: verify(run, VerifyOptions(deep=deep, workers=1)))


def spoil(memory: MemoryDriver, key: str) -> None:
    memory.names[key].data[3] ^= 1


@pytest.mark.parametrize("deep", [False, True])
def test_known_damage_and_stubs_are_damage(memory: MemoryDriver, clock: Hand, deep: bool) -> None:
    """Whatever is in them now: both are answered with 404."""
    store: Store = store_over(memory, clock=clock)
    stray = push_blob(store.repository_for_push("a"), b"stray")
    memory.names[keys.blob("a", stray)].data[:] = b""
    local = local_of(store.roots[0])
    with local.driver.open(A) as reader:
        assert store.roots[0].maintenance.mark("a", DIGEST, HeldFile(reader))
    report = check(memory, clock, deep=deep)
    assert told(report) >= {("a", DIGEST, "digest_mismatch"), ("a", stray, "stub")}
    assert report.exit_code == 4


def test_damage_of_a_shared_file_is_told_for_each_name(memory: MemoryDriver, clock: Hand) -> None:
    spoil(memory, A)
    assert memory.stat(A).ino == memory.stat(B).ino
    assert told(check(memory, clock)) == {("a", DIGEST, "digest_mismatch"), ("b", DIGEST, "digest_mismatch")}


def test_what_can_not_be_read_makes_exit_code_5(memory: MemoryDriver, clock: Hand) -> None:
    failing: Driver = memory
    for _ in range(9):
        failing = FailOn(failing, "open", 1, PermissionRefused("no"), lambda key: key == keys.blob("a", IMAGE.digest))
    report = check(failing, clock, deep=False)
    assert ("a", IMAGE.digest, "unreadable") in told(report)
    assert 5 in report.codes


def test_blobs_that_nothing_reaches_are_not_told_where_that_is_not_known(memory: MemoryDriver, clock: Hand) -> None:
    push_blob(store_over(memory, clock=clock).repository_for_push("a"), b"stray")
    assert {kind for _, _, kind in told(check(memory, clock))} == {"orphan"}
    memory.unlink(keys.blob("a", IMAGE.digest))
    assert {kind for _, _, kind in told(check(memory, clock))} == {"missing_manifest"}


def test_leftovers_are_told_by_a_run_over_everything(memory: MemoryDriver, clock: Hand) -> None:
    with memory.create(keys.tmp("0123456789abcdef")) as writer:
        writer.write([b"x"])
    clock.at += 30 * 86400
    assert ("", None, "orphan") in told(check(memory, clock))
    assert told(check(memory, clock, repos=["a"])) == set()


def test_a_repository_in_two_roots_is_told_once(memory: MemoryDriver, clock: Hand) -> None:
    second = MemoryDriver(label="second", clock=lambda: int((clock.at - 1000) * 1e9))
    push_image(store_over(second, clock=clock), "a", "v1", seed="x")
    assert told(check(memory, clock, others=[second])) == {("a", None, "two_roots")}


def test_a_layout_that_is_being_made_is_not_told(memory: MemoryDriver, clock: Hand) -> None:
    memory.unlink(keys.layout("b"))
    assert ("b", None, "invalid_layout") in told(check(memory, clock))
    clock.at -= 999.5
    assert told(check(memory, clock)) == set()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("team/**", {"team", "team/app", "team/sub/app"}), ("team/*", {"team/app"}), ("team", {"team"})],
)
def test_which_repositories_a_pattern_names(clock: Hand, pattern: str, names: set[str]) -> None:
    memory = MemoryDriver()
    for name in ("team", "team/app", "team/sub/app", "teams"):
        push_image(store_over(memory, clock=clock), name, "v1")
    run = Run("verify", store_over(memory, clock=clock), repos=[pattern])
    assert {name for _, name in run.repositories()} == names


def test_a_pattern_that_stands_for_too_many_is_a_mistake(memory: MemoryDriver) -> None:
    with pytest.raises(UsageError, match=r"--repo: .* limit of 1000"):
        Run("verify", store_over(memory), repos=["{1..99999999}"])


def test_a_pattern_that_names_nothing_is_a_mistake(memory: MemoryDriver, clock: Hand) -> None:
    assert check(memory, clock, repos=["c"]).exit_code == 10
    assert check(memory, clock, repos=["a"]).exit_code == 0


def test_what_can_not_be_listed_is_told_where_it_could_be_meant(memory: MemoryDriver, clock: Hand) -> None:
    failing = FailOn(memory, "scan", 1, IoFailed("broken"), lambda key: key == "b")
    run = Run("verify", store_over(failing, clock=clock), repos=["a"])
    assert [name for _, name in run.repositories()] == ["a"]
    assert run.report.errors == []
    failing.left = 1
    run = Run("verify", store_over(failing, clock=clock), repos=["b/**"])
    list(run.repositories())
    assert len(run.report.errors) == 1
