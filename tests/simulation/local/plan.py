"""What a seed means on a directory, and what must be true when all are done: every tag pulls whole by a fresh process,
and after some rounds of collection nothing is left over of what crashes, deletions and lost pushes have left behind.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.simulation import scheduler
from tests.simulation.actors import GivenUp
from tests.simulation.choosing import Strategy, mixed
from tests.simulation.content import reach, readable, subject_roots
from tests.simulation.local.actors import AWAY, Client
from tests.simulation.local.machine import DELAY, Machine, Process
from tests.simulation.local.model import Repo
from tests.simulation.local.mutants import OFF
from tests.simulation.local.scenarios import ALL, LATER, SCENARIOS
from tests.simulation.local.world import new_world, open_store
from tests.simulation.model import blob_key
from tests.simulation.playing import Simulated
from tests.simulation.scheduler import SECOND, Actor, Violation
from zotctl.errors import ZotctlError
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.local.history import past_in

WRITES = frozenset(("link", "rename", "exchange", "unlink", "lock", "rmdir"))
JUMPS = (0.4, 0.7, 1.01, 1.2)
"""Delays."""
ROUNDS = 5
ROUNDED = 0.001
"""Seconds to which a history tells times."""


@dataclass(frozen=True)
class Plan(scheduler.Plan):
    """`coarse`: the clock of the file system is. `commit`: stores flush."""

    coarse: bool = True
    commit: bool = False

    def begin(self) -> Machine:
        return new_world(self.world, coarse=self.coarse, commit=self.commit)

    def start(self, machine: Machine, actor: Actor) -> Process:
        def script(process: Process) -> None:
            client = Client(process)
            with suppress(GivenUp):
                actor.script(client)
            process.op = None
            with suppress(*AWAY):
                client.store.close()

        return Process(machine, actor.name, script)

    def strategy(self) -> Strategy:
        return mixed(self.rng(), [30, 80, 200, 200, 500], JUMPS, WRITES)

    def look(self, machine: Machine) -> None:
        pulls_whole(machine)
        if self.scenario in ALL and not ALL[self.scenario].crashes:
            is_remembered(machine)
        if self.to_the_end:
            is_freed(machine)


def plan_of(seed: int, scenario: str | None = None) -> Plan:
    """What a seed means."""
    rng, apart = random.Random(seed), random.Random(f"{seed} later")
    chosen = rng.choice(list(SCENARIOS))
    if apart.random() < 0.25:
        chosen = apart.choice(list(LATER))
    chosen = scenario or chosen
    actors = [Actor(name, body) for name, body in ALL[chosen].cast(rng)]
    fate = rng.random()
    victim = rng.randrange(len(actors))
    if actors[victim].name != "skopeo" and ALL[chosen].crashes:
        if fate < 0.2:
            actors[victim] = replace(actors[victim], crash_at=rng.randrange(1, 80))
        elif fate < 0.3:
            actors[victim] = replace(actors[victim], freeze=(rng.randrange(1, 80), rng.choice([100, 1000, 100_000])))
    coarse, to_the_end = rng.random() < 0.3, rng.random() < 0.25 or ALL[chosen].to_the_end
    return Plan(
        seed, chosen, ALL[chosen].world, tuple(actors), to_the_end=to_the_end, coarse=coarse, commit=seed % 3 == 0
    )


DIRECTORY = Simulated(plan_of, ALL, OFF)


# -- when all are done ----------------------------------------------------------------------------


def pulls_whole(machine: Machine) -> None:
    store = open_store(Process(machine, "end"))
    for name, repo in machine.model.repos.items():
        if repo.rows.digests:
            _pull(machine, store, name, repo)


def _pull(machine: Machine, store: Store, name: str, repo: Repo) -> None:
    names, rotten = machine.driver.names, machine.model.rotten
    repository = store.repository(name)
    try:
        for tag in repo.rows.tags:
            repository.manifest(tag)
        for digest in sorted(repo.needed - repo.lost):
            if id(names.get(blob_key(name, digest))) in rotten:
                continue
            with repository.open_blob(parse_digest(digest)) as reader:
                if hashlib.sha256(reader.read_at(0, reader.size)).hexdigest() != digest[7:]:
                    raise Violation("I2", f"{name}: {digest} has other bytes at the end")
    except ZotctlError as error:
        raise Violation("I5", f"{name} can't be pulled at the end: {error.message}") from error


def is_remembered(machine: Machine) -> None:
    """Where no process died: when a manifest was pushed, lost a tag or was pulled is in the history."""
    process = Process(machine, "end")
    for name, repo in machine.model.repos.items():
        past = past_in(process.driver, name, process.clock.now())
        for known, wanted in ((past.pushed, repo.pushed), (past.pulled, repo.pulled)):
            for digest in repo.rows.digests & wanted.keys():
                if known.get(digest, 0.0) < wanted[digest] / SECOND - ROUNDED:
                    raise Violation("I4", f"{name}: what became of {readable(digest)} is forgotten")


def is_freed(machine: Machine) -> None:
    """Deleted content is gone when the delays are over."""
    store, options = open_store(Process(machine, "end")), GcOptions(delay=DELAY, rules=Rules(delay=DELAY))
    for _ in range(ROUNDS):
        machine.now += int(1.5 * DELAY * SECOND)
        run = Run("gc", store)
        report = run.finish(lambda run=run: gc(run, lambda root: options))  # type: ignore[misc]
        if report.errors or report.codes:
            raise Violation("I10", f"a quiet collection fails: {report.errors} {report.codes} {report.findings}")
    machine.model.look_again()
    machine.model.nothing_owed()
    left = [key for key, inode in machine.driver.names.items() if not inode.is_dir and not _may_stay(machine, key)]
    if left:
        raise Violation("I10", f"left over for ever: {left}")


def _may_stay(machine: Machine, key: str) -> bool:
    if key.startswith((f"{keys.TRASH}/", f"{keys.UPLOADS}/", f"{keys.TMP}/")) or keys.INDEX_TEMP_PREFIX in key:
        return False
    if key.startswith(f"{keys.POOL}/"):
        return machine.driver.names[key].nlink > 1 or bool(machine.model.rotten)
    name, found, encoded = key.partition("/blobs/sha256/")
    if not found or key.startswith(".") or name in machine.links:
        return True
    repo, names = machine.model.repo(name), machine.driver.names
    subjects = {d for d in subject_roots(repo.rows.digests) if blob_key(name, d) in names}
    return f"sha256:{encoded}" in repo.needed | reach(frozenset(subjects))
