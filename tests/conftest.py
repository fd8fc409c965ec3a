"""What holds for every test: generated examples are the same in each run, so that a red run is one about this change;
new files have the modes that most people's have, whatever umask the tests were started under; no proxy stands
between a test and its servers, which are all on this machine; and there is a HOME, which some clients want.

Other examples by one command: `ZOTCTL_RANDOM=1 .venv/bin/python -m pytest -n auto`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings

from tests import stores
from zotctl.errors import ZotctlError

os.umask(0o022)
os.environ.setdefault("HOME", tempfile.gettempdir())
for variable in ("no_proxy", "NO_PROXY"):
    os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1", "localhost"]))
settings.register_profile("fixed", derandomize=True, deadline=None)
if not os.environ.get("ZOTCTL_RANDOM"):
    settings.load_profile("fixed")


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Some tests take a minute: who has none left takes over from who has."""
    if config.getoption("numprocesses", None) and config.option.dist == "load":
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    """Those that a test has made, and not those of fixtures for several tests, which are older."""
    before = len(stores.MADE)
    yield
    for store in stores.MADE[before:]:
        with suppress(ZotctlError):
            store.close()
    del stores.MADE[before:]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: two workers a core, since half of the time tests wait for servers, kills and clocks."""
    return 2 * len(os.sched_getaffinity(0))
