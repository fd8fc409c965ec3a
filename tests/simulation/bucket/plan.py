"""What a seed means on a bucket, and what must be true when all are done: every tag pulls whole by a fresh process, and
after some rounds of collection nothing is left over of what crashes, deletions and lost pushes have left behind.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.simulation import scheduler
from tests.simulation.actors import GivenUp
from tests.simulation.bucket.actors import Client
from tests.simulation.bucket.machine import Fault, Freeze, Machine, Process
from tests.simulation.bucket.model import DELAY, Repo, held_by, place_of
from tests.simulation.bucket.mutants import OFF
from tests.simulation.bucket.requests import WRITES
from tests.simulation.bucket.scenarios import FAULTY, SCENARIOS, SLEEPY
from tests.simulation.bucket.world import PART, collect, new_world, open_store
from tests.simulation.choosing import Strategy, mixed
from tests.simulation.content import reach, readable, subject_roots
from tests.simulation.model import blob_key
from tests.simulation.playing import Simulated
from tests.simulation.scheduler import SECOND, Actor, Violation
from zotctl.errors import ZotctlError
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys

JUMPS = (2, 31, 61, 299, 301, 0.26 * DELAY, 0.4 * DELAY, 0.7 * DELAY, 1.01 * DELAY, 1.3 * DELAY)
"""Seconds: a signature expires after 30, an intent after 300, a window is 300."""
PAUSES = (5, 31, 61, 290, 310, 0.5 * DELAY, 1.1 * DELAY, 2.6 * DELAY, 30 * DELAY)
SKEWS = (0.0, 0.0, 3600.0, -3600.0, 1e6, -1e6)
FAULTS = ("slow", "away", "lost", "lost", "never", "late", "late", "late", "twice")

AIMS = (
    *(("", ""),) * 6, ("put", "/index.json"), ("put", "/index.json"), ("execute", ""), ("execute", ""),
    ("put", keys.RESERVATIONS), ("put", keys.INTENTS), ("delete", keys.INTENTS), ("put", "blobs/"), ("copy", ""),
    ("complete_parts", ""),
)  # fmt: skip

ROUNDS = 5


@dataclass(frozen=True)
class Plan(scheduler.Plan):
    """`world`: "own", or "pool" with dedupe. `faults`: by the number of a request. `part`: bytes of one."""

    faults: tuple[Fault, ...] = ()
    part: int = PART
    one_host: bool = False

    def begin(self) -> Machine:
        return new_world(self.world, random.Random(self.seed), self.faults, one_host=self.one_host)

    def start(self, machine: Machine, actor: Actor) -> Process:
        def script(process: Process) -> None:
            client = Client(process, dedupe=self.world == "pool", part=self.part)
            with suppress(GivenUp):
                actor.script(client)
            process.op = None

        return Process(machine, actor.name, script)

    def strategy(self) -> Strategy:
        return mixed(self.rng(), [30, 60, 120, 250], JUMPS, WRITES)

    def with_less(self) -> Iterator[scheduler.Plan]:
        for fault in self.faults:
            yield replace(self, faults=tuple(one for one in self.faults if one != fault))

    def look(self, machine: Machine) -> None:
        pulls_whole(machine, self)
        if self.to_the_end:
            is_freed(machine, self)


def plan_of(seed: int, scenario: str | None = None) -> Plan:
    """What a seed means."""
    rng = random.Random(seed)
    chosen = rng.choice(list(SCENARIOS))
    chosen = scenario or chosen
    actors = [Actor(name, body, skew=rng.choice(SKEWS)) for name, body in SCENARIOS[chosen](rng)]
    fate, victim = rng.random(), rng.randrange(len(actors))
    if fate < 0.2:
        actors[victim] = replace(actors[victim], crash_at=rng.randrange(1, 60))
    elif fate < 0.5 or chosen in SLEEPY:
        victim = 0 if chosen in SLEEPY else victim
        actors[victim] = replace(actors[victim], freeze=_freeze(rng, SLEEPY.get(chosen)))
    faults: tuple[Fault, ...] = ()
    if chosen in FAULTY:
        method, key, kinds = FAULTY[chosen]
        faults = tuple((rng.randrange(1, 3), method, key, rng.choice(kinds)) for _ in range(rng.choice([1, 1, 2])))
    elif rng.random() < 0.5:
        faults = tuple(_fault(rng) for _ in range(rng.choice([1, 1, 2, 8])))
    part = rng.choice([PART, PART, PART, 8])
    mode = rng.choice(["own", "pool"])
    to_the_end, one_host = rng.random() < 0.15, rng.random() < 0.3
    return Plan(seed, chosen, mode, tuple(actors), to_the_end=to_the_end, faults=faults, part=part, one_host=one_host)


def _fault(rng: random.Random) -> Fault:
    """Of any request, or of one of those that the protocol turns on."""
    method, key = rng.choice(AIMS)
    return rng.randrange(1, 6 if method else 120), method, key, rng.choice(FAULTS)


def _freeze(rng: random.Random, wanted: tuple[str, tuple[float, ...]] | None) -> Freeze:
    """Anywhere, or before one of the first requests of a kind: between a look and what is done about it."""
    kind = wanted[0] if wanted else rng.choice(["", "", "put", "list", "execute", "delete"])
    at = rng.randrange(1, 60) if not kind else rng.randrange(1, 2 if kind == "execute" else 8)
    pauses = [pause * DELAY for pause in wanted[1]] if wanted else PAUSES
    return Freeze(at, kind, rng.choice(pauses), rng.random() < 0.5)


BUCKET = Simulated(plan_of, SCENARIOS, OFF)


# -- when all are done ----------------------------------------------------------------------------


def pulls_whole(machine: Machine, plan: Plan) -> None:
    store = open_store(Process(machine, "end"), dedupe=plan.world == "pool")
    for name, repo in machine.model.repos.items():
        if repo.rows.digests:
            _pull(store, name, repo)


def _pull(store: Store, name: str, repo: Repo) -> None:
    repository = store.repository(name)
    try:
        for tag in repo.rows.tags:
            repository.manifest(tag)
        for digest in sorted(repo.needed):
            with repository.open_blob(parse_digest(digest)) as reader:
                if hashlib.sha256(reader.read_at(0, reader.size)).hexdigest() != digest[7:]:
                    raise Violation("I2", f"{name}: {digest} has other bytes at the end")
    except ZotctlError as error:
        raise Violation("I5", f"{name} can't be pulled at the end: {readable(error.message)}") from error


def is_freed(machine: Machine, plan: Plan) -> None:
    """Deleted content is gone when the delays are over."""
    for _ in range(ROUNDS):
        machine.advance(machine.now + int(1.5 * DELAY * SECOND))
        report = collect(open_store(Process(machine, "end"), dedupe=plan.world == "pool"), DELAY).report
        if report.errors or report.codes:
            raise Violation("I10", f"a quiet collection fails: {report.errors} {report.codes} {report.findings}")
    left = [key for key in machine.memory.stored if not _may_stay(machine, key)]
    if left:
        raise Violation("I10", readable(f"left over for ever: {left}"))


def _may_stay(machine: Machine, key: str) -> bool:
    if (blob := place_of(key)) is not None:
        names = [blob[0]] if blob[0] else list(machine.model.repos)
        return any(blob[1] in _needed(machine, name) for name in names)
    if (reservation := held_by(key)) is not None:
        return reservation[1] in _needed(machine, reservation[0])
    return not key.startswith((keys.INTENTS, keys.UPLOADS, keys.STAGED))


def _needed(machine: Machine, name: str) -> frozenset[str]:
    repo = machine.model.repo(name)
    subjects = {d for d in subject_roots(repo.rows.digests) if blob_key(name, d) in machine.memory.stored}
    return repo.needed | reach(frozenset(subjects))
