"""Collection in a directory by the steps of docs/design/local.md: mark, plan, trash, wait, purge. No lock but short
ones.

A collector never deletes: it renames what no manifest reaches into the trash, and what
has lain there for longer than the delay is purged. Killed anywhere, the next run goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from zotctl.errors import LayoutInvalid, NoSpace, NotEmpty, NotFound, StorageError, ZotctlError
from zotctl.jobs.ages import JUST_BEGUN_S, UPLOAD_SPARED_S, Ages, uploads
from zotctl.jobs.gc import GcOptions, Planner, note_purged, planned
from zotctl.jobs.local.trash import LocalTrash
from zotctl.jobs.reachable import Reachable, ReachableBlobs
from zotctl.jobs.report import time_of, whole_second
from zotctl.jobs.run import Run
from zotctl.jobs.staging import STAGING, discard_staged, kept
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, digest_named, parse_digest
from zotctl.storage import keys
from zotctl.storage.digests import DigestMap, DigestTable
from zotctl.storage.driver import Info, digests_in, scan_or_empty
from zotctl.storage.local.history import Here
from zotctl.storage.local.protocol import LocalProtocol, local_of
from zotctl.storage.local.trash import Folder
from zotctl.storage.locks import Held
from zotctl.storage.root import Root

TRASH_BATCH_BLOBS = 64
"""Blobs that are moved, or purged, under one lock."""
FOLDERS_TOLD = 100
BLOBS_TOLD = 200
"""Folders of the trash, and blobs of each, that are looked at to tell how much waits there."""
COMPACT_ABOVE_BYTES = 1 << 20
"""Size of a repository's history above which it is compacted."""
TEMP_KEPT_S = 60.0
"""How long a temporary file is kept at least, whatever the grace period."""
ZOT_UPLOADS = ".uploads"
UNREACHABLE = "gc: no manifest reaches it"
WAITED = "gc: it was in the trash for the grace period"
DELETED = "gc: a client deleted it, and it was in the trash for the grace period"
"""Reasons in the log."""


@dataclass(frozen=True)
class Chosen:
    """The options and the active uploads of one root in one run."""

    options: GcOptions
    active: ActiveUploads


class LocalCollector:
    """Collects one root in one run, by one thread. See `jobs.stores.Collector`."""

    parallel = 1

    def __init__(self, run: Run, root: Root, options: GcOptions) -> None:
        self.halted = threading.Event()
        self._run, self._root = run, root
        self._dry_run = run.dry_run or options.dry_run
        now = self._now()
        self._ages = Ages(root.driver, now, run.clock, no_delay=options.delay == 0, dry_run=self._dry_run)
        self._chosen = Chosen(options, ActiveUploads(root, options.delay, now, self._ages))
        self._run_name = f"{datetime.fromtimestamp(run.clock.now(), UTC):%Y%m%dT%H%M%S}-{run.clock.token()[:8]}"

    def _now(self) -> float:
        """By the clock that stamps the files: that of a host that is some hours ahead would end uploads under way. In a
        rehearsal as far as it is known."""
        if not self._dry_run:
            with suppress(StorageError):
                return local_of(self._root).context.storage_clock.ask()
        return self._root.protocol.now()

    def begin(self) -> None:
        """Purges the trash, first of all, so that a run that is cut short frees something."""
        if not self._dry_run:
            purge(self._run, self._root, self._chosen)

    def order(self, names: Iterator[str]) -> Iterator[str]:
        """As they are: what a run that was cut short has not come to is found again."""
        return names

    def collect(self, name: str) -> None:
        """Moves what nothing reaches into the trash; see `Collection`."""
        ages = self._ages.later()
        Collection(self._run, self._root, name, self._run_name, self._chosen, ages, dry_run=self._dry_run).collect()

    def stopped(self) -> None:
        """Nothing to be remembered: what was moved lies in the trash, the rest is found again."""

    def end(self) -> None:
        """Removes what pushes and crashes have left behind."""
        if not self._dry_run:
            sweep(self._run, self._root, self._chosen.options.delay, self._ages)
        with self._run.guarded(self._root.label, self._root):
            self._tell_trash()

    def _tell_trash(self) -> None:
        """Tell how much waits in the trash, and until when, where that is soon looked at."""
        folders = list(LocalTrash(self._root).look(FOLDERS_TOLD, BLOBS_TOLD)) if self._run.whole else []
        if folders and len(folders) < FOLDERS_TOLD and all(folder.counted for folder in folders):
            self._run.add("in_trash", sum(folder.blobs for folder in folders))
            self._run.add("in_trash_bytes", sum(folder.size for folder in folders))
            last = time_of(whole_second(max(folder.moved for folder in folders) + self._chosen.options.kept))
            self._run.latest("in_trash_until_at", last)


