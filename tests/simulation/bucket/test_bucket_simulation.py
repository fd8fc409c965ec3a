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

from tests.simulation import actors as a
from tests.simulation.bucket import actors as b
from tests.simulation.bucket.playing import first_failure, play_seed, told
from tests.simulation.bucket.scenes import SCENES
from tests.simulation.bucket.scheduler import Actor
from tests.simulation.bucket.small import all_schedules
from tests.simulation.bucket.worlds import M7
from tests.simulation.content import M0, M1

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


Pair = tuple[a.Script, a.Script, tuple[float, ...]]

SMALL: dict[str, Pair] = {
    "push, collect": (a.reserved("a", M1, "n"), b.collector(), ()),
    "upload, collect": (a.uploader("a", M1.blobs[1]), b.collector(), (31.0,)),
    "push a manifest again, collect": (a.tagger("a", M7, "n"), b.collector(), ()),
    "push, delete blob": (a.reserved("a", M1, "n"), a.blob_deleter("a", M1.blobs[1]), (301.0,)),
    "upload, delete blob": (a.uploader("a", M1.blobs[1]), a.blob_deleter("a", M1.blobs[1]), (31.0,)),
    "mount, delete blob": (a.mounter("a", "n", M0, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "tag, untag": (a.tagger("a", M0, "u"), a.untagger("a", "t"), ()),
    "new, new": (a.tagger("n", M0, "u"), a.tagger("n", M0, "v"), ()),
    "collect, collect": (b.collector(), b.collector("gc2"), ()),
}
"""Two actors, and one switch that nobody has to make; in CI two."""
DEEP = bool(os.environ.get("CI")) or WANTED > 20_000


@pytest.mark.parametrize("mode", ["own", "pool"])
@pytest.mark.parametrize("pair", SMALL)
def test_every_schedule_of_two_on_a_bucket(pair: str, mode: str) -> None:
    one, other, ticks = SMALL[pair]
    actors = [Actor("one", one), Actor("two", other)]
    for failure in all_schedules(mode, actors, 2 if DEEP else 1, ticks):
        assert failure is None, "\n".join([str(failure.error), *failure.lines()])
