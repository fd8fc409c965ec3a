"""Runs a level, and counts what it says that it did."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.cli.running import REPOSITORY
from tests.verdict.levels import Level

SHORT_S, LONG_S = 1200.0, 86_400.0
"""For one level, so that there is a page whatever hangs."""
TIDY_S = 60.0


@dataclass(frozen=True)
class Fate:
    """What became of a level. `took`: seconds."""

    level: Level
    command: tuple[str, ...]
    environ: dict[str, str]
    code: int
    output: str
    took: float

    @property
    def passed(self) -> bool:
        return self.code == 0

    @property
    def figures(self) -> dict[str, int]:
        return {what: sum(counts) for what, pattern in self.level.counted.items() if (counts := _all(pattern, self))}


def _all(pattern: str, fate: Fate) -> list[int]:
    return [int(text.replace(",", "")) if text else 1 for text in re.findall(pattern, fate.output)]


def run(level: Level, *, long: bool, seed: int, limit_s: float | None = None) -> Fate:
    """A level that does not end in time is interrupted, and has failed."""
    command, environ = level.command(long=long, seed=seed), dict(level.variables(long=long))
    began, limit = time.monotonic(), limit_s or (LONG_S if long else SHORT_S)
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        output = f"{_interrupted(process)}\nit did not end within {limit:,.0f} s\n"
    except BaseException:
        _interrupted(process)
        raise
    return Fate(level, command, environ, process.returncode, output, time.monotonic() - began)


def _interrupted(process: subprocess.Popen[str]) -> str:
    """What it has said. As by Ctrl-C, so that it takes down what it has mounted and started; else it is killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=TIDY_S)[0]
    return ""
