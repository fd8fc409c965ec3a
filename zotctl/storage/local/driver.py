"""A directory tree as a storage: one system call per step, and the only place that sees an OSError.

Contract: `storage.driver.Driver`. Rules for file systems behind a network are in `local.network`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from stat import S_ISREG
from typing import Any

from zotctl.errors import (
    CannotExchange,
    CannotLink,
    Exists,
    IoFailed,
    NoLocks,
    NoSpace,
    NotEmpty,
    NotFound,
    NotYetReadable,
    PermissionRefused,
    ReadOnlyStorage,
    StorageError,
    Unavailable,
)
from zotctl.storage.driver import Buffer, Capabilities, Entry, Info, Listing, Reader, Space
from zotctl.storage.local.syscalls import (
    copy_content,
    copy_labels,
    labels_of,
    swap,
    sync_filesystem,
    try_lock,
    unlock,
    write_all,
)

_OPEN_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: a FIFO among the blobs must not stop the registry. No effect on a file."""
_OPEN_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_TO_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_TO_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FLUSHED_AS_A_WHOLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs"})
"""Where syncfs(2) puts names and bytes on the device. FUSE tells its server nothing of it, a container's overlay may
be "volatile"; behind a network each file is asked for."""
MANY_NAMES = 10_000
"""Names in a directory from which on a list of them is packed."""
_CLOCK_TICK_S = 0.05
"""A file's time stamps come from a clock that moves in steps of some milliseconds."""
_FILE_MODE, _DIRECTORY_MODE = 0o666, 0o777

