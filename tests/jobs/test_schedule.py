"""Which jobs a server runs by itself, on which root."""

from __future__ import annotations

import dataclasses

import pytest

from tests.jobs.collecting import Place
from zotctl.config import Config, RootConfig, ScrubConfig
from zotctl.jobs.schedule import tasks


@pytest.mark.parametrize("gc", [True, False])
@pytest.mark.parametrize("interval", [None, 86_400.0])
def test_a_root_gets_the_jobs_that_its_configuration_asks_for(gc: bool, interval: float | None) -> None:
    root = Place().store.roots[0]
    root.config = RootConfig(path="here", gc=gc, gc_interval=7.0)
    config = dataclasses.replace(Config(), scrub=ScrubConfig(interval=interval))
    wanted = [("gc", 7.0)] * gc + [("scrub", 60.0)] * (interval is not None)
    assert [(task.name, task.interval) for task in tasks(config, root)] == wanted
