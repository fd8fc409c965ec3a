"""Which jobs a server runs by itself, on which root."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs.collecting import Place
from zotctl.config import Config, RootConfig, ScrubConfig, StorageConfig, TimeWindow
from zotctl.errors import HeldElsewhere, UsageError
from zotctl.http import job_process
from zotctl.http.job_process import Plan
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import LONGEST_WAIT_S, RETRY_EVERY_S, Schedule, Task, tasks


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


@pytest.mark.parametrize("interval", [0.0, 7.0])
def test_a_job_that_was_stopped_stays_due(interval: float) -> None:
    """Also one that runs once: whoever ends only the process for the jobs does not end the jobs."""
    place, told = Place(), [False, True, True]
    made = Schedule(Config(), place.store, lambda seconds: told.pop(0))
    made._tasks = [Task("gc", place.store.roots[0], interval, lambda run: run.check())]
    made.run()
    assert told == [] and list(made.due().values()) == [0.0]


def test_a_schedule_goes_on_by_the_plan_of_the_one_before() -> None:
    place, waits = Place(), list[float]()
    root = place.store.roots[0]
    root.config = RootConfig(path="here", gc=True, gc_interval=7200.0)
    config = dataclasses.replace(Config(), scrub=ScrubConfig(interval=86_400.0))

    def stopped(seconds: float) -> bool:
        waits.append(seconds)
        place.clock.at += seconds
        return len(waits) > 9

    first = Schedule(config, place.store, stopped)
    assert set(first.due().values()) == {place.clock.elapsed()}, "all at once"
    soon, late = place.clock.elapsed() + 70.0, place.clock.elapsed() + 3600.0
    gc, scrub = first.due()
    next_one = Schedule(config, place.store, stopped, {gc: late, scrub: soon, "gc of a root that is gone": 0.0})
    assert next_one.due() == {gc: late, scrub: soon}
    assert stopped(70.0) is False and next_one.due()[scrub] == place.clock.elapsed()


def test_a_schedule_ends_when_nothing_is_due_for_a_while() -> None:
    place, waits = Place(), list[float]()

    def stopped(seconds: float) -> bool:
        waits.append(seconds)
        place.clock.at += seconds
        return len(waits) > 9

    root, ran = place.store.roots[0], list[str]()
    made = Schedule(Config(), place.store, stopped)
    often, once = (Task(name, root, interval, work) for name, interval in (("often", LONGEST_WAIT_S), ("once", 0.0)))
    often.due = once.due = place.clock.elapsed() + LONGEST_WAIT_S
    made._tasks, made.on_report = [often, once], lambda report, _: ran.append(report.job)
    made.run()
    assert (ran, waits) == (["often", "once"] + ["often"] * 8, [LONGEST_WAIT_S] * 10), "it waits for what is near"
    assert once.due == math.inf
    often.due = place.clock.elapsed() + LONGEST_WAIT_S + 1.0
    made.run()
    assert len(waits) == 10, "it ends"
    made._tasks = [once]
    made.run()
    assert len(waits) == 10 and made.due() == {once.key: math.inf}


def test_the_clock_is_noted_when_a_server_starts_and_not_by_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    place, noted = Place(), list[str]()
    monkeypatch.setattr("zotctl.jobs.schedule.note_clock", lambda root, clock: noted.append(root.label))
    for due in ({}, {"gc": 0.0}, None):
        Schedule(Config(), place.store, lambda seconds: True, due).run()
    assert noted == [place.store.roots[0].label] * 2


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


class NeverTold:
    """In place of the signals that tell the process to stop."""

    def __init__(self, life: int) -> None:
        self.waits = list[float]()

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        assert len(self.waits) < 100, "it waits for ever"
        return False

    def enforce(self, drain: float) -> None:
        pass


def test_the_process_for_the_jobs_ends_between_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its plan to the next one, and stays while lines for the audit file wait in it."""
    root = RootConfig(path=str(tmp_path), gc=True, create=True, gc_interval=7200.0)
    config, plan, ran, do = Config(storage=StorageConfig(roots=(root,))), Plan(), list[str](), Schedule._do
    troubles = ["the disk is full", "the disk is full", None, None]

    def noted(made: Schedule, task: Task) -> Report | None:
        ran.append(task.key)
        return do(made, task)

    monkeypatch.setattr(Schedule, "_do", noted)
    monkeypatch.setattr(job_process, "_Stop", NeverTold)
    monkeypatch.setattr(job_process, "audit_trouble", lambda: troubles.pop(0))
    monkeypatch.setattr("zotctl.jobs.run.give_way", lambda: None)
    assert plan.next_due() == 0.0
    for _ in range(2):
        before = time.monotonic()
        assert job_process.main(config, -1, plan) == 0
    assert ran == list(plan.read()) and len(ran) == 1, "the second had nothing to do"
    assert plan.next_due() <= before + 7200.0 and troubles == []
