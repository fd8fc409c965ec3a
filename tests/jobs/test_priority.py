"""Jobs give way to requests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zotctl.jobs.run import NICENESS

SAY = """
import os
from pathlib import Path
from zotctl.jobs.run import give_way
os.nice({before} - os.nice(0))
give_way()
group = Path("/proc/self/autogroup")
print(os.nice(0), *(group.read_text().split()[-1:] if group.exists() else []))
"""


def said(before: int, *, session: bool) -> list[str]:
    """The niceness of a process that gave way, and that of its autogroup, if the kernel put it into one."""
    words = [sys.executable, "-c", SAY.format(before=before)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, start_new_session=session)
    return done.stdout.split()


@pytest.mark.parametrize(("before", "after"), [(5, NICENESS), (15, 15)])
def test_a_priority_is_only_lowered(before: int, after: int) -> None:
    if os.nice(0) > before:
        pytest.skip("the tests themselves run at a lower priority")
    assert said(before, session=False)[0] == str(after)


def test_only_a_session_of_its_own_is_lowered_as_a_whole() -> None:
    if lowered_by_hand() != NICENESS:
        pytest.skip("this kernel, or this container, has no autogroups that can be lowered")
    assert said(os.nice(0), session=True)[1:] == [str(NICENESS)]
    assert said(os.nice(0), session=False)[1:] == Path("/proc/self/autogroup").read_text().split()[-1:]


def lowered_by_hand() -> int | None:
    """What the niceness of a new session is, after it was set without the code that is tested."""
    words = ["sh", "-c", f"echo {NICENESS} >/proc/self/autogroup; cat /proc/self/autogroup"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    return int(done.stdout.split()[-1]) if done.stdout.split() else None
