"""The page of a verdict, in Markdown."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.cli.running import REPOSITORY
from tests.verdict.running import Fate

SHOWN = 60
"""Lines of what a level that failed has printed, the last ones."""


def page(fates: Sequence[Fate], *, long: bool, seed: int) -> str:
    failed = [fate for fate in fates if not fate.passed]
    lines = [
        f"# Verdict: {f'{len(failed)} of {len(fates)} levels FAILED' if failed else f'all {len(fates)} levels passed'}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {'long' if long else 'short'} budgets, seed {seed}, "
        f"{sum(fate.took for fate in fates):,.0f} s. {_commit()} {_machine()}",
        "",
        "| Level | Finds | Verdict | How much | Time | Command |",
        "|---|---|---|---|---|---|",
        *map(_row, fates),
    ]
    for fate in failed:
        told = fate.output.splitlines()[-SHOWN:]
        lines += ["", f"## {fate.level.name}: exit code {fate.code}", "", "```text", *told, "```"]
    return "\n".join(lines) + "\n"


def _row(fate: Fate) -> str:
    much = ", ".join(f"{count:,} {what}" for what, count in fate.figures.items()) or "-"
    variables = [f"{key}={text}" for key, text in fate.environ.items()]
    command = " ".join([*variables, "python", shlex.join(fate.command[1:])])
    verdict = "passed" if fate.passed else "FAILED"
    return f"| {fate.level.name} | {fate.level.finds} | {verdict} | {much} | {fate.took:,.0f} s | `{command}` |"


def _commit() -> str:
    commit, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain")
    return f"Commit {commit or 'unknown'}{', with changes' if changed else ''}."


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}."
    )
