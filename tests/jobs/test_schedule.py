"""Which jobs a server runs by itself, on which root."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.collecting import Place
from zotctl.config import Config, RootConfig, ScrubConfig, TimeWindow
from zotctl.errors import HeldElsewhere, UsageError
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import RETRY_EVERY_S, Schedule, Task, tasks


@pytest.mark.parametrize("gc", [True, False])
@pytest.mark.parametrize("interval", [None, 86_400.0])
def test_a_root_gets_the_jobs_that_its_configuration_asks_for(gc: bool, interval: float | None) -> None:
    root = Place().store.roots[0]
    root.config = RootConfig(path="here", gc=gc, gc_interval=7.0)
    config = dataclasses.replace(Config(), scrub=ScrubConfig(interval=interval))
    wanted = [("gc", 7.0)] * gc + [("scrub", 60.0)] * (interval is not None)
    assert [(task.name, task.interval) for task in tasks(config, root)] == wanted


def schedule(place: Place, *turns: Task) -> list[Report]:
    """Run these tasks until nothing is due for a while; the reports."""
    waits: list[float] = []
    made = Schedule(Config(), place.store, lambda seconds: waits.append(seconds) or bool(seconds))
    made._tasks = list(turns)
    reports: list[Report] = []
    made.on_report = lambda report, _: reports.append(report)
    made.run()
    return reports


def work(_: Run) -> None:
    pass


def test_out_of_its_window_a_job_waits() -> None:
    place = Place()
    place.clock.at -= place.clock.at % 86_400  # midnight
    night, day = (
        Task("gc", place.store.roots[0], 7.0, work, window) for window in (TimeWindow(0, 60), TimeWindow(60, 120))
    )
    assert len(schedule(place, night, day)) == 1
    assert (night.due - place.clock.at, day.due - place.clock.at) == (7.0, RETRY_EVERY_S)


def test_a_job_that_can_not_run_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()

    def held(_: Run) -> None:
        raise HeldElsewhere("another process is at it")

    def broken(_: Run) -> None:
        raise UsageError("that can't be")

    tasks = [Task("scrub", place.store.roots[0], 700.0, each) for each in (held, broken)]
    assert [report.codes for report in schedule(place, *tasks)][:1] == [[11]]
    assert [task.due - place.clock.at for task in tasks] == [RETRY_EVERY_S, 700.0]
    assert "another process" not in caplog.text and "that can't be" in caplog.text


def test_a_job_ends_when_the_server_does() -> None:
    """In its next pause, and the next server goes on."""
    place, over = Place(), [False, True]
    made = Schedule(Config(), place.store, lambda seconds: over.pop(0))
    made._tasks = [Task("gc", place.store.roots[0], 7.0, lambda run: run.check())]
    made.on_report = lambda report, _: pytest.fail("it was not finished")
    with pytest.raises(IndexError):
        made.run()


def test_all_that_jobs_need_is_loaded_before_their_process_is_forked(tmp_path: Path) -> None:
    script = f"""
import sys
from zotctl.config import Config, RootConfig, ScrubConfig, StorageConfig
from zotctl.http import job_process
root = RootConfig(path={str(tmp_path)!r}, gc=True, create=True)
config = Config(storage=StorageConfig(roots=(root,)), scrub=ScrubConfig(interval=86_400.0))
job_process.preload(config)
before = set(sys.modules)
from zotctl.jobs.schedule import Schedule
from zotctl.storage import open_store
made, ran = Schedule(config, open_store(config.storage, serving=True), bool), []
made.on_report = lambda report, root: ran.append(report.job)
for task in made._tasks:
    task.due = 0.0
made.run()
print(ran, sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "['gc', 'scrub'] []\n", done.stderr
