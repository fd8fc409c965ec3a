"""Hashes blobs on all cores, and compares the hashes with the names of the blobs.

A result is about one content of one file under one digest, so all names of the file share it. Before anything is done
to a file, the file is held and compared with the result, and read again if anything about it has changed (I15, I10).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from zotctl.errors import Changed, NotFound, StorageError
from zotctl.jobs.int_map import IntMap, number_of
from zotctl.jobs.run import Run, TimeUp
from zotctl.oci.digest import Digest, digest_of_hash, is_stub, new_hash
from zotctl.storage import keys
from zotctl.storage.clock import is_ahead
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import FileIdentity, HeldFile
from zotctl.storage.root import Root

T = TypeVar("T")


class StoredBlobs(Protocol):
    """A repository whose blobs can be listed."""

    def blobs(self) -> Iterable[tuple[Digest, Info]]:
        """Each blob that can be hashed."""


READ_BYTES = 1 << 20
"""Bytes read at a time. Large, since each read releases the interpreter's lock and has to take it again."""
READS_PER_PAUSE = 8
"""Reads between two checks whether the run is to stop."""
TASKS_PER_WORKER = 4
"""How many tasks per worker may be running or waiting."""
WRITTEN_IN_PLACE_S = 2.0
"""For so long after its last write, a file may still be being written in place, as zot writes manifests."""
READ_ATTEMPTS = 3
"""How often a file that is being written is read, before it is left to the next run."""
GOOD_INODES = 1_000_000
"""How many inodes with several names are remembered as good. Beyond that some are read twice."""


# -- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HashResult:
    """What the bytes under a name are.

    `info`: the inode that was read, None if the name was gone. `found`: the digest of its bytes, None if they were not
    read. `error`: why they could not be read.
    """

    digest: Digest
    info: Info | None = None
    found: Digest | None = None
    error: StorageError | None = None

    @property
    def gone(self) -> bool:
        """Whether there is nothing under the name."""
        return self.info is None and self.error is None

    @property
    def good(self) -> bool:
        """Whether the bytes have the digest."""
        return self.found == self.digest

    def is_about(self, info: Info | None) -> bool:
        """Whether `info` is the same content of the same file, by its stamps: enough for a report, not for a change."""
        return self.info is not None and info is not None and _content(self.info) == _content(info)


def _content(info: Info) -> FileIdentity:
    return FileIdentity.of(info).content


class Looked(NamedTuple):
    """A result, with the file that it is about. `held` None: there is no file to do anything to."""

    result: HashResult
    held: HeldFile | None = None


