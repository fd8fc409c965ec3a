"""Runs that are stopped, killed, or spread over time go on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.jobs.layouts import Counting, blob, flip, lay_out, run_scrub, store_of, told
from tests.stores import push_blob, push_image, store_over
from zotctl.jobs.check import scrub as scrubbing
from zotctl.jobs.check import scrub_state
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.scrub_state import Checked
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Info
from zotctl.storage.local.protocol import local_of

DAY = 86400.0


class Hand(Clock):
    """A clock that a test turns; each look at `elapsed` takes `step`."""

    def __init__(self) -> None:
        self.at, self.step = 1_800_000_000.0, 0.0

    def now(self) -> float:
        return self.at

    def now_ns(self) -> int:
        self.at += 1e-6
        return int(self.at * 1e9)

    def elapsed(self) -> float:
        self.at += self.step
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def jitter(self) -> float:
        return 1.0


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def store(clock: Hand) -> Store:
    """Five images, old enough."""
    store = store_over(MemoryDriver(clock=lambda: int((clock.at - 1000) * 1e9)), clock=clock)
    for number in range(5):
        push_image(store, f"repo{number}", "v1", seed=str(number))
    return store


def checked(report: object) -> int:
    return report.summary.get("checked_blobs", 0)  # type: ignore[attr-defined,no-any-return]


def test_a_run_that_was_stopped_goes_on(store: Store, clock: Hand) -> None:
    total, rounds = 0, 0
    while rounds < 100:
        clock.step = 1.0
        report = run_scrub(store, resume=True, max_duration=15, workers=1)
        clock.step = 0.0
        total, rounds = total + checked(report), rounds + 1
        if report.exit_code == 0:
            break
        assert report.exit_code == 16
    assert rounds > 2
    assert total == 20, "each blob once"
    assert checked(run_scrub(store, resume=True, workers=1)) == 20, "and then all from the beginning"


def test_damage_found_before_the_end_is_told_then_and_in_the_next_pass(store: Store, clock: Hand) -> None:
    config = digest_of(images.image("0").blobs[0])
    store.roots[0].driver.names[keys.blob("repo0", config)].data[3] ^= 1  # type: ignore[attr-defined]
    clock.step = 1.0
    report = run_scrub(store, resume=True, max_duration=15, workers=1)
    assert (report.exit_code, told(report)) == (4, {("repo0", config, "digest_mismatch")})
    assert 16 in report.codes
    clock.step = 0.0
    assert told(run_scrub(store, resume=True, workers=1)) == set(), "that repository was done"
    assert told(run_scrub(store, resume=True, workers=1)) == {("repo0", config, "digest_mismatch")}


def test_without_resume_everything_is_read(store: Store, clock: Hand) -> None:
    clock.step = 1.0
    run_scrub(store, resume=True, max_duration=15, workers=1)
    clock.step = 0.0
    assert checked(run_scrub(store, workers=1)) == 20


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"format": 1}\n', b'{"format": 2, "inodes": 0}\n', b"\x00" * 50])
def test_lost_state_means_unchecked(store: Store, body: bytes) -> None:
    run_scrub(store, resume=True, workers=1)
    for key in (keys.SCRUB_STATE, keys.SCRUB_FINDINGS):
        local_of(store.roots[0]).context.discard(key)
        with store.roots[0].driver.create(key) as writer:
            writer.write([body])
    report = run_scrub(store, resume=True, workers=1)
    assert (checked(report), report.findings) == (20, [])


def test_the_state_forgets_what_is_gone(store: Store) -> None:
    run_scrub(store, resume=True, workers=1)
    size = store.roots[0].driver.stat(keys.SCRUB_STATE).size
    repository = store.repository_for_push("repo0")
    for number in range(200):
        push_blob(repository, f"stray {number}".encode())
    run_scrub(store, resume=True, workers=1)
    assert store.roots[0].driver.stat(keys.SCRUB_STATE).size > size + 200 * 12 - 100
    for number in range(200):
        repository.delete_blob(digest_of(f"stray {number}".encode()))
    run_scrub(store, resume=True, workers=1)
    assert store.roots[0].driver.stat(keys.SCRUB_STATE).size <= size + 50


def test_the_state_is_bounded_and_survives(clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zotctl.jobs.check.scrub_state.MOST_INODES", 1000)
    monkeypatch.setattr("zotctl.jobs.int_map.MERGE_AT", 64)
    root = store_over(MemoryDriver(), clock=clock).roots[0]
    state = Checked(root, clock)
    state.begin()
    for number in range(1500):
        clock.at += 1
        state.note(f"sha256:{number}", Info(number, 0, 0, 0, 1, 0, 0, 0, 0))
    state.note_repository("x")
    state.save()
    again = Checked(root, clock)
    assert (again.began, again.repositories) == (state.began, state.repositories)
    known = [n for n in range(1500) if again.when(f"sha256:{n}", Info(n, 0, 0, 0, 1, 0, 0, 0, 0))]
    assert len(known) in (999, 1000)
    assert min(known) >= 500, "the oldest go"
    assert root.driver.stat(keys.SCRUB_STATE).size < 13_000


# -- rolling ------------------------------------------------------------------------------------


def test_a_small_store_is_rolled_through_once_in_the_interval(store: Store, clock: Hand) -> None:
    counts = []
    for _ in range(60 * 26):
        counts.append(checked(run_scrub(store, interval=DAY)))
        clock.at += 60
    assert counts[0] == 20
    assert sum(counts[1 : 60 * 23]) == 0
    assert sum(counts) == 40


def test_a_rolling_scrub_is_spread_and_takes_the_oldest_first(
    store: Store, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "LEAST_SLICE_BYTES", 500)
    seen: list[str] = []
    for _ in range(24 * 2):
        driver = store.roots[0].driver
        before = len(seen)
        opened = driver.open

        def spy(key: str, opened=opened):  # type: ignore[no-untyped-def]
            if "/blobs/" in key and not key.startswith("."):
                seen.append(key.split("/")[0])
            return opened(key)

        monkeypatch.setattr(driver, "open", spy)
        run_scrub(store, interval=DAY)
        monkeypatch.setattr(driver, "open", opened)
        clock.at += DAY / 48
        assert len(seen) - before < 12, "never all at once"
    order = list(dict.fromkeys(seen))
    assert order == [f"repo{n}" for n in range(5)]


def test_rolling_survives_a_restart(store: Store, clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "LEAST_SLICE_BYTES", 500)
    total = 0
    for _ in range(60):
        again = store_over(store.roots[0].driver, clock=clock)
        total += checked(run_scrub(again, interval=DAY))
        clock.at += DAY / 60
    assert total == 20


def test_rolling_finds_damage_and_a_repository_that_can_not_be_read_does_not_stop_it(store: Store, clock: Hand) -> None:
    layer = digest_of(images.image("3").blobs[1])
    driver = store.roots[0].driver
    driver.names[keys.blob("repo3", layer)].data[3] ^= 1  # type: ignore[attr-defined]
    driver.names["repo1/index.json"].data[:] = b"{"  # type: ignore[attr-defined]
    found = [told(run_scrub(store, interval=DAY)) for _ in range(3)]
    assert found[0] == {("repo3", layer, "digest_mismatch"), ("repo1", None, "invalid_index")}
    assert found[1:] == [set(), set()]


def test_after_the_machine_has_stopped_what_was_written_last_is_looked_at_first(
    store: Store, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/design/local.md#without-commit: a layer may be short or absent after a power cut."""
    assert checked(run_scrub(store, interval=DAY)) == 20
    clock.at += 3000
    assert checked(run_scrub(store, interval=DAY)) == 0
    clock.at += 1000  # by the storage's clock, the time of the last slice
    push_image(store, "young", "v1", seed="young")
    layer = digest_of(images.image("young").blobs[1])
    store.roots[0].driver.names[keys.blob("young", layer)].data[3] ^= 1  # type: ignore[attr-defined]
    monkeypatch.setattr(scrub_state, "boot_id", lambda: "another start")
    report = run_scrub(store, interval=DAY)
    assert told(report) == {("young", layer, "digest_mismatch")}
    assert checked(report) == 3, "the two good blobs and the manifest, and nothing of the others"
    assert checked(run_scrub(store, interval=DAY)) == 0


