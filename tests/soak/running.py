"""Everything at once on one store, and the verdict."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.soak import network
from tests.soak.actors import REPOSITORIES, Contender, Importer, Puller, Pusher, World
from tests.soak.chaos import Chaos
from tests.soak.fleet import Clocks, Fleet, Jobs
from tests.soak.journal import Journal
from tests.soak.looking import check
from tests.soak.places import InBucket, Place
from tests.soak.vandals import Vandal, Vanisher

PATIENCE = 300.0
"""More seconds, on a machine that is slow, until each of `WANTED` has happened."""
MANNERS = ("quick", "slow", "slow", "reserved", "reserved", "reserved")
LOOPS: tuple[tuple[str, ...], ...] = (("gc",), ("gc",), ("dedupe",), ("scrub",), ("verify",))
WANTED = ("pushed quick", "pushed slow", "pushed reserved", "pulled", "imported", "deleted", "gc 0", "dedupe 0",
          "verify 0", "freezes", "blobs reserved by HEAD", "contended", "vanished in a request",
          "damaged and healed")  # fmt: skip


def everything_at_once(home: Path, place: Place, seconds: float) -> Journal:
    """For so many seconds, and some more until each of `WANTED` has happened. What went wrong is in the journal."""
    journal = Journal(home)
    apart = network.Network(place.servers) if place.apart and network.possible() else None
    if apart:
        place.join(apart)
    clocks = Clocks(home, place.servers, wrong=place.wrong_clocks)
    fleet = Fleet(home, place, journal, clocks, apart)
    jobs = Jobs(home, place, journal, clocks)
    wanted = (*(what for what in WANTED if what not in place.unlikely), *(("partitions",) if apart else ()))
    world, chaos = World(fleet, jobs, journal, place.delay, wanted), Chaos(fleet, jobs, journal, place, clocks)
    try:
        rush(world, chaos, home, place, seconds)
        if journal.failures:
            tell_lists(world)
        place.recover()
        check(world, place, home)
        for code in fleet.stop():
            if code:
                journal.fail("a server that is stopped ends with", code)
        if "traceback" in fleet.logs():
            journal.fail("a server has logged a traceback")
    finally:
        fleet.close()
    if isinstance(place, InBucket):
        journal.count("faults of the object store", place.faults)
        journal.count("requests done and not answered", place.lost)
    return journal


def rush(world: World, chaos: Chaos, home: Path, place: Place, seconds: float) -> None:
    pushers = [Pusher(world, f"pusher{number}", manner) for number, manner in enumerate(MANNERS)]
    pullers = [Puller(world, f"puller{number}") for number in range(2)]
    contenders = [Contender(world, f"contender{number}") for number in range(3)]
    others = (
        Importer(world, "importer", home / "layouts"),
        Vandal(world, "vandal", place),
        Vanisher(world, "vanisher"),
    )
    actors = [(lambda a=actor: a.loop(a.step)) for actor in (*pushers, *pullers, *contenders, *others)]  # type: ignore[misc]
    with threads(world, *actors, *(job_loop(world, words) for words in LOOPS)):
        end, counts = time.monotonic() + seconds, world.journal.counts
        while not world.journal.failures:
            now = time.monotonic()
            if now > end + PATIENCE or (now > end and all(counts[what] for what in world.wanted)):
                break
            time.sleep(random.uniform(0.2, 1.5))
            chaos.strike()
        world.stop.set()
        chaos.pass_away()
    if not world.journal.failures:
        for what in world.wanted:
            if not counts[what]:
                world.journal.fail("never happened", what)


def tell_lists(world: World) -> None:
    """Which tags each server has, for who looks for a failure."""
    for server in world.fleet.servers:
        for name in REPOSITORIES:
            with suppress(httpx.HTTPError):
                answer = httpx.get(f"{server.url}/v2/{name}/tags/list", timeout=30, trust_env=False)
                world.journal.note("server", str(server.process.pid), name, answer.text)


@contextmanager
def threads(world: World, *loops: Callable[[], None]) -> Iterator[None]:
    made = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in made:
        thread.start()
    try:
        yield
    finally:
        world.stop.set()
        for thread in made:
            thread.join(400)
    if any(thread.is_alive() for thread in made):
        world.journal.fail("an actor hangs")


def job_loop(world: World, words: tuple[str, ...]) -> Callable[[], None]:
    more = ("--delay", f"{world.delay:.0f}s") if words == ("gc",) else ()

    def loop() -> None:
        while not world.stop.wait(random.uniform(0.2, 1.5)):
            # 11: the other loop of the same job has the lease, or one that looks for damage.
            allowed = (0, 11) if LOOPS.count(words) > 1 or words == ("scrub",) else (0,)
            world.jobs.run(*words, *more, allowed=allowed, errors=world.jobs.place.tolerated)

    return loop
