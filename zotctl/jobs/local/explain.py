"""`gc --explain` for what no manifest of a repository in a directory reaches: when it goes, or where it lies in the
trash."""

from __future__ import annotations

from collections.abc import Iterator

from zotctl.jobs.ages import Ages
from zotctl.jobs.gc_plan import GcOptions
from zotctl.jobs.local.leftovers import ActiveUploads
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.local.protocol import local_of
from zotctl.storage.root import Root


def fate(run: Run, root: Root, name: str, digest: Digest, options: GcOptions) -> Iterator[dict[str, object]]:
    """Of its file, and of each that lies in the trash."""
    now, info = run.clock.now(), local_of(root).context.stat(keys.blob(name, digest))
    if info is not None:
        began = ActiveUploads(root, options.delay, now).since(name)
        written = Ages(root.driver, now, run.clock, at_once=options.delay == 0, rehearsed=True).written("", info)
        at = written + options.delay
        why = "no manifest reaches it"
        if written >= began:
            why += "; an upload into this repository that began before it is still moving"
        yield {"verdict": "goes", "why": why, "trashed_after_at": time_of(at), "purged_after_at": time_of(
            max(at, now) + options.kept)}  # fmt: skip
    for folder in local_of(root).trash.folders():
        if folder.name == name and local_of(root).context.stat(keys.trashed(folder.run, name, digest)):
            at = min(local_of(root).trash.stamp(folder), local_of(root).context.clock.now_ns()) / 1e9 + options.kept
            why = f"in the trash of run {folder.run}; `zotctl gc --restore {name}@{digest}` brings it back"
            yield {"verdict": "in trash", "why": why, "purged_after_at": time_of(at), "run": folder.run}