def test_with_commit_nothing_is_doubtful_after_a_stop(
    store: Store, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_scrub(store, interval=DAY)
    monkeypatch.setattr(scrub_state, "boot_id", lambda: "another start")
    flushing = store_over(store.roots[0].driver, clock=clock, commit=True)
    assert checked(run_scrub(flushing, interval=DAY)) == 0


def test_the_second_run_sees_the_first(store: Store) -> None:
    """I10."""
    with Run("scrub", store).leases():
        assert run_scrub(store).exit_code == 11
    assert run_scrub(store).exit_code == 0


def test_i11_nothing_is_locked_while_it_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    locks: list[str] = []
    driver = store.roots[0].driver
    take = driver.lock
    monkeypatch.setattr(driver, "lock", lambda key, byte: (locks.append(key), take(key, byte))[1])
    run_scrub(store)
    assert locks == [keys.lease("scrub")]


# -- killed -------------------------------------------------------------------------------------

_KILLED = """
import sys
from tests.jobs.layouts import run_scrub, store_of
from pathlib import Path
print("ready", flush=True)
run_scrub(store_of(Path(sys.argv[1])), repair=True, repair_from=sys.argv[2])
"""


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.08, 0.2])
def test_killed_in_the_middle_and_run_again(tmp_path: Path, after: float) -> None:
    root, backup = tmp_path / "root", tmp_path / "backup"
    made = [images.image(f"{n}", layers=4) for n in range(12)]
    for number, image in enumerate(made):
        lay_out(root, f"r{number}", image, "v1")
        lay_out(backup, f"r{number}", image, "v1")
        flip(blob(root, f"r{number}", image.blobs[1]))
    store_of(root)
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(root), str(backup)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    report = run_scrub(store_of(root), repair=True, repair_from=str(backup))
    assert {f.action for f in report.findings} <= {"repaired"}
    assert run_scrub(store_of(root)).findings == []
    for number, image in enumerate(made):
        for body in image.blobs:
            assert blob(root, f"r{number}", body).read_bytes() == body


def test_a_bound_on_speed(tmp_path: Path, clock: Hand) -> None:
    lay_out(tmp_path, "app", images.image("x"), "v1")
    path = blob(tmp_path, "app", digest_of(bytes(4 << 20)))
    path.write_bytes(bytes(4 << 20))
    os.utime(path, (1e9, 1e9))
    run, began = Run("scrub", store_of(tmp_path, clock=clock), rate=8 << 20), clock.at
    assert run.finish(lambda: scrub(run, ScrubOptions())).exit_code == 0
    assert 0.4 < clock.at - began < 5


def test_progress_is_told(tmp_path: Path) -> None:
    from zotctl.jobs.report import Sink

    told_of: list[tuple[int, int | None]] = []

    class Bar(Sink):
        def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
            told_of.append((done, total))

    lay_out(tmp_path, "app", images.image("x"), "v1")
    run = Run("scrub", store_over(Counting(str(tmp_path))), sink=Bar())
    run.finish(lambda: scrub(run, ScrubOptions(measure=True)))
    done, total = told_of[-1]
    assert done == total
