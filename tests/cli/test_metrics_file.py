"""--metrics-file: a run is counted in a file for a node exporter, however it ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import images
from tests.cli.running import zotctl
from tests.jobs.layouts import blob, flip, lay_out
from zotctl.jobs.metrics import Totals
from zotctl.jobs.report import Report


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    lay_out(made, "app", images.image(), "v1")
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "textfiles").mkdir()
    return tmp_path / "textfiles" / "zotctl.prom"


def values(file: Path, name: str, **labels: str) -> list[float]:
    samples = (s for family in text_string_to_metric_families(file.read_text()) for s in family.samples)
    return [s.value for s in samples if s.name == f"zotctl_{name}" and labels.items() <= s.labels.items()]


def test_runs_add_up_and_jobs_share_the_file(root: Path, file: Path) -> None:
    before = time.time()
    for job in ("scrub", "gc", "scrub", "verify", "dedupe"):
        assert zotctl(job, "--root", str(root), "--metrics-file", str(file)).returncode == 0
    assert values(file, "job_runs_total", job="scrub", result="ok") == [2]
    assert values(file, "job_runs_total", job="gc", result="ok") == [1]
    assert values(file, "job_duration_seconds_count", job="scrub") == [2]
    assert values(file, "job_duration_seconds_sum", job="scrub")[0] > 0
    (last,) = values(file, "job_last_success_timestamp_seconds", job="gc", root=str(root))
    assert before <= last <= time.time()
    size = sum(path.stat().st_size for path in (root / "app/blobs").rglob("*") if path.is_file())
    assert values(file, "scrub_checked_bytes_total") == [2 * size]
    assert values(file, "scrub_damaged_blobs", root=str(root)) == [0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(file.parent) == [file.name]


def test_what_a_collection_frees(root: Path, file: Path) -> None:
    lost = root / "app/blobs/sha256" / ("a" * 64)
    lost.write_bytes(b"nothing leads here")
    os.utime(lost, (1_500_000_000, 1_500_000_000))
    assert zotctl("gc", "--root", str(root), "--delay", "0s", "--metrics-file", str(file)).returncode == 0
    assert not lost.exists()
    assert values(file, "gc_deleted_total", kind="blob") == [1]
    assert values(file, "gc_freed_bytes_total") == [18]


def test_a_run_that_finds_damage(root: Path, file: Path) -> None:
    flip(blob(root, "app", images.image().blobs[1]))
    assert zotctl("scrub", "--root", str(root), "--metrics-file", str(file)).returncode == 4
    assert values(file, "job_runs_total", job="scrub", result="damaged") == [1]
    assert values(file, "job_findings_total", job="scrub", kind="digest_mismatch") == [1]
    assert values(file, "scrub_damaged_blobs", root=str(root)) == [1]
    assert len(values(file, "job_last_success_timestamp_seconds", job="scrub")) == 1


def test_a_run_that_fails_keeps_the_last_success(root: Path, file: Path) -> None:
    words = ("gc", "--metrics-file", str(file), "--root")
    assert zotctl(*words, str(root)).returncode == 0
    success = values(file, "job_last_success_timestamp_seconds", job="gc")
    assert zotctl(*words, str(root / "none")).returncode == 10
    assert values(file, "job_runs_total", job="gc", result="failed") == [1]
    assert values(file, "job_runs_total", job="gc", result="ok") == [1]
    assert values(file, "job_last_success_timestamp_seconds", job="gc") == success != []


def test_a_run_that_nobody_listens_to(root: Path, file: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = ("--root", str(root), "--output", "jsonl", "--metrics-file", str(file))
    assert zotctl("scrub", *words, stdout=write).returncode == 1
    os.close(write)
    assert values(file, "job_runs_total", job="scrub", result="failed") == [1]
    assert values(file, "job_last_success_timestamp_seconds") == []


@pytest.mark.parametrize(
    ("codes", "result"),
    [([], "ok"), ([5], "incomplete"), ([11], "held"), ([16], "stopped"), ([143, 5], "stopped"), ([14], "failed")],
)
def test_results_by_exit_code(codes: list[int], result: str) -> None:
    totals = Totals()
    totals.add(Report("gc", "1", codes=codes, duration_s=2.0), ())
    lines = totals.text().decode().splitlines()
    assert f'zotctl_job_runs_total{{job="gc",result="{result}"}} 1.0' in lines
    assert ('zotctl_job_duration_seconds_sum{job="gc"} 2.0' in lines) == (result != "held")


def test_roots_that_are_no_more_are_forgotten_where_that_is_known() -> None:
    damaged = "".join(f'zotctl_scrub_damaged_blobs{{root="{root}"}} 1\n' for root in "ab")
    totals = Totals(f"{damaged}zotctl_gc_freed_bytes_total 3\n")
    totals.keep_roots(["b"])
    told = [line for line in totals.text().decode().splitlines() if not line.startswith("#")]
    assert told == ["zotctl_gc_freed_bytes_total 3.0", 'zotctl_scrub_damaged_blobs{root="b"} 1.0']


def test_runs_that_are_none(root: Path, file: Path) -> None:
    assert zotctl("gc", "--root", str(root), "--dry-run", "--metrics-file", str(file)).returncode == 0
    assert zotctl("gc", "--root", str(root), "--list-trash", "--metrics-file", str(file)).returncode == 0
    assert zotctl("gc", "--root", str(root / "none"), "--dry-run", "--metrics-file", str(file)).returncode == 10
    assert not file.exists()


def test_a_part_of_the_store_is_no_success_of_the_root(root: Path, file: Path) -> None:
    assert zotctl("scrub", "--root", str(root), "--repo", "app", "--metrics-file", str(file)).returncode == 0
    assert values(file, "job_runs_total", job="scrub", result="ok") == [1]
    assert values(file, "job_last_success_timestamp_seconds") == []


@pytest.mark.parametrize("content", [b"zotctl_job_runs_total{job=", b"\xff\x00", b"zotctl_job_runs_total 7\nother 1\n"])
def test_a_file_that_is_something_else_counts_for_nothing(root: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert zotctl("gc", "--root", str(root), "--metrics-file", str(file)).returncode == 0
    assert values(file, "job_runs_total") == [1]


def test_a_place_where_nothing_can_be_written_is_told_before_the_job_begins(root: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "a.prom", tmp_path):
        done = zotctl("gc", "--root", str(root), "--metrics-file", str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert str(path) in done.stderr


def test_a_file_that_can_not_be_written_changes_nothing_about_the_run(root: Path, file: Path) -> None:
    Path(f"{file}.tmp").mkdir()
    done = zotctl("gc", "--root", str(root), "--metrics-file", str(file))
    assert done.returncode == 0
    assert done.stdout.startswith("Collected 1 repository: ")
    assert f"--metrics-file: {file}: " in done.stderr


def test_jobs_that_end_at_the_same_time_are_all_counted(file: Path) -> None:
    script = (
        "import sys; from zotctl.jobs.metrics import write; from zotctl.jobs.report import Report\n"
        "for _ in range(50): write(sys.argv[1], Report('gc', '1'), ())"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(file)]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert values(file, "job_runs_total", job="gc", result="ok") == [200]
