"""A storage in memory, with inodes, link counts and locks as a Linux file system has them.

For tests and for the deterministic simulation (thousands of runs a second), so it is kept light. It is as
unkind as ext4: a freed inode number goes to the next file.
"""

from __future__ import annotations

import itertools
import stat as modes
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock as Mutex

from zotctl.errors import CannotExchange, CannotLink, Exists, NoLocks, NoSpace, NotEmpty, NotFound, StorageError
from zotctl.storage.driver import Buffer, Capabilities, Entry, Info, Reader, Space

_FILE = modes.S_IFREG | 0o644
_DIRECTORY = modes.S_IFDIR | 0o755
_WHOLE = -1
_devices = itertools.count(1)


def growing_clock() -> Callable[[], int]:
    """The time in nanoseconds since 1970, never the same twice."""
    last = 0

    def now() -> int:
        nonlocal last
        last = max(last + 1, time.time_ns())
        return last

    return now


class _Inode:
    __slots__ = ("ctime", "data", "gid", "ino", "locks", "mode", "mtime", "names", "nlink", "opened", "uid")

    def __init__(self, ino: int, mode: int, now: int) -> None:
        self.ino, self.mode, self.mtime, self.ctime = ino, mode, now, now
        self.nlink = 1
        self.opened = 0
        self.uid = self.gid = 0
        self.data = bytearray()
        self.names: dict[str, _Inode] = {}
        """Of a directory; in the order they were made, so that a simulation is repeatable."""
        self.locks: dict[int, object] = {}
        """Who holds a byte, or the whole."""

    @property
    def is_dir(self) -> bool:
        return self.mode & modes.S_IFDIR == modes.S_IFDIR

    def lock(self, byte: int, holder: object) -> bool:
        for held, other in self.locks.items():
            if other is not holder and (held == byte or _WHOLE in (held, byte)):
                return False
        self.locks[byte] = holder
        return True

    def unlock(self, holder: object) -> None:
        for byte in [byte for byte, other in self.locks.items() if other is holder]:
            del self.locks[byte]


class _Handle:
    """An open file: it keeps the inode when the last name goes, and its locks go with it."""

    __slots__ = ("_closed", "_driver", "_inode", "_key")

    def __init__(self, driver: MemoryDriver, key: str, inode: _Inode) -> None:
        self._driver, self._key, self._inode, self._closed = driver, key, inode, False
        inode.opened += 1

    def info(self) -> Info:
        with self._driver.mutex:
            return self._driver.info_of(self._inode)

    def close(self) -> None:
        with self._driver.mutex:
            if not self._closed:
                self._closed = True
                self._inode.unlock(self)
                self._inode.opened -= 1
                self._driver.forget(self._inode)

    def __exit__(self, *exc: object) -> None:
        self.close()


class MemoryReader(_Handle):
    __slots__ = ("size",)

    def __init__(self, driver: MemoryDriver, key: str, inode: _Inode) -> None:
        super().__init__(driver, key, inode)
        self.size = len(inode.data)

    def fileno(self) -> None:
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        with self._driver.mutex:
            return bytes(self._inode.data[offset : offset + count])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def once(self) -> None:
        pass

    def uncache(self) -> None:
        pass

    def labels(self) -> dict[str, bytes]:
        return {}

    def __enter__(self) -> MemoryReader:
        return self


class MemoryWriter(_Handle):
    __slots__ = ()

    def write(self, buffers: Sequence[Buffer]) -> int:
        with self._driver.mutex:
            return self._driver.extend(self._key, self._inode, buffers)

    def copy(self, source: Reader) -> bool:
        self.write([source.read_at(0, source.size)])
        return False

    def truncate(self, size: int) -> None:
        with self._driver.mutex:
            self._driver.resize(self._key, self._inode, size)

    def sync(self) -> None:
        pass

    def set_attributes(self, like: Info | None, mtime_ns: int) -> None:
        with self._driver.mutex:
            inode = self._inode
            if like is not None:
                inode.mode = modes.S_IFREG | modes.S_IMODE(like.mode)
                inode.uid, inode.gid = like.uid, like.gid
            inode.mtime, inode.ctime = mtime_ns - mtime_ns % self._driver.grain_ns, self._driver.clock()

    def try_lock(self) -> bool:
        with self._driver.mutex:
            self._driver.need_locks(self._key)
            return self._inode.lock(_WHOLE, self)

    def __enter__(self) -> MemoryWriter:
        return self


class MemoryLock(_Handle):
    __slots__ = ()

    def current(self) -> bool:
        return self._driver.names.get(self._key) is self._inode

    def release(self) -> None:
        self.close()


