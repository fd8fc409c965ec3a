"""When all are done: every tag pulls whole by a fresh process, and after some rounds of collection nothing is left
over of what crashes, deletions and lost pushes have left behind."""

from __future__ import annotations

import hashlib

from tests.simulation.baton import SECOND, Violation
from tests.simulation.bucket.ghost import DELAY, Repo, held_by, place_of
from tests.simulation.bucket.machine import Machine, Process
from tests.simulation.bucket.scheduler import Plan
from tests.simulation.bucket.worlds import collect, open_store
from tests.simulation.content import reach, subject_roots
from tests.simulation.ghost import blob_key, readable
from zotctl.errors import ZotctlError
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys

ROUNDS = 5


def look(machine: Machine, plan: Plan) -> None:
    pulls_whole(machine, plan)
    if plan.to_the_end:
        is_freed(machine, plan)


def pulls_whole(machine: Machine, plan: Plan) -> None:
    store = open_store(Process(machine, "end"), dedupe=plan.mode == "pool")
    for name, repo in machine.ghost.repos.items():
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
        report = collect(open_store(Process(machine, "end"), dedupe=plan.mode == "pool"), DELAY).report
        if report.errors or report.codes:
            raise Violation("I10", f"a quiet collection fails: {report.errors} {report.codes} {report.findings}")
    left = [key for key in machine.memory.stored if not _may_stay(machine, key)]
    if left:
        raise Violation("I10", readable(f"left over for ever: {left}"))


def _may_stay(machine: Machine, key: str) -> bool:
    if (blob := place_of(key)) is not None:
        names = [blob[0]] if blob[0] else list(machine.ghost.repos)
        return any(blob[1] in _needed(machine, name) for name in names)
    if (reservation := held_by(key)) is not None:
        return reservation[1] in _needed(machine, reservation[0])
    return not key.startswith((keys.INTENTS, keys.UPLOADS, keys.STAGED))


def _needed(machine: Machine, name: str) -> frozenset[str]:
    repo = machine.ghost.repo(name)
    subjects = {d for d in subject_roots(repo.rows.digests) if blob_key(name, d) in machine.memory.stored}
    return repo.needed | reach(frozenset(subjects))
