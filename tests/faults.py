"""Faults from round a driver, never from hooks inside it. Each wraps any driver, so also each other.

Each call of the driver and of its handles passes `before`; what is written and read passes `written` and
`read`. A fault overrides what it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from zotctl.errors import NoSpace, StorageError
from zotctl.storage.driver import Buffer, Driver, Entry, Info, Lock, Reader, Writer
from zotctl.storage.wrappers import WrappedDriver

Match = Callable[[str], bool]
"""Which keys are meant."""


class Call(NamedTuple):
    """One step: a method of the driver or of a handle, with the keys it is about."""

    method: str
    key: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.key}" + (f" -> {self.target}" if self.target else "")


class Crash(BaseException):
    """The process dies here. Not an Exception, so that nothing but `finally` runs, and that gets nowhere."""


def every(key: str) -> bool:
    return True


class Faults(WrappedDriver):
    """No fault yet: it only shows each call to `before`."""

    def before(self, call: Call) -> None:
        """May raise, wait or count. Comes after `close` and `release`, which always take place."""

    def skips(self, call: Call) -> bool:
        """True: the call is not made, and nobody is told."""
        return False

    def written(self, key: str, inner: Writer, buffers: Sequence[Buffer]) -> int:
        return inner.write(buffers)

    def copied(self, key: str, inner: Writer, source: Reader) -> bool:
        return inner.copy(source.inner if isinstance(source, FaultyReader) else source)

    def read(self, key: str, offset: int, data: bytes) -> bytes:
        return data

    def size(self, key: str, size: int) -> int:
        """What a reader says it is."""
        return size

    def stat(self, key: str) -> Info:
        self.before(Call("stat", key))
        return self.inner.stat(key)

    def open(self, key: str) -> Reader:
        self.before(Call("open", key))
        return FaultyReader(self, key, self.inner.open(key))

    def create(self, key: str) -> Writer:
        self.before(Call("create", key))
        return FaultyWriter(self, key, self.inner.create(key))

    def append(self, key: str, *, create: bool = True) -> Writer:
        self.before(Call("append", key))
        return FaultyWriter(self, key, self.inner.append(key, create=create))

    def link(self, source: str, target: str) -> None:
        self.before(Call("link", source, target))
        self.inner.link(source, target)

    def rename(self, source: str, target: str) -> None:
        self.before(Call("rename", source, target))
        self.inner.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        self.before(Call("exchange", one, other))
        self.inner.exchange(one, other)

    def unlink(self, key: str) -> None:
        self.before(Call("unlink", key))
        self.inner.unlink(key)

    def mkdir(self, key: str) -> None:
        self.before(Call("mkdir", key))
        self.inner.mkdir(key)

    def rmdir(self, key: str) -> None:
        self.before(Call("rmdir", key))
        self.inner.rmdir(key)

    def crosses_mount(self, key: str) -> bool:
        self.before(Call("crosses_mount", key))
        return self.inner.crosses_mount(key)

    def scan(self, key: str) -> Sequence[Entry]:
        self.before(Call("scan", key))
        return self.inner.scan(key)

    def sync_file(self, key: str) -> Info:
        call = Call("sync_file", key)
        self.before(call)
        return self.inner.stat(key) if self.skips(call) else self.inner.sync_file(key)

    def sync_dir(self, key: str) -> None:
        call = Call("sync_dir", key)
        self.before(call)
        if not self.skips(call):
            self.inner.sync_dir(key)

    def lock(self, key: str, byte: int) -> Lock | None:
        self.before(Call("lock", key, str(byte)))
        lock = self.inner.lock(key, byte)
        return None if lock is None else FaultyLock(self, key, lock)

    def allocate(self, key: str, size: int) -> None:
        self.before(Call("allocate", key))
        self.inner.allocate(key, size)


class FaultyReader:
    def __init__(self, faults: Faults, key: str, inner: Reader) -> None:
        self._faults, self._key, self.inner = faults, key, inner

    @property
    def size(self) -> int:
        return self._faults.size(self._key, self.inner.size)

    def info(self) -> Info:
        self._faults.before(Call("info", self._key))
        found = self.inner.info()
        return found._replace(size=self._faults.size(self._key, found.size))

    def fileno(self) -> int | None:
        """None: a `sendfile` would go past the fault."""
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        self._faults.before(Call("read_at", self._key))
        return self._faults.read(self._key, offset, self.inner.read_at(offset, count))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def once(self) -> None:
        self.inner.once()

    def uncache(self) -> None:
        self.inner.uncache()

    def labels(self) -> dict[str, bytes]:
        self._faults.before(Call("labels", self._key))
        return self.inner.labels()

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FaultyWriter:
    def __init__(self, faults: Faults, key: str, inner: Writer) -> None:
        self._faults, self._key, self._inner = faults, key, inner

    def write(self, buffers: Sequence[Buffer]) -> int:
        self._faults.before(Call("write", self._key))
        return self._faults.written(self._key, self._inner, buffers)

    def copy(self, source: Reader) -> bool:
        self._faults.before(Call("copy", self._key))
        return self._faults.copied(self._key, self._inner, source)

    def truncate(self, size: int) -> None:
        self._faults.before(Call("truncate", self._key))
        self._inner.truncate(size)

    def info(self) -> Info:
        self._faults.before(Call("info", self._key))
        return self._inner.info()

    def sync(self) -> None:
        call = Call("sync", self._key)
        self._faults.before(call)
        if not self._faults.skips(call):
            self._inner.sync()

    def set_attributes(self, like: Info | None, mtime_ns: int) -> None:
        self._faults.before(Call("set_attributes", self._key))
        self._inner.set_attributes(like, mtime_ns)

    def try_lock(self) -> bool:
        self._faults.before(Call("try_lock", self._key))
        return self._inner.try_lock()

    def close(self) -> None:
        self._inner.close()
        self._faults.before(Call("close", self._key))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        except StorageError:
            if exc[0] is None:
                raise


class FaultyLock:
    def __init__(self, faults: Faults, key: str, inner: Lock) -> None:
        self._faults, self._key, self._inner = faults, key, inner

    def current(self) -> bool:
        self._faults.before(Call("current", self._key))
        return self._inner.current()

    def release(self) -> None:
        self._inner.release()
        self._faults.before(Call("release", self._key))


class Recorder(Faults):
    """Keeps each call, in order."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    def before(self, call: Call) -> None:
        self.calls.append(call)

    def lines(self) -> list[str]:
        return [str(call) for call in self.calls]