class Collection:
    """Collects one repository in one run: mark, plan, trash (docs/design/local.md)."""

    def __init__(
        self, run: Run, root: Root, name: str, run_name: str, chosen: Chosen, ages: Ages, *, dry_run: bool
    ) -> None:
        """`run_name` names the folder in the trash. `ages`: by the clock as it is now."""
        self._run, self._root, self._name, self._run_name = run, root, name, run_name
        self._options, self._active = chosen.options, chosen.active
        self._dry_run, self._ages = dry_run, ages
        self._local, self._planner = local_of(root), Planner(run, root, name, chosen.options, root.protocol.now())
        self._marker = self._planner.marker

    def collect(self) -> None:
        """All of it. Does nothing where the repository is gone. Raises NoSpace where the trash itself needs room, and
        what else goes wrong in the repository; what was moved by then lies in the trash."""
        if not self._dry_run:
            self._local.take_over(self._name)
        try:
            plan = self._planner.plan()
        except NotFound:
            return  # it is gone
        if plan is None:
            return
        trashed = DigestMap()
        trashed.update(self._unreachable(plan.rest))
        for digest, size in trashed.pairs():
            action = "trash" if self._options.kept > 0 else "purge"
            self._run.item(action=action, repository=self._name, digest=digest, size_bytes=size,
                           **planned(self._run, self._options))  # fmt: skip
            self._run.add("unreachable")
            self._run.add("unreachable_bytes", size)
        if self._dry_run:
            return
        try:
            self._planner.drop_rows(plan.drops)
        except NoSpace:
            self._move_to_trash(trashed)  # what no row needs goes without a new index.json, and makes room for one
            self._planner.drop_rows(plan.drops)
        self._move_to_trash(trashed)
        self._keep_house()

    # -- 1 mark, 2 plan -------------------------------------------------------------------------

    def _unreachable(self, marks: Reachable) -> Iterator[tuple[Digest, int]]:
        """Blobs that nothing reaches and that were not written within the delay, nor since the oldest upload that is
        still active began, which spares pushes under way the way to the trash and back."""
        since = self._active.since(self._name)
        for digest in self._blobs(marks.reachable):
            info = self._local.context.stat(key := keys.blob(self._name, digest))
            if info is not None and info.is_file:
                written = self._ages.written(key, info)
                if self._ages.is_old(written, self._options.delay) and written < since:
                    yield digest, info.size

    def _blobs(self, but: Container[str]) -> Iterator[Digest]:
        """The digests of files that have the name of a blob, in order. Anything else is not ours, and stays."""
        driver = self._root.driver
        folders = {entry.name for entry in scan_or_empty(driver, keys.blobs(self._name))}
        for algorithm in sorted(folders.intersection(ALGORITHMS)):
            yield from map(parse_digest, digests_in(driver, keys.blobs_of(self._name, algorithm), algorithm, but))

    # -- 3 trash ------------------------------------------------------------------------------

    def _move_to_trash(self, digests: Iterable[str]) -> None:
        action = "trash" if self._options.kept > 0 else "purge"
        for batch in batches(digests, TRASH_BATCH_BLOBS):
            self._run.check()
            gone = list[Digest]()
            try:
                self._trash_batch(batch, gone)
            except NoSpace as error:
                raise NoSpace(f"{error.message}; `zotctl gc --delay 0s` frees space without the trash") from error
            finally:  # whatever ended it, and without the lock, for a log may be slow
                for digest in gone:
                    self._run.changed(action, self._name, UNREACHABLE, before=digest)
                if action == "purge":
                    note_purged(self._root, self._name, gone)

    def _trash_batch(self, batch: Sequence[Digest], gone: list[Digest]) -> None:
        """`gone` gets what is out of its place now."""
        with self._local.context.locks.hold(self._name) as held:
            try:
                marks = self._marker.now()
            except NotFound:
                return  # removed meanwhile, by another collector or by hand
            if marks.faults:
                return
            left = [digest for digest in batch if digest not in marks.reachable]
            self._local.context.durable.flush_index(self._name)
            if self._options.kept > 0:
                self._add_to_trash(held, left, gone)
            else:
                self._unlink(held, left, gone)

    def _add_to_trash(self, held: Held, digests: Sequence[Digest], gone: list[Digest]) -> None:
        try:
            gone += self._local.trash.add(held, self._run_name, digests)
        except ZotctlError:
            stat = self._local.context.stat
            gone += [digest for digest in digests if stat(keys.blob(held.name, digest)) is None]
            raise

    def _unlink(self, held: Held, digests: Sequence[Digest], gone: list[Digest]) -> None:
        """`--delay 0s` is an explicit wish: nothing is kept, and no folder in the trash needs room."""
        for digest in digests:
            key = keys.blob(held.name, digest)
            info = self._local.context.stat(key)
            if info is not None:
                self._local.context.discard(key)
                gone.append(digest)
                self._local.pool.release(digest)
                self._run.add("purged")
                self._run.add("purged_bytes", info.size if info.nlink <= 2 else 0)

    def _keep_house(self) -> None:
        remove_empty(self._root, self._name, self._options.delay, self._ages)
        remove_index_temps(self._root, self._name, self._options.delay, self._ages)
        if self._local.history.size(self._name) > COMPACT_ABOVE_BYTES:
            with suppress(NotFound):
                self._local.history.compact(self._name, self._here)

    def _here(self) -> Here | None:
        """None: what is not known would be forgotten, or what was removed since another tool wrote its rows."""
        with self._local.context.locks.hold(self._name):
            marks = self._marker.now()
            if marks.faults or self._local.indexes.unmerged(self._name):
                return None
            return Here(marks.reachable, set(marks.index.tags()))


