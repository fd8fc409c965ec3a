"""Collection in a directory by the steps of docs/design/local.md: mark, plan, trash, wait, purge. No lock but short
ones.

A collector never deletes: it renames what no manifest reaches into the trash, and what
has lain there for longer than the delay is purged. Killed anywhere, the next run goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from zotctl.errors import DigestInvalid, LayoutInvalid, NoSpace, NotEmpty, NotFound, ZotctlError
from zotctl.jobs.ages import GREATEST_AGE, JUST_BEGUN, Ages, uploads
from zotctl.jobs.gc import GcOptions, Planner
from zotctl.jobs.reachable import Reachable, ReachableBlobs
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_named, parse_digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.trash import Folder
from zotctl.storage.locks import Held
from zotctl.storage.root import Root

ZOT_UPLOADS = ".uploads"


class ActiveUploads:
    """The uploads of one root that clients still continue, as they were when a run began. One that
    begins later is younger than whatever the run may trash."""

    def __init__(self, root: Root, delay: float, now: float, ages: Ages | None = None) -> None:
        """`ages` None: only to look."""
        self._began: dict[str, float] = {}
        ages = ages or Ages(root.driver, now, local_of(root).clock, at_once=delay == 0, rehearsed=True)
        for upload in uploads(root, ages):
            moving = not ages.is_old(upload.moved, max(delay, JUST_BEGUN))
            if moving and not ages.is_old(upload.started, GREATEST_AGE):
                self._began[upload.owner] = min(upload.started, self._began.get(upload.owner, float("inf")))

    def since(self, name: str) -> float:
        """When the oldest one of a repository began; infinity without one."""
        return self._began.get(keys.name_key(name), float("inf"))


def sweep(run: Run, root: Root, delay: float, ages: Ages) -> None:
    """Everything of one root that is older than the grace period and that no client continues."""
    ages = ages.later(run.clock.now())
    _sweep_uploads(run, root, delay, ages)
    _sweep_tmp(root, max(delay, 60.0), ages)
    _sweep_pool(run, root)


def _sweep_uploads(run: Run, root: Root, delay: float, ages: Ages) -> None:
    for upload in uploads(root, ages):
        run.check()
        if not ages.is_old(upload.moved, max(delay, JUST_BEGUN)):
            continue
        with suppress(NotFound):
            with root.driver.append(upload.key, create=False) as writer:
                # A request that is writing it holds this lock.
                if root.driver.capabilities.locks and not writer.try_lock():
                    continue
                root.driver.unlink(upload.key)
            run.item(action="purge_upload", upload=upload.id, size_bytes=upload.size)
            run.add("uploads")
            run.add("purged_bytes", upload.size)


def _sweep_tmp(root: Root, delay: float, ages: Ages) -> None:
    for name in _names(root, keys.TMP):
        info = local_of(root).context.stat(key := keys.tmp(name))
        # A link into tmp leaves the mtime alone, and moves the ctime.
        if info is not None and ages.is_old(ages.changed(key, info), delay):
            local_of(root).context.discard(key)


def _sweep_pool(run: Run, root: Root) -> None:
    """Pool names with one link: the purge drops most in passing, this is for the rest."""
    if not root.driver.capabilities.links:
        return
    for algorithm in _names(root, keys.POOL):
        for first in _names(root, keys.pool_of(algorithm)):
            run.check()
            directory = keys.pool_of(algorithm, first)
            for encoded in _names(root, directory):
                if (digest := digest_named(algorithm, encoded)) is None:
                    continue
                info = local_of(root).context.stat(keys.pool(digest))
                if info is not None and info.nlink == 1:
                    local_of(root).pool.release(digest)
                    run.add("pool_entries")
                    run.add("purged_bytes", info.size)


def remove_index_temps(root: Root, name: str, delay: float, ages: Ages) -> None:
    """`.index.json.zotctl-*` of a process that died between write and rename, and zot's dead uploads."""
    for entry in _names(root, name):
        key = f"{name}/{entry}"
        if entry.startswith(keys.INDEX_TEMP_PREFIX) and not local_of(root).indexes.is_unmerged(key):
            info = local_of(root).context.stat(key)
            if info is not None and ages.is_old(ages.written(key, info), max(delay, 60.0)):
                with local_of(root).context.locks.hold(name):
                    local_of(root).context.discard(key)
        elif entry == ZOT_UPLOADS:
            _remove_zot_uploads(root, key, delay, ages)


def _remove_zot_uploads(root: Root, directory: str, delay: float, ages: Ages) -> None:
    for entry in _names(root, directory):
        info = local_of(root).context.stat(key := f"{directory}/{entry}")
        if info is not None and info.is_file and ages.is_old(ages.written(key, info), delay):
            local_of(root).context.discard(key)
    with suppress(NotEmpty, NotFound):
        root.driver.rmdir(directory)


def _names(root: Root, directory: str) -> list[str]:
    try:
        return [entry.name for entry in root.driver.scan(directory)]
    except NotFound:
        return []


