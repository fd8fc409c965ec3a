"""The walk over the image layouts of a tree, whatever tool has made them: `verify`, `scrub` and `import-layout` look at
directories that no catalog lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import StorageError
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage.driver import Driver, Entry, scan_or_empty
from zotctl.storage.root import Root

YOUNG_S = 2.0
"""A directory that was changed just now may be a layout that is being made, or removed."""

_NO_REPOSITORY = "lost+found"
"""At the top of an ext4 file system."""


class Place(NamedTuple):
    """A directory that is an image layout."""

    name: str
    link: bool
    """By a symbolic link, into which the walk does not go: it could lead out of the tree, or in a circle."""
    whole: bool
    """False: it has `index.json` and `blobs`, and no `oci-layout`."""


def layouts_in(driver: Driver, unreadable: Callable[[str, StorageError], None]) -> Iterator[Place]:
    """Every layout below the top, with whatever name, those above before those below them.

    What starts with "." or "_" belongs to a registry: uploads, caches, our own hidden directory. `unreadable` is told
    of each directory that can't be read.
    """
    todo = [""]
    while todo:
        directory = todo.pop()
        entries: list[Entry] = []
        try:
            entries = scan_or_empty(driver, directory)
        except StorageError as error:
            unreadable(directory, error)
        names = {entry.name for entry in entries if not (entry.name == LAYOUT_FILE and entry.is_dir)}
        if directory and (LAYOUT_FILE in names or {"index.json", "blobs"} <= names):
            yield Place(directory, link=False, whole=LAYOUT_FILE in names)
        below = [entry for entry in entries if not entry.is_file and _may_hold(directory, entry.name, names)]
        inside = [(f"{directory}/{entry.name}".lstrip("/"), entry.is_dir) for entry in below]
        yield from (Place(key, link=True, whole=True) for key, is_dir in inside if not is_dir and _leads(driver, key))
        todo += sorted((key for key, is_dir in inside if is_dir), reverse=True)


def is_young(root: Root, name: str) -> bool:
    """Was this directory changed just now, or is it gone?"""
    info = root.stat(name)
    return info is None or root.protocol.clock.now() - info.mtime_ns / 1e9 <= YOUNG_S


def _may_hold(directory: str, name: str, names: set[str]) -> bool:
    """Not the parts of a layout; at the top, those are names like any other."""
    if name.startswith((".", "_")) or (not directory and name == _NO_REPOSITORY):
        return False
    in_layout = bool(directory) and bool(names & {LAYOUT_FILE, "index.json"})
    return not (in_layout and name in ("blobs", LAYOUT_FILE, "index.json"))


def _leads(driver: Driver, key: str) -> bool:
    """Is it a symbolic link to a layout?"""
    with suppress(StorageError):
        return driver.stat(key).is_link and any(entry.name == LAYOUT_FILE for entry in driver.scan(key))
    return False
