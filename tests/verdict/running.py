"""Runs a level, and counts what it says that it did."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass

from tests.cli.running import REPOSITORY
from tests.verdict.levels import Level


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


def run(level: Level, *, long: bool, seed: int) -> Fate:
    command, environ = level.command(long=long, seed=seed), dict(level.variables(long=long))
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return Fate(level, command, environ, done.returncode, done.stdout, time.monotonic() - began)
