"""Verifying: is everything as the specifications want it, and does it fit together? Never writes anything.

Stores and single layouts are opened read-only, archives are read as a stream. A damaged layout hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from zotctl.errors import LayoutInvalid, NameInvalid, NotFound
from zotctl.jobs.ages import Ages, uploads
from zotctl.jobs.check.archive import read_whole
from zotctl.jobs.check.layout import LayoutCheck, StoredBlobs, modes_of, tell
from zotctl.jobs.check.repository import temporaries
from zotctl.jobs.check.rules import Remark
from zotctl.jobs.imports.sources import THE_LAYOUT
from zotctl.jobs.report import counted
from zotctl.jobs.run import Run
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage import keys
from zotctl.storage.driver import Entry
from zotctl.storage.root import Root, no_store

YOUNG = 2.0
"""Seconds: a directory that was changed just now may be a layout that is being made, or removed."""
DEAD = 86400.0
"""Seconds after which an upload counts as abandoned."""


@dataclass(frozen=True)
class VerifyOptions:
    """`deep`: hash every blob. `workers`: threads for that, one for each core by default."""

    deep: bool = False
    workers: int | None = None


def verify(run: Run, options: VerifyOptions | None = None) -> None:
    """Check every layout in the roots of the run's store, which was opened read-only. Raises TimeUp."""
    options = options or VerifyOptions()
    blobs = StoredBlobs(run, deep=options.deep, workers=options.workers)
    try:
        _Verify(run, blobs).go_through()
    finally:
        blobs.close()


def verify_archive(run: Run, source: str) -> None:
    """Check the layout in an archive, which is hashed in any case, since all of it has to be read."""
    try:
        archive = read_whole(run, source)
    except LayoutInvalid as error:
        tell(run, "", Remark("invalid_layout", error.message), (), {"path": source})
        return
    LayoutCheck(run, archive.root, THE_LAYOUT, archive, alone=True).check()


class Place(NamedTuple):
    """A directory that is an image layout. `link`: by a symbolic link."""

    name: str
    link: bool


class _Verify:
    def __init__(self, run: Run, blobs: StoredBlobs) -> None:
        self._run, self._blobs = run, blobs
        self._first: dict[str, str] = {}
        """The root of each name."""

    def go_through(self) -> None:
        only = self._run.store.only
        for root in self._run.roots:
            with self._run.guarded(root.label, root):
                root.require()
                if only is not None:
                    self._layout(root, only, alone=True)
                else:
                    self._root(root)
        if only is None:
            self._run.walked()

    def _root(self, root: Root) -> None:
        found = root.by_requests or root.stat(keys.VERSION) is not None
        for place in places(self._run, root):
            found = True
            self._run.check()
            if root.label in self._run.away:
                return
            if self._run.covers(place.name):
                with self._run.guarded(place.name, root):
                    self._place(root, place)
        if not found and not self._run.report.errors:
            self._run.refuse(root, no_store(root.label))
        elif self._run.whole:
            self._hidden(root)

    def _place(self, root: Root, place: Place) -> None:
        for remark in (*self._naming(root, place.name), *_standing(root, place)):
            tell(self._run, place.name, remark, (), {"path": f"{root.label}/{place.name}"})
        self._layout(root, place.name)

    def _layout(self, root: Root, name: str, *, alone: bool = False) -> None:
        LayoutCheck(self._run, root, name, self._blobs, alone=alone).check()

    def _naming(self, root: Root, name: str) -> Iterator[Remark]:
        try:
            parse_name(name)
        except NameInvalid as error:
            yield Remark("bad_name", f"{error.message}; nothing in it is served")
        first = self._first.setdefault(name, root.label)
        if first != root.label:
            yield Remark("two_roots", f"it is in {first} too, and served from there", details={"first": first})

    def _hidden(self, root: Root) -> None:
        """What dead processes have left, and who may write where all lies."""
        now, modes = self._run.clock.now(), modes_of(root)
        for key in ("", keys.HIDDEN):
            info = root.stat(key)
            if info is not None:
                modes.look(f"{root.label}/{key}".rstrip("/"), info)
        left = [Remark("orphan", t.reason, details={"path": t.path}) for t in temporaries(root, now)]
        for remark in (
            *modes.remarks(),
            *left,
            *_dead_uploads(root, Ages(root.driver, now, self._run.clock, rehearsed=True)),
        ):
            tell(self._run, "", remark, (), dict(remark.details))


def _dead_uploads(root: Root, ages: Ages) -> Iterator[Remark]:
    dead = [upload for upload in uploads(root, ages) if ages.is_old(upload.moved, DEAD)]
    if dead:
        size = sum(upload.size for upload in dead)
        what = f"{counted(len(dead), 'upload')} with {counted(size, 'byte')}"
        reason = f"{what} that no client continues, for gc to remove"
        yield Remark("orphan", reason, details={"path": f"{root.label}/{keys.UPLOADS}", "size_bytes": size})


# -- where layouts are ------------------------------------------------------------------------------

LOST_AND_FOUND = "lost+found"
"""At the top of an ext4 file system: root's, and no name of a repository."""


def places(run: Run, root: Root) -> Iterator[Place]:
    """Every layout, with whatever name, and those that have lost their `oci-layout`. What starts with "." or
    "_" belongs to a registry. A directory that can't be read is an error of the run."""
    todo = [""]
    while todo:
        directory = todo.pop()
        entries: list[Entry] = []
        with run.guarded(directory or root.label, root):
            entries = _scan(root, directory)
        names = {entry.name for entry in entries}
        if directory and _is_layout(root, directory, names):
            yield Place(directory, link=False)
        below = [entry for entry in entries if not entry.is_file and not _is_inner(directory, entry.name, names)]
        inside = [(f"{directory}/{entry.name}".lstrip("/"), entry.is_dir) for entry in below]
        yield from (Place(key, link=True) for key, is_dir in inside if not is_dir and _leads_to_layout(root, key))
        todo += sorted((key for key, is_dir in inside if is_dir), reverse=True)


def _is_inner(directory: str, name: str, names: set[str]) -> bool:
    """A part of the layout around it, or of a registry."""
    in_layout = bool(directory) and bool(names & {LAYOUT_FILE, "index.json"})
    if not directory and name == LOST_AND_FOUND:
        return True
    return name.startswith((".", "_")) or (in_layout and name in ("blobs", LAYOUT_FILE, "index.json"))


def _is_layout(root: Root, directory: str, names: set[str]) -> bool:
    if LAYOUT_FILE in names:
        return True
    if not {"index.json", "blobs"} <= names:
        return False
    info = root.stat(directory)
    return info is not None and root.protocol.clock.now() - info.mtime_ns / 1e9 > YOUNG


def _leads_to_layout(root: Root, key: str) -> bool:
    info = root.stat(key)
    return info is not None and info.is_link and any(entry.name == LAYOUT_FILE for entry in _scan(root, key))


def _scan(root: Root, key: str) -> list[Entry]:
    try:
        return root.driver.scan(key)
    except NotFound:
        return []


def _standing(root: Root, place: Place) -> Iterator[Remark]:
    """docs/design/local.md#the-tree: a repository that is a link or another mount is served, and takes no push."""
    here = root.driver.stat("").dev
    info = root.stat(place.name)
    if place.link:
        yield Remark("mode", "it is a symbolic link: served, but nothing can be pushed to it")
    elif info is not None and info.dev != here:
        yield Remark("mode", "it is on another file system than its root: served, but nothing can be pushed to it")