class FailOn(Faults):
    """The n-th call of a method (from 1), of those whose first key matches, raises the error, once."""

    def __init__(self, inner: Driver, method: str, n: int, error: StorageError, match: Match = every) -> None:
        super().__init__(inner)
        self.method, self.left, self.error, self.match = method, n, error, match

    def before(self, call: Call) -> None:
        if call.method == self.method and self.match(call.key):
            self.left -= 1
            if not self.left:
                raise self.error


class CrashAfter(Faults):
    """The process makes n more calls and dies before the next. Its files stay; its locks go, as the kernel
    does it, when the stack is left. A process that died makes no calls: each later one crashes too."""

    def __init__(self, inner: Driver, n: int) -> None:
        super().__init__(inner)
        self.left = n
        self.crashed = False

    def before(self, call: Call) -> None:
        if call.method in ("close", "release"):
            return
        if self.left <= 0:
            self.crashed = True
            raise Crash(str(call))
        self.left -= 1


class _Bytes(Faults):
    """A copy is a write like another."""

    def copied(self, key: str, inner: Writer, source: Reader) -> bool:
        self.written(key, inner, [source.read_at(0, source.size)])
        return False


class FlipByte(_Bytes):
    """One bit is wrong in the byte at an offset: of what is written, or with `reading` of what is read."""

    def __init__(self, inner: Driver, at: int, match: Match = every, *, bit: int = 0, reading: bool = False) -> None:
        super().__init__(inner)
        self.at, self.match, self.mask, self.reading = at, match, 1 << bit, reading

    def written(self, key: str, inner: Writer, buffers: Sequence[Buffer]) -> int:
        if self.reading or not self.match(key):
            return inner.write(buffers)
        return inner.write([self._flip(inner.info().size, b"".join(buffers))])

    def read(self, key: str, offset: int, data: bytes) -> bytes:
        return self._flip(offset, data) if self.reading and self.match(key) else data

    def _flip(self, offset: int, data: bytes) -> bytes:
        place = self.at - offset
        if not 0 <= place < len(data):
            return data
        return data[:place] + bytes([data[place] ^ self.mask]) + data[place + 1 :]


