"""Everything at once on one store, in every place: pushers, pullers, contenders for the same tags, jobs, and what
befalls them. What the contenders were told is checked for linearisability.

`ZOTCTL_SOAK=600` makes each last for so many seconds; `python -m tests.soak` is the same with a verdict. A failure
prints the history of what it is about.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import tools
from tests.soak.places import PLACES
from tests.soak.running import PATIENCE, everything_at_once

SECONDS = float(os.environ.get("ZOTCTL_SOAK", "12" if os.environ.get("CI") else "8"))


@pytest.mark.timeout(SECONDS + PATIENCE + 600)
@pytest.mark.parametrize("where", PLACES)
def test_everything_at_once(tmp_path: Path, where: str) -> None:
    with PLACES[where](tmp_path) as place:
        journal = everything_at_once(tmp_path, place, SECONDS)
    print("soak:", dict(sorted(journal.counts.items())))
    if journal.failures:
        pytest.fail(f"{len(journal.failures)} failures, of which the first\n" + "\n".join(journal.failures[:3]), False)
    if not journal.counts["partitions"]:
        tools.missing("root, ip, iptables and network namespaces, to cut servers off")  # all else was looked at
