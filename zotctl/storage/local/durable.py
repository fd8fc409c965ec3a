"""What is on the device, and in which order it gets there.

**The rule, with `commit` and without: before a durable name is replaced or removed, the bytes and the names of what
takes its place are on the device.** `commit = false` may lose what was pushed in the last seconds; it may not lose what
was safe before. A file system writes names and bytes when it likes: after a power cut a rename may be there and its
bytes not (xfs: an empty file, or one full of zeros).

So one content takes the name of another by `Durable.replace` only, which takes nothing but what was flushed, and a job
that removes a name (a moved source, the trash) first calls `LocalBlobs.flush` for what stays. What is only added is
flushed before a push is answered (`commit`), and before an index.json leads to it (I3).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import NamedTuple

from zotctl.errors import CannotLink, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Checkpoint, Driver, Generation, Info
from zotctl.storage.file_identity import FileIdentity, file_number

REMEMBERED_FILES = 100_000
FEW_FILES = 8
"""Up to this many files are flushed one by one: a flush of everything also waits for what others have written."""
GATHERED_BLOBS = 256
"""Blobs that wait for one flush, at most."""
GATHERED_FOR_S = 5.0
"""Seconds for which the first blob waits, at most: what lies in `tmp` for a minute may be swept."""


class Flushed(NamedTuple):
    """A name whose bytes are on the device. Made by `Durable.flush` alone."""

    key: str
    info: Info


class _Callers(threading.local):
    """Where a thread gathers what it publishes, the innermost last; None: its caller flushes by other means."""

    def __init__(self) -> None:
        self.gatherings: list[LocalGathering | None] = []
        self.directories: set[str] | None = None
        """Whose names are flushed when `names_once` ends."""


class Durable:
    """The flushes of one root. Safe between threads."""

    def __init__(self, driver: Driver, *, commit: bool) -> None:
        self._driver, self._commit = driver, commit
        self._led: dict[str, tuple[int, int]] = {}
        """Directories whose own names this process has flushed. One that was removed and made again is another, known
        by its number or by `note_made`."""
        self._index: tuple[str, Generation] | None = None
        """The repository that `flush_index` flushed last, and its index.json then."""
        self._settled: Checkpoint | None = None
        self._safe: Lru[FileIdentity, bool] = Lru(REMEMBERED_FILES)
        """Contents of files that are known to be on the device."""
        self._callers = _Callers()

    @property
    def waits(self) -> bool:
        """Is a push flushed before it is answered?"""
        return self._commit and not self._callers.gatherings

    @property
    def postponed(self) -> bool:
        """Will the caller flush what this thread publishes?"""
        return bool(self._callers.gatherings)

    @property
    def gathering(self) -> LocalGathering | None:
        """Where this thread gathers what it publishes, until all of it is flushed."""
        return self._callers.gatherings[-1] if self._callers.gatherings else None

    @contextmanager
    def postponing(self, gathering: LocalGathering | None = None) -> Iterator[None]:
        """In this thread, publishing flushes nothing. The bytes under a digest were flushed before, or will be without
        `commit`; names, and what lies in a hidden place, are left to the caller."""
        self._callers.gatherings.append(gathering)
        try:
            yield
        finally:
            self._callers.gatherings.pop()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """For a job that replaces many files by ones that are there already: flush everything once, where the file
        system can, and then only what was changed since."""
        if (checkpoint := self._driver.checkpoint()) is None:
            yield
            return
        with closing(checkpoint):
            checkpoint.sync()
            self._settled = checkpoint
            try:
                yield
            finally:
                self._settled = None

    def note_settled(self, info: Info) -> None:
        """Note a file before it gets another name, which moves its change time: if it is older than the flush that
        `settled` began with, it is on the device until it is written to."""
        if self._settled is not None and self._settled.covers(info):
            self._safe.put(FileIdentity.of(info).content, True)

    def flush(self, key: str) -> Flushed:
        """Flush the bytes of a file, also those that other processes wrote. Raises NotFound."""
        if self._settled is None:
            return Flushed(key, self._driver.sync_file(key))
        info = self._driver.stat(key)
        if self._safe.get(FileIdentity.of(info).content) is None:
            info = self._driver.sync_file(key)
            self._safe.put(FileIdentity.of(info).content, True)
        return Flushed(key, info)

    def replace(self, new: Flushed, target: str) -> None:
        """Rename a flushed file over another. A power cut leaves one of the two there, whole."""
        self._driver.rename(new.key, target)

    def flush_names(self, directory: str) -> None:
        """Flush the names in a directory, and once per process each directory that leads to it. Raises NotFound."""
        self._driver.sync_dir(directory)
        led = {}
        while directory and self._led.get(directory) != (number := file_number(self._driver.stat(directory))):
            self._driver.sync_dir(keys.parent(directory))
            led[directory] = number
            directory = keys.parent(directory)
        # Only now, all of them: a flush above may have failed, and another thread may be asking.
        self._led.update(led)

    def flush_new_names(self, directory: str) -> None:
        """With `commit`, flush the names in a directory and all that lead to it: now, or when `names_once` ends. Raises
        NotFound."""
        if not self.waits:
            return
        if self._callers.directories is None:
            self.flush_names(directory)
        else:
            self._callers.directories.add(directory)

    @contextmanager
    def names_once(self) -> Iterator[None]:
        """In this thread, `flush_new_names` leaves its directories to the end of the block, where each is flushed once,
        however many names it got. Raises NotFound: one of them is gone."""
        self._callers.directories = directories = set[str]()
        try:
            yield
        finally:
            self._callers.directories = None
        for directory in sorted(directories):
            self.flush_names(directory)

    def flush_index(self, name: str) -> None:
        """Flush the name of the present index.json. Only then may what it no longer leads to be removed, or a power cut
        could bring back an older one that leads there. One `stat` if it was flushed last."""
        try:
            generation = self._driver.stat(keys.index(name)).generation
            if self._index != (name, generation):
                self._driver.sync_dir(name)
                self._index = name, generation
        except NotFound:
            return  # no repository, so nothing leads anywhere

    def note_made(self, directory: str) -> None:
        """Note a directory that was made: it may have the inode number of the one before."""
        self._led.pop(directory, None)

    def flush_all(self, count: int) -> bool:
        """Flush everything at once, where that costs less than flushing `count` files. False: nothing was flushed."""
        if count <= FEW_FILES or (checkpoint := self._driver.checkpoint()) is None:
            return False
        with closing(checkpoint):
            checkpoint.sync()
        return True


class _Waiting(NamedTuple):
    name: str
    digest: Digest
    temp: str


class LocalGathering:
    """What one job publishes: one flush for many blobs, and no name before its bytes are on the device (I2).

    Safe between threads. `close` drops what still waits.
    """

    def __init__(
        self, durable: Durable, driver: Driver, clock: Clock, publish: Callable[[str, Digest, str], None]
    ) -> None:
        """`publish` also flushes a file that already has the name, since that need not be the gathered one."""
        self._durable, self._driver, self._clock, self._publish = durable, driver, clock, publish
        self._waiting: list[_Waiting] = []
        self._since = 0.0
        self._mutex = threading.RLock()

    def here(self) -> AbstractContextManager[None]:
        """Gather what this thread publishes inside, until `flush`."""
        return self._durable.postponing(self)

    def add(self, name: str, digest: Digest, staged: str) -> None:
        """Take verified bytes. The staged name may be left, as after `LocalBlobs.publish`."""
        temp = keys.tmp(self._clock.token())
        try:
            self._driver.link(staged, temp)
        except CannotLink:
            self._driver.rename(staged, temp)
        with self._mutex:
            if not self._waiting:
                self._since = self._clock.elapsed()
            self._waiting.append(_Waiting(name, digest, temp))
            if len(self._waiting) >= GATHERED_BLOBS or self._clock.elapsed() - self._since > GATHERED_FOR_S:
                self.flush()

    def flush(self) -> None:
        """Flush the bytes, then give them their names. Raises NotFound: a temporary file is gone."""
        with self._mutex:
            if not self._durable.flush_all(len(self._waiting)):
                for one in self._waiting:
                    self._durable.flush(one.temp)
            with self._durable.postponing():
                for one in self._waiting:
                    self._publish(one.name, one.digest, one.temp)
            self.close()

    def close(self) -> None:
        """Drop what still waits."""
        with self._mutex:
            for one in self._waiting:
                with suppress(NotFound):
                    self._driver.unlink(one.temp)
            self._waiting.clear()

    def __enter__(self) -> LocalGathering:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