class Inspector:
    """Reads and hashes blobs. `quick`: only checks sizes and known damage. Safe between threads."""

    def __init__(self, run: Run, hasher: Hasher, *, quick: bool = False) -> None:
        self._run, self._clock, self._hasher, self._quick = run, run.clock, hasher, quick
        self._requests = run.requests
        self.cut: list[tuple[Root, str, Digest]] = []
        """The blobs in which time was up: root, repository, digest."""

    def blob(self, root: Root, name: str, digest: Digest) -> HashResult:
        """The result on a blob of a repository."""
        return self.look(root, keys.blob(name, digest), digest, name)

    def blob_in_time(self, root: Root, name: str, digest: Digest) -> HashResult | None:
        """The same; None: time was up while it was read."""
        try:
            return self.blob(root, name, digest)
        except TimeUp:
            self.cut.append((root, name, digest))
            return None

    def look(self, root: Root, key: str, digest: Digest, name: str = "") -> HashResult:
        """The result on the file `key`. It is always hashed, since rot does not change time stamps; a file that is
        being written is read again."""
        with self.held(root, key, digest, name) as looked:
            return looked.result

    @contextmanager
    def held(self, root: Root, key: str, digest: Digest, name: str = "") -> Iterator[Looked]:
        """The result on the file `key`, with the file held during the block."""
        for _ in range(READ_ATTEMPTS):
            with ExitStack() as stack:
                looked, now = self._once(root, key, digest, name, stack)
                age = self._age(root, looked.result, now)
                if age is None:
                    yield looked
                    return
            self._clock.sleep(max(0.0, min(WRITTEN_IN_PLACE_S, WRITTEN_IN_PLACE_S - age)))
        yield Looked(HashResult(digest))

    def _age(self, root: Root, result: HashResult, now: Info | None) -> float | None:
        """Seconds since the last write to a file that may still be being written; None: the result stands."""
        if result.good or result.info is None or now is None or self._quick:
            return None
        at, present = now.mtime_ns / 1e9, root.protocol.now()
        is_young = present - at < WRITTEN_IN_PLACE_S and not is_ahead(at, present)
        return present - at if is_young or _content(now) != _content(result.info) else None

    def _once(self, root: Root, key: str, digest: Digest, name: str, stack: ExitStack) -> tuple[Looked, Info | None]:
        """The result on the file as it was opened, and its state after it was read."""
        self._requests.take(1)
        try:
            reader = stack.enter_context(root.driver.open(key))
            held = HeldFile(reader)
            return Looked(self._read(held, reader, root, name, digest), held), reader.info()
        except (NotFound, Changed):  # or replaced while it was read, by bytes that were verified
            return Looked(HashResult(digest)), None
        except StorageError as error:
            if self._run.is_lost(root, error):
                raise  # which says nothing of this blob
            info = None
            with suppress(StorageError):
                info = root.driver.stat(key)
            unopened = HeldFile.unopened(info) if info is not None else None
            return Looked(HashResult(digest, info, None, error), unopened), None

    def _read(self, held: HeldFile, reader: Reader, root: Root, name: str, digest: Digest) -> HashResult:
        info = held.info
        if not self._quick:
            return HashResult(digest, info, self._hasher.digest(reader, digest.algorithm))
        known_damaged = is_stub(digest, info.size) or root.maintenance.is_marked(name, digest, info)
        return HashResult(digest, info, None if known_damaged else digest)

    @contextmanager
    def again(self, root: Root, name: str, result: HashResult) -> Iterator[Looked]:
        """Hold the file that a result is about during the block, to do something to it.

        If anything about the file has changed since, and it is not marked as damaged, it is read again. The result is
        `gone` if the name leads to another file.
        """
        key = keys.blob(name, result.digest)
        with ExitStack() as stack:
            held = self._take(root, key, stack)
            if held is None or not result.is_about(held.info):
                yield Looked(HashResult(result.digest))
            elif self._stands(root, name, result, held.info):
                yield Looked(result, held)
            else:
                with self.held(root, key, result.digest, name) as looked:
                    yield looked

    def _stands(self, root: Root, name: str, result: HashResult, now: Info) -> bool:
        if result.info is not None and FileIdentity.of(result.info).is_untouched(now):
            return True
        return not result.good and root.maintenance.is_marked(name, result.digest, now)

    def _take(self, root: Root, key: str, stack: ExitStack) -> HeldFile | None:
        """Hold the file `key`. None: there is none. Raises StorageError if not even that can be found out."""
        try:
            return HeldFile(stack.enter_context(root.driver.open(key)))
        except (NotFound, Changed):
            return None
        except StorageError as error:
            if self._run.is_lost(root, error):
                raise
            info = root.stat(key)
            return HeldFile.unopened(info) if info is not None else None


class InodeResults:
    """Remembers results on inodes with several names, for their other names. Not safe between threads."""

    def __init__(self) -> None:
        self._good, self._count = IntMap(), 0
        self._damaged: dict[int, HashResult] = {}

    def keep(self, key: int, result: HashResult) -> None:
        """Remember a result under `key_of` the inode."""
        if not result.good:
            self._damaged[key] = result
            return
        if self._count >= GOOD_INODES:
            self._good, self._count = IntMap(), 0
        self._good.put(key, 1)
        self._count += 1

    def known(self, key: int, digest: Digest, info: Info) -> HashResult | None:
        """The result that another name of this inode had, if any. `info`: the inode as it is under this name."""
        return HashResult(digest, info, digest) if self._good.get(key) else self._damaged.get(key)

    @staticmethod
    def key_of(digest: Digest, info: Info) -> int:
        """The key of one content of one file under one digest."""
        return number_of((_content(info), digest))


