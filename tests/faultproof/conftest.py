"""Says how many states of power cuts were looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faultproof.powercut import World

STATES = "crash states"


@pytest.fixture(autouse=True)
def counted_states(request: pytest.FixtureRequest) -> Iterator[None]:
    before = World.made
    yield
    if made := World.made - before:
        request.node.user_properties.append((STATES, made))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", [])
    if states := sum(count for report in reports for what, count in report.user_properties if what == STATES):
        terminalreporter.write_line(f"{states} {STATES}")
