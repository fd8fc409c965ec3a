"""Directories behind a network or a FUSE server, and finding out what a directory is (docs/design/local.md#networks).

Such a file system may answer from a cache, and may report an error for a call that succeeded: a request that is sent
twice finds its own work. So existence is asked with `open`, and an error of a call that changes something is believed
only after a look at the name.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from zotctl.errors import CannotExchange, CannotLink, NoLocks, NoSpace, NotFound, StorageError
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Capabilities, Driver, Entry, Info
from zotctl.storage.file_identity import FileIdentity, same_file
from zotctl.storage.keys import parent
from zotctl.storage.local.driver import OPEN_DIRECTORY, LocalDriver, LocalReader, LocalWriter, info_of, translate

T = TypeVar("T")

MOUNTS = "/proc/self/mountinfo"
_NETWORK = re.compile(r"(nfs|fuse|cifs|smb|9p|ceph|virtiofs|lustre|gpfs|beegfs|orangefs|afs)")
_OPEN_TO_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CANT_OPEN = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV)
"""A symbolic link, a file of another user, a socket, a device: there, but only `lstat` can tell about it."""

_PAUSES_S = {errno.ENOENT: (0.0,), errno.ESTALE: (0.0, *(0.001 * 2**turn for turn in range(10)))}
"""Before a name is looked up anew. A handle is stale whose file was replaced after the look for its name, and a client
goes on with the old name while the directory seems unchanged to it: until the server's clock, which stamps the
directory, has moved on by a tick. All pauses together are a second."""


class NetworkDriver(LocalDriver):
    """A `LocalDriver` that believes neither a cache nor the first error.

    Before a name is asked for, its directory is opened: that makes an NFS client compare the directory with the
    server's and look changed names up anew. Without it, an open of a file that a process of this host holds open, as
    each worker holds the index.json that it has read, is answered by the client alone, also when another host has
    replaced the file.

    What it can't tell from its own work counts as success: a `link` to a name that already leads to the same inode, a
    `mkdir`, `rmdir` or `unlink` that another process did at the same moment. So no protocol may take the success of
    these for a lock.
    """

    clock = Clock()

    def stat(self, key: str) -> Info:
        """By open(2) and fstat(2) of a name that was looked up anew."""
        self._refresh(parent(key))
        return self._afresh(key, self._look)

    def open(self, key: str) -> LocalReader:
        """Looked up anew, and asked twice before it is NotFound."""
        self._refresh(parent(key))
        return self._afresh(key, super().open)

    def create(self, key: str) -> LocalWriter:
        """Tried twice where the directory seems to be away."""
        return self._afresh(key, super().create)

    def append(self, key: str, *, create: bool = True) -> LocalWriter:
        """Looked up anew, and asked twice before it is NotFound."""
        self._refresh(parent(key))
        return self._afresh(key, partial(super().append, create=create))

    def scan(self, key: str) -> Sequence[Entry]:
        """Asked twice before it is NotFound."""
        return self._afresh(key, super().scan)

    def link(self, source: str, target: str) -> None:
        """Done, if both names lead to one file in the end."""
        step = super().link
        self._settle(
            lambda: step(source, target),
            lambda: same_file(self._stat_or_none(source), self._stat_or_none(target)),
        )

    def rename(self, source: str, target: str) -> None:
        """Done, if the target has the content of the source in the end."""
        step, moved = super().rename, FileIdentity.of(self.stat(source)).content

        def done() -> bool:
            """Nothing holds what was moved, so its number alone would not do."""
            now = self._stat_or_none(target)
            return now is not None and FileIdentity.of(now).content == moved

        self._settle(lambda: step(source, target), done)

    def exchange(self, one: str, other: str) -> None:
        """Never made twice, for that would undo it."""
        moved = self.stat(one)
        try:
            super().exchange(one, other)
        except StorageError:
            if not same_file(moved, self._stat_or_none(other)):
                raise

    def unlink(self, key: str) -> None:
        """Done, if the name leads to another file, or nowhere, in the end."""
        step, removed = super().unlink, self.stat(key)
        self._settle(lambda: step(key), lambda: not same_file(removed, self._stat_or_none(key)))

    def rmdir(self, key: str) -> None:
        """Done, if the name leads to another directory, or nowhere, in the end."""
        step, removed = super().rmdir, self.stat(key)
        self._settle(lambda: step(key), lambda: not same_file(removed, self._stat_or_none(key)))

    def mkdir(self, key: str) -> None:
        """Done, if it was not there before and is in the end."""
        step = super().mkdir
        if self._stat_or_none(key) is not None:
            return step(key)

        def made() -> bool:
            now = self._stat_or_none(key)
            return now is not None and now.is_dir

        return self._settle(lambda: step(key), made)

    def _look(self, key: str) -> Info:
        """`open` makes an NFS client ask the server for attributes (close-to-open); `stat` may come from its cache."""
        path = self._path(key)
        try:
            fd = os.open(path, _OPEN_TO_LOOK)
        except OSError as error:
            if error.errno in _CANT_OPEN:
                return super().stat(key)
            raise translate(error, path, "stat") from error
        try:
            return info_of(os.fstat(fd))
        except OSError as error:
            raise translate(error, path, "stat") from error
        finally:
            os.close(fd)

    def _afresh(self, key: str, step: Callable[[str], T]) -> T:
        """Ask; if it is not there, look at the directories above, which drops stale names, and ask again."""
        again = 0
        while True:
            try:
                return step(key)
            except StorageError as error:
                pauses = _PAUSES_S.get(_code(error) or 0, ())
                if not key or again >= len(pauses):
                    raise
                self.clock.sleep(pauses[again] * self.clock.jitter())
                if not self._refresh(parent(key)):
                    raise
                again += 1

    def _refresh(self, directory: str) -> bool:
        """Make the client look a directory up anew. False if it can't be opened."""
        path = self._path(directory)
        with suppress(OSError):
            try:
                fd = os.open(path, OPEN_DIRECTORY)
            except FileNotFoundError:
                if not directory:
                    return False
                self._refresh(parent(directory))
                fd = os.open(path, OPEN_DIRECTORY)
            os.close(fd)
            return True
        return False

    def _stat_or_none(self, key: str) -> Info | None:
        try:
            return self.stat(key)
        except NotFound:
            return None

    @staticmethod
    def _settle(step: Callable[[], None], done: Callable[[], bool]) -> None:
        """Run a step, and ignore its error if `done` finds its work done. After NotFound the step is tried again, since
        `done` has looked the names up afresh."""
        try:
            step()
        except StorageError as error:
            if done():
                return
            if not isinstance(error, NotFound):
                raise
            try:
                step()
            except StorageError:
                if not done():
                    raise


