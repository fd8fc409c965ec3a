"""The real code of each store under a deterministic scheduler; the invariants are checked at every step. Directories lie
in memory; so do buckets, with S3's semantics and its faults.

1,000 fixed seeds of each in an ordinary run, 6,000 in CI, and any number by one command:

    ZOTCTL_SCHEDULES=100000 .venv/bin/python -m pytest -n auto tests/simulation -k test_seeds

A seed is the whole test: `ZOTCTL_SEED='17 index gc' pytest -k test_a_seed tests/simulation` plays it alone in a scenario
and shows it. Without a scenario it is the seed's own, of a directory, or, with `bucket` behind the number, of a bucket.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.playing import told
from tests.simulation.scheduler import Failure
from tests.simulation.stores import STORES

CHUNK = 500
WANTED = int(os.environ.get("ZOTCTL_SCHEDULES", "6000" if os.environ.get("CI") else "1000"))
SEED = os.environ.get("ZOTCTL_SEED")
FAILED_ONCE = Path(__file__).with_name("seeds.txt")

pytestmark = pytest.mark.timeout(900)


def _play(line: str) -> Failure | None:
    seed, _, scenario = line.strip().partition(" ")
    store = STORES["bucket" if scenario.startswith("bucket") else "directory"]
    return store.play(int(seed), scenario if scenario in store.scenarios else None)


@pytest.mark.parametrize("first", range(0, WANTED, CHUNK))
@pytest.mark.parametrize("store", STORES)
def test_seeds(store: str, first: int) -> None:
    found = STORES[store].first_failure(range(first, min(first + CHUNK, WANTED)))
    assert found is None, told(found[1])


@pytest.mark.skipif(SEED is None, reason="plays the seed in ZOTCTL_SEED")
def test_a_seed() -> None:
    failure = _play(SEED or "0")
    assert failure is None, told(failure)


def test_every_seed_that_ever_failed() -> None:
    lines = [line.split("#")[0].strip() for line in FAILED_ONCE.read_text().splitlines()]
    for line in filter(None, lines):
        failure = _play(line)
        assert failure is None, told(failure)
