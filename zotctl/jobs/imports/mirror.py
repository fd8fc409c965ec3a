"""`import-layout --mirror`: the target loses what the source has no more.

First all of the source comes in, as by any import. Only then rows go, by one commit for each repository, so that a run
that is killed in between has removed nothing. What a commit removes was there when the run began, and no row that stays
leads to it. Whole repositories go only if nothing at all went wrong, for a source that was not seen whole lacks much.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial

from zotctl.config import is_bucket
from zotctl.errors import NoSuchStore, NotFound, ReadOnly, Unavailable, UsageError
from zotctl.jobs.check.repository import StoredCheck
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.gc import apply_drops, drop_rows
from zotctl.jobs.imports.distribution import DistributionTree
from zotctl.jobs.imports.needs import Needs
from zotctl.jobs.imports.plan import ImportOptions, Wanted, plan_import
from zotctl.jobs.imports.repository import RepositoryImport, index_now
from zotctl.jobs.imports.sources import PIPE, BucketSource, Layout, is_archive
from zotctl.jobs.past import MIRRORED_BY
from zotctl.jobs.reachable import mark, mark_index
from zotctl.jobs.report import counted
from zotctl.jobs.retention import Drop
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, check_digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.distribution import REPOSITORIES, ROOT
from zotctl.storage.driver import Driver, Info
from zotctl.storage.facts import Fault, ManifestFacts
from zotctl.storage.file_identity import file_number
from zotctl.storage.graph import reach
from zotctl.storage.index import Index
from zotctl.storage.opening import directory, is_directory
from zotctl.storage.root import Root


def refuse_mirror(source: str, roots: Sequence[str]) -> None:
    """Raise UsageError for a source that a store can't follow, and NoSuchStore for one that is empty as a mount point
    without its mount is. `roots`: of the store."""
    if is_bucket(source):
        return
    if source != PIPE:
        _refuse_empty(source)
    if is_archive(source):
        raise UsageError(
            f"--mirror follows a directory or a bucket, and {source} is an archive, which has what was packed once: "
            "unpack it and name the directory, or leave out --mirror"
        )
    real = os.path.realpath(source)
    for root in (os.path.realpath(root) for root in roots if not is_bucket(root)):
        if os.path.commonpath([real, root]) == root:
            raise UsageError(
                f"{source} lies in the store {root}, from which --mirror would remove it, since the source lacks it: "
                "leave out --mirror"
            )


def _refuse_empty(source: str) -> None:
    place = os.path.realpath(source)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if is_directory(place) and not directory(place).scan(""):
        missing = "" if os.path.exists(source) else f"{source} is not there, and "
        raise NoSuchStore(f"{missing}{place} is empty: is it mounted? --mirror follows no empty source")


# -- the source -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceTree:
    """A tree of layouts that a mirror follows.

    `names`: the repositories in it, by the names that they have in the target. `below`: the repository of the target
    below which all of them go; "" for none.
    """

    driver: Driver
    names: Mapping[str, str]
    below: str

    @property
    def registry(self) -> DistributionTree | None:
        """The storage of distribution that it is, in a directory or a bucket; None: these are layouts."""
        shown = self.driver.inner if isinstance(self.driver, BucketSource) else self.driver
        return shown if isinstance(shown, DistributionTree) else None

    def covers(self, name: str) -> bool:
        """Whether the tree decides what becomes of this repository of the target."""
        return name.startswith(f"{self.below}/") if self.below else True

    def is_there(self, name: str) -> bool:
        """Whether anything of a layout is where the tree would have this repository, also what no import takes."""
        driver, place, parts = self._place(name)
        return any(_stat(driver, f"{place}/{part}") is not None for part in parts)

    def mount_point(self, name: str) -> str | None:
        """The empty directory in which this repository may lie once something is mounted there."""
        if isinstance(self.driver, BucketSource):
            return None
        driver, place, _ = self._place(name)
        while place and _stat(driver, place) is None:
            place = keys.parent(place)
        return place if place and not driver.scan(place) else None

    def holds(self, info: Info | None) -> bool:
        """Whether this directory is one of its layouts, by another path."""
        return info is not None and file_number(info) in self._numbers

    @cached_property
    def _numbers(self) -> set[tuple[int, int]]:
        """Of its layouts. Nothing holds these directories, so `holds` may be a wrong yes, which removes nothing."""
        names = [] if isinstance(self.driver, BucketSource) else self.names.values()
        return {file_number(info) for name in names if (info := _stat(self.driver, name)) is not None}

    def _place(self, name: str) -> tuple[Driver, str, tuple[str, ...]]:
        inside = name.removeprefix(f"{self.below}/") if self.below else name
        if (registry := self.registry) is not None:
            return registry.inner, f"{ROOT}/{REPOSITORIES}/{inside}", ("_manifests",)
        return self.driver, inside, (LAYOUT_FILE, "index.json")


def source_tree(driver: Driver, names: Iterable[str], options: ImportOptions) -> SourceTree | None:
    """The tree in which the layouts `names` lie. None: they go to one repository, and decide about no other."""
    if options.repo and not options.all:
        return None
    below = options.repo or ""
    return SourceTree(driver, {f"{below}/{name}" if below else name: name for name in names}, below)


def _stat(driver: Driver, key: str) -> Info | None:
    with suppress(NotFound):
        return driver.stat(key)
    return None


# -- the target -----------------------------------------------------------------------------------


@dataclass
class _Going:
    """The rows that one repository is to lose."""

    root: Root
    name: str
    drops: list[Drop]


@dataclass
class Mirror:
    """Notes what is to go while a source is imported, and drops it when all of the source is in. Used by one thread.

    `source`: its name in messages. `require` raises Unavailable if the source is away. `tree`: None if the source is
    one layout, which decides about no repository but its own.
    """

    run: Run
    source: str
    options: ImportOptions
    require: Callable[[], None]
    tree: SourceTree | None
    _going: list[_Going] = field(default_factory=list)
    _lacking: list[_Going] = field(default_factory=list)
    _troubles: int = 0
    """What had gone wrong before the current layout."""
    _has_tags: bool = False
    _damaged: dict[str, set[Digest]] = field(default_factory=dict)
    """What each root has a copy of that is known to be damaged."""

    def survey(self, tree: SourceTree) -> None:
        """Note the repositories of the target that the tree lacks. Call it first: only what is there by then can go."""
        for root in self.run.store.roots:
            for name in list(self.run.repositories_of(root)):
                if tree.covers(name) and name not in tree.names:
                    with self.run.guarded(name, root):
                        drops = _surplus(index_now(root, name), (), {}, f"{self.source} has no such repository")
                        if drops:  # or else its rows went earlier, and a collector removes the rest
                            self._lacking.append(_Going(root, name, drops))

    def begin(self) -> None:
        """The next layout is begun: what goes wrong from now on is about it."""
        self._troubles = self._count_troubles()

    def _count_troubles(self) -> int:
        """What is listed as something else came all the same, so it keeps nothing."""
        report, grave = self.run.report, DAMAGE_KINDS - {"media_type_mismatch"}
        damage = sum(finding.kind in grave for finding in report.findings)
        return damage + len(report.errors) + len(report.codes)

    def is_unchanged(self, layout: Layout) -> bool:
        """Whether the target has the same tags and manifests as the layout, and all that they need: then nothing of the
        layout is opened."""
        plan = plan_import(layout, {}, self.options)  # which reads manifests only for several repositories
        if len(plan.repositories) != 1 or plan.findings:
            return False
        ((name, rows),) = plan.repositories.items()
        root = self.run.store.repository_for_push(name).root
        there = index_now(root, name)
        is_same = _tags(there) == {row.tag: row.digest for row in rows if row.tag}
        if not is_same or there.digests.keys() != {row.digest for row in rows}:
            return False
        if not self._has_all(root, name, there, layout, rows):
            return False
        self._note_tags(rows)
        self.run.add("repositories")
        self.run.add("unchanged", len(rows))
        return True

    def _has_all(self, root: Root, name: str, there: Index, layout: Layout, rows: list[Wanted]) -> bool:
        """Whether the target has what its manifests lead to, by a list: what is missing, or known to be damaged, comes
        anew. So does a manifest that is found damaged here."""
        (check := StoredCheck(root, name)).list_all()
        with root.graphs.of(name).at(there, again=True) as graph:
            faults = list(graph.faults.values())
            needed = Needs(layout, graph).of(rows)
        root.graphs.weigh(name)
        for fault in faults:
            if fault.kind == "digest_mismatch" and fault.digest in check.present and not self.run.dry_run:
                root.protocol.blobs.distrust(name, check_digest(fault.digest))
        if root.label not in self._damaged:
            self._damaged[root.label] = root.maintenance.damaged()
        damaged = self._damaged[root.label]
        return not faults and all(check.present.get(one) == size and one not in damaged for one, size in needed.pairs())

    def note(self, importing: list[RepositoryImport], *, whole: bool) -> None:
        """Note what the repositories of one layout are to lose. `whole`: all of it came in. Raises UsageError if it
        says of no repository what that should have."""
        if not importing:
            raise UsageError(f"{self.source} has no image, so it is not known what it mirrors; give --repo")
        whole = whole and self._count_troubles() == self._troubles
        for one in importing:
            self._note_tags(one.rows)
            drops = _surplus(one.before, one.rows, one.graph.facts, f"{one.layout.label} has it no more")
            if whole and drops:
                self._going.append(_Going(one.root, one.name, drops))
            elif drops:
                self._keep(one.name, f"not all of {one.layout.label} came in, so nothing is removed")

    def _note_tags(self, rows: Iterable[Wanted]) -> None:
        self._has_tags = self._has_tags or any(row.tag for row in rows)

    def _keep(self, name: str, reason: str) -> None:
        self.run.add("repositories_kept")
        self.run.item(action="keep", repository=name, reason=reason)

    # -- when all of the source is in -------------------------------------------------------------

    def finish(self) -> None:
        """Drop what was noted, and what the tree lacks; in a dry run only name it. Raises Unavailable if the source is
        away, and UsageError for one that keeps its tags elsewhere."""
        self.require()
        if self.tree and self.tree.registry and not (self._has_tags or self.options.tags):
            raise UsageError(
                f"no repository in {self.source} has a tag, as where Harbor keeps them in its database: give them with "
                "--tags FILE; nothing was removed"
            )
        for going in self._going:
            self.run.check()
            with self.run.guarded(going.name, going.root):
                self._drop(going)
        if self.tree is not None:
            self._remove(self.tree)

    def _remove(self, tree: SourceTree) -> None:
        """Remove the repositories that the tree lacks, unless one of them may be there, or anything went wrong."""
        for going in self._lacking:
            with self.run.guarded(going.name, going.root):
                self._require_gone(going, tree)
        is_certain = not self._count_troubles()
        for going in self._lacking:
            self.run.check()
            if not is_certain:
                self._keep(going.name, f"{self.source} has no such repository, as far as it could be read")
                continue
            with self.run.guarded(going.name, going.root):
                if tree.is_there(going.name):
                    self._keep(going.name, f"{self.source} has it again, or what is left of it")
                elif self._drop(going):
                    self.run.add("repositories_removed")

    def _require_gone(self, going: _Going, tree: SourceTree) -> None:
        """Raise ZotctlError if a repository may be in the source although the walk has not found it."""
        if (place := tree.mount_point(going.name)) is not None:
            raise Unavailable(
                f"it may lie in {self.source}/{place}, which is empty: is something to be mounted there? If not, "
                "remove the directory"
            )
        if not going.root.by_requests and tree.holds(going.root.stat(going.name)):
            raise UsageError(f"it is a layout of {self.source} itself, by another path: leave out --mirror")

    def _drop(self, going: _Going) -> bool:
        """Drop rows of one repository. True: it has none any more."""
        done = going.drops if self.run.dry_run else self._carry_out(going)
        for drop in done:
            self.run.item(action="drop", repository=going.name, tag=drop.tag, digest=drop.digest, reason=drop.reason)
        self.run.add("dropped", len(done))
        return self.run.dry_run or not len(index_now(going.root, going.name))

    def _carry_out(self, going: _Going) -> list[Drop]:
        root, name = going.root, going.name
        if not root.owns(name):
            raise ReadOnly(
                f"it is only read from here, so nothing is removed: {counted(len(going.drops), 'row')}", name
            )
        mark(root, name, certain=True)  # read now, so that only what comes later has to be read under the lock
        faults = list[Fault]()
        done = drop_rows(self.run, root, name, MIRRORED_BY, partial(_still_going, root, name, going.drops, faults))
        for fault in faults:
            reason = f"nothing is removed from {name}: {fault.reason}"
            tags = tuple(index_now(root, name).tags_of(fault.digest))
            self.run.finding(Finding.of_fault(name, fault, tags, reason=reason))
            self.run.report.codes.append(5)
        return done


def _tags(index: Index) -> dict[str, str]:
    return {tag: str(row.digest) for tag in index.tags() if (row := index.find(tag)) and row.digest}


def _surplus(there: Index, rows: Iterable[Wanted], facts: Mapping[str, ManifestFacts], reason: str) -> list[Drop]:
    """The rows that an index has and the source does not hold: tags, then manifests."""
    wanted = list(rows)
    tags, held = {row.tag for row in wanted}, reach((row.digest for row in wanted), facts)
    lost = [Drop(digest, tag, reason) for tag, digest in _tags(there).items() if tag not in tags]
    return lost + [Drop(digest, None, reason) for digest in there.digests if digest not in held]


def _still_going(root: Root, name: str, planned: list[Drop], faults: list[Fault], draft: Index) -> list[Drop]:
    """Those of `planned` that go from this draft: no tag that was moved meanwhile, no manifest that got another tag,
    and none that a row which stays leads to. None goes if that can't be known (I5): `faults` says why."""
    now = _tags(draft)
    going = [drop for drop in planned if drop.tag is not None and now.get(drop.tag) == drop.digest]
    tags = {drop.tag for drop in going}
    going += [
        drop for drop in planned
        if drop.tag is None and drop.digest in draft and tags.issuperset(draft.tags_of(drop.digest))
    ]  # fmt: skip
    kept = draft.copy()
    apply_drops(kept, going)
    marks = mark_index(root, name, kept, None, certain=True)
    faults[:] = marks.faults
    return [] if faults else [drop for drop in going if drop.tag is not None or drop.digest not in marks.reachable]