class Truncate(_Bytes):
    """Everything behind `size` bytes is lost, and success is told: of what is written, or with `reading`
    of what is read."""

    def __init__(self, inner: Driver, size: int, match: Match = every, *, reading: bool = False) -> None:
        super().__init__(inner)
        self.limit, self.match, self.reading = size, match, reading

    def written(self, key: str, inner: Writer, buffers: Sequence[Buffer]) -> int:
        if self.reading or not self.match(key):
            return inner.write(buffers)
        body = b"".join(buffers)
        inner.write([body[: max(0, self.limit - inner.info().size)]])
        return len(body)

    def read(self, key: str, offset: int, data: bytes) -> bytes:
        return data[: self.size(key, offset + len(data)) - offset] if offset < self.size(key, 1 << 62) else b""

    def size(self, key: str, size: int) -> int:
        return min(size, self.limit) if self.reading and self.match(key) else size


class Slow(Faults):
    """Each call of some methods (None: of all) takes longer, by `seconds`."""

    def __init__(
        self,
        inner: Driver,
        seconds: float,
        methods: Collection[str] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self.seconds, self.methods, self.sleep = seconds, methods, sleep

    def before(self, call: Call) -> None:
        if self.methods is None or call.method in self.methods:
            self.sleep(self.seconds)


class NoSpaceAfter(_Bytes):
    """The storage is full after so many bytes. The write that meets the end writes what still fits; then
    nothing can be made either. Set `left` to make room again."""

    def __init__(self, inner: Driver, left: int) -> None:
        super().__init__(inner)
        self.left = left

    def before(self, call: Call) -> None:
        if call.method in ("create", "mkdir", "allocate") and self.left <= 0:
            raise NoSpace(f"{call.key}: no space left")

    def allocate(self, key: str, size: int) -> None:
        if size > self.left:
            raise NoSpace(f"{key}: no space left")
        super().allocate(key, size)
        self.left -= size

    def written(self, key: str, inner: Writer, buffers: Sequence[Buffer]) -> int:
        body = b"".join(buffers)
        fits = body[: max(0, self.left)]
        self.left -= len(fits)
        if fits:
            inner.write([fits])
        if len(fits) < len(body):
            raise NoSpace(f"{key}: no space left")
        return len(body)


class DropSync(Faults):
    """Flushes are not made: of files ("sync", "sync_file"), of directories ("sync_dir") or of both."""

    def __init__(self, inner: Driver, methods: Collection[str] = ("sync", "sync_file", "sync_dir")) -> None:
        super().__init__(inner)
        self.methods = methods

    def skips(self, call: Call) -> bool:
        return call.method in self.methods


class Meanwhile(Faults):
    """Before the n-th call of a method (from 1), of those whose first key matches, another process does something.
    It works on the driver below, so that it passes here unseen."""

    def __init__(self, inner: Driver, method: str, act: Callable[[], object], match: Match = every, n: int = 1) -> None:
        super().__init__(inner)
        self.method, self.act, self.match, self.left = method, act, match, n

    @property
    def done(self) -> bool:
        return self.left <= 0

    def before(self, call: Call) -> None:
        if call.method == self.method and self.match(call.key):
            self.left -= 1
            if not self.left:
                self.act()
