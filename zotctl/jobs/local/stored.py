"""Everything that lies in a directory, for `verify --usage`: a walk that reads no content."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Hashable, Iterator
from contextlib import suppress

from zotctl.errors import NotFound, StorageError
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
        for entry in entries:
            key = keys.within(directory, entry.name)
            with suppress(NotFound):
                info = root.driver.stat(key)
                yield _named(key, info, contents)
                if info.is_dir:
                    todo.append(key)


def _named(key: str, info: Info, contents: _Contents) -> Stored:
    size = 0 if info.is_dir else info.size
    disk = info.blocks * BLOCK_BYTES if info.blocks >= 0 else size
    return Stored(key, size, disk, contents.of(key, info))


class _Contents:
    """Which files the disk has only once. Used by one thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: dict[FileIdentity, Hashable] = {}
        self._named: dict[str, list[tuple[str, Hashable, int]]] = {}
        """By the last part of the key, which of a blob is its digest: only such files can share blocks."""

    def of(self, key: str, info: Info) -> Hashable:
        file = FileIdentity.of(info).content
        if not info.is_file:
            return file
        if file not in self._known:
            self._known[file] = self._new(key, info, file)
        return self._known[file]

    def _new(self, key: str, info: Info, file: FileIdentity) -> Hashable:
        same = self._named.setdefault(key.rpartition("/")[2], [])
        mine = _extents(self._driver, key) if same and info.size else None
        for other, content, size in same if mine else ():
            if size == info.size and _extents(self._driver, other) == mine:
                return content
        same.append((key, file, info.size))
        return file


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