def remove_empty(root: Root, name: str, delay: float, ages: Ages) -> None:
    """Remove a layout that is empty, and only the files of it that we know. A push that publishes into it meanwhile
    either keeps `blobs/ALG` from going, or finds it absent and makes the layout again."""
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


def batches(digests: Iterable[str], size: int) -> Iterator[list[Digest]]:
    """Parts of `size`, the last of what is left."""
    left = map(check_digest, digests)
    return iter(lambda: list(islice(left, size)), [])


# -- 4 wait, 5 purge ----------------------------------------------------------------------------


def purge(run: Run, root: Root, chosen: Chosen) -> None:
    """Delete what has lain in the trash for longer than it is kept, by the storage's own clock. The clock is read after
    all stamps: if it is set back in between, nothing becomes old. What goes wrong in one folder is reported."""
    trash = local_of(root).trash
    folders = [(folder, local_of(root).context.stat(folder.key)) for folder in trash.folders()]
    now = local_of(root).context.storage_clock.ask()
    ages = Ages(root.driver, now, run.clock, no_delay=chosen.options.kept == 0)
    for folder, info in folders:
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
    if chosen.options.delay > 0 and trashed >= chosen.active.since(folder.name):
        return False
    return ages.is_old(trashed, chosen.options.kept)


def _purge_folder(run: Run, root: Root, folder: Folder, stamp: int) -> None:
    """`stamp` has let it be purged: what another collector has moved here since waits for a time of its own."""
    local, marker = local_of(root), ReachableBlobs(root, folder.name)
    local.take_over(folder.name)
    listed = DigestTable[Info](f"{len(Info._fields)}q", tuple, Info)
    listed.update(local.trash.contents(folder))
    if local.trash.stamp(folder) != stamp:
        return
    for batch in batches(listed, TRASH_BATCH_BLOBS):
        sizes = {digest: listed[digest] for digest in batch}
        run.check()
        with local.context.locks.hold(folder.name) as held:
            needed = _needed(marker)
            if needed is None:
                return
            # Where what is needed is damaged in its place, this copy may be the only good one.
            left = {d: info for d, info in sizes.items() if d not in needed or not _is_damaged(local, folder, d, info)}
            local.context.durable.flush_index(folder.name)
            gone = local.trash.purge(held, folder, left, needed)
        for digest in gone:
            local.pool.release(digest)
            run.add("purged")
            run.add("purged_bytes", sizes[digest].size if sizes[digest].nlink <= 2 else 0)
        lost = [digest for digest in gone if local.context.stat(keys.blob(folder.name, digest)) is None]
        for digest in lost:
            run.item(action="purge", repository=folder.name, digest=str(digest), size_bytes=sizes[digest].size)
        for digest in lost:  # of the others, each has come back, or was pushed again
            run.changed("purge", folder.name, DELETED if folder.deleted else WAITED, before=digest)
        note_purged(root, folder.name, lost)


