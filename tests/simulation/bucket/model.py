"""What must be true of a bucket after every request. A request that is carried out late belongs to what its sender was
about when it sent it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tests.doubles.objects import Stored
from tests.simulation.bucket.machine import Machine, Process
from tests.simulation.content import MANIFESTS, reach
from tests.simulation.model import (
    EMPTY,
    BaseModel,
    Blob,
    Operation,
    Rows,
    StatesOfRepo,
    blob_key,
    may_move,
    parse,
)
from tests.simulation.scheduler import SECOND
from zotctl.storage import keys

DELAY = 1200.0
"""Seconds, by which all others are measured: a window is 300, an intent dies after 300."""


@dataclass
class Op(Operation):
    """`ended`: when its client had an answer, or it died."""

    ended: int | None = None
    did: bool = False
    """Has it taken something out of an index.json?"""

    def deletes(self, repo: str, digest: str) -> bool:
        return self.kind in ("delete blob", "delete manifest") and (self.repo, self.digest) == (repo, digest)


class Repo(StatesOfRepo):
    def __init__(self, rows: Rows) -> None:
        super().__init__(rows)
        self.needed = reach(rows.digests)
        self.lost: frozenset[str] = frozenset()


@lru_cache(100_000)
def place_of(key: str) -> Blob | None:
    """Repository ("" for the pool) and digest."""
    if key.startswith(f"{keys.SHARED}/"):
        return "", key[len(keys.SHARED) + 1 :].replace("/", ":", 1)
    name, found, rest = key.partition("/blobs/")
    return (name, rest.replace("/", ":", 1)) if found and not key.startswith(".") else None


@lru_cache(100_000)
def held_by(key: str) -> Blob | None:
    if not key.startswith(f"{keys.RESERVATIONS}/"):
        return None
    algorithm, encoded, component = key[len(keys.RESERVATIONS) + 1 :].split("/")
    return keys.name_of(component), f"{algorithm}:{encoded}"


@lru_cache(100_000)
def pool_key(digest: str) -> str:
    return f"{keys.SHARED}/{digest.replace(':', '/')}"


class Model(BaseModel[Repo]):
    kind = Repo

    def __init__(self, machine: Machine, *, dedupe: bool) -> None:
        super().__init__(machine)
        self.stored, self.dedupe = machine.memory.stored, dedupe
        self.reservations: dict[Blob, int] = {}
        """When each was answered the last time."""
        self.gone: dict[Blob, int] = {}
        """The step at which that was answered the last time."""
        self.written: dict[Blob, int] = {}
        """The step at which a reservation, or a repository's own copy, was written the last time."""
        for key, found in self.stored.items():
            if key.endswith("/index.json"):
                self.repos[keys.parent(key)] = Repo(parse(found.body))

    def is_there(self, repo: str, digest: str) -> bool:
        return blob_key(repo, digest) in self.stored or pool_key(digest) in self.stored

    # -- what has changed -----------------------------------------------------------------------

    def changed(self, process: Process, op: Op | None, changed: Sequence[str], before: Sequence[Stored | None]) -> None:
        for key, old in zip(changed, before, strict=True):
            now = self.stored.get(key)
            if key.endswith("/index.json"):
                self._index(process, op, keys.parent(key), now)
            elif now is not None:
                self._appeared(process, key, now)
            elif old is not None:
                self._vanished(process, op, key)

    def _appeared(self, process: Process, key: str, now: Stored) -> None:
        place = place_of(key)
        if place is not None and hashlib.sha256(now.body).hexdigest() != place[1][7:]:
            self.fail(process, "I2", f"{key} has got other bytes")
        if (blob := place or held_by(key)) is not None:
            self.written[blob] = self.machine.steps

    def _vanished(self, process: Process, op: Op | None, key: str) -> None:
        if (reservation := held_by(key)) is not None:
            self._excuse(op, *reservation)
            if (
                self.dedupe
                and blob_key(*reservation) not in self.stored
                and reservation[1] not in self.repo(reservation[0]).needed
            ):
                self._require_reserve(process, reservation, "its reservation is gone")
        elif (place := place_of(key)) is not None:
            for name in [place[0]] if place[0] else list(self.repos):
                self._excuse(op, name, place[1])
                self._still_there(process, name, place[1])

    def _excuse(self, op: Op | None, name: str, digest: str) -> None:
        """Deleted on purpose: but not what was reserved after the answer to that."""
        if op is None or not op.deletes(name, digest):
            return
        self.deleted[name, digest] = self.machine.steps
        reserved = self.reservations.get((name, digest))
        if reserved is not None and (op.ended is None or reserved <= op.ended):
            del self.reservations[name, digest]

    def _still_there(self, process: Process, name: str, digest: str) -> None:
        if self.is_there(name, digest):
            return
        if digest in self.repo(name).needed:
            self.fail(process, "I5", f"{digest} is gone and index.json of {name} leads to it")
        self._require_reserve(process, (name, digest), "it is gone")

    def _require_reserve(self, process: Process, blob: Blob, what: str) -> None:
        at = self.reservations.get(blob)
        if at is not None and self._is_young(at):
            self.fail(process, "I6", f"{blob[1]} in {blob[0]}: {what} {(self.machine.now - at) / SECOND:g} s after "
                      "it was reserved")  # fmt: skip

    def _is_young(self, at: int) -> bool:
        return self.machine.now - at < self.machine.delay * SECOND

    # -- index.json -----------------------------------------------------------------------------

    def _index(self, process: Process, op: Op | None, name: str, now: Stored | None) -> None:
        try:
            rows = parse(now.body) if now is not None else EMPTY
        except ValueError as error:
            self.fail(process, "I1", f"index.json of {name} is damaged: {error}")
        repo = self.repo(name)
        if rows == repo.rows:
            repo.states.append(rows)
            return
        self._explain(process, op, name, repo.rows, rows)
        if op is not None and not repo.rows.tags.keys() | repo.rows.digests <= rows.tags.keys() | rows.digests:
            op.did = True
        self._enter(repo, repo.rows, rows, op)
        for digest in repo.needed:
            if not self.is_there(name, digest):
                self.fail(process, "I5", f"index.json of {name} leads to {digest}, which is not there")

    def _enter(self, repo: Repo, old: Rows, new: Rows, op: Op | None) -> None:
        repo.states.append(new)
        repo.needed = reach(new.digests)
        at = op.time if op is not None else self.machine.now
        # Events are written once a minute, and a crash loses them (storage.bucket.history): when a tag went is not held
        # against a collector, only when a row came.
        for digest in (new.digests - old.digests) | set(new.tags.values()) - set(old.tags.values()):
            repo.pushed[digest] = at

    def _explain(self, process: Process, op: Op | None, name: str, old: Rows, new: Rows) -> None:
        """What changed must be what the process is about: no other's entry may go (I4) or come (I7)."""
        kind = op.kind if op is not None and op.repo in ("", name) else ""
        gone = {d for d in old.digests - new.digests if not self._may_drop(op, kind, name, old, d)}
        moved = {t: d for t, d in old.tags.items() if new.tags.get(t) != d and not may_move(op, kind, t, d, new)}
        if gone or moved:
            self.fail(process, "I4", f"index.json of {name} has lost {sorted(gone)} {moved} in a {kind or '?'}")
        came = new.digests - old.digests - (op.added if op is not None else frozenset())
        tagged = {t: d for t, d in new.tags.items() if old.tags.get(t) != d and not _may_tag(op, kind, t, d)}
        if came or tagged:
            self.fail(process, "I7", f"index.json of {name} has got {sorted(came)} {tagged} in a {kind or '?'}")

    def _may_drop(self, op: Op | None, kind: str, name: str, old: Rows, digest: str) -> bool:
        if op is not None and kind == "delete manifest":
            return digest == op.digest
        if kind != "gc" or digest in old.tags.values():
            return False
        if any(digest in MANIFESTS[d].children for d in old.digests if d in MANIFESTS):
            return False
        return not self._is_young(self.repo(name).pushed.get(digest, -1 << 62))

    # -- answers --------------------------------------------------------------------------------

    def reserve(self, process: Process, repo: str, digest: str) -> None:
        """The client was told that it exists. Of a deletion another host may hear a window later."""
        op = process.op
        assert op is not None
        blob = repo, digest
        if self.deleted.get(blob, -1) >= self.written.get(blob, 0):
            if self.machine.one_host and op.step > self.gone.get(blob, 1 << 62):
                self.fail(process, "I6", f"{digest} is reserved in {repo}, and its deletion was answered")
        elif self.is_there(repo, digest):
            self.reservations[blob] = self.machine.now
            if not self._has_right(repo, digest):
                self.fail(process, "I6", f"{digest} was reserved in {repo}, which has no right to it")
        else:
            self.fail(process, "I6", f"{digest} was reserved in {repo} and is not there")

    def _has_right(self, repo: str, digest: str) -> bool:
        reservation = f"{keys.RESERVATIONS}/{digest.replace(':', '/')}/{keys.component(repo)}"
        return reservation in self.stored or blob_key(repo, digest) in self.stored or digest in self.repo(repo).needed

    def refused(self, process: Process, repo: str, digests: Sequence[str]) -> None:
        """A manifest was refused, for these are not there: was none of them reserved before it was sent?"""
        op = process.op
        assert op is not None
        for digest in digests:
            at = self.reservations.get((repo, digest))
            known = at is not None and at <= op.time and self._is_young(at)
            if known and not self.deleted_since(repo, digest, op.step):
                self.fail(process, "I6", f"{digest} was reserved in {repo} and refused as missing")

    def blob_deleted(self, process: Process) -> None:
        """A 202 for a deletion: there was a moment at which it was gone."""
        op = process.op
        assert op is not None
        self.gone[op.repo, op.digest] = self.machine.steps
        there = f"{keys.RESERVATIONS}/{op.digest.replace(':', '/')}/{keys.component(op.repo)}" in self.stored
        if there and not self.deleted_since(op.repo, op.digest, op.step):
            self.fail(process, "I7", f"{op.digest} was deleted in {op.repo}, says the answer, and it is still there")


def _may_tag(op: Op | None, kind: str, tag: str, digest: str) -> bool:
    return op is not None and kind == "put" and tag in op.tags and digest == op.digest
