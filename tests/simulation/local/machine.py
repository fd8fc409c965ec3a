"""What all processes of a schedule share on a directory: a driver in memory, the time, the trace and the model.

`Turns` is the driver of one process: the shared one with a switch to the scheduler before each call, and a look by the
model after it.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.doubles.filesystem import MemoryDriver, MemoryLock, MemoryReader, MemoryWriter
from tests.simulation import scheduler
from tests.simulation.scheduler import SECOND, Script
from zotctl.errors import Exists
from zotctl.storage import keys
from zotctl.storage.driver import Buffer, Capabilities, Entry, Info, Space

if TYPE_CHECKING:
    from tests.simulation.local.model import Model

DELAY = 100.0
"""Seconds that unreachable content is kept."""
STEP = 100_000
"""Nanoseconds that one call takes."""
TICK = 4_000_000
"""Of a kernel's coarse clock, which gives many calls one time stamp."""


CHANGES = frozenset(("create", "append", "link", "rename", "exchange", "unlink", "mkdir", "rmdir", "touch"))
"""Calls that change what is there."""
_OWN = (keys.TMP, keys.UPLOADS, keys.HISTORY, keys.VERSION, keys.LEASES)
_DULL = ("fstat", "unlock", "begin")


class Machine(scheduler.Machine):
    """The storage is a driver in memory."""

    model: Model

    def __init__(self, driver: MemoryDriver, now: int, *, coarse: bool) -> None:
        super().__init__(now)
        self.driver, self.coarse, self.stamps = driver, coarse, 0
        self.commit = False
        """Do its stores flush what they are told?"""
        self.links: frozenset[str] = frozenset()
        """Repositories that are symbolic links out of the store."""
        self.skew = 0
        """Nanoseconds by which the host's clock is wrong, for its processes and for what stamps its files."""
        self.skewed = False
        """Was it ever?"""
        driver.clock = self.file_time

    def file_time(self) -> int:
        """What the file system stamps a change with."""
        now = self.now + self.skew
        if self.coarse:
            return now - now % TICK
        self.stamps += 1
        return now + self.stamps % STEP

    def jump(self, by: float) -> None:
        """By so many delays."""
        self.now += int(by * DELAY * SECOND)
        self.note("clock", "TICK", f"{by:g} delays")

    def let_time_pass(self, living: Sequence[Process]) -> None:
        """Sleepers wake up, those that wait for a lock get tired, the frozen thaw."""
        sleepers = [p.wake for p in living if p.waits is None and p.thaw <= self.steps]
        if sleepers:
            self.now = max(self.now, min(sleepers))
            return
        waiting = [p for p in living if p.waits is not None and p.thaw <= self.steps]
        if waiting:
            self.now += 5 * SECOND
            for process in waiting:
                process.waits, process.wake = None, self.now
            return
        for process in living:
            process.thaw = 0


class SimClock(scheduler.SimClock):
    def now(self) -> float:
        return (self._machine.now + self._machine.skew) / SECOND

    def now_ns(self) -> int:
        self._machine.stamps += 1
        return self._machine.now + self._machine.skew + self._machine.stamps % STEP

    def elapsed(self) -> float:
        return self._machine.now / SECOND

    def sleep(self, seconds: float) -> None:
        process = self._process
        process.wake = self._machine.now + int(seconds * SECOND)
        process.waits, process.refused = process.refused, None
        process.turn("sleep", f"{seconds:g}")
        process.waits = None


