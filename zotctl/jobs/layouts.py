"""The walk over all image layouts in a tree, whichever tool made them: `verify`, `scrub` and `import-layout` also look
at directories that no catalog lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import StorageError
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage.driver import Driver, Entry, scan_or_empty
from zotctl.storage.root import Root

YOUNG_S = 2.0
"""A directory that changes within this time may be a layout that is being created or removed."""

_NO_REPOSITORY = "lost+found"
"""ext4 has it at the top of each file system."""


class FoundLayout(NamedTuple):
    """A directory that is an image layout."""

    name: str
    is_link: bool
    """It is a symbolic link, which the walk does not follow: it could lead out of the tree, or in a circle."""
    has_marker: bool
    """False: it has `index.json` and `blobs`, but no `oci-layout`."""


def layouts_in(driver: Driver, unreadable: Callable[[str, StorageError], None]) -> Iterator[FoundLayout]:
    """Every layout below the top, whatever its name, parents first.

    Directories whose name starts with "." or "_" belong to a registry (uploads, caches, our own hidden directory) and
    are left out. `unreadable` is called for each directory that can't be read.
    """
    todo = [""]
    while todo:
        directory = todo.pop()
        entries: Sequence[Entry] = []
        try:
            entries = scan_or_empty(driver, directory)
        except StorageError as error:
            unreadable(directory, error)
        names = {entry.name for entry in entries if not (entry.name == LAYOUT_FILE and entry.is_dir)}
        if directory and (LAYOUT_FILE in names or {"index.json", "blobs"} <= names):
            yield FoundLayout(directory, is_link=False, has_marker=LAYOUT_FILE in names)
        below = [entry for entry in entries if not entry.is_file and _may_hold(directory, entry.name, names)]
        inside = [(f"{directory}/{entry.name}".lstrip("/"), entry.is_dir) for entry in below]
        yield from (
            FoundLayout(key, is_link=True, has_marker=True)
            for key, is_dir in inside
            if not is_dir and _leads_to_layout(driver, key)
        )
        todo += sorted((key for key, is_dir in inside if is_dir), reverse=True)


def lasting(root: Root, places: Iterable[FoundLayout]) -> Iterator[FoundLayout]:
    """Those of `places` that are not just being made or removed. The ones without a marker come last, after `YOUNG_S`
    in which nothing in them has changed: by its time stamp, none is young for a host whose clock is ahead."""
    unmarked = []
    for place in places:
        if place.has_marker:
            yield place
        else:
            unmarked.append((place, root.stat(place.name)))
    if unmarked:
        root.protocol.clock.sleep(YOUNG_S)
    for place, before in unmarked:
        now = root.stat(place.name)
        if before is not None and now is not None and now.generation == before.generation:
            yield place


def _may_hold(directory: str, name: str, names: set[str]) -> bool:
    """Whether a directory `name` in `directory` may hold layouts. The parts of a layout can't; at the top they are
    names like any other."""
    if name.startswith((".", "_")) or (not directory and name == _NO_REPOSITORY):
        return False
    in_layout = bool(directory) and bool(names & {LAYOUT_FILE, "index.json"})
    return not (in_layout and name in ("blobs", LAYOUT_FILE, "index.json"))


def _leads_to_layout(driver: Driver, key: str) -> bool:
    """Whether it is a symbolic link to a layout."""
    with suppress(StorageError):
        return driver.stat(key).is_link and any(entry.name == LAYOUT_FILE for entry in driver.scan(key))
    return False
