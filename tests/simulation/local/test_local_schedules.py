"""Two actors on a directory, every schedule with one switch that need not be; in CI with two, but for the longest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation import actors as a
from tests.simulation.content import F1, M0, M1, M2
from tests.simulation.exhaustive import DEEP, VERY_DEEP, all_schedules, hold
from tests.simulation.local import actors as d
from tests.simulation.local.plan import Plan
from tests.simulation.scheduler import Actor, Script

pytestmark = pytest.mark.timeout(900)

Pair = tuple[str, Script, Script, tuple[float, ...]]

SMALL: dict[str, Pair] = {
    "push, purge": ("old", a.reserved("a", M2, "n"), d.purger(), (1.2,)),
    "push, collect": ("old", a.reserved("a", M1, "n"), d.collector(), ()),
    "push, delete blob": ("old", a.reserved("a", M1, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "look, delete blob": ("old", a.looker("a", M2.blobs[1]), a.blob_deleter("a", M2.blobs[1]), ()),
    "upload, purge": ("old", a.uploader("a", M2.blobs[1]), d.purger(), (1.2,)),
    "upload, upload": ("old", a.uploader("b", M1.blobs[1]), a.uploader("b", M1.blobs[1]), ()),
    "mount, delete blob": ("old", a.mounter("a", "n", M0, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "tag, untag": ("old", a.tagger("a", M0, "u"), a.untagger("a", "t"), ()),
    "pull, delete": ("old", a.reader("a", "t"), a.manifest_deleter("a", M0), ()),
    "tool, tag": ("old", d.foreign_tool("a", F1, "f"), a.tagger("a", M0, "u"), ()),
    "tool, purge": ("old", d.foreign_tool("a", F1, "f"), d.purger(), (1.2,)),
    "heal, delete blob": ("rot", a.uploader("a", M1.blobs[1]), a.blob_deleter("a", M1.blobs[1]), ()),
}
"""Two actors, and one switch that need not be; in CI two, but for the longest, which are for longer runs."""
LONGEST = ("push, purge", "push, collect", "mount, delete blob")


@pytest.mark.parametrize("pair", SMALL)
def test_every_schedule_of_two(pair: str) -> None:
    world, one, other, ticks = SMALL[pair]
    actors = [Actor("one", one), Actor("two", other)]
    deep = DEEP and (pair not in LONGEST or VERY_DEEP)
    hold(all_schedules(Plan(-1, "exhaustive", world, tuple(actors)), 2 if deep else 1, ticks))


@pytest.mark.parametrize("name", ["push", "collect", "delete", "dedupe", "heal"])
def test_a_crash_before_each_call(name: str) -> None:
    """It begins again, while a client pulls. Before every fourth call, in CI before each."""
    world, make = CRASHING[name]
    for at in range(1, 150, 1 if DEEP else 4):
        actors = (Actor("dies", make(), crash_at=at), Actor("reads", a.reader("a", "t")))
        hold(all_schedules(Plan(-1, "exhaustive", world, actors), 0))


CRASHING: dict[str, tuple[str, Callable[[], Script]]] = {
    "push": ("old", lambda: a.pusher("n", M1, "t")),
    "collect": ("old", d.collector),
    "delete": ("old", lambda: a.manifest_deleter("a", M0)),
    "dedupe": ("twice", d.deduper),
    "heal": ("rot", d.scrubber),
}
