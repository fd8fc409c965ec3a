"""What becomes of a mutant: the test that is named for it is run in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

from tests.mutants.mutant import REPOSITORY, Mutant, Stale

LONGEST = 60
"""Seconds after which a test that hangs has caught it, too."""
FAILED = 1
"""Of pytest's exit codes the one for tests that were run and failed."""
_BROKEN = re.compile(
    r"^E +(NameError: |ImportError: |ModuleNotFoundError: |SyntaxError: |"
    r"AttributeError: (?!'NoneType').* has no attribute )",
    re.MULTILINE,
)


class Fate(NamedTuple):
    mutant: Mutant
    caught: bool
    seconds: float
    output: str

    @property
    def word(self) -> str:
        return "caught" if self.caught else "SURVIVES"


def try_out(mutant: Mutant) -> Fate:
    """Caught: the test is there, can be run, and fails, and not since the edit is no program."""
    try:
        mutant.apply(mutant.path.read_text())
    except Stale as error:
        return Fate(mutant, False, 0.0, str(error))
    options = ["-q", "-x", "-p", "tests.mutants.hook", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *options, "-o", f"timeout={LONGEST}", mutant.test]
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("PYTEST_", "ZOTCTL_"))}
    environment |= {"ZOTCTL_MUTANT": mutant.name, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("CI", None)
    began = time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout[-8000:] + done.stderr[-2000:]
    caught = done.returncode == FAILED and not is_broken(output)
    return Fate(mutant, caught, time.monotonic() - began, output)


def is_broken(output: str) -> bool:
    """Did a test fail because something that the edit names is not there? Then it says nothing of the safeguard."""
    return _BROKEN.search(output) is not None


def try_all(mutants: Iterable[Mutant], at_once: int | None = None) -> Iterator[Fate]:
    """As they come to an end; so many at once as there are cores."""
    with ThreadPoolExecutor(at_once or len(os.sched_getaffinity(0))) as threads:
        for done in as_completed([threads.submit(try_out, mutant) for mutant in mutants]):
            yield done.result()