# -- threads --------------------------------------------------------------------------------------


class HashingStopped(Exception):
    """The run has ended, and no caller waits for the hash."""


class Hasher:
    """Hashes for one run, at the pace of its throttle. Safe between threads, each of which has its own buffer."""

    def __init__(self, run: Run) -> None:
        self._run, self._buffers, self._mutex = run, threading.local(), threading.Lock()
        self.stopped = threading.Event()
        self.stops_in_blobs = False
        """Whether --max-duration also ends a run within a blob. The caller remembers such a blob, and has it read to
        its end in the next run."""
        self.done = 0
        self.total: int | None = None

    def digest(self, reader: Reader, algorithm: str) -> Digest:
        """The digest of the whole file, up to the end that it has when it is reached. Raises HashingStopped, and TimeUp
        if `stops_in_blobs`."""
        state, at, turns = new_hash(algorithm), 0, 0
        buffer = self._buffer()
        if reader.size > READ_BYTES:
            reader.once()
        while count := reader.read_into(at, buffer):
            state.update(buffer[:count])
            at += count
            turns += 1
            self._count(count)
            self._run.throttle.take(count)
            if turns % READS_PER_PAUSE == 0:
                self._breathe()
        return digest_of_hash(algorithm, state)

    def _buffer(self) -> memoryview:
        if not hasattr(self._buffers, "view"):
            self._buffers.view = memoryview(bytearray(self._run.throttle.piece(READ_BYTES)))
        view: memoryview = self._buffers.view
        return view

    def _count(self, count: int) -> None:
        with self._mutex:
            self.done += count

    def expect(self, size: int) -> None:
        """Add bytes to the total that have to be read as well; negative, those that were counted and need not be."""
        with self._mutex:
            if self.total is not None:
                self.total = max(0, self.total + size)

    def tell(self, what: str = "") -> None:
        """Report the progress in bytes. `what`: the current repository."""
        self._run.progress(self.done, self.total, "bytes", what)

    def _breathe(self) -> None:
        if self.stopped.is_set():
            raise HashingStopped
        # A blob that was stopped once is read to its end: otherwise the largest one would be started anew each night,
        # and never be finished.
        with nullcontext() if self.stops_in_blobs else suppress(TimeUp):
            self._run.check()
        self.tell()

    @property
    def begins_no_more(self) -> bool:
        """Whether time is up for blobs that were not begun. One at least is begun in each run."""
        return self.stops_in_blobs and self.done > 0 and self._run.is_over


def measure(run: Run, places: Iterable[StoredBlobs], pooled: int | None = None) -> int:
    """The sizes of all blobs in bytes, for a total. With `pooled`, a file that has several names is read once: each
    counts its share, without as many names as the pool has. What can't be listed is reported when it is checked."""
    total = 0.0
    for place in places:
        with suppress(StorageError):
            for _, info in place.blobs():
                run.check()
                total += info.size if pooled is None else info.size / max(1, info.nlink - pooled)
    return int(total)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """A pool of threads. One caller puts tasks and handles the results; with `count` 1 there is no thread at all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count, "zotctl-hash") if count > 1 else None
        self._pending: dict[Future[Any], Callable[[Any], None]] = {}

    def put(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do `work` in a thread, and call `then` with the result in the caller's thread, in this or a later call."""
        if self._threads is None:
            then(work())
            return
        self._pending[self._threads.submit(work)] = then
        if len(self._pending) >= TASKS_PER_WORKER * self._count:
            self._collect()

    def drain(self) -> None:
        """Wait until no task is left, including those that `then` has put."""
        while self._pending:
            self._collect()

    def _collect(self) -> None:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            then = self._pending.pop(future, None)  # what `then` asks for may have collected it already
            if then is not None:
                then(future.result())

    def close(self) -> None:
        """Drop tasks that have not started, and wait for the others."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