def filesystem(path: str) -> str:
    """The type of the file system that holds a directory, as the kernel calls it; "" if it can't be told."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
        dev = os.stat(path).st_dev
    except OSError:
        return ""
    return find_mount(lines, os.path.realpath(path), f"{os.major(dev)}:{os.minor(dev)}")


def find_mount(lines: list[str], path: str, device: str) -> str:
    """The type in the mountinfo line (proc(5)) of a device, else of the longest mount point above `path`."""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mounted = after.split(" ", 1)[0]
        if fields[2] == device:
            return mounted
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        # btrfs gives each subvolume a device of its own. Of two mounts on one point the later one counts.
        if len(point) >= best and f"{path}/".startswith(f"{point.rstrip('/')}/"):
            best, kind = len(point), mounted
    return kind


def detect(path: str, *, owner: tuple[int, int] | None = None) -> LocalDriver:
    """The driver for a directory, by its file system. Links and locks are still to be tried (`probe`)."""
    kind = filesystem(path)
    if _NETWORK.match(kind):
        able = Capabilities(local=False, exchange=False, replaces=not kind.startswith("nfs"))
        return NetworkDriver(path, owner=owner, capabilities=able, filesystem=kind)
    return LocalDriver(path, owner=owner, filesystem=kind)


def probe(driver: Driver, directory: str) -> Capabilities:
    """Try a hard link, a lock and an exchange in a directory that can be written, and leave nothing there.

    On a full storage nothing can be tried and what the driver assumes is kept.
    """
    name = f"{directory}/probe-{os.urandom(8).hex()}"
    try:
        driver.create(name).close()
    except NoSpace:
        return driver.capabilities
    try:
        return driver.capabilities._replace(
            links=_links(driver, name), locks=_locks(driver, name), exchange=_exchanges(driver, name)
        )
    finally:
        with suppress(StorageError):
            driver.unlink(name)


def _links(driver: Driver, name: str) -> bool:
    other = f"{name}-link"
    try:
        driver.link(name, other)
    except (CannotLink, NoSpace) as error:
        return isinstance(error, NoSpace)
    try:
        # Some servers make a copy and call it a link. (The link count may come from a cache for a second.)
        return same_file(driver.stat(name), driver.stat(other))
    finally:
        with suppress(StorageError):
            driver.unlink(other)


def _locks(driver: Driver, name: str) -> bool:
    """Two descriptors: a lock that lets both in is none, and one that locks more than its byte is no use."""
    held = []
    try:
        held = [driver.lock(name, byte) for byte in (1, 1, 2)]
        return [lock is not None for lock in held] == [True, False, True]
    except NoLocks:
        return False
    finally:
        for lock in held:
            if lock is not None:
                lock.release()


def _exchanges(driver: Driver, name: str) -> bool:
    other = f"{name}-other"
    try:
        driver.create(other).close()
    except NoSpace:
        return True  # nothing can be tried now; where it fails later, a rename is made instead
    try:
        before = driver.stat(name), driver.stat(other)
        driver.exchange(name, other)
        return same_file(before[0], driver.stat(other)) and same_file(before[1], driver.stat(name))
    except (CannotExchange, NotFound):  # or renamed, by a server that knows of no flags
        return False
    finally:
        with suppress(StorageError):
            driver.unlink(other)


def _code(error: StorageError) -> int | None:
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None
