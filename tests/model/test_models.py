"""The protocols hold in their models, and each of their safeguards is needed.

Larger by `ZOTCTL_MODEL=4000000`, so many states at the most.
"""

from __future__ import annotations

import os

import pytest

from tests.model import bucket, local
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

NEIGHBOURS = {
    "push, collector": local.start("push", "collector"),
    "upload, collector": local.start("push", "collector", blob=local.NONE),
    "upload over a damaged pool": local.start("push", "collector", blob=local.NONE, pool=local.BAD),
    "two pushes": local.start("push", "push"),
    "push, deletion, collector": local.start("push", "deletion", "collector"),
    "deletion, two collectors": local.start("deletion", "push", "collector", trash=local.OLD),
    "dedupe, deletion": local.start("dedupe", "deletion", "push"),
    "tool, collector": local.start("tool", "collector"),
    "tool, push": local.start("tool", "push", "collector"),
    "a power cut": local.start("push", "push", "collector", blob=local.NONE, pool=local.NONE, power=True),
}
"""What meets on a directory."""


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_the_protocol_of_a_directory_holds(neighbours: str) -> None:
    found = explore(NEIGHBOURS[neighbours], local.Protocol().moves, local.is_damaged, MOST)
    assert found.schedule is None, "\n".join(found.schedule or [])
    assert found.whole


@pytest.mark.parametrize("safeguard", local.SAFEGUARDS)
def test_without_a_safeguard_of_a_directory_it_does_not(safeguard: str) -> None:
    protocol = local.Protocol(safeguard)
    found = (explore(start, protocol.moves, local.is_damaged, ENOUGH).schedule for start in NEIGHBOURS.values())
    assert any(found), local.SAFEGUARDS[safeguard]


@pytest.mark.parametrize("cast", CASTS)
def test_the_protocol_of_a_bucket_holds(cast: str) -> None:
    found = explore(CASTS[cast], bucket.Protocol().moves, bucket.is_damaged, MOST)
    assert found.schedule is None, "\n".join(found.schedule or [])


@pytest.mark.parametrize("safeguard", bucket.SAFEGUARDS)
def test_without_a_safeguard_of_a_bucket_it_does_not(safeguard: str) -> None:
    protocol = bucket.Protocol(safeguard)
    found = (explore(start, protocol.moves, bucket.is_damaged, ENOUGH).schedule for start in CASTS.values())
    assert any(found), bucket.SAFEGUARDS[safeguard]
