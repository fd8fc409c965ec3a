"""Two actors on a bucket, every schedule with one switch that need not be; in CI with two."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

import pytest

from tests.simulation import actors as a
from tests.simulation.bucket import actors as b
from tests.simulation.bucket.model import DELAY
from tests.simulation.bucket.plan import Plan
from tests.simulation.bucket.small import batch_deleter, each_fault
from tests.simulation.bucket.world import M7
from tests.simulation.content import M0, M1, M5
from tests.simulation.exhaustive import DEEP, all_schedules, hold
from tests.simulation.scheduler import Actor, Failure, Script
from zotctl.jobs.bucket.deletion import Candidate, Deletion
from zotctl.jobs.reachable import ReachableBlobs
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.reservations import Reservations, Since

pytestmark = pytest.mark.timeout(900)

MODES = ("own", "pool")


def _push(*tags: str, head: bool = False) -> Script:
    return a.pusher("a", M1, *tags, head=head, tries=1)


SMALL: dict[str, Callable[[], tuple[Script, Script, tuple[float, ...]]]] = {
    "push, collect": lambda: (a.reserved("a", M1, "n"), b.collector(), ()),
    "upload, collect": lambda: (a.uploader("a", M1.blobs[1]), b.collector(), (31.0,)),
    "push a manifest again, collect": lambda: (a.tagger("a", M7, "n"), b.collector(), ()),
    "reserved, delete blob": lambda: (a.reserved("a", M1, "n"), a.blob_deleter("a", M1.blobs[1]), (301.0,)),
    "upload, delete blob": lambda: (a.uploader("a", M1.blobs[1]), a.blob_deleter("a", M1.blobs[1]), (31.0,)),
    "mount, delete blob": lambda: (a.mounter("a", "n", M0, "n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "new, new by tag": lambda: (a.tagger("n", M0, "u"), a.tagger("n", M0, "v"), ()),
    "collect, collect": lambda: (b.collector(), b.collector("gc2"), ()),
    "push, announce": lambda: (_push("n"), batch_deleter("a", *M1.blobs), ()),
    "push, announce, clock": lambda: (_push("n"), batch_deleter("a", *M1.blobs), (INTENT_LIFETIME_S + 1,)),
    "reserved, announce": lambda: (a.reserved("a", M1, "n"), batch_deleter("a", *M1.blobs), ()),
    "frozen, announce": lambda: (a.reserved("a", M1, "n"), batch_deleter("a", *M1.blobs), (1.3 * DELAY,)),
    "mount, announce": lambda: (b.patient(a.mounter("a", "b", M1, "n")), batch_deleter("a", *M1.blobs), ()),
    "announce, announce": lambda: (batch_deleter("a", *M1.blobs), batch_deleter("a", *M1.blobs), ()),
    "delete blob, announce": lambda: (a.blob_deleter("a", *M1.blobs), batch_deleter("a", *M1.blobs), ()),
    "push, delete blob": lambda: (_push("n"), a.blob_deleter("a", M1.blobs[1]), ()),
    "tag, untag": lambda: (a.tagger("a", M0, "u"), a.untagger("a", "t"), ()),
    "new, new": lambda: (a.pusher("n", M5, "u", head=False), a.pusher("n", M5, "v", head=False), ()),
}


def _schedules(
    world: str, actors: list[Actor], switches: int, jumps: tuple[float, ...] = ()
) -> Iterator[Failure | None]:
    return all_schedules(Plan(-1, "exhaustive", world, tuple(actors)), switches, jumps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", SMALL)
def test_every_schedule_of_two_on_a_bucket(pair: str, mode: str) -> None:
    one, other, jumps = SMALL[pair]()
    hold(_schedules(mode, [Actor("one", one), Actor("two", other)], 2 if DEEP else 1, jumps))


CRASHING: dict[str, Callable[[], Script]] = {
    "push": lambda: a.pusher("n", M1, "t"),
    "collect": b.collector,
    "announce": lambda: batch_deleter("a", *M1.blobs),
    "delete": lambda: a.manifest_deleter("a", M0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CRASHING)
def test_a_crash_before_each_request(name: str, mode: str) -> None:
    """It begins again, while a client pulls. Before every fourth, in CI before each."""
    for at in range(1, 100, 1 if DEEP else 4):
        hold(_schedules(mode, [Actor("dies", CRASHING[name](), at), Actor("reads", a.reader("a", "t"))], 0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["lost", "never", "late", "slow", "away"])
def test_each_request_without_an_answer(fault: str, mode: str) -> None:
    """Of a push and a collector behind it, and the other way round. Every third, in CI each."""
    push, gc = Actor("push", b.patient(_push("n"))), Actor("gc", batch_deleter("a", *M1.blobs))
    for actors in ([push, gc], [gc, push]):
        hold(each_fault(mode, actors, fault, 1 if DEEP else 3))


# -- who guards the guards: the rest is in `mutants` -------------------------------------------------------


def _marks_without_fence(self: Deletion, name: str) -> Container[str] | None:
    return ReachableBlobs(self._root, name).now().reachable


def _no_intent(self: Deletion) -> str:
    return keys.intent("none")


def _no_recheck(self: Deletion) -> None:
    pass


_reserve_bytes = Reservations._reserve_bytes


def _as_if_new(self: Reservations, name: str, digest: Digest, new: bool) -> tuple[Since, bool]:
    """Then no look tells whether a collector has deleted it, and withdrawn its intent since."""
    return _reserve_bytes(self, name, digest, new)[0], False


def _own_only(self: Candidate) -> set[str]:
    return {self.name} - {""}


OFF: dict[str, tuple[type, str, object, str, str]] = {
    "C3: an intent": (Deletion, "announce", _no_intent, "push, announce", "own"),
    "C4: a fence": (Deletion, "_fence", _marks_without_fence, "frozen, announce", "own"),
    "C4: of all that have a reservation": (Candidate, "names", property(_own_only), "frozen, announce", "pool"),
    "C5: a look at what was written since": (Deletion, "recheck", _no_recheck, "reserved, announce", "own"),
    "P2: the reservation is still there": (Reservations, "_reserve_bytes", _as_if_new, "push, announce", "pool"),
}


@pytest.mark.parametrize("safeguard", OFF)
def test_a_safeguard_that_is_off_is_seen_by_two(safeguard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, instead, pair, mode = OFF[safeguard]
    monkeypatch.setattr(owner, name, instead)
    one, other, jumps = SMALL[pair]()
    found = _schedules(mode, [Actor("one", one), Actor("two", other)], 2, jumps)
    assert any(failure is not None for failure in found), f"nothing is seen without this: {safeguard}"
