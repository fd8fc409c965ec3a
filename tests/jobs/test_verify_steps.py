"""`verify` in one process, step by step: known damage, shared files, what is being made, whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Call, FailOn, Faults, Meanwhile
from tests.jobs.collecting import Place
from tests.jobs.layouts import told
from tests.jobs.test_scrub_rounds import Hand
from tests.stores import push_blob, push_image, store_over, two_repositories
from zotctl.errors import IoFailed, NotFound, PermissionRefused, UsageError
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.driver import LocalDriver
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
    return two_repositories(clock)


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


@pytest.mark.parametrize("look", range(1, 9))
def test_an_index_that_is_away_for_a_moment_is_no_damage(memory: MemoryDriver, clock: Hand, look: int) -> None:
    """On NFS each commit takes it away, and other programs replace it by two calls."""
    away = FailOn(memory, "stat", look, NotFound("away"), lambda key: key == keys.index("a"))
    assert check(away, clock).findings == []


def test_damage_of_a_shared_file_is_told_for_each_name(memory: MemoryDriver, clock: Hand) -> None:
    spoil(memory, A)
    assert memory.stat(A).ino == memory.stat(B).ino
    assert told(check(memory, clock)) == {("a", DIGEST, "digest_mismatch"), ("b", DIGEST, "digest_mismatch")}


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_what_comes_back_between_the_look_at_its_place_and_that_into_the_trash_is_not_missing(
    memory: MemoryDriver, clock: Hand, nth: int
) -> None:
    """As from a client of NFS, which replaces a file by two requests."""
    memory.rename(A, aside := keys.tmp("aside"))
    meanwhile = Meanwhile(memory, "stat", lambda: memory.rename(aside, A), lambda key: key == keys.TRASH, nth)
    assert told(check(meanwhile, clock)) == set()
    assert meanwhile.done


class Healed(Faults):
    """Another file takes the name of the first repository between the list and the read."""

    body: bytes | None = LAYER

    def before(self, call: Call) -> None:
        if (call.method, call.key) == ("open", A) and self.body is not None:
            body, self.body = self.body, None
            self.inner.unlink(A)
            with self.inner.create(A) as writer:
                writer.write([body])


@pytest.mark.parametrize("body", [LAYER, b"other damage"])
def test_damage_of_a_shared_file_is_told_though_its_first_name_leads_elsewhere_by_then(
    memory: MemoryDriver, clock: Hand, body: bytes
) -> None:
    """What the other file holds says nothing of the names that still lead to the first."""
    spoil(memory, A)
    healed = Healed(memory)
    healed.body = body
    clock.at += 60
    assert ("b", DIGEST, "digest_mismatch") in told(check(healed, clock))
    assert healed.body is None


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
    clock.sleep = lambda seconds: memory.create("b/.index.json.zotctl-new").close()  # type: ignore[method-assign]
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


def reasons(report: Report) -> str:
    return " ".join(finding.reason for finding in report.findings)


def test_uploads_that_no_client_continues_are_told(memory: MemoryDriver, clock: Hand) -> None:
    repository = store_over(memory, clock=clock).repository_for_push("a")
    with repository.resume_upload(repository.start_upload()) as upload:
        upload.write([b"half"])
        upload.save()
    assert told(check(memory, clock)) == set()
    clock.at += 30 * 86400
    assert "1 upload with 4 bytes that no client continues" in reasons(check(memory, clock))


class Mounted(MemoryDriver):
    """`b` is on another file system."""

    def stat(self, key: str) -> Info:
        info = super().stat(key)
        return info._replace(dev=info.dev + 1) if key == "b" else info


def test_a_repository_on_another_file_system_takes_no_push(clock: Hand) -> None:
    mounted = Mounted(clock=lambda: int((clock.at - 1000) * 1e9))
    push_image(store_over(mounted, clock=clock), "b", "v1", seed="x")
    assert "on another file system than its root" in reasons(check(mounted, clock))


def test_a_repository_that_is_a_link_takes_no_push(tmp_path: Path) -> None:
    images.lay_out(tmp_path / "elsewhere", IMAGE, [images.row(IMAGE, "v1")])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    run = Run("verify", store_over(LocalDriver(str(tmp_path / "root"))), dry_run=True)
    report = run.finish(lambda: verify(run, VerifyOptions(workers=1)))
    assert "it is a symbolic link: served, but nothing can be pushed" in reasons(report)


@pytest.mark.parametrize(
    ("store", "file", "mode", "readable"),
    [
        ((7, 7), (7, 7), 0o400, True),
        ((7, 7), (7, 7), 0o044, False),
        ((7, 7), (8, 7), 0o040, True),
        ((7, 7), (8, 8), 0o040, False),
        ((7, 7), (8, 8), 0o004, True),
        ((0, 0), (8, 8), 0o000, True),
    ],
)
def test_a_file_that_the_owner_of_the_store_can_not_read_is_told(
    memory: MemoryDriver, clock: Hand, store: tuple[int, int], file: tuple[int, int], mode: int, readable: bool
) -> None:
    for inode in memory.names.values():
        inode.uid, inode.gid = store
    inode = memory.names[A]
    (inode.uid, inode.gid), inode.mode = file, inode.mode & ~0o777 | mode
    assert ("can't read" in reasons(check(memory, clock))) is not readable


def test_what_is_needed_and_in_the_trash_is_no_finding() -> None:
    """A request brings it back; which the next one does."""
    place = Place()
    push_image(place.store, "a", "other", seed="y")
    for body in IMAGE.blobs:
        place.stray(body)
    place.wait(2)
    place.collect()
    assert len(place.in_trash()) == len(IMAGE.blobs)
    place.tool_writes(IMAGE, "v1")
    run = Run("verify", place.store, dry_run=True)
    report = run.finish(lambda: verify(run, VerifyOptions(workers=1)))
    assert report.findings == []


def test_damage_is_told_of_a_repository_that_can_not_be_listed_to_its_end(memory: MemoryDriver, clock: Hand) -> None:
    """The next run may fail at the same place."""
    spoil(memory, A)
    memory.mkdir(keys.blobs_of("a", "sha512"))
    failing = FailOn(memory, "scan", 1, IoFailed("no"), lambda key: key == keys.blobs_of("a", "sha512"))
    report = check(failing, clock)
    assert ("a", DIGEST, "digest_mismatch") in told(report)
    assert [error["repository"] for error in report.errors] == ["a"]
