"""Hashing blobs at the speed of all cores, and what their bytes say about their names.

A result is about one content of one file under one digest, so names that share it share the result. Before anything
is done to a file, it is held and compared, and read again if anything at all has happened to it (I15, I10).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from zotctl.errors import Changed, NotFound, StorageError
from zotctl.jobs.run import Run, TimeUp
from zotctl.oci.digest import Digest, digest_of_hash, is_stub, new_hash
from zotctl.storage import keys
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import FileIdentity, HeldFile
from zotctl.storage.root import Root

T = TypeVar("T")

READ_BYTES = 1 << 20
"""Bytes read at a time: few calls, each of which lets go of the interpreter and has to get it back."""
READS_PER_PAUSE = 8
"""Between two looks at whether requests are waiting."""
TASKS_PER_WORKER = 4
"""Pieces of work for each worker that may be under way or waiting."""
WRITTEN_IN_PLACE_S = 2.0
"""Since the last write: until then a file may still be being written in place, as zot writes manifests."""
READ_ATTEMPTS = 3
"""At a file that is being written, before it is left alone."""
GOOD_INODES = 1_000_000
"""Inodes of several names that are remembered as good; beyond that some are read twice."""


# -- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HashResult:
    """What the bytes under a name are. `info`: the inode that was read, None if the name was gone; `found`: what its
    bytes hash to, None if they were not read; `error`: why they could not be."""

    digest: Digest
    info: Info | None = None
    found: Digest | None = None
    error: StorageError | None = None

    @property
    def gone(self) -> bool:
        """There is nothing under the name."""
        return self.info is None and self.error is None

    @property
    def good(self) -> bool:
        """The bytes are what the digest says, or were found to be."""
        return self.found == self.digest

    def is_about(self, info: Info | None) -> bool:
        """The same content of the same file, as far as its stamps tell: enough to speak of it, or to leave it alone."""
        return self.info is not None and info is not None and _content(self.info) == _content(info)


def _content(info: Info) -> FileIdentity:
    return FileIdentity.of(info).content


class Looked(NamedTuple):
    """A result, and the file that it is about, held. None: nothing is held, for there is nothing to be done."""

    result: HashResult
    held: HeldFile | None = None


class Inspector:
    """Reads blobs, from any thread. `quick`: looks at sizes and known damage only."""

    def __init__(self, run: Run, hasher: Hasher, *, quick: bool = False) -> None:
        self._run, self._clock, self._hasher, self._quick = run, run.clock, hasher, quick
        self._requests = run.requests

    def blob(self, root: Root, name: str, digest: Digest) -> HashResult:
        """Of a repository."""
        return self.look(root, keys.blob(name, digest), digest, name)

    def look(self, root: Root, key: str, digest: Digest, name: str = "") -> HashResult:
        """Hash always: rot leaves the time stamp alone. What is still being written is looked at again."""
        with self.held(root, key, digest, name) as looked:
            return looked.result

    @contextmanager
    def held(self, root: Root, key: str, digest: Digest, name: str = "") -> Iterator[Looked]:
        """The same, and the file is held as long as the block runs."""
        for _ in range(READ_ATTEMPTS):
            with ExitStack() as stack:
                looked, now = self._once(root, key, digest, name, stack)
                age = self._age(looked.result, now)
                if age is None:
                    yield looked
                    return
            self._clock.sleep(max(0.0, min(WRITTEN_IN_PLACE_S, WRITTEN_IN_PLACE_S - age)))
        yield Looked(HashResult(digest))

    def _age(self, result: HashResult, now: Info | None) -> float | None:
        """Seconds since the last write to a file that may still be being written; None: the result stands."""
        if result.good or result.info is None or now is None or self._quick:
            return None
        age = self._clock.now() - now.mtime_ns / 1e9
        return age if _content(now) != _content(result.info) or 0 <= age < WRITTEN_IN_PLACE_S else None

    def _once(self, root: Root, key: str, digest: Digest, name: str, stack: ExitStack) -> tuple[Looked, Info | None]:
        """The result on the file as it was when it was opened, and what it is afterwards."""
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
        """The file that a result is about, held, before something is done to it. If anything has happened to the file
        since, and no mark has held it, the result is void, and it is read again. Gone: the name leads elsewhere."""
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
        """None: there is nothing under this name. Raises StorageError where not even that can be told."""
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
    """Results on inodes that have several names, for the next name. Not for several threads."""

    def __init__(self) -> None:
        self._good: set[int] = set()
        self._damaged: dict[int, HashResult] = {}

    def keep(self, key: int, result: HashResult) -> None:
        """Remember a result under `key_of` the inode."""
        if not result.good:
            self._damaged[key] = result
            return
        if len(self._good) >= GOOD_INODES:
            self._good.clear()
        self._good.add(key)

    def known(self, key: int, digest: Digest, info: Info) -> HashResult | None:
        """What was found of this inode under another name. `info`: as it is under this one."""
        return HashResult(digest, info, digest) if key in self._good else self._damaged.get(key)

    @staticmethod
    def key_of(digest: Digest, info: Info) -> int:
        """Of one content of one file under one digest."""
        return hash((_content(info), digest))


# -- threads --------------------------------------------------------------------------------------


class HashingStopped(Exception):
    """No caller waits for this any more."""


class Hasher:
    """Hashes for one run, paced by its throttle. Safe between threads: each has a buffer of its own."""

    def __init__(self, run: Run) -> None:
        self._run, self._buffers, self._mutex = run, threading.local(), threading.Lock()
        self.stopped = threading.Event()
        self.done = 0
        self.total: int | None = None

    def digest(self, reader: Reader, algorithm: str) -> Digest:
        """Of all that can be read, to the end as it is then."""
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

    def tell(self, what: str = "") -> None:
        """How far it is, in bytes."""
        self._run.progress(self.done, self.total, "bytes", what)

    def _breathe(self) -> None:
        if self.stopped.is_set():
            raise HashingStopped
        # Time that is up ends the run between two blobs: a blob that was begun is finished, or the largest
        # one would be begun anew each night and never be checked.
        with suppress(TimeUp):
            self._run.check()
        self.tell()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """Threads that work, and one caller that takes the results; with one worker, no thread at all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count, "zotctl-hash") if count > 1 else None
        self._pending: dict[Future[Any], Callable[[Any], None]] = {}

    def put(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have it done, and `then` called with the result, in this thread, here or in a later call."""
        if self._threads is None:
            then(work())
            return
        self._pending[self._threads.submit(work)] = then
        if len(self._pending) >= TASKS_PER_WORKER * self._count:
            self._collect()

    def drain(self) -> None:
        """Until nothing is left to do, what the results themselves ask for included."""
        while self._pending:
            self._collect()

    def _collect(self) -> None:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            then = self._pending.pop(future, None)  # what `then` asks for may have collected it already
            if then is not None:
                then(future.result())

    def close(self) -> None:
        """Drop what was not begun and wait for the rest."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