class MemoryDriver:
    """`clock` gives nanoseconds, and time stamps are multiples of `grain_ns`; `capacity` and `inodes` are limits (None:
    none); a root counts as one inode.

    `names` is the whole tree, for a test that looks at all of it after each step: read it, change nothing.
    """

    def __init__(
        self,
        label: str = "memory",
        *,
        clock: Callable[[], int] | None = None,
        grain_ns: int = 1,
        capacity: int | None = None,
        inodes: int | None = None,
        max_links: int = 65_000,
        links: bool = True,
        locks: bool = True,
        exchange: bool = True,
        local: bool = True,
    ) -> None:
        self.label = label
        self.capabilities = Capabilities(links=links, locks=locks, local=local, exchange=exchange)
        self.clock, self.grain_ns = clock or growing_clock(), grain_ns
        self.mutex = Mutex()
        self.dev = next(_devices)
        self._capacity, self._limit, self._max_links = capacity, inodes, max_links
        self._used = self._last_ino = self._count = 0
        self._free: list[int] = []
        root = self._new("", _DIRECTORY)
        root.nlink = 2
        self.names: dict[str, _Inode] = {"": root}

    def stat(self, key: str) -> Info:
        with self.mutex:
            return self.info_of(self._find(key))

    def open(self, key: str) -> MemoryReader:
        with self.mutex:
            return MemoryReader(self, key, self._file(key))

    def create(self, key: str) -> MemoryWriter:
        with self.mutex:
            return MemoryWriter(self, key, self._make(key, _FILE))

    def append(self, key: str, *, create: bool = True) -> MemoryWriter:
        with self.mutex:
            return MemoryWriter(self, key, self._file_or_new(key) if create else self._file(key))

    def link(self, source: str, target: str) -> None:
        with self.mutex:
            inode, (above, name) = self._find(source), self._room(target)
            if not self.capabilities.links or inode.is_dir or inode.nlink >= self._max_links:
                raise CannotLink(f"{target}: no hard link to {source}")
            inode.nlink += 1
            inode.ctime = self.clock()
            self._enter(above, name, target, inode)

    def rename(self, source: str, target: str) -> None:
        with self.mutex:
            inode, above = self._find(source), self._above(target)
            old = self.names.get(target)
            if old is inode:
                return
            if inode.is_dir and f"{target}/".startswith(f"{source}/"):
                raise StorageError(f"{source}: can't be moved into itself")
            if old is not None:
                self._replaceable(inode, old, target)
                self._remove(target, old)
            self._leave(source)
            inode.ctime = self.clock()
            self._enter(above, target.rpartition("/")[2], target, inode)
            if inode.is_dir:
                self._move_below(source, target)

    def exchange(self, one: str, other: str) -> None:
        with self.mutex:
            if not self.capabilities.exchange:
                raise CannotExchange(f"{other}: no exchange of two names there")
            first, second = self._file(one), self._file(other)
            for key, inode in ((one, second), (other, first)):
                above, name = self._above(key), key.rpartition("/")[2]
                above.names[name] = self.names[key] = inode
                inode.ctime = above.mtime = above.ctime = self.clock()

    def unlink(self, key: str) -> None:
        with self.mutex:
            self._remove(key, self._file(key))

    def mkdir(self, key: str) -> None:
        with self.mutex:
            self._make(key, _DIRECTORY).nlink = 2

    def rmdir(self, key: str) -> None:
        with self.mutex:
            inode = self._directory(key)
            if inode.names or not key:
                raise NotEmpty(f"{key}: not empty")
            self._remove(key, inode)

    def crosses_mount(self, key: str) -> bool:
        with self.mutex:
            self._directory(key)
        return False

    def scan(self, key: str) -> list[Entry]:
        with self.mutex:
            found = self._directory(key).names
            return [Entry(name, inode.is_dir, not inode.is_dir) for name, inode in found.items()]

    def sync_file(self, key: str) -> Info:
        with self.mutex:
            return self.info_of(self._file(key))

    def touch(self, key: str, mtime_ns: int) -> None:
        with self.mutex:
            inode = self._find(key)
            inode.mtime, inode.ctime = mtime_ns, self.clock()

    def sync_dir(self, key: str) -> None:
        with self.mutex:
            self._directory(key)

    def checkpoint(self) -> None:
        """None: what is flushed in a test is flushed by name."""

    def lock(self, key: str, byte: int) -> MemoryLock | None:
        with self.mutex:
            self.need_locks(key)
            lock = MemoryLock(self, key, self._file_or_new(key))
            taken = lock._inode.lock(byte, lock)
        if taken:
            return lock
        lock.close()
        return None

    def allocate(self, key: str, size: int) -> None:
        with self.mutex:
            inode = self._make(key, _FILE)
            try:
                self.resize(key, inode, size)
            except NoSpace:
                self._remove(key, inode)
                raise

    def space(self) -> Space:
        with self.mutex:
            total = 1 << 50 if self._capacity is None else self._capacity
            return Space(total, total - self._used, -1 if self._limit is None else self._limit - self._count)

    def files(self) -> Iterator[tuple[str, Info, bytes]]:
        """Every name of a file with its content, for checks."""
        for key, inode in self.names.items():
            if not inode.is_dir:
                yield key, self.info_of(inode), bytes(inode.data)

    # What handles use, with the mutex held.

    def info_of(self, inode: _Inode) -> Info:
        return Info(
            inode.ino, len(inode.data), inode.mtime, inode.ctime, inode.nlink, inode.mode,
            inode.uid, inode.gid, self.dev,
        )  # fmt: skip

    def need_locks(self, key: str) -> None:
        if not self.capabilities.locks:
            raise NoLocks(f"{key}: this storage gives no locks")

    def extend(self, key: str, inode: _Inode, buffers: Sequence[Buffer]) -> int:
        """Like a file system: what still fits is written before it fails."""
        count = sum(map(len, buffers))
        fits = count if self._capacity is None else min(count, self._capacity - self._used)
        inode.data += b"".join(buffers) if fits == count else b"".join(buffers)[:fits]
        self._used += fits
        inode.mtime = inode.ctime = self.clock()
        if fits < count:
            raise NoSpace(f"{key}: no space left")
        return count

    def resize(self, key: str, inode: _Inode, size: int) -> None:
        more = size - len(inode.data)
        if more > 0:
            if self._capacity is not None and self._used + more > self._capacity:
                raise NoSpace(f"{key}: no space left")
            inode.data += bytes(more)
        else:
            del inode.data[size:]
        self._used += more
        inode.mtime = inode.ctime = self.clock()

    def forget(self, inode: _Inode) -> None:
        """Free an inode that has neither a name nor a handle."""
        if not inode.nlink and not inode.opened:
            self._used -= len(inode.data)
            self._count -= 1
            self._free.append(inode.ino)

    # The tree.

    def _find(self, key: str) -> _Inode:
        inode = self.names.get(key)
        if inode is None:
            raise NotFound(f"{key}: no such file or directory")
        return inode

    def _file(self, key: str) -> _Inode:
        inode = self._find(key)
        if inode.is_dir:
            raise NotFound(f"{key}: not a regular file")
        return inode

    def _directory(self, key: str) -> _Inode:
        inode = self._find(key)
        if not inode.is_dir:
            raise NotFound(f"{key}: not a directory")
        return inode

    def _above(self, key: str) -> _Inode:
        return self._directory(key.rpartition("/")[0])

    def _room(self, key: str) -> tuple[_Inode, str]:
        """The directory and the name for a new key."""
        if key in self.names:
            raise Exists(f"{key}: exists")
        return self._above(key), key.rpartition("/")[2]

    def _new(self, key: str, mode: int) -> _Inode:
        if self._limit is not None and self._count >= self._limit:
            raise NoSpace(f"{key}: no inode left")
        self._count += 1
        if self._free:
            return _Inode(self._free.pop(), mode, self.clock())
        self._last_ino += 1
        return _Inode(self._last_ino, mode, self.clock())

    def _make(self, key: str, mode: int) -> _Inode:
        above, name = self._room(key)
        inode = self._new(key, mode)
        self._enter(above, name, key, inode)
        return inode

    def _file_or_new(self, key: str) -> _Inode:
        return self._file(key) if key in self.names else self._make(key, _FILE)

    def _enter(self, above: _Inode, name: str, key: str, inode: _Inode) -> None:
        above.names[name] = self.names[key] = inode
        above.mtime = above.ctime = self.clock()
        above.nlink += inode.is_dir

    def _leave(self, key: str) -> None:
        inode, (directory, _, name) = self.names.pop(key), key.rpartition("/")
        above = self.names[directory]
        del above.names[name]
        above.mtime = above.ctime = self.clock()
        above.nlink -= inode.is_dir

    def _remove(self, key: str, inode: _Inode) -> None:
        self._leave(key)
        inode.nlink -= 2 if inode.is_dir else 1
        inode.ctime = self.clock()
        self.forget(inode)

    def _replaceable(self, inode: _Inode, old: _Inode, target: str) -> None:
        if old.is_dir and not inode.is_dir:
            raise Exists(f"{target}: a directory")
        if inode.is_dir and not old.is_dir:
            raise NotFound(f"{target}: not a directory")
        if old.names:
            raise NotEmpty(f"{target}: not empty")

    def _move_below(self, source: str, target: str) -> None:
        below = f"{source}/"
        for key in [key for key in self.names if key.startswith(below)]:
            self.names[f"{target}/{key[len(below) :]}"] = self.names.pop(key)
