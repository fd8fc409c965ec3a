"""What must be true of a directory after every call that changes a name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec

from tests.simulation.content import MANIFESTS, reach, subject_roots, subjects
from tests.simulation.local.machine import DELAY, Machine, Process
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
from tests.simulation.scheduler import SECOND, Violation
from zotctl.storage import keys

DELAY_NS = int(DELAY * SECOND)


class Place(NamedTuple):
    """What a key of a blob means. `run` empty: in its repository; else in the trash."""

    run: str
    repo: str
    digest: str


@lru_cache(100_000)
def place_of(key: str) -> Place | None:
    head, found, tail = key.rpartition("/blobs/")
    algorithm, _, encoded = tail.partition("/")
    if not found or not encoded:
        return None
    if not head.startswith("."):
        return Place("", head, f"{algorithm}:{encoded}")
    if not head.startswith(f"{keys.TRASH}/"):
        return None
    run, _, repo = head[len(keys.TRASH) + 1 :].partition("/")
    return Place(run, repo, f"{algorithm}:{encoded}")


@dataclass
class Op(Operation):
    def deletes(self, digest: str) -> bool:
        return self.kind in ("delete blob", "delete manifest") and self.digest == digest


class Debt(NamedTuple):
    """Rows of a foreign tool that a commit has to take over before it is answered."""

    repo: str
    tags: dict[str, str]
    version: int
    digests: frozenset[str]
    """All that the tool left in its index.json."""
    whole: bool
    """It was renamed in."""
    known: frozenset[str]
    """Tags that our state has, whatever they name."""


class Repo(StatesOfRepo):
    def __init__(self, rows: Rows) -> None:
        super().__init__(rows)
        self.needed = reach(rows.digests)
        self.subjects = subjects(rows.digests)
        self.foreign: set[str] = set()
        """Digests that a foreign tool's rows lead to: these may lie in the trash, where readers find them."""
        self.foreign_tags: dict[str, str] = {}
        self.foreign_rows: set[str] = set()
        self.lost: set[str] = set()
        self.pulled: dict[str, int] = {}
        """When a server wrote down that it was pulled."""


