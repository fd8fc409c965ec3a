"""What pushes and crashes leave behind: dead uploads, temporary files, pool entries that no repository has."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import NotEmpty, NotFound
from zotctl.jobs.ages import Ages
from zotctl.jobs.run import Run
from zotctl.jobs.uploads import GREATEST_AGE, JUST_BEGUN, uploads
from zotctl.oci.digest import digest_named
from zotctl.storage import keys
from zotctl.storage.local.protocol import local_of
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
        for first in _names(root, f"{keys.POOL}/{algorithm}"):
            run.check()
            directory = f"{keys.POOL}/{algorithm}/{first}"
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
        if entry.startswith(keys.INDEX_TEMP_PREFIX) and not local_of(root).indexes.is_owed(key):
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
