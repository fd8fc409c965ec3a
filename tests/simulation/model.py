"""What must be true after every step, whatever the store (docs/design/invariants.md).

The model of a store sees each change, and knows what each process is about: what was pushed, reserved, acknowledged and
deleted on purpose. Checks are incremental, so that thousands of schedules a minute are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import msgspec

from tests.simulation.content import readable
from tests.simulation.scheduler import Violation
from zotctl.oci.reference import REF_NAME

Blob = tuple[str, str]
"""A repository and a digest."""


@lru_cache(100_000)
def blob_key(repo: str, digest: str) -> str:
    return f"{repo}/blobs/{digest.replace(':', '/')}"


class Rows(NamedTuple):
    """One state of index.json: tags, all digests, those without a tag."""

    tags: dict[str, str]
    digests: frozenset[str]


class _Descriptor(msgspec.Struct):
    digest: str
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]
    schemaVersion: int


_decode = msgspec.json.Decoder(_Index).decode


def parse(body: bytes) -> Rows:
    """Strict, and not by the code under test."""
    index = _decode(body)
    if index.schemaVersion != 2:
        raise ValueError("schemaVersion")
    tags = {row.annotations[REF_NAME]: row.digest for row in index.manifests if REF_NAME in row.annotations}
    return Rows(tags, frozenset(row.digest for row in index.manifests))


EMPTY = Rows({}, frozenset())


@dataclass
class Operation:
    """What a process is about. `grants`: names that it may bring into being; `added`: rows that it may add."""

    kind: str
    repo: str = ""
    digest: str = ""
    source: str = ""
    """The repository that it mounts from."""
    tags: tuple[str, ...] = ()
    grants: frozenset[Blob] = frozenset()
    added: frozenset[str] = frozenset()
    step: int = 0
    time: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    """How many states each index.json had had when it began."""


class StatesOfRepo:
    """What is known of one repository: each state that its index.json had."""

    def __init__(self, rows: Rows) -> None:
        self.states = [rows]
        self.pushed: dict[str, int] = {}
        """When a row was last pushed, or lost a tag: from then on its delay runs."""

    @property
    def rows(self) -> Rows:
        return self.states[-1]


R = TypeVar("R", bound=StatesOfRepo)


class BaseModel(Generic[R]):
    kind: type[R]

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.repos: dict[str, R] = {}
        self.deleted: dict[Blob, int] = {}
        """The step at which a client deleted it on purpose."""

    def repo(self, name: str) -> R:
        found = self.repos.get(name)
        if found is None:
            found = self.repos[name] = self.kind(EMPTY)
        return found

    def fail(self, process: Any, invariant: str, what: str) -> NoReturn:
        process.dead = True  # it unwinds without a further step
        error = Violation(invariant, f"{process.name}: {readable(what)}")
        self.machine.broke(error)
        raise error

    def deleted_since(self, repo: str, digest: str, step: int) -> bool:
        return self.deleted.get((repo, digest), -1) >= step

    def states_since(self, name: str, op: Operation) -> list[Rows]:
        """Every state of an index.json while an operation was under way."""
        return self.repo(name).states[max(0, op.versions.get(name, 1) - 1) :]

    def acknowledged(self, process: Any, tags: dict[str, str | None], digest: str, *, there: bool) -> None:
        """A 201 or 202 was given: there was a moment at which index.json said so."""
        op = process.op
        for rows in self.states_since(op.repo, op):
            if all(rows.tags.get(t) == d for t, d in tags.items()) and (
                not digest or (digest in rows.digests) is there
            ):
                break
        else:
            self.fail(
                process, "I4", f"{op.kind} of {tags} {digest} was acknowledged and never in index.json of {op.repo}"
            )
        self.settle(process)

    def settle(self, process: Any) -> None:
        """Before an answer: is what other tools wrote still there?"""


def may_move(op: Operation | None, kind: str, tag: str, digest: str, new: Rows) -> bool:
    """May this operation take a tag from a digest?"""
    if op is None:
        return False
    if kind == "delete manifest":
        return digest == op.digest
    if kind == "put":
        return tag in op.tags and new.tags.get(tag) == op.digest
    return kind == "untag" and tag in op.tags and tag not in new.tags