class Process(scheduler.Process):
    """`freeze`: (call, steps) for which it gets no turn."""

    machine: Machine

    def __init__(self, machine: Machine, name: str, script: Script | None = None) -> None:
        super().__init__(machine, name, script)
        self.clock = SimClock(self)
        self.driver = Turns(self)
        self.thaw = 0
        self.refused: int | None = None
        """The byte of the lock that was asked for last, in vain."""
        self.waits: int | None = None
        self.held: set[int] = set()
        self.handles: dict[int, Any] = {}
        self.seen: dict[str, tuple[int, int]] = {}
        """Keys of blobs: at which step and when this process last saw that it is there."""
        self.looked = 0
        """The step of the last call of a commit before its last look at index.json."""

    def die(self) -> None:
        """As the kernel does: every descriptor is closed, every lock is free."""
        self.dead = True
        for handle in self.handles.values():
            handle.close()
        self.handles.clear()
        self.held.clear()

    def pass_step(self) -> None:
        self.machine.now += STEP

    def maybe_freeze(self, method: str) -> None:
        if self.freeze is not None and self.calls == self.freeze[0]:
            self.thaw = self.machine.steps + self.freeze[1]
            self.machine.note(self.name, "FROZEN")

    def proceed(self, method: str, key: str, target: str) -> None:
        machine = self.machine
        machine.trace.append((self.name, method, key, target))
        machine.now += STEP
        if machine.links and method in CHANGES:
            machine.model.changes(self, method, key, target)

    def can_run(self) -> bool:
        machine = self.machine
        if self.done or self.thaw > machine.steps:
            return False
        if self.waits is not None:
            lock = machine.driver.names.get(keys.LOCK)
            return lock is None or self.waits not in lock.locks
        return self.wake <= machine.now

    def is_own(self) -> bool:
        method, key, target = self.next
        return method in _DULL or (key.startswith(_OWN) and not target) or keys.INDEX_TEMP_PREFIX in key


class Turns:
    """The driver of one process."""

    def __init__(self, process: Process) -> None:
        self._process, self._machine = process, process.machine
        self._inner = process.machine.driver
        self._turn = process.turn
        self.label = self._inner.label
        self.capabilities: Capabilities = self._inner.capabilities

    def stat(self, key: str) -> Info:
        self._turn("stat", key)
        info = self._inner.stat(key)
        if key in self._machine.links:
            info = info._replace(mode=stat.S_IFLNK | 0o777)
        if "/blobs/" in key:
            self._process.seen[key] = (self._machine.steps, self._machine.now)
        return info

    def open(self, key: str) -> Reading:
        self._turn("open", key)
        reader = Reading(self._process, key, self._inner.open(key))
        if "/blobs/" in key:
            self._process.seen[key] = (self._machine.steps, self._machine.now)
        return reader

    def create(self, key: str) -> Writing:
        self._turn("create", key)
        return Writing(self._process, key, self._inner.create(key))

    def append(self, key: str, *, create: bool = True) -> Writing:
        self._turn("append", key)
        return Writing(self._process, key, self._inner.append(key, create=create))

    def link(self, source: str, target: str) -> None:
        self._turn("link", source, target)
        self._inner.link(source, target)
        if "/blobs/" in target:
            self._process.seen[target] = (self._machine.steps, self._machine.now)
            if self._machine.hub is not None:
                self._machine.model.appeared(self._process, target, source)
        elif target.startswith(f"{keys.DAMAGED}/") and self._machine.hub is not None:
            self._machine.model.marked(self._process, target)

    def rename(self, source: str, target: str) -> None:
        self._turn("rename", source, target)
        old = self._inner.names.get(target)
        self._inner.rename(source, target)
        if self._machine.hub is None or source in self._inner.names:
            return
        model = self._machine.model
        if "/blobs/" in source:
            model.vanished(self._process, source, target)
        if "/blobs/" in target:
            model.appeared(self._process, target, source)
        elif target.endswith("/index.json"):
            model.index_replaced(self._process, keys.parent(target), old)

    def exchange(self, one: str, other: str) -> None:
        self._turn("exchange", one, other)
        old = self._inner.names.get(other)
        self._inner.exchange(one, other)
        if self._machine.hub is not None and other.endswith("/index.json"):
            self._machine.model.index_replaced(self._process, keys.parent(other), old)

    def unlink(self, key: str) -> None:
        self._turn("unlink", key)
        self._inner.unlink(key)
        if self._machine.hub is None:
            return
        if "/blobs/" in key:
            self._machine.model.vanished(self._process, key, "")
        elif key.endswith("/index.json"):
            self._machine.model.index_removed(self._process, keys.parent(key))

    def mkdir(self, key: str) -> None:
        self._turn("mkdir", key)
        self._inner.mkdir(key)

    def rmdir(self, key: str) -> None:
        self._turn("rmdir", key)
        self._inner.rmdir(key)

    def crosses_mount(self, key: str) -> bool:
        return self._inner.crosses_mount(key)

    def scan(self, key: str) -> list[Entry]:
        self._turn("scan", key)
        if self._process.held and self._machine.hub is not None:
            self._machine.model.scanned_under_lock(self._process, key)
        return self._inner.scan(key)

    def sync_file(self, key: str) -> Info:
        self._turn("sync_file", key)
        return self._inner.sync_file(key)

    def checkpoint(self) -> None:
        pass

    def touch(self, key: str, mtime_ns: int) -> None:
        self._turn("touch", key)
        self._inner.touch(key, mtime_ns)

    def sync_dir(self, key: str) -> None:
        self._inner.sync_dir(key)

    def lock(self, key: str, byte: int) -> Locked | None:
        process = self._process
        self._turn("lock", key)
        lock = self._inner.lock(key, byte)
        if lock is None:
            process.refused = byte if key == keys.LOCK else None
            return None
        if key == keys.LOCK:
            process.held.add(byte)
        return Locked(process, key, byte, lock)

    def allocate(self, key: str, size: int) -> None:
        raise Exists(f"{key}: no reserve is simulated")

    def space(self) -> Space:
        return self._inner.space()


