"""The health of a store: the last collection and the last scrub with what they found, the trash, and space.

What is read of a root is bounded: notes of jobs, marks of damage, and the beginning of the trash.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zotctl.config import RootSettings
from zotctl.errors import NameUnknown, StorageError, ZotctlError
from zotctl.jobs.check.scrub_state import Passes, StandingFinding, passes, standing_findings
from zotctl.jobs.finding import DAMAGE_KINDS
from zotctl.jobs.gc import GcOptions, gc_settings
from zotctl.jobs.last_run import LastRun, last_run
from zotctl.jobs.stores import Trashed, jobs_of
from zotctl.storage import Store
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.index import Index
from zotctl.storage.root import Root
from zotctl.web.manifests import MOST_UNREAD

MOST_FOLDERS = 50
"""Folders of the trash that are shown."""
MOST_TRASHED = 1000
"""Blobs of each whose sizes are added up."""
MOST_FINDINGS = 50
MOST_TAGS = 5
"""Tags that are named for one finding."""
STATE_BYTES = 4 << 20
"""Of a note of a job that is read; what is longer is not shown."""

RESULTS = {
    0: "everything in order",
    4: "damage was found",
    5: "something could not be looked at",
    11: "not begun: another run is under way",
    15: "refused: the clock is in doubt",
    16: "stopped at its time limit",
    129: "stopped: its terminal was closed",
    130: "interrupted",
    143: "stopped",
}
"""What the exit code of a run says; any other is a failure."""

MEANINGS = {
    "digest_mismatch": "the content is not what its digest names",
    "size_mismatch": "it is shorter or longer than its manifests say",
    "missing_blob": "a layer or config is not there",
    "missing_manifest": "a manifest is not there",
    "unreadable": "it could not be read",
    "invalid_manifest": "it is no valid manifest",
    "media_type_mismatch": "it is listed as something else than it is",
    "unknown_media_type": "what it references is not known",
    "stub": "an empty file is in the place of content",
    "invalid_layout": "the oci-layout file is not valid",
    "invalid_index": "index.json is not valid",
    "bad_ref_name": "a name that is no tag",
    "duplicate_tag": "two rows have one tag",
    "orphan": "no manifest reaches it",
    "bad_name": "a name that no client can ask for",
    "two_roots": "it is in two roots; the first is served",
    "mode": "its mode keeps others from reading it",
    "wire": "the registry answers otherwise than it should",
}


MayRead = Callable[[str], bool]
"""Whether the name of a repository may be told."""


class Space(NamedTuple):
    """Of a file system, in bytes."""

    total: int
    free: int

    @property
    def used(self) -> int:
        """In bytes."""
        return self.total - self.free

    @property
    def share(self) -> float:
        """The part that is used, from 0 to 1."""
        return self.used / self.total if self.total else 0.0


class ShownFinding(NamedTuple):
    """A finding with what it means, and the tags whose clients meet it. `since`: RFC 3339, "" if not known."""

    repository: str
    digest: str | None
    kind: str
    meaning: str
    is_damage: bool
    since: str
    tags: tuple[str, ...]


class ShownTrash(NamedTuple):
    """What a run moved to the trash. `goes`: seconds since 1970; a collection after that deletes it for good."""

    trashed: Trashed
    goes: float
    restore: str


@dataclass(frozen=True, slots=True)
class RootHealth:
    """One root. `trouble`: why it can't be reached; everything else is empty then. `findings` None: too many to be
    shown; `trash` None: it has none, being a bucket."""

    label: str
    is_bucket: bool
    read_only: bool
    trouble: str
    space: Space | None = None
    uploads: int | None = None
    gc: LastRun | None = None
    gc_findings: list[dict[str, Any]] = field(default_factory=list)
    """What the last collection could not do, errors last."""
    gc_result: str = ""
    collects_every: float | None = None
    scrub: Passes | None = None
    scrubs_every: float | None = None
    findings: list[ShownFinding] | None = None
    more_findings: int = 0
    damage: int = 0
    """Findings that mean that content is lost until it is healed, those that are not shown among them."""
    trash: list[ShownTrash] | None = None
    more_trash: bool = False

    @property
    def repair(self) -> str:
        """The command that heals what is damaged."""
        return f"zotctl scrub --repair --root {shlex.quote(self.label)}"


def health(
    store: Store, *, read_only: bool = False, scrubs_every: float | None = None, may_read: MayRead = lambda name: True
) -> list[RootHealth]:
    """Each root of the store. `read_only`, and `scrubs_every` in seconds, are what the server was told. Of repositories
    that are not for `may_read`, only numbers are told."""
    return [_root_health(store, root, read_only, scrubs_every, may_read) for root in store.roots]


def _root_health(
    store: Store, root: Root, read_only: bool, scrubs_every: float | None, may_read: MayRead
) -> RootHealth:
    is_bucket = root.protocol.kind == "bucket"
    try:
        if (error := root.state()) is not None:
            return RootHealth(root.label, is_bucket, root.read_only, error.message)
        chosen, settings = gc_settings()(root) or GcOptions(), root.config or RootSettings()
        trash, more = _trash(root, chosen, may_read)
        standing = standing_findings(root, STATE_BYTES)
        findings, left = findings_of(store, standing, may_read)
        run = last_run(root, "gc")
        return RootHealth(
            label=root.label,
            is_bucket=is_bucket,
            read_only=root.read_only,
            trouble="",
            space=_space(root),
            uploads=None if root.by_requests else root.maintenance.open_uploads(),
            gc=run,
            gc_findings=_told(run, root, may_read),
            gc_result=RESULTS.get(run.exit_code, f"failed (exit {run.exit_code})") if run else "",
            collects_every=None if read_only or root.read_only or not settings.gc else settings.gc_interval,
            scrub=passes(root, STATE_BYTES),
            scrubs_every=scrubs_every,
            findings=findings,
            more_findings=left,
            damage=sum(one.kind in DAMAGE_KINDS for one in standing or ()),
            trash=trash,
            more_trash=more,
        )
    except StorageError as error:
        return RootHealth(root.label, is_bucket, root.read_only, error.message)


def _space(root: Root) -> Space | None:
    """None of a bucket, which has no end."""
    if root.by_requests:
        return None
    with suppress(StorageError):
        space = root.driver.space()
        return Space(space.total, space.free)
    return None


# -- findings ------------------------------------------------------------------------------------


def _told(run: LastRun | None, root: Root, may_read: MayRead) -> list[dict[str, Any]]:
    told = [*run.findings, *run.errors] if run is not None else []
    shown = ({"repository": str(one.get("repository", "")), "reason": str(one.get("reason", ""))} for one in told)
    return [one for one in shown if one["repository"] == root.label or may_read(one["repository"])]


def findings_of(
    store: Store, found: Sequence[StandingFinding] | None, may_read: MayRead
) -> tuple[list[ShownFinding] | None, int]:
    """Damage first, then what was found last; and how many are not shown."""
    if found is None:
        return None, 0
    ordered = sorted((one for one in found if may_read(one.repository)), key=lambda one: one.since, reverse=True)
    ordered.sort(key=lambda one: one.kind not in DAMAGE_KINDS)
    shown = [
        ShownFinding(
            one.repository,
            one.digest,
            one.kind,
            MEANINGS.get(one.kind, one.kind),
            one.kind in DAMAGE_KINDS,
            one.since,
            _tags(store, one),
        )
        for one in ordered[:MOST_FINDINGS]
    ]
    return shown, len(found) - len(shown)


def _tags(store: Store, one: StandingFinding) -> tuple[str, ...]:
    if not one.repository or one.digest is None:
        return ()
    with suppress(NameUnknown, ZotctlError):
        repository = store.repository(one.repository)
        whole = repository.graph(MOST_UNREAD)
        if whole is not None:
            with whole as graph:
                return tuple(tags_over(graph, repository.index(), one.digest, MOST_TAGS))
    return ()


def tags_over(graph: ManifestGraph, index: Index, digest: str, most: int) -> list[str]:
    """The first tags that lead to a digest, `most` of them."""
    found: dict[str, None] = {}
    todo, seen = [digest], {digest}
    while todo and len(found) < most:
        one = todo.pop(0)
        found |= dict.fromkeys(tag for row in index.rows_of(one, most) if (tag := row.tag or row.alias))
        above = [user for user in graph.parents(one) if user not in seen]
        seen.update(above)
        todo += above
    return list(found)[:most]


# -- the trash -----------------------------------------------------------------------------------


def _trash(root: Root, chosen: GcOptions, may_read: MayRead) -> tuple[list[ShownTrash] | None, bool]:
    trash = jobs_of(root).trash()
    if trash is None:
        return None, False
    found = list(trash.look(MOST_FOLDERS + 1, MOST_TRASHED))
    shown = [
        ShownTrash(
            one,
            one.moved + chosen.kept,
            f"zotctl gc --root {shlex.quote(root.label)} --restore {shlex.quote(one.run)}",
        )
        for one in found[:MOST_FOLDERS]
        if may_read(one.repository)
    ]
    return shown, len(found) > MOST_FOLDERS