def _is_damaged(local: LocalProtocol, folder: Folder, digest: Digest, trashed: Info) -> bool:
    """Is there a blob in its place, and worse than this copy?"""
    info = local.context.stat(keys.blob(folder.name, digest))
    return info is not None and local.damaged.is_bad(digest, info, trashed.size)


def _needed(marker: ReachableBlobs) -> Container[str] | None:
    """What is reachable now: a foreign tool may have referenced it. None: that can't be known."""
    try:
        marks = marker.now()
    except NotFound:
        return None if marker.has_index() else set()  # it may have lost its `oci-layout` only
    except (LayoutInvalid, ZotctlError):
        return None
    return None if marks.faults else marks.reachable


# -- leftovers ----------------------------------------------------------------------------------


class ActiveUploads:
    """The uploads of one root that clients still continue, as they were when a run began. One that
    begins later is younger than whatever the run may trash."""

    def __init__(self, root: Root, delay: float, now: float, ages: Ages | None = None) -> None:
        """`ages` None: only to look."""
        self._began: dict[str, float] = {}
        self._ends: list[tuple[str, float, float]] = []
        ages = ages or Ages(root.driver, now, local_of(root).clock, no_delay=delay == 0, dry_run=True)
        for upload in uploads(root, ages):
            active = not ages.is_old(upload.moved, max(delay, JUST_BEGUN_S))
            if active and not ages.is_old(upload.started, UPLOAD_SPARED_S):
                self._began[upload.owner] = min(upload.started, self._began.get(upload.owner, float("inf")))
                ends = min(upload.moved + max(delay, JUST_BEGUN_S), upload.started + UPLOAD_SPARED_S)
                self._ends.append((upload.owner, upload.started, ends))

    def since(self, name: str) -> float:
        """When the oldest one of a repository began; infinity without one."""
        return self._began.get(keys.name_key(name), float("inf"))

    def until(self, name: str, written: float) -> float | None:
        """When those that spare what was written then will not count any more, if nobody continues them. None: there
        are none."""
        owner = keys.name_key(name)
        return max((ends for key, began, ends in self._ends if key == owner and began <= written), default=None)


