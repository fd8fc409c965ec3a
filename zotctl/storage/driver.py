"""What a storage back end must be able to do: bytes under flat keys, nothing that knows of OCI.

A key is a relative path with "/" between components, built by `storage.keys` alone. Every error of
the system is translated by the driver into a `StorageError` (see `errors`); no `OSError` leaves it.
A step of the protocols is one call here, so a wrapper round a driver can count, delay, fail or
schedule every step.
"""

from __future__ import annotations

import socket
import stat
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

from zotctl.errors import CannotLink, Exists, NotFound
from zotctl.oci.digest import digest_named, new_hash
from zotctl.storage.digests import Digests

CHUNK_BYTES = 1 << 20
"""Bytes that are read at once where a whole object is read."""

Buffer = bytes | bytearray | memoryview
Generation = tuple[int, ...] | str
"""Of a file: its inode, size and times. Of an object: its ETag."""


class Info(NamedTuple):
    """What is known of one object. Times are nanoseconds since 1970 by the storage's clock; size in bytes."""

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    mode: int
    uid: int
    gid: int
    dev: int
    blocks: int = -1
    """Units of 512 bytes that the file takes on the disk; -1: not known."""

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_dir(self) -> bool:
        """A directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def generation(self) -> Generation:
        """Equal for as long as the content is the same (docs/design/local.md#indexjson)."""
        return (self.ino, self.size, self.mtime_ns, self.ctime_ns)


class Entry(NamedTuple):
    """One name in a directory. A symbolic link is neither a directory nor a file. `info`: what the list told of it, so
    that no caller has to ask; None: nothing."""

    name: str
    is_dir: bool
    is_file: bool
    info: Info | None = None


class Listing(Sequence[Entry]):
    """The entries of a large directory, in the bytes of their names and one more. `info` is None. Immutable."""

    __slots__ = ("_ends", "_kinds", "_names")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._names, self._ends, self._kinds = bytearray(), array("Q"), bytearray()
        for entry in entries:
            self._names += entry.name.encode()
            self._ends.append(len(self._names))
            self._kinds.append(2 * entry.is_dir + entry.is_file)

    def __len__(self) -> int:
        return len(self._kinds)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, range(len(self)))

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        places = range(len(self))[at]
        return self._entry(places) if isinstance(places, int) else [self._entry(one) for one in places]

    def _entry(self, at: int) -> Entry:
        name = self._names[self._ends[at - 1] if at else 0 : self._ends[at]].decode()
        return Entry(name, self._kinds[at] > 1, self._kinds[at] == 1)


class Space(NamedTuple):
    """Bytes and inodes; inodes are -1 where the file system does not count them."""

    total: int
    free: int
    free_inodes: int


class Capabilities(NamedTuple):
    """What this storage was found to do, tried once when it was opened."""

    links: bool = True
    locks: bool = True
    local: bool = True
    """False: a system call may wait for a network, so none may be made on an event loop."""
    exchange: bool = True
    replaces: bool = True
    """Does a rename give the name of an open file to another one by one request? An NFS client sends two, of which the
    first takes the name away, and both may reach the server after the death of the process that made them."""


class Reader(Protocol):
    """An open object. It goes on giving the same bytes when the name is replaced or removed."""

    @property
    def size(self) -> int:
        """Bytes, as they were when it was opened."""

    def info(self) -> Info:
        """The file as it is now."""

    def fileno(self) -> int | None:
        """A descriptor for `sendfile`; None: there is none, read it."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end of the object."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read into a buffer that is reused. Returns the number of bytes, 0 at the end of the object."""

    def once(self) -> None:
        """Announce that all of it will be read in order and once, so that more is read ahead and less is cached."""

    def uncache(self) -> None:
        """Let the system forget the bytes that it keeps of it in memory, as far as they are on the device."""

    def labels(self) -> dict[str, bytes]:
        """The extended attributes of the object, ACLs included."""

    def close(self) -> None:
        """Close it. A second call does nothing."""

    def __enter__(self) -> Reader: ...
    def __exit__(self, *exc: object) -> None: ...


class Stream(NamedTuple):
    """The rest of an object that is arriving: `held` was received already, what follows comes through `sock`, which
    does not block."""

    held: bytes
    sock: socket.socket


@runtime_checkable
class StreamedReader(Protocol):
    """A `Reader` of bytes that come through a plain socket, which the kernel can pass on."""

    def stream(self, offset: int) -> Stream | None:
        """What comes from `offset` on; None: read it. Until `passed`, nothing else may be asked of the reader."""

    def passed(self, count: int) -> None:
        """So many bytes were taken from the socket of the stream."""