_KINDS: dict[int, type[StorageError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.ELOOP: NotFound,
    errno.EEXIST: Exists,
    errno.ENOTEMPTY: NotEmpty,
    errno.EXDEV: CannotLink,
    errno.EMLINK: CannotLink,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EROFS: ReadOnlyStorage,
    errno.EACCES: PermissionRefused,
    errno.EPERM: PermissionRefused,
    errno.ENOLCK: NoLocks,
} | dict.fromkeys((errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG, errno.ENXIO), IoFailed)
_AWAY = (
    errno.ENODEV, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
    errno.ESHUTDOWN, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
)  # fmt: skip
_NOT_YET = (errno.EBUSY, errno.ETXTBSY, errno.EAGAIN)
"""The storage is there, but another program has this file for itself."""
_KINDS |= dict.fromkeys(_AWAY, Unavailable) | dict.fromkeys(_NOT_YET, NotYetReadable)

_NAMELESS = {errno.ENAMETOOLONG: NotFound, errno.EISDIR: NotFound}
"""We cannot have made anything of this name. ENXIO on open: a FIFO or a socket."""
_KINDS_OF_STEP: dict[str, dict[int, type[StorageError]]] = {
    "stat": {**_NAMELESS},
    "open": {**_NAMELESS, errno.ENXIO: NotFound},
    "scan": {**_NAMELESS},
    "unlink": {**_NAMELESS},
    "append": {errno.EISDIR: NotFound, errno.ENXIO: NotFound},
    "link": {errno.EPERM: CannotLink, errno.EOPNOTSUPP: CannotLink, errno.ENOSYS: CannotLink},
    "rename": {errno.EISDIR: Exists, errno.EEXIST: NotEmpty},
    "exchange": dict.fromkeys(
        (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.ENOTTY), CannotExchange
    ),
    "rmdir": {errno.EEXIST: NotEmpty},
    "lock": dict.fromkeys((errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL), NoLocks)
    | dict.fromkeys((errno.EISDIR, errno.ENXIO), NotFound),
}
"""Where an errno of one call means something else than it commonly does."""

_NO_KINDS: dict[int, type[StorageError]] = {}

_WAY_OUT: dict[type[StorageError], str] = {
    NoSpace: "free some space, or run gc",
    ReadOnlyStorage: "mount it read-write; if it was, the kernel log says why it no longer is",
    PermissionRefused: "run as the owner of the files (sudo -u), or change their owner or mode",
    CannotExchange: "no exchange of two names there",
    CannotLink: "no hard link between the two",
    IoFailed: "the device is failing or its file system is damaged: look into the kernel log (dmesg)",
    Unavailable: "check that the storage is mounted and its server answers, then try again",
    NotYetReadable: "something else is using it just now: try again",
    NoLocks: "the file system gives no locks: use NFS 4.1 with local_lock=none, or one worker and no job",
}
_WAY_OUT_OF: dict[int, str] = {
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
    errno.EDQUOT: "the quota is used up: raise it, or run gc",
    errno.ENAMETOOLONG: "a shorter repository name is needed on this file system",
}


def translate(error: OSError, path: str, step: str = "") -> StorageError:
    """The error for an errno of one step (a method name of `Driver`)."""
    number = error.errno or 0
    kind = _KINDS_OF_STEP.get(step, _NO_KINDS).get(number) or _KINDS.get(number, StorageError)
    message = f"{path}: {error.strerror or error}"
    way_out = _WAY_OUT_OF.get(number) or _WAY_OUT.get(kind)
    return kind(f"{message} ({step}); {way_out}" if way_out else message)


@contextmanager
def translated(path: str, step: str = "open") -> Iterator[None]:
    """Translate each OSError of the block, for code that looks at a directory before there is a driver."""
    try:
        yield
    except OSError as error:
        raise translate(error, path, step) from error


def info_of(found: os.stat_result) -> Info:
    """The `Info` of a stat(2)."""
    # Three times for each pull of a manifest: a tuple is made of a tuple at half of what a call with names costs.
    return tuple.__new__(
        Info,
        (
            found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink, found.st_mode,
            found.st_uid, found.st_gid, found.st_dev, found.st_blocks,
        ),
    )  # fmt: skip


def _tolerant(change: Callable[..., None], *arguments: Any) -> None:
    """Change owner or mode, unless the file system has none or this user (or an NFS root) may not change it."""
    try:
        change(*arguments)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


class LocalReader:
    """A regular file, open. Contract: `storage.driver.Reader`."""

    __slots__ = ("_fd", "_path", "size")

    def __init__(self, fd: int, path: str, size: int) -> None:
        self._fd, self._path, self.size = fd, path, size

    def info(self) -> Info:
        """The file as it is now, whereas `size` is that of its opening."""
        try:
            return info_of(os.fstat(self._fd))
        except OSError as error:
            raise translate(error, self._path, "stat") from error

    def fileno(self) -> int:
        """The descriptor, from which the kernel may send the file."""
        return self._fd

    def read_at(self, offset: int, count: int) -> bytes:
        """Fewer than `count` bytes only at the end of the file."""
        try:
            data = os.pread(self._fd, count, offset)
            if len(data) == count or offset + len(data) >= self.size:
                return data
            parts, had = [data], len(data)
            while data and had < count:
                data = os.pread(self._fd, count - had, offset + had)
                parts.append(data)
                had += len(data)
            return b"".join(parts)
        except OSError as error:
            raise translate(error, self._path, "read") from error

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """preadv(2). Returns the number of bytes."""
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            raise translate(error, self._path, "read") from error

    def once(self) -> None:
        """posix_fadvise(2): it will be read in order and once."""
        for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_NOREUSE):
            with suppress(OSError):
                os.posix_fadvise(self._fd, 0, 0, advice)

    def uncache(self) -> None:
        """posix_fadvise(2): it will hardly be read again."""
        with suppress(OSError):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def labels(self) -> dict[str, bytes]:
        """The extended attributes."""
        try:
            return labels_of(self._fd)
        except OSError as error:
            raise translate(error, self._path, "labels") from error

    def close(self) -> None:
        """Let go of the descriptor; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:  # noqa: SIM105 - costs less than `suppress`, for each blob that is pulled
                os.close(fd)
            except OSError:
                pass

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LocalWriter:
    """A regular file, open at its end. Contract: `storage.driver.Writer`."""

    __slots__ = ("_fd", "_locked", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path, self._locked = fd, path, False

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write all of them, in order. After an error any part may be there: truncate to what is known."""
        try:
            return write_all(self._fd, buffers)
        except OSError as error:
            raise translate(error, self._path, "write") from error

    def copy(self, source: Reader) -> bool:
        """Append a whole file and take over its labels. True: the two share their blocks."""
        fd = source.fileno()
        try:
            if fd is None:
                write_all(self._fd, [source.read_at(0, source.size)])
                return False
            copy_labels(fd, self._fd)
            return copy_content(fd, self._fd, source.size)
        except OSError as error:
            raise translate(error, self._path, "write") from error

    def truncate(self, size: int) -> None:
        """ftruncate(2): cut the file to so many bytes."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise translate(error, self._path, "truncate") from error

    def info(self) -> Info:
        """fstat(2)."""
        try:
            return info_of(os.fstat(self._fd))
        except OSError as error:
            raise translate(error, self._path, "stat") from error

    def sync(self) -> None:
        """fdatasync(2)."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise translate(error, self._path, "sync") from error

    def set_attributes(self, like: Info | None, mtime_ns: int) -> None:
        """fchown(2), fchmod(2) and utimensat(2): the group and mode of `like` (as root, its owner too), and a time
        stamp in nanoseconds. What this user may not change, or the file system does not have, stays."""
        try:
            if like is not None:
                _tolerant(os.fchown, self._fd, like.uid if os.geteuid() == 0 else -1, like.gid)
                _tolerant(os.fchmod, self._fd, like.mode & 0o7777)
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        except OSError as error:
            raise translate(error, self._path, "set_attributes") from error

    def try_lock(self) -> bool:
        """Lock the whole file against other writers that ask, until it is closed. False: another one has it."""
        try:
            self._locked = self._locked or try_lock(self._fd, 0, 0)
        except OSError as error:
            raise translate(error, self._path, "lock") from error
        return self._locked

    def close(self) -> None:
        """Raises what a network file system reports only now: a write that did not arrive."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._locked:
            unlock(fd, 0, 0)
        try:
            os.close(fd)
        except OSError as error:
            raise translate(error, self._path, "close") from error

    def __enter__(self) -> LocalWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        except StorageError:
            if exc[0] is None:
                raise


class LocalLock:
    """One byte of the lock file. Its own descriptor, so that threads exclude each other too."""

    __slots__ = ("_byte", "_driver", "_fd", "_key")

    def __init__(self, driver: LocalDriver, key: str, byte: int, fd: int) -> None:
        self._driver, self._key, self._byte, self._fd = driver, key, byte, fd

    def current(self) -> bool:
        """Raises when the storage can't tell; the lock is released then."""
        try:
            named = self._driver.stat(self._key)
        except NotFound:
            return False
        except StorageError:
            self.release()
            raise
        try:
            mine = os.fstat(self._fd)
        except OSError as error:
            self.release()
            raise translate(error, self._key, "lock") from error
        return (named.ino, named.dev) == (mine.st_ino, mine.st_dev)

    def release(self) -> None:
        """Unlock the byte; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            unlock(fd, self._byte, 1)
            with suppress(OSError):
                os.close(fd)


def _set_by() -> float:
    """Seconds by which the clock was set: another number each time that it was."""
    return time.time() - time.monotonic()


class LocalCheckpoint:
    """A descriptor of the file system: syncfs(2) tells of each write that failed since it was opened."""

    __slots__ = ("_before", "_fd", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path
        self._before: tuple[float, float] | None = None
        """When the last flush began, and how far the clock was then from one that is never set."""

    def sync(self) -> None:
        """syncfs(2)."""
        before = time.time(), _set_by()
        try:
            sync_filesystem(self._fd)
        except OSError as error:
            raise translate(error, self._path, "sync") from error
        self._before = before

    def covers(self, info: Info) -> bool:
        """By the change time, which the kernel moves with each write and no program can set. False if the clock was set
        meanwhile."""
        if self._before is None or abs(_set_by() - self._before[1]) > _CLOCK_TICK_S:
            return False
        return info.ctime_ns / 1e9 < self._before[0] - _CLOCK_TICK_S

    def close(self) -> None:
        """Let go of the descriptor; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


