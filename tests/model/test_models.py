"""The protocols hold in their models, and each of their safeguards is needed.

Larger by `ZOTCTL_MODEL=4000000`, so many states at the most.
"""

from __future__ import annotations

import os

import pytest

from tests.model import bucket
from tests.model.explore import explore

MOST = int(os.environ.get("ZOTCTL_MODEL", "400000" if os.environ.get("CI") else "20000"))
ENOUGH = 120_000
"""More states than any schedule takes to be found."""
pytestmark = pytest.mark.timeout(300)

CASTS = {
    "one of each": bucket.start(),
    "a deletion by a client": bucket.start(deletion=True),
    "two collectors": bucket.start(collectors=2),
    "two pushes": bucket.start(pushes=2),
}
"""Who takes part, from the fewest states to the most."""


@pytest.mark.parametrize("cast", CASTS)
def test_the_protocol_of_a_bucket_holds(cast: str) -> None:
    found = explore(CASTS[cast], bucket.Protocol().moves, bucket.is_damaged, MOST)
    assert found.schedule is None, "\n".join(found.schedule or [])


@pytest.mark.parametrize("safeguard", bucket.SAFEGUARDS)
def test_without_a_safeguard_of_a_bucket_it_does_not(safeguard: str) -> None:
    protocol = bucket.Protocol(safeguard)
    found = (explore(start, protocol.moves, bucket.is_damaged, ENOUGH).schedule for start in CASTS.values())
    assert any(found), bucket.SAFEGUARDS[safeguard]
