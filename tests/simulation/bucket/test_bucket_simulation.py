"""The real code of buckets under a deterministic scheduler, on an object store with S3's semantics and its faults.

1,000 fixed seeds in an ordinary run, 20,000 in CI, and any number by one command:

    ZOTCTL_SCHEDULES=100000 .venv/bin/python -m pytest -n auto tests/simulation -k test_bucket_seeds

`ZOTCTL_SEED='17 bucket wait' pytest -k test_a_bucket_seed tests/simulation` plays one alone and shows it; with `bucket`
alone, the scene is the seed's own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.bucket.playing import first_failure, play_seed, told
from tests.simulation.bucket.scenes import SCENES

CHUNK = 1000
WANTED = int(os.environ.get("ZOTCTL_SCHEDULES", "20000" if os.environ.get("CI") else "1000"))
SEED = os.environ.get("ZOTCTL_SEED", "")
FAILED_ONCE = Path(__file__).with_name("seeds.txt")

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("first", range(0, WANTED, CHUNK))
def test_bucket_seeds(first: int) -> None:
    found = first_failure(range(first, min(first + CHUNK, WANTED)))
    assert found is None, told(found[1])


@pytest.mark.skipif("bucket" not in SEED, reason="plays the seed in ZOTCTL_SEED")
def test_a_bucket_seed() -> None:
    seed, _, scene = SEED.partition(" ")
    failure = play_seed(int(seed), scene if scene in SCENES else None)
    assert failure is None, told(failure)


def _failed_once() -> list[tuple[int, str]]:
    lines = [line.split("#")[0].strip() for line in FAILED_ONCE.read_text().splitlines()]
    return [(int(seed), scene.strip()) for line in lines if line for seed, _, scene in [line.partition(" ")]]


def test_every_bucket_seed_that_ever_failed() -> None:
    for seed, scene in _failed_once():
        failure = play_seed(seed, scene)
        assert failure is None, told(failure)