BATCH = 64
COMPACT_ABOVE = 1 << 20
"""Bytes of a repository's history above which it is compacted."""


@dataclass(frozen=True)
class Chosen:
    """What holds for one root in one run."""

    options: GcOptions
    moving: ActiveUploads

    def dry_run(self, run: Run) -> bool:
        return run.dry_run or self.options.dry_run


class LocalCollector:
    """One root in one run."""

    at_once = 1

    def __init__(self, run: Run, root: Root, options: GcOptions) -> None:
        self.halted = threading.Event()
        self._run, self._root = run, root
        now, rehearsed = run.clock.now(), run.dry_run or options.dry_run
        self._ages = Ages(root.driver, now, run.clock, at_once=options.delay == 0, rehearsed=rehearsed)
        self._chosen = Chosen(options, ActiveUploads(root, options.delay, now, self._ages))
        self._run_name = f"{datetime.fromtimestamp(run.clock.now(), UTC):%Y%m%dT%H%M%S}-{run.clock.token()[:8]}"

    def begin(self) -> None:
        """First of all, so that a run that is cut short frees something."""
        if not self._chosen.dry_run(self._run):
            purge(self._run, self._root, self._chosen)

    def order(self, names: Iterator[str]) -> Iterator[str]:
        return names

    def collect(self, name: str) -> None:
        Collection(self._run, self._root, name, self._run_name, self._chosen, self._ages).collect()

    def stopped(self) -> None:
        """Nothing to be remembered: what was moved lies in the trash, the rest is found again."""

    def end(self) -> None:
        if not self._chosen.dry_run(self._run):
            sweep(self._run, self._root, self._chosen.options.delay, self._ages)


class Collection:
    """One repository in one run."""

    def __init__(self, run: Run, root: Root, name: str, run_name: str, chosen: Chosen, ages: Ages) -> None:
        self._run, self._root, self._name, self._run_name = run, root, name, run_name
        self._options, self._moving = chosen.options, chosen.moving
        self._dry_run, self._ages = chosen.dry_run(run), ages.later(run.clock.now())
        self._local, self._planner = local_of(root), Planner(run, root, name, chosen.options, run.clock.now())
        self._marker = self._planner.marker

    def collect(self) -> None:
        if not self._dry_run:
            self._local.take_over(self._name)
        try:
            plan = self._planner.plan()
        except NotFound:
            return  # it is gone
        if plan is None:
            return
        trashed = list(self._unreachable(plan.rest))
        self._tell(trashed)
        if self._dry_run:
            return
        digests = [digest for digest, _ in trashed]
        try:
            self._planner.drop_rows(plan.drops)
        except NoSpace:
            self._move_to_trash(digests)  # what no row needs goes without a new index.json, and makes room for one
            self._planner.drop_rows(plan.drops)
        self._move_to_trash(digests)
        self._keep_house()

    # -- 1 mark, 2 plan -------------------------------------------------------------------------

    def _unreachable(self, marks: Reachable) -> Iterator[tuple[Digest, int]]:
        """Blobs that nothing reaches and that were not written within the delay, nor since the oldest upload that is
        still moving began, which spares pushes under way the way to the trash and back."""
        since = self._moving.since(self._name)
        for digest in self._blobs():
            if digest not in marks.reachable:
                info = self._local.context.stat(key := keys.blob(self._name, digest))
                if info is not None and info.is_file:
                    written = self._ages.written(key, info)
                    if self._ages.is_old(written, self._options.delay) and written < since:
                        yield digest, info.size

    def _blobs(self) -> Iterator[Digest]:
        """What has the name of a blob. Anything else in there is not ours, and stays."""
        for algorithm in self._scan(keys.blobs(self._name)):
            for encoded in self._scan(keys.blobs_of(self._name, algorithm)):
                with suppress(DigestInvalid):
                    yield parse_digest(f"{algorithm}:{encoded}")

    def _scan(self, key: str) -> list[str]:
        try:
            return sorted(entry.name for entry in self._root.driver.scan(key))
        except NotFound:
            return []

    def _tell(self, trashed: list[tuple[Digest, int]]) -> None:
        for digest, size in trashed:
            self._run.item(action="trash", repository=self._name, digest=str(digest), size_bytes=size)
            self._run.add("unreachable")
            self._run.add("unreachable_bytes", size)

    # -- 3 trash ------------------------------------------------------------------------------

    def _move_to_trash(self, digests: list[Digest]) -> None:
        if not digests:
            return
        for batch in batches(digests, BATCH):
            self._run.check()
            try:
                self._trash_batch(batch)
            except NoSpace as error:
                raise NoSpace(f"{error.message}; `zotctl gc --delay 0s` frees space without the trash") from error

    def _trash_batch(self, batch: Sequence[Digest]) -> None:
        with self._local.context.locks.hold(self._name) as held:
            try:
                marks = self._marker.now()
            except NotFound:
                return  # removed meanwhile, by another collector or by hand
            if marks.faults:
                return
            left = [digest for digest in batch if digest not in marks.reachable]
            self._local.context.durable.index(self._name)
            if self._options.kept > 0:
                self._local.trash.add(held, self._run_name, left)
            else:
                self._unlink(held, left)

    def _unlink(self, held: Held, digests: Sequence[Digest]) -> None:
        """`--delay 0s` is an explicit wish: nothing is kept, and no folder in the trash needs room."""
        for digest in digests:
            key = keys.blob(held.name, digest)
            info = self._local.context.stat(key)
            if info is not None:
                self._local.context.discard(key)
                self._local.pool.release(digest)
                self._run.add("purged")
                self._run.add("purged_bytes", info.size if info.nlink <= 2 else 0)

    def _keep_house(self) -> None:
        remove_empty(self._root, self._name, self._options.delay, self._ages)
        remove_index_temps(self._root, self._name, self._options.delay, self._ages)
        if self._local.history.size(self._name) > COMPACT_ABOVE:
            with self._local.context.locks.hold(self._name), suppress(NotFound):
                marks = self._marker.now()
                # Else what is not known would be forgotten, or what was removed since another tool wrote its rows.
                if not (marks.faults or self._local.indexes.unmerged(self._name)):
                    self._local.history.compact(self._name, marks.reachable, set(marks.index.tags()))


