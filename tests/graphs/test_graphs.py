"""All that has an opinion of what is reachable agrees with the oracle, on hundreds of graphs, in CI on 2,000.

Any number by one command: `python -m tests.graphs 100000`.
"""

from __future__ import annotations

import logging
import os

import pytest

from tests.graphs.making import graph_of
from tests.graphs.running import first_disagreements, told

CHUNK = 50
WANTED = int(os.environ.get("ZOTCTL_GRAPHS", "2000" if os.environ.get("CI") else "400"))

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("first", range(0, WANTED, CHUNK))
def test_all_agree_with_the_oracle(first: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    found = first_disagreements(graph for graph in map(graph_of, range(first, first + CHUNK)))
    assert not found, told(found)
