"""What holds for every test: generated examples are the same in each run, so that a red run is one about this change;
new files have the modes that most people's have, whatever umask the tests were started under; signals mean what they
mean in a terminal, under nohup and in the background of a script, too; no proxy stands between a test and its
servers, which are all on this machine; and there is a HOME, which some clients want.

Other examples by one command: `ZOTCTL_RANDOM=1 .venv/bin/python -m pytest -n auto`. `ZOTCTL_EXAMPLES=2000`: more.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from threading import Thread
from threading import enumerate as running_threads
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import stores

os.umask(0o022)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HOME", tempfile.gettempdir())
for variable in ("no_proxy", "NO_PROXY"):
    os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1", "localhost"]))
settings.register_profile(  # of both: no example is too slow to make or to try
    "zotctl",
    max_examples=int(os.environ.get("ZOTCTL_EXAMPLES", "100")),
    derandomize=not os.environ.get("ZOTCTL_RANDOM"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("zotctl")


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Some tests take a minute: who has none left takes over from who has."""
    if config.getoption("numprocesses", None) and config.option.dist == "load":
        config.option.dist = "worksteal"


THREAD_ENDS_S = 10.0
"""For one that was told to end."""


@pytest.fixture(autouse=True)
def ended_threads() -> Iterator[None]:
    """A test fails that leaves a thread in code of ours: what that logs or does would count for a later test. Idle
    threads of a pool, and of a test's server, do nothing more."""
    before = set(running_threads())
    yield
    left = [thread for thread in running_threads() if thread not in before and _runs_ours(thread)]
    for thread in left:
        thread.join(THREAD_ENDS_S)
    names = [f"{thread.name} ({_target(thread).__qualname__})" for thread in left if thread.is_alive()]
    assert not names, f"the test has not ended {', '.join(names)}"


def _runs_ours(thread: Thread) -> bool:
    return getattr(_target(thread), "__module__", "").partition(".")[0] in ("zotctl", "tests")


def _target(thread: Thread) -> Any:
    return getattr(thread, "_target", None)  # gone as soon as it ends


@pytest.fixture(autouse=True)
def closed_stores(ended_threads: None) -> Iterator[None]:
    """Those that a test has made, and not those of fixtures for several tests, which are older."""
    with stores.closed():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: two workers a core, since half of the time tests wait for servers, kills and clocks."""
    return 2 * len(os.sched_getaffinity(0))