def remove_empty(root: Root, name: str, delay: float, ages: Ages) -> None:
    """Remove a layout that holds nothing any more, and only what we know of it. Who publishes into it
    meanwhile either keeps `blobs/ALG` from going, or meets its absence and makes the layout again."""
    context = local_of(root).context
    with context.locks.hold(name) as held, suppress(NotEmpty, NotFound):
        if len(root.protocol.indexes.read(held.name).index):
            return
        info = context.driver.stat(keys.index(name))
        if not ages.is_old(ages.written(keys.index(name), info), delay):
            return
        known = {"blobs", "index.json", "oci-layout"}
        if {entry.name for entry in context.driver.scan(name) if entry.is_file} - known:
            return
        for entry in context.driver.scan(keys.blobs(name)):
            context.driver.rmdir(keys.blobs_of(name, entry.name))
        context.driver.rmdir(keys.blobs(name))
        context.driver.unlink(keys.layout(name))
        context.driver.unlink(keys.index(name))
        while name:
            context.driver.rmdir(name)
            name = keys.parent(name)


def batches(items: list[Digest], size: int) -> Iterator[list[Digest]]:
    return (items[at : at + size] for at in range(0, len(items), size))


# -- 4 wait, 5 purge ----------------------------------------------------------------------------


def purge(run: Run, root: Root, chosen: Chosen) -> None:
    """Free what has lain in the trash for longer than it is kept, by the storage's own clock, which is asked when all
    stamps are known: set back in between, it makes nothing old."""
    trash = local_of(root).trash
    lying = [(folder, local_of(root).context.stat(folder.key)) for folder in trash.folders()]
    ages = Ages(root.driver, trash.now() / 1e9, run.clock, at_once=chosen.options.kept == 0)
    for folder, info in lying:
        run.check()
        if not run.covers(folder.name) or not _is_due(folder, info, chosen, ages):
            continue
        with run.guarded(folder.name, root):
            _purge_folder(run, root, folder, info.mtime_ns if info else 0)
        trash.sweep(folder)


def _is_due(folder: Folder, info: Info | None, chosen: Chosen, ages: Ages) -> bool:
    """What was trashed after the oldest active upload began is left for that, whatever it takes."""
    if info is None:
        return True
    trashed = ages.written(folder.key, info)
    if chosen.options.delay > 0 and trashed >= chosen.moving.since(folder.name):
        return False
    return ages.is_old(trashed, chosen.options.kept)


def _purge_folder(run: Run, root: Root, folder: Folder, stamp: int) -> None:
    """`stamp` has let it be purged: what another collector has moved here since waits for a time of its own."""
    local, marker = local_of(root), ReachableBlobs(root, folder.name)
    local.take_over(folder.name)
    sizes = dict(local.trash.lying(folder))
    if local.trash.stamp(folder) != stamp:
        return
    for batch in batches(list(sizes), BATCH):
        run.check()
        with local.context.locks.hold(folder.name) as held:
            needed = _needed(marker)
            if needed is None:
                return
            local.context.durable.index(folder.name)
            gone = local.trash.purge(held, folder, {digest: sizes[digest] for digest in batch}, needed)
        for digest in gone:
            local.pool.release(digest)
            run.add("purged")
            run.add("purged_bytes", sizes[digest].size if sizes[digest].nlink <= 2 else 0)


def _needed(marker: ReachableBlobs) -> set[str] | None:
    """What is reachable now: a foreign tool may have referenced it. None: that can't be known."""
    try:
        marks = marker.now()
    except NotFound:
        return set()
    except (LayoutInvalid, ZotctlError):
        return None
    return None if marks.faults else marks.reachable
