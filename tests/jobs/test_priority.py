"""Jobs give way to requests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zotctl.jobs.priority import NICENESS

SAY = """
import os
from pathlib import Path
from zotctl.jobs.priority import give_way
os.nice({before} - os.nice(0))
give_way()
group = Path("/proc/self/autogroup")
print(os.nice(0), group.read_text().split()[-1] if group.exists() else "")
"""


def said(before: int, *, session: bool) -> list[str]:
    words = [sys.executable, "-c", SAY.format(before=before)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, start_new_session=session)
    return done.stdout.split()


@pytest.mark.parametrize(("before", "after"), [(5, NICENESS), (15, 15)])
def test_a_priority_is_only_lowered(before: int, after: int) -> None:
    if os.nice(0) > before:
        pytest.skip("the tests themselves run at a lower priority")
    assert said(before, session=False)[0] == str(after)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no autogroups here")
def test_only_a_session_of_its_own_is_lowered_as_a_whole() -> None:
    before = Path("/proc/self/autogroup").read_text().split()[-1]
    assert said(os.nice(0), session=False)[-1] == before
    assert said(os.nice(0), session=True)[-1] == str(NICENESS)