def sweep(run: Run, root: Root, delay: float, ages: Ages) -> None:
    """Remove stale uploads, what killed imports have staged, temporary files and unused pool entries of one root that
    are older than the grace period."""
    ages = ages.later()
    _sweep_uploads(run, root, delay, ages)
    _sweep_staged(run, root, delay, ages)
    for entry in scan_or_empty(root.driver, keys.TMP):
        if entry.is_dir:
            continue
        info = local_of(root).context.stat(key := keys.tmp(entry.name))
        # A link into tmp leaves the mtime alone, and moves the ctime.
        if info is not None and ages.is_old(ages.changed(key, info), max(delay, TEMP_KEPT_S)):
            local_of(root).context.discard(key)
    if root.driver.capabilities.links:
        _sweep_pool(run, root)


def _sweep_staged(run: Run, root: Root, delay: float, ages: Ages) -> None:
    """Remove what a killed import has staged."""
    stat, places = local_of(root).context.stat, [STAGING]
    places += [keys.blobs_of(STAGING, entry.name) for entry in scan_or_empty(root.driver, keys.blobs(STAGING))]
    found = [(place, info) for place in places if (info := stat(place)) is not None]
    if found and all(ages.is_old(ages.changed(place, info), kept(delay)) for place, info in found):
        blobs = [stat(f"{place}/{entry.name}") for place, _ in found[1:] for entry in root.driver.scan(place)]
        # One name is here, and one in the pool. Whoever has another one, needs the bytes.
        discard_staged(run, root, sum(info.size for info in blobs if info is not None and info.nlink <= 2))


def _sweep_uploads(run: Run, root: Root, delay: float, ages: Ages) -> None:
    for upload in uploads(root, ages):
        run.check()
        if not ages.is_old(upload.moved, max(delay, JUST_BEGUN_S)):
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


def _sweep_pool(run: Run, root: Root) -> None:
    """Remove pool names with one link. The purge removes most of them; these are the rest."""
    for algorithm in scan_or_empty(root.driver, keys.POOL):
        for first in scan_or_empty(root.driver, keys.pool_of(algorithm.name)):
            run.check()
            for encoded in scan_or_empty(root.driver, keys.pool_of(algorithm.name, first.name)):
                if (digest := digest_named(algorithm.name, encoded.name)) is None:
                    continue
                info = local_of(root).context.stat(keys.pool(digest))
                if info is not None and info.nlink == 1:
                    local_of(root).pool.release(digest)
                    run.add("pool_entries")
                    run.add("purged_bytes", info.size)


def remove_index_temps(root: Root, name: str, delay: float, ages: Ages) -> None:
    """`.index.json.zotctl-*` of a process that died between write and rename, and zot's dead uploads."""
    local = local_of(root)
    for entry in scan_or_empty(root.driver, name):
        key = f"{name}/{entry.name}"
        if entry.name.startswith(keys.INDEX_TEMP_PREFIX):
            info = local.context.stat(key)
            if info is not None and ages.is_old(ages.written(key, info), max(delay, TEMP_KEPT_S)):
                with local.context.locks.hold(name):
                    # Beside a missing index.json it may be all that is left of it (`IndexFiles.commit` finishes it).
                    # And a commit that had stood still may have swapped it for a file of another program, and died.
                    if local.context.stat(keys.index(name)) is not None and not local.indexes.is_unmerged(key):
                        local.context.discard(key)
        elif entry.name == ZOT_UPLOADS:
            _remove_zot_uploads(root, key, delay, ages)


def _remove_zot_uploads(root: Root, directory: str, delay: float, ages: Ages) -> None:
    for entry in scan_or_empty(root.driver, directory):
        info = local_of(root).context.stat(key := f"{directory}/{entry.name}")
        if info is not None and info.is_file and ages.is_old(ages.written(key, info), delay):
            local_of(root).context.discard(key)
    with suppress(NotEmpty, NotFound):
        root.driver.rmdir(directory)