class Model(BaseModel[Repo]):
    kind = Repo

    def __init__(self, machine: Machine, rotten: Iterable[object] = ()) -> None:
        super().__init__(machine)
        self.names = machine.driver.names
        damaged = list(rotten)
        self.rotten = set(map(id, damaged))
        self.granted: set[Blob] = set()
        self.trash: dict[Blob, set[str]] = {}
        self.reservations: dict[Blob, tuple[int, int]] = {}
        """Step and time of the moment from which each reservation runs."""
        self.foreign_writes: dict[int, int] = {}
        """By inode: the step at which a foreign tool finished writing into it."""
        self.renamed_in: set[int] = set()
        """Inodes that a foreign tool renamed in, whole: what it took away or moved counts, too."""
        self._kept: list[object] = damaged
        """So that no other inode gets its id."""
        self.debts: dict[str, list[Debt]] = {}
        for key, inode in self.names.items():
            place = place_of(key)
            if place is not None and not inode.is_dir:
                blob = (place.repo, place.digest)
                self.granted.add(blob)
                if place.run and not place.run.startswith(keys.DELETED_PREFIX):
                    self.trash.setdefault(blob, set()).add(key)
                elif place.run:
                    self.granted.discard(blob)
            elif key.endswith("/index.json"):
                self.repos[keys.parent(key)] = Repo(parse(bytes(inode.data)))

    # -- names of blobs -------------------------------------------------------------------------

    def appeared(self, process: Process, key: str, source: str) -> None:
        place = place_of(key)
        if place is None:
            return
        blob = (place.repo, place.digest)
        if place.run:
            if not place.run.startswith(keys.DELETED_PREFIX):
                self.trash.setdefault(blob, set()).add(key)
            return
        inode = self.names[key]
        if hashlib.sha256(inode.data).hexdigest() != place.digest[7:]:
            from_blob = place_of(source) is not None
            if not (from_blob and id(inode) in self.rotten):
                self.fail(process, "I2", f"{place.repo}: {place.digest} got bytes of another digest from {source}")
        if blob not in self.granted:
            op = process.op
            if op is None or not (blob in op.grants or self._is_mounted(process, op, blob) or op.kind == "restore"):
                again = "is back, though it was deleted on purpose" if blob in self.deleted else "was never pushed"
                self.fail(process, "I7", f"{place.digest} is visible in {place.repo} and {again}")
            self.granted.add(blob)

    def _is_mounted(self, process: Process, op: Op, blob: Blob) -> bool:
        """It has seen it in its source meanwhile, whatever was there when it began."""
        seen = process.seen.get(blob_key(op.source, blob[1]), (-1, 0))
        return op.kind == "mount" and blob == (op.repo, op.digest) and seen[0] >= op.step

    def marked(self, process: Process, key: str) -> None:
        """It was found to be damaged: is it?"""
        encoded = key.split("/")[-2]
        if hashlib.sha256(self.names[key].data).hexdigest() == encoded:
            self.fail(process, "I10", f"the good bytes of sha256:{encoded} are marked as damaged")

    def vanished(self, process: Process, key: str, target: str) -> None:
        place = place_of(key)
        if place is None:
            return
        blob, op = (place.repo, place.digest), process.op
        if place.run.startswith(keys.DELETED_PREFIX):
            return
        if place.run:
            self.trash.get(blob, set()).discard(key)
        if op is not None and op.deletes(place.digest) and op.repo == place.repo:
            self.reservations.pop(blob, None)
            self.deleted[blob] = self.machine.steps
            if not place.run:
                self.granted.discard(blob)
        kept = place_of(target)
        if kept is not None and kept.run and not kept.run.startswith(keys.DELETED_PREFIX):
            self.trash.setdefault(blob, set()).add(target)
        self._still_held(process, blob)

    def _still_held(self, process: Process, blob: Blob) -> None:
        """A name went: is what was reserved or is needed still where it must be?"""
        if blob_key(*blob) in self.names:
            return
        repo, in_trash = self.repo(blob[0]), bool(self.trash.get(blob))
        if blob[1] in repo.needed and blob[1] not in repo.lost and not (in_trash and blob[1] in repo.foreign):
            where = "in the trash" if in_trash else "gone"
            self.fail(process, "I5", f"{blob[1]} is {where} and index.json of {blob[0]} leads to it")
        collects = process.op is not None and process.op.kind in ("gc", "purge")
        if collects and blob[1] in repo.subjects and self._is_kept_as_subject(blob, repo):
            self.fail(process, "I5", f"{blob[1]} was collected in {blob[0]}, where it is the subject of a referrer")
        reservation = self.reservations.get(blob)
        if reservation is not None and not in_trash and self.machine.now - reservation[1] < DELAY_NS:
            self.fail(process, "I6", f"{blob[1]} is gone from {blob[0]} {self._ago(reservation)} after it was reserved")
        if not in_trash:
            self.granted.discard(blob)

    def _is_kept_as_subject(self, blob: Blob, repo: Repo) -> bool:
        """A subject that is there keeps what it needs; one that was deleted keeps nothing."""
        for subject in subject_roots(repo.rows.digests):
            there = subject == blob[1] or blob_key(blob[0], subject) in self.names
            if there and blob[1] in reach(frozenset({subject})):
                return True
        return False

    def _ago(self, reservation: tuple[int, int]) -> str:
        return f"{(self.machine.now - reservation[1]) / SECOND:.3f} s"

    # -- reservations -------------------------------------------------------------------------------

    def reserve(self, process: Process, repo: str, digest: str) -> None:
        """The client was told that it exists: since when this process last saw it there."""
        blob, op = (repo, digest), process.op
        assert op is not None
        seen = process.seen.get(blob_key(repo, digest), (op.step, op.time))
        if seen[0] <= self.deleted.get(blob, -1):
            return  # a deletion came between: the answer belongs before it
        if self.reservations.get(blob, (0, 0))[1] < seen[1]:
            self.reservations[blob] = seen
        self._still_held(process, blob)

    def refused(self, process: Process, repo: str, digests: Iterable[str]) -> None:
        """A manifest was refused for want of these: was one of them reserved?"""
        for digest in digests:
            reservation = self.reservations.get((repo, digest))
            key = blob_key(repo, digest)
            inode = self.names.get(key)
            before = process.op is None or (reservation is not None and reservation[0] < process.op.step)
            if reservation is not None and before and self.machine.now - reservation[1] < DELAY_NS:
                if inode is not None and id(inode) in self.rotten:
                    continue
                if process.op is not None and self.deleted.get((repo, digest), -1) >= process.op.step:
                    continue
                self.fail(
                    process,
                    "I6",
                    f"{repo}: a manifest was refused {self._ago(reservation)} after {digest} was reserved",
                )

    # -- index.json -----------------------------------------------------------------------------

    def index_replaced(self, process: Process, name: str, old: object) -> None:
        """A rename gave index.json a new state."""
        inode = self.names[f"{name}/index.json"]
        try:
            rows = parse(bytes(inode.data))
        except (msgspec.MsgspecError, ValueError) as error:
            self.fail(process, "I1", f"index.json of {name} can't be parsed: {error}")
        repo = self.repo(name)
        self._transition(process, name, repo, rows, old)
        self._enter(process, name, repo, rows)

    def index_removed(self, process: Process, name: str) -> None:
        """A collector has removed an empty repository."""
        repo = self.repo(name)
        if repo.rows.digests:
            self.fail(process, "I4", f"index.json of {name} was removed with {sorted(repo.rows.digests)} in it")
        self._enter(process, name, repo, EMPTY)

    def foreign_wrote(self, process: Process, name: str, inode: object, before: Rows, *, renamed: bool = False) -> None:
        """A foreign tool has finished writing in place, or has renamed its own in; `before`: what it had read."""
        self.foreign_writes[id(inode)] = self.machine.steps
        self.renamed_in |= {id(inode)} if renamed else set()
        self._kept.append(inode)
        repo = self.repo(name)
        rows = parse(bytes(inode.data))  # type: ignore[attr-defined]
        fresh = rows.digests - before.digests
        repo.foreign_rows |= fresh
        repo.foreign_tags.update({t: d for t, d in rows.tags.items() if before.tags.get(t) != d})
        repo.foreign |= reach(rows.digests)
        if self.names.get(f"{name}/index.json") is inode:
            self._enter(process, name, repo, rows)

    def _enter(self, process: Process, name: str, repo: Repo, rows: Rows) -> None:
        """The new state is there: does it lead to nothing that is missing?"""
        before = repo.rows
        repo.states.append(rows)
        by_tool = process.op is not None and process.op.kind == "foreign"
        came = rows.digests - before.digests if not by_tool else frozenset[str]()
        at = process.op.time if process.op is not None else self.machine.now
        for digest in came | {d for t, d in before.tags.items() if rows.tags.get(t) != d}:
            repo.pushed[digest] = at
        for digest in {d for d in rows.tags.values() if d not in before.tags.values()}:
            repo.pushed[digest] = at
        repo.needed, repo.subjects = reach(rows.digests), subjects(rows.digests)
        for digest in repo.needed:
            if blob_key(name, digest) not in self.names and digest not in repo.lost:
                if digest in repo.foreign:
                    if not self.trash.get((name, digest)):
                        repo.lost.add(digest)  # the tool took longer than the delay
                    continue
                self.fail(process, "I5", f"index.json of {name} leads to {digest}, which is not there")

    def _transition(self, process: Process, name: str, repo: Repo, new: Rows, replaced: object) -> None:
        """What changed must be what the process is about: no other's entry may go (I4) or come (I7)."""
        old, op, foreign = repo.rows, process.op, self.foreign_writes.get(id(replaced))
        whole = id(replaced) in self.renamed_in
        kind = op.kind if op is not None and op.repo in ("", name) else ""
        gone = {d for d in old.digests - new.digests if not self._may_drop(op, kind, old, new, repo, d)}
        moved = {t: d for t, d in old.tags.items() if new.tags.get(t) != d and not may_move(op, kind, t, d, new)}
        for debt in self.debts.get(process.name, []):
            if debt.repo == name:  # taken in from an index.json that was renamed in
                gone -= old.digests - debt.digests
                moved = {t: d for t, d in moved.items() if debt.tags.get(t) != new.tags.get(t)}
        if (gone or moved) and foreign is not None and foreign > process.looked:
            # Written between our last look and the rename: new rows are taken over from the old inode, and from one
            # that was renamed in what it moved, too.
            added = {t: d for t, d in moved.items() if repo.foreign_tags.get(t) == d and (whole or t not in new.tags)}
            if added:
                self.debts.setdefault(process.name, []).append(
                    Debt(name, added, len(repo.states), old.digests, whole, frozenset(new.tags))
                )
            return
        elif gone or moved:
            self.fail(process, "I4", f"index.json of {name} has lost {sorted(gone)} {moved} in a {kind or 'rename'}")
        came = new.digests - old.digests - repo.foreign_rows - (op.added if op is not None else frozenset())
        tagged = {
            t: d for t, d in new.tags.items()
            if old.tags.get(t) != d and repo.foreign_tags.get(t) != d
            and not (op is not None and kind == "put" and t in op.tags and d == op.digest)
        }  # fmt: skip
        if kind == "restore":
            came = frozenset(d for d in came if d not in MANIFESTS)
            # With a manifest come tags that it had, as far as no other manifest has them by now.
            had = {pair for rows in repo.states for pair in rows.tags.items()}
            tagged = {t: d for t, d in tagged.items() if t in old.tags or (t, d) not in had}
        if came or tagged:
            self.fail(process, "I7", f"index.json of {name} has got {sorted(came)} {tagged} in a {kind or 'rename'}")

    def _may_drop(self, op: Op | None, kind: str, old: Rows, new: Rows, repo: Repo, digest: str) -> bool:
        if op is not None and kind == "delete manifest":
            return digest == op.digest
        if kind != "gc" or digest in old.tags.values():
            return False
        if any(digest in MANIFESTS[d].children for d in new.digests if d in MANIFESTS):
            return False
        if self.machine.skewed:
            return True  # by a clock that is wrong a row without a tag may go early, and what it needs has its delay
        return self.machine.now - repo.pushed.get(digest, -DELAY_NS) >= DELAY_NS

    # -- answers --------------------------------------------------------------------------------

    def settle(self, process: Process) -> None:
        """Before an answer: what a foreign tool wrote beside the rename is in index.json."""
        for debt in self.debts.pop(process.name, []):
            states = self.repo(debt.repo).states[debt.version - 1 :]
            for tag, digest in debt.tags.items():
                if not any(rows.tags.get(tag) == digest for rows in states[1:]):
                    self.fail(process, "I4", f"{debt.repo}:{tag}, written by a foreign tool, is lost")

    def look_again(self) -> None:
        """At the end, where no step is watched: collections may have taken in what a dead process left."""
        for name, repo in self.repos.items():
            there = self.names.get(keys.index(name))
            rows = parse(bytes(there.data)) if there is not None else EMPTY
            repo.states.append(rows)
            repo.needed, repo.subjects = reach(rows.digests), subjects(rows.digests)

    def nothing_owed(self) -> None:
        """After collections: what a process that died had in its hands is in index.json. Not asked for: what was written
        in place, into an inode that no process has open any more, and a tag that was only moved, since the state that it
        was moved from is not known after a death."""
        for name, debts in self.debts.items():
            for debt in debts:
                states = self.repo(debt.repo).states[debt.version :]
                for tag, digest in debt.tags.items() if debt.whole else ():
                    if tag not in debt.known and not any(rows.tags.get(tag) == digest for rows in states):
                        raise Violation("I4", f"{debt.repo}:{tag}, which {name} had in its hands, is lost")

    def blob_deleted(self, process: Process) -> None:
        """A 202 for a deletion: there was a moment at which it was gone."""
        op = process.op
        assert op is not None
        if not self.deleted_since(op.repo, op.digest, op.step):
            self.fail(process, "I7", f"{op.digest} was deleted in {op.repo}, says the answer, and it is still there")

    # -- repositories that are not ours ----------------------------------------------------------

    def changes(self, process: Process, method: str, key: str, target: str) -> None:
        """A repository that is a link out of the store is only read."""
        if process.op is not None and process.op.kind == "foreign":
            return
        for changed in (target,) if method == "link" else (key, target):
            if any(changed == name or changed.startswith(f"{name}/") for name in self.machine.links):
                self.fail(process, "I9", f"{method} of {changed}, which is out of the store")

    # -- locks ----------------------------------------------------------------------------------

    def scanned_under_lock(self, process: Process, key: str) -> None:
        if key.endswith(("/blobs/sha256", "/blobs/sha512")) or key.startswith((keys.POOL, keys.UPLOADS)) or not key:
            self.fail(process, "I11", f"{key or '/'} is listed while a lock is held")

    def read_under_lock(self, process: Process, key: str) -> None:
        encoded = key.rpartition("/")[2]
        if ("/blobs/" in key or key.startswith(keys.POOL)) and f"sha256:{encoded}" not in MANIFESTS:
            self.fail(process, "I11", f"{key} is read while a lock is held")
