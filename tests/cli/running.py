"""Runs of `zotctl` in a child, with nothing of this process' ZOTCTL_ variables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 240.0
"""For a command that hangs: beside busy processes a job gets a tenth of what each of them gets (`NICENESS`)."""


def zotctl(
    *words: str, cwd: Path | None = None, environ: dict[str, str] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return python("-m", "zotctl.cli", *words, cwd=cwd, environ=environ, stdout=stdout)


def python(
    *words: str, cwd: Path | None = None, environ: dict[str, str] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if "ZOTCTL" not in name}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**env, "PYTHONPATH": str(REPOSITORY), **(environ or {})},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
