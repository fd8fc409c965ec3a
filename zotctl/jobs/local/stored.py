"""Everything that lies in a directory, for `verify --usage`: a walk that reads no content."""

from __future__ import annotations

import fcntl
import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress

from zotctl.errors import NotFound, StorageError
from zotctl.jobs.int_map import IntMap, number_of
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Stored
from zotctl.storage import keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.file_identity import FileIdentity
from zotctl.storage.root import Root

BLOCK_BYTES = 512
"""The unit in which stat(2) counts blocks, whatever those of the file system are."""

_FIEMAP = 0xC020660B
_HEAD = struct.Struct("QQIIII")
_EXTENT = struct.Struct("QQQQQIIII")
_EXTENTS = 512
_SHARED = 0x2000
_LAST = 0x1


def stored(run: Run, root: Root, top: str) -> Iterator[Stored]:
    """Every name at and below `top`, itself included. A directory that can't be listed is reported."""
    contents = _Contents(root.driver)
    todo = [top]
    with suppress(NotFound):
        yield _named(top, root.driver.stat(top), contents)
    while todo:
        directory = todo.pop()
        run.check()
        try:
            entries = root.driver.scan(directory)
        except NotFound:
            continue  # it has gone since
        except StorageError as error:
            run.error(directory or root.label, error, root)
            continue
        below = []
        for entry in entries:
            key = keys.within(directory, entry.name)
            with suppress(NotFound):
                info = root.driver.stat(key)
                yield _named(key, info, contents)
                if info.is_dir:
                    below.append(key)
        todo += sorted(below, reverse=True)


def _named(key: str, info: Info, contents: _Contents) -> Stored:
    size = 0 if info.is_dir else info.size
    disk = info.blocks * BLOCK_BYTES if info.blocks >= 0 else size
    return Stored(key, size, disk, contents.of(key, info))


class _Contents:
    """Numbers what the disk has only once, in some forty bytes for each file. Used by one thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._of_inode = IntMap()
        """Of what has several names, or shares its blocks with another file."""
        self._named = IntMap()
        """The first file by the last part of its key, which of a blob is its digest: only such files can share
        blocks."""
        self._more: dict[int, list[int]] = {}
        """Further files by the same."""
        self._folders: list[str] = [""]
        self._folder, self._size = array("L"), array("Q")
        """By number: the directory of the file, and its size."""

    def of(self, key: str, info: Info) -> int:
        inode = number_of(FileIdentity.of(info).content)
        if info.nlink > 1 and not info.is_dir and (known := self._of_inode.get(inode)) is not None:
            return known
        folder, _, name = key.rpartition("/")
        if info.is_file and info.size and (shared := self._shared(folder, name, info)) is not None:
            number = shared
        else:
            number = self._add(folder, name, info)
        if info.nlink > 1 and not info.is_dir:
            self._of_inode.put(inode, number)
        return number

    def _add(self, folder: str, name: str, info: Info) -> int:
        number = len(self._size)
        if self._folders[-1] != folder:
            self._folders.append(folder)
        self._folder.append(len(self._folders) - 1)
        self._size.append(info.size)
        if info.is_file and info.size:
            called = number_of(name)
            if self._named.get(called) is None:
                self._named.put(called, number)
            else:
                self._more.setdefault(called, []).append(number)
        return number

    def _shared(self, folder: str, name: str, info: Info) -> int | None:
        """The file of the same name that has the same blocks; None: there is none."""
        called = number_of(name)
        if (first := self._named.get(called)) is None:
            return None
        if not (mine := _extents(self._driver, f"{folder}/{name}".lstrip("/"))):
            return None
        same: list[int] = [first, *self._more.get(called, ())]
        for number in same:
            other = f"{self._folders[self._folder[number]]}/{name}".lstrip("/")
            if self._size[number] == info.size and _extents(self._driver, other) == mine:
                return number
        return None


def _extents(driver: Driver, key: str) -> list[tuple[int, int]] | None:
    """Where the blocks of a file lie, if it shares all of them with another file (FS_IOC_FIEMAP). None: it does not, or
    the file system does not tell."""
    buffer = bytearray(_HEAD.size + _EXTENTS * _EXTENT.size)
    _HEAD.pack_into(buffer, 0, 0, (1 << 64) - 1, 0, 0, _EXTENTS, 0)
    try:
        with driver.open(key) as reader:
            if (fd := reader.fileno()) is None:
                return None
            fcntl.ioctl(fd, _FIEMAP, buffer)
    except (StorageError, OSError):
        return None
    count = _HEAD.unpack_from(buffer)[3]
    found = [_EXTENT.unpack_from(buffer, _HEAD.size + at * _EXTENT.size) for at in range(count)]
    if not found or not found[-1][5] & _LAST or not all(one[5] & _SHARED for one in found):
        return None
    return [(one[1], one[2]) for one in found]