class LocalDriver:
    """A directory. `owner` (uid, gid) gets what root makes; it has no meaning for any other user."""

    def __init__(
        self,
        path: str,
        *,
        owner: tuple[int, int] | None = None,
        capabilities: Capabilities = Capabilities(),  # noqa: B008 - immutable
        filesystem: str = "",
    ) -> None:
        self.label = os.path.abspath(path)
        self.capabilities = capabilities
        self.filesystem = filesystem
        """As the kernel calls it ("ext4", "overlay", "nfs4"); empty if it was not looked up."""
        self._base = self.label.rstrip("/") + "/"
        self._owner = owner if owner not in (None, (0, 0)) and os.geteuid() == 0 else None

    def stat(self, key: str) -> Info:
        """lstat(2)."""
        path = self._path(key)
        try:
            return info_of(os.lstat(path))
        except OSError as error:
            raise translate(error, path, "stat") from error

    def open(self, key: str) -> LocalReader:
        """open(2) and fstat(2); a FIFO, a socket or a directory is NotFound."""
        path = self._path(key)
        try:
            fd = os.open(path, _OPEN_TO_READ)
        except OSError as error:
            raise translate(error, path, "open") from error
        return LocalReader(fd, path, _regular(fd, path).st_size)

    def create(self, key: str) -> LocalWriter:
        """open(2) with O_EXCL, at its end. As root, the file is given to the owner of the root."""
        path = self._path(key)
        try:
            return LocalWriter(self._create(path, _OPEN_NEW), path)
        except OSError as error:
            raise translate(error, path, "create") from error

    def append(self, key: str, *, create: bool = True) -> LocalWriter:
        """open(2) with O_APPEND; made by O_EXCL where it is missing."""
        path = self._path(key)
        fd = (
            self._open_or_create(path, _OPEN_TO_APPEND, "append")
            if create
            else self._open(path, _OPEN_TO_APPEND, "append")
        )
        _regular(fd, path)
        return LocalWriter(fd, path)

    def link(self, source: str, target: str) -> None:
        """link(2)."""
        path = self._path(target)
        try:
            os.link(self._path(source), path)
        except OSError as error:
            raise translate(error, path, "link") from error

    def rename(self, source: str, target: str) -> None:
        """rename(2)."""
        path = self._path(target)
        try:
            os.rename(self._path(source), path)
        except OSError as error:
            raise translate(error, path, "rename") from error

    def exchange(self, one: str, other: str) -> None:
        """renameat2(2) with RENAME_EXCHANGE."""
        path = self._path(other)
        try:
            swap(self._path(one), path)
        except OSError as error:
            raise translate(error, path, "exchange") from error

    def unlink(self, key: str) -> None:
        """unlink(2)."""
        path = self._path(key)
        try:
            os.unlink(path)
        except OSError as error:
            raise translate(error, path, "unlink") from error

    def mkdir(self, key: str) -> None:
        """mkdir(2). As root, the directory is given to the owner of the root."""
        path = self._path(key)
        try:
            os.mkdir(path, _DIRECTORY_MODE)
            if self._owner:
                _tolerant(os.lchown, path, *self._owner)
        except OSError as error:
            raise translate(error, path, "mkdir") from error

    def rmdir(self, key: str) -> None:
        """rmdir(2)."""
        path = self._path(key)
        try:
            os.rmdir(path)
        except OSError as error:
            raise translate(error, path, "rmdir") from error

    def crosses_mount(self, key: str) -> bool:
        """rename(2) compares the mounts of its two directories (EXDEV) before it looks at the names in them, and "." is
        a name that it never takes (EBUSY). So this changes nothing, needs no right to write, asks no server, and
        works on every kernel; an emulated one that looks at the names first leaves it to the device number."""
        path = self._path(key)
        try:
            os.rename(f"{self._base}.", f"{path}/.")
        except OSError as error:
            if error.errno == errno.EXDEV:
                return True
            if error.errno in (errno.EBUSY, errno.EINVAL):
                return False
            raise translate(error, path, "crosses_mount") from error
        return False

    def scan(self, key: str) -> Sequence[Entry]:
        """Names that are not UTF-8 are no names here and are left out."""
        path = self._path(key)
        try:
            with os.scandir(path) as found:
                entries = (
                    Entry(one.name, one.is_dir(follow_symlinks=False), one.is_file(follow_symlinks=False))
                    for one in found
                    if one.name.isascii() or _is_utf8(one.name)
                )
                first = list(islice(entries, MANY_NAMES))
                return Listing(chain(first, entries)) if len(first) == MANY_NAMES else first
        except OSError as error:
            raise translate(error, path, "scan") from error

    def sync_file(self, key: str) -> Info:
        """fdatasync(2) of a file that need not be ours to write; which file that was."""
        path = self._path(key)
        # fsync(2) needs no right to write, and other tools leave blobs with mode 0444.
        fd = self._open(path, _OPEN_TO_READ, "open")
        found = _regular(fd, path)
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise translate(error, path, "sync") from error
        finally:
            os.close(fd)
        return info_of(found)

    def touch(self, key: str, mtime_ns: int) -> None:
        """utimensat(2): the time of modification in nanoseconds; the kernel notes when it was set."""
        path = self._path(key)
        try:
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        except OSError as error:
            raise translate(error, path, "touch") from error

    def sync_dir(self, key: str) -> None:
        """fsync(2) of a directory."""
        path = self._path(key)
        try:
            fd = os.open(path, OPEN_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            # errno.EINVAL: a file system that has nothing to flush for a directory (CIFS and some FUSE).
            if error.errno != errno.EINVAL:
                raise translate(error, path, "sync_dir") from error

    def checkpoint(self) -> LocalCheckpoint | None:
        """For syncfs(2). None on a file system that does not put all on the device by it."""
        if self.filesystem not in _FLUSHED_AS_A_WHOLE:
            return None
        path = self._path("")
        return LocalCheckpoint(self._open(path, OPEN_DIRECTORY, "open"), path)

    def lock(self, key: str, byte: int) -> LocalLock | None:
        """An open-file-description lock on one byte; None: another descriptor has it."""
        path = self._path(key)
        fd = self._open_or_create(path, _OPEN_TO_LOCK, "lock")
        taken = False
        try:
            taken = try_lock(fd, byte, 1)
        except OSError as error:
            raise translate(error, path, "lock") from error
        finally:
            if not taken:
                os.close(fd)
        return LocalLock(self, key, byte, fd) if taken else None

    def allocate(self, key: str, size: int) -> None:
        """posix_fallocate(3); on an error nothing is left."""
        path = self._path(key)
        try:
            # Readable too: where the file system can't allocate, glibc reads and writes each block.
            fd = self._create(path, _OPEN_TO_LOCK | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise translate(error, path, "allocate") from error
        try:
            try:
                if size:
                    os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise translate(error, path, "allocate") from error

    def space(self) -> Space:
        """statvfs(2)."""
        try:
            found = os.statvfs(self._base)
        except OSError as error:
            raise translate(error, self._base, "space") from error
        inodes = found.f_favail if found.f_files else -1
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, inodes)

    def _path(self, key: str) -> str:
        # Names are checked long before; this is the last line (I14).
        if ".." in key and ".." in key.split("/"):
            raise NotFound(f"{key}: leads out of the storage")
        return self._base + key

    def _create(self, path: str, flags: int) -> int:
        fd = os.open(path, flags, _FILE_MODE)
        if self._owner:
            try:
                _tolerant(os.fchown, fd, *self._owner)
            except OSError:
                os.close(fd)
                raise
        return fd

    def _open(self, path: str, flags: int, step: str) -> int:
        try:
            return os.open(path, flags)
        except OSError as error:
            raise translate(error, path, step) from error

    def _open_or_create(self, path: str, flags: int, step: str) -> int:
        # Not one open with O_CREAT: only the process that made the file may give it to its owner.
        while True:
            try:
                return os.open(path, flags)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise translate(error, path, step) from error
            try:
                return self._create(path, flags | os.O_CREAT | os.O_EXCL)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise translate(error, path, step) from error


def stat_followed(path: str) -> Info:
    """stat(2): what symbolic links lead to. Raises NotFound."""
    with translated(path, "stat"):
        return info_of(os.stat(path))


def open_followed(path: str) -> tuple[int, str, int]:
    """open(2) of a regular file, also by symbolic links: the descriptor, the path and the size. Raises NotFound for
    anything else."""
    with translated(path):
        fd = os.open(path, _OPEN_TO_READ & ~os.O_NOFOLLOW)
    return fd, path, _regular(fd, path).st_size


def _regular(fd: int, path: str) -> os.stat_result:
    """The stat(2) of a regular file. Anything else is closed, and NotFound is raised."""
    try:
        found = os.fstat(fd)
    except OSError as error:
        os.close(fd)
        raise translate(error, path, "open") from error
    if not S_ISREG(found.st_mode):
        os.close(fd)
        raise NotFound(f"{path}: not a regular file")
    return found


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
