"""When all are done: every tag pulls whole by a fresh process, and after some rounds of collection nothing is left
over of what crashes, deletions and lost pushes have left behind."""

from __future__ import annotations

import hashlib

from tests.simulation.baton import SECOND, Machine, Process, Violation
from tests.simulation.content import reach, subject_roots
from tests.simulation.ghost import DELAY, Repo, blob_key, readable
from tests.simulation.worlds import open_store
from zotctl.errors import ZotctlError
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.local.history import past_in

ROUNDS = 5
ROUNDED = 0.001
"""Seconds to which a history tells times."""


def pulls_whole(machine: Machine) -> None:
    store = open_store(Process(machine, "end"))
    for name, repo in machine.ghost.repos.items():
        if repo.rows.digests:
            _pull(machine, store, name, repo)


def _pull(machine: Machine, store: Store, name: str, repo: Repo) -> None:
    names, rotten = machine.driver.names, machine.ghost.rotten
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
    for name, repo in machine.ghost.repos.items():
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
    machine.ghost.look_again()
    machine.ghost.nothing_owed()
    left = [key for key, inode in machine.driver.names.items() if not inode.is_dir and not _may_stay(machine, key)]
    if left:
        raise Violation("I10", f"left over for ever: {left}")


def _may_stay(machine: Machine, key: str) -> bool:
    if key.startswith((f"{keys.TRASH}/", f"{keys.UPLOADS}/", f"{keys.TMP}/")) or keys.INDEX_TEMP_PREFIX in key:
        return False
    if key.startswith(f"{keys.POOL}/"):
        return machine.driver.names[key].nlink > 1 or bool(machine.ghost.rotten)
    name, found, encoded = key.partition("/blobs/sha256/")
    if not found or key.startswith(".") or name in machine.links:
        return True
    repo, names = machine.ghost.repo(name), machine.driver.names
    subjects = {d for d in subject_roots(repo.rows.digests) if blob_key(name, d) in names}
    return f"sha256:{encoded}" in repo.needed | reach(frozenset(subjects))
