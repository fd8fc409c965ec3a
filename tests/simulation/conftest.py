"""Says how many schedules were played."""

from __future__ import annotations

from typing import Any

from tests.simulation.test_simulation import CHUNK, WANTED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    passed = sum("::test_seeds[" in report.nodeid for report in terminalreporter.stats.get("passed", []))
    if passed:
        terminalreporter.write_line(f"{passed * min(CHUNK, WANTED)} schedules")