class Locked:
    def __init__(self, process: Process, key: str, byte: int, inner: MemoryLock) -> None:
        self._process, self._key, self._byte, self._inner = process, key, byte, inner
        process.handles[id(self)] = inner

    def current(self) -> bool:
        return self._inner.current()

    def release(self) -> None:
        """It always takes place; before it, others may go, and the process may die or freeze."""
        try:
            if not self._process.dead:
                self._process.turn("unlock", self._key)
        finally:
            self._process.held.discard(self._byte)
            self._inner.release()
            self._process.handles.pop(id(self), None)


class Reading:
    def __init__(self, process: Process, key: str, inner: MemoryReader) -> None:
        self._process, self._key, self.inner = process, key, inner
        self.size = inner.size
        process.handles[id(self)] = inner

    def info(self) -> Info:
        self._process.turn("fstat", self._key)
        return self.inner.info()

    def fileno(self) -> None:
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        self._process.turn("read", self._key)
        if self._process.held and self._process.machine.hub is not None:
            self._process.machine.model.read_under_lock(self._process, self._key)
        return self.inner.read_at(offset, count)

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

    def close(self) -> None:
        self._process.handles.pop(id(self), None)
        self.inner.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Writing:
    def __init__(self, process: Process, key: str, inner: MemoryWriter) -> None:
        self._process, self._key, self.inner = process, key, inner
        process.handles[id(self)] = inner

    def write(self, buffers: Sequence[Buffer]) -> int:
        self._process.turn("write", self._key)
        return self.inner.write(buffers)

    def copy(self, source: Any) -> bool:
        self._process.turn("copy", source._key, self._key)
        return self.inner.copy(source.inner)

    def truncate(self, size: int) -> None:
        self._process.turn("truncate", self._key)
        self.inner.truncate(size)

    def info(self) -> Info:
        return self.inner.info()

    def sync(self) -> None:
        """Nothing is lost here but by a crash of a process, so a flush is no step."""

    def set_attributes(self, like: Info | None, mtime_ns: int) -> None:
        self._process.looked = self._process.machine.steps
        self.inner.set_attributes(like, mtime_ns)

    def try_lock(self) -> bool:
        self._process.turn("try_lock", self._key)
        return self.inner.try_lock()

    def close(self) -> None:
        self._process.handles.pop(id(self), None)
        self.inner.close()

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