class Writer(Protocol):
    """An object that is being written, always at its end."""

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Append all buffers in order. Returns the number of bytes. Raises NoSpace, IoFailed."""

    def copy(self, source: Reader) -> bool:
        """Append the whole of an object and copy its labels. True: both share their blocks, so it took no room."""

    def truncate(self, size: int) -> None:
        """Cut it to `size` bytes."""

    def info(self) -> Info:
        """What the file is like now."""

    def sync(self) -> None:
        """Flush its bytes to the device; its name needs `Driver.sync_dir`."""

    def set_attributes(self, like: Info | None, mtime_ns: int) -> None:
        """Set the mode (and, as root, the owner) of `like`, and this modification time."""

    def try_lock(self) -> bool:
        """Lock it against every other writer that asks, in any process, until it is closed. False: another has it."""

    def close(self) -> None:
        """Close it and release its lock. Raises IoFailed where the system reports a failed write only now."""

    def __enter__(self) -> Writer: ...
    def __exit__(self, *exc: object) -> None: ...


class Checkpoint(Protocol):
    """Flushes everything that was written while it is open, and reports a write that failed meanwhile."""

    def sync(self) -> None:
        """Flush everything in this storage to the device, bytes and names."""

    def covers(self, info: Info) -> bool:
        """Was this file last changed before the last `sync`? False: no, or unknown."""

    def close(self) -> None:
        """Close it."""


class Lock(Protocol):
    """One byte of the lock file, held."""

    def current(self) -> bool:
        """False: the lock file was removed or replaced meanwhile, so the lock excludes no other process."""

    def release(self) -> None:
        """Unlock the byte."""


class Driver(Protocol):
    """One storage. Each method raises `NotFound` where a key, or the directory above it, is missing."""

    @property
    def label(self) -> str:
        """Its path or address, for messages."""

    @property
    def capabilities(self) -> Capabilities:
        """What this storage was found to do."""

    def stat(self, key: str) -> Info:
        """What a name leads to; symbolic links are not followed. "" is the root."""

    def open(self, key: str) -> Reader:
        """Open a regular file to be read. Anything else, symbolic links included, is `NotFound`."""

    def create(self, key: str) -> Writer:
        """Create a file. Raises `Exists` if the name is taken."""

    def append(self, key: str, *, create: bool = True) -> Writer:
        """Open a file at its end. A missing file is created, or with `create` false `NotFound`."""

    def link(self, source: str, target: str) -> None:
        """Give a file one more name; never replaces. Raises `Exists`, `CannotLink`."""

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing a file. Of two names of one inode both stay."""

    def exchange(self, one: str, other: str) -> None:
        """Swap two names atomically. Raises `CannotExchange` where the storage cannot."""

    def unlink(self, key: str) -> None:
        """Remove one name of a file."""

    def mkdir(self, key: str) -> None:
        """Create a directory. Raises `Exists` if the name is taken."""

    def rmdir(self, key: str) -> None:
        """Remove an empty directory. Raises `NotEmpty`."""

    def crosses_mount(self, key: str) -> bool:
        """Is a directory on another mount than the root? Two mounts of one device have the same device number."""

    def scan(self, key: str) -> Sequence[Entry]:
        """The names in a directory, in no order."""

    def sync_file(self, key: str) -> Info:
        """Flush the bytes of a file to the device, also those that other processes wrote. Returns which file it was,
        which need not be writable."""

    def touch(self, key: str, mtime_ns: int) -> None:
        """Set the modification time of a file or directory. Its change time moves to now."""

    def sync_dir(self, key: str) -> None:
        """Flush the names in a directory to the device."""

    def checkpoint(self) -> Checkpoint | None:
        """Begin a checkpoint. None: this storage cannot flush everything at once reliably."""

    def lock(self, key: str, byte: int) -> Lock | None:
        """Try to lock one byte of a file, which is created if it is missing. None: another holder has it."""

    def allocate(self, key: str, size: int) -> None:
        """Create a file that occupies `size` bytes on the device. Raises `NoSpace`, and leaves nothing."""

    def space(self) -> Space:
        """The size of the storage and its free space."""


def read(driver: Driver, key: str, limit: int) -> bytes:
    """The whole of a small file, at most `limit` + 1 bytes of it."""
    with driver.open(key) as reader:
        return reader.read_at(0, min(reader.size, limit + 1))


def chunks_of(reader: Reader, size: int | None = None, start: int = 0) -> Iterator[bytes]:
    """The bytes of an open object from `start` on, a mebibyte at a time: up to `size`, or all that it had when it was
    opened."""
    end = reader.size if size is None else size
    for at in range(start, end, CHUNK_BYTES):
        yield reader.read_at(at, min(CHUNK_BYTES, end - at))


def scan_or_empty(driver: Driver, key: str) -> Sequence[Entry]:
    """What a directory holds; nothing if it is not there. Raises StorageError."""
    try:
        return driver.scan(key)
    except NotFound:
        return []


def digests_in(driver: Driver, key: str, algorithm: str, but: Container[str] = ()) -> Digests:
    """The names in a directory that are digests of this algorithm, without those in `but`. Raises StorageError."""
    found = Digests()
    for entry in scan_or_empty(driver, key):
        if (digest := digest_named(algorithm, entry.name)) is not None and digest not in but:
            found.add_new(digest)  # a directory has each name once
    return found


def place(driver: Driver, source: str, target: str) -> bool:
    """Give a file a name that no file has; False: one has it. The source's own name may be left."""
    try:
        driver.link(source, target)
    except CannotLink:
        driver.rename(source, target)
    except Exists:
        return False
    return True


class BytesReader:
    """A `Reader` of bytes that are in memory, without an inode or an owner."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._body)

    def info(self) -> Info:
        """A regular file that all may read."""
        return Info(0, self.size, 0, 0, 1, stat.S_IFREG | 0o444, 0, 0, 0)

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        """A slice of the bytes."""
        return self._body[offset : offset + count]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """The same, copied into the buffer."""
        piece = self.read_at(offset, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def once(self) -> None:
        """Nothing is read ahead."""

    def uncache(self) -> None:
        """The bytes are all that there is."""

    def labels(self) -> dict[str, bytes]:
        """None are attached."""
        return {}

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> BytesReader:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def hash_of(reader: Reader, algorithm: str) -> Any:
    """The state of a hash (`oci.digest.new_hash`) over all that a reader has. Raises what reading raises."""
    hasher = new_hash(algorithm)
    for chunk in chunks_of(reader):
        hasher.update(chunk)
    return hasher
