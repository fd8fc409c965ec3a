"""The real storage and job code under a deterministic scheduler; the invariants are checked at every step.

1,000 fixed seeds in an ordinary run, 20,000 in CI, and any number by one command:

    ZOTCTL_SCHEDULES=100000 .venv/bin/python -m pytest -n auto tests/simulation -k test_seeds

A seed is the whole test: `ZOTCTL_SEED=17 pytest -k test_a_seed tests/simulation` plays it alone and shows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation import actors as a
from tests.simulation.content import F1, M0, M1, M2
from tests.simulation.exhaustive import all_schedules
from tests.simulation.playing import first_failure, play_seed, told
from tests.simulation.scheduler import Actor

CHUNK = 1000
WANTED = int(os.environ.get("ZOTCTL_SCHEDULES", "20000" if os.environ.get("CI") else "1000"))
SEED = os.environ.get("ZOTCTL_SEED")
FAILED_ONCE = Path(__file__).with_name("seeds.txt")
DEEP = bool(os.environ.get("CI")) or WANTED > 20_000

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("first", range(0, WANTED, CHUNK))
def test_seeds(first: int) -> None:
    found = first_failure(range(first, min(first + CHUNK, WANTED)))
    assert found is None, told(found[1])


@pytest.mark.skipif(SEED is None or "bucket" in SEED, reason="plays the seed in ZOTCTL_SEED")
def test_a_seed() -> None:
    failure = play_seed(int(SEED or 0))
    assert failure is None, told(failure)


def _failed_once() -> list[tuple[int, str]]:
    lines = [line.split("#")[0].strip() for line in FAILED_ONCE.read_text().splitlines()]
    return [(int(seed), scene.strip()) for line in lines if line for seed, _, scene in [line.partition(" ")]]


def test_every_seed_that_ever_failed() -> None:
    for seed, scene in _failed_once():
        failure = play_seed(seed, scene)
        assert failure is None, told(failure)


Pair = tuple[str, a.Script, a.Script, tuple[float, ...]]

SMALL: dict[str, Pair] = {
    "push, purge": ("old", a.reserved("a", M2, "n"), a.purger(), (1.2,)),
    "push, collect": ("old", a.reserved("a", M1, "n"), a.collector(), ()),
    "push, delete blob": ("old", a.reserved("a", M1, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "look, delete blob": ("old", a.looker("a", M2.blobs[1]), a.blob_deleter("a", M2.blobs[1]), ()),
    "upload, purge": ("old", a.uploader("a", M2.blobs[1]), a.purger(), (1.2,)),
    "upload, upload": ("old", a.uploader("b", M1.blobs[1]), a.uploader("b", M1.blobs[1]), ()),
    "mount, delete blob": ("old", a.mounter("a", "n", M0, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "tag, untag": ("old", a.tagger("a", M0, "u"), a.untagger("a", "t"), ()),
    "pull, delete": ("old", a.reader("a", "t"), a.manifest_deleter("a", M0), ()),
    "tool, tag": ("old", a.foreign_tool("a", F1, "f"), a.tagger("a", M0, "u"), ()),
    "tool, purge": ("old", a.foreign_tool("a", F1, "f"), a.purger(), (1.2,)),
    "heal, delete blob": ("rot", a.uploader("a", M1.blobs[1]), a.blob_deleter("a", M1.blobs[1]), ()),
}
"""Two actors, and one switch that nobody has to make; in CI two, but for the longest, which are for longer runs."""
LONGEST = ("push, purge", "push, collect", "mount, delete blob")


@pytest.mark.parametrize("pair", SMALL)
def test_every_schedule_of_two(pair: str) -> None:
    world, one, other, ticks = SMALL[pair]
    actors = [Actor("one", one), Actor("two", other)]
    deep = DEEP and (pair not in LONGEST or WANTED > 20_000)
    for failure in all_schedules(world, actors, switches=2 if deep else 1, ticks=ticks):
        assert failure is None, "\n".join([str(failure.error), *failure.lines()])


@pytest.mark.parametrize("name", ["push", "collect", "delete", "dedupe", "heal"])
def test_a_crash_before_each_call(name: str) -> None:
    """It begins again, while somebody pulls. Before every fourth call, in CI before each."""
    world, make = CRASHING[name]
    for at in range(1, 150, 1 if DEEP else 4):
        actors = [Actor("dies", make(), crash_at=at), Actor("reads", a.reader("a", "t"))]
        for failure in all_schedules(world, actors, switches=0):
            assert failure is None, "\n".join([str(failure.error), *failure.lines()])


CRASHING: dict[str, tuple[str, Callable[[], a.Script]]] = {
    "push": ("old", lambda: a.pusher("n", M1, "t")),
    "collect": ("old", a.collector),
    "delete": ("old", lambda: a.manifest_deleter("a", M0)),
    "dedupe": ("twice", a.deduper),
    "heal": ("rot", a.scrubber),
}
