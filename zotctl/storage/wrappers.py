"""Drivers round a driver."""

from __future__ import annotations

from zotctl.errors import NotFound, ReadOnlyStorage
from zotctl.storage.driver import Capabilities, Checkpoint, Driver, Entry, Info, Lock, Reader, Space, Writer


class WrappedDriver:
    """Hands every call on. A wrapper overrides what it changes."""

    def __init__(self, inner: Driver) -> None:
        self.inner = inner

    @property
    def label(self) -> str:
        return self.inner.label

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def stat(self, key: str) -> Info:
        return self.inner.stat(key)

    def open(self, key: str) -> Reader:
        return self.inner.open(key)

    def create(self, key: str) -> Writer:
        return self.inner.create(key)

    def append(self, key: str, *, create: bool = True) -> Writer:
        return self.inner.append(key, create=create)

    def link(self, source: str, target: str) -> None:
        self.inner.link(source, target)

    def rename(self, source: str, target: str) -> None:
        self.inner.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        self.inner.exchange(one, other)

    def unlink(self, key: str) -> None:
        self.inner.unlink(key)

    def mkdir(self, key: str) -> None:
        self.inner.mkdir(key)

    def rmdir(self, key: str) -> None:
        self.inner.rmdir(key)

    def crosses_mount(self, key: str) -> bool:
        return self.inner.crosses_mount(key)

    def scan(self, key: str) -> list[Entry]:
        return self.inner.scan(key)

    def sync_file(self, key: str) -> Info:
        return self.inner.sync_file(key)

    def touch(self, key: str, mtime_ns: int) -> None:
        self.inner.touch(key, mtime_ns)

    def sync_dir(self, key: str) -> None:
        self.inner.sync_dir(key)

    def checkpoint(self) -> Checkpoint | None:
        return self.inner.checkpoint()

    def lock(self, key: str, byte: int) -> Lock | None:
        return self.inner.lock(key, byte)

    def allocate(self, key: str, size: int) -> None:
        self.inner.allocate(key, size)

    def space(self) -> Space:
        return self.inner.space()


class ReadOnlyDriver(WrappedDriver):
    """Nothing is changed: what would, raises `ReadOnlyStorage`. So does a lock, which makes its file."""

    def create(self, key: str) -> Writer:
        raise self._refusal(key)

    def append(self, key: str, *, create: bool = True) -> Writer:
        raise self._refusal(key)

    def link(self, source: str, target: str) -> None:
        raise self._refusal(target)

    def rename(self, source: str, target: str) -> None:
        raise self._refusal(target)

    def exchange(self, one: str, other: str) -> None:
        raise self._refusal(other)

    def unlink(self, key: str) -> None:
        raise self._refusal(key)

    def mkdir(self, key: str) -> None:
        raise self._refusal(key)

    def rmdir(self, key: str) -> None:
        raise self._refusal(key)

    def sync_file(self, key: str) -> Info:
        return self.inner.stat(key)

    def touch(self, key: str, mtime_ns: int) -> None:
        raise self._refusal(key)

    def sync_dir(self, key: str) -> None:
        pass

    def checkpoint(self) -> Checkpoint | None:
        return None

    def lock(self, key: str, byte: int) -> Lock | None:
        raise self._refusal(key)

    def allocate(self, key: str, size: int) -> None:
        raise self._refusal(key)

    def _refusal(self, key: str) -> ReadOnlyStorage:
        return ReadOnlyStorage(f"{self.label} is served read-only: {key} can't be changed")


class AliasedDriver(WrappedDriver):
    """One directory of a driver, which may be "" (its root), under a name of its own, and nothing else."""

    def __init__(self, inner: Driver, name: str, directory: str) -> None:
        super().__init__(inner)
        self.name, self.directory = name, directory

    def stat(self, key: str) -> Info:
        return self.inner.stat(self._inner_key(key or self.name))

    def open(self, key: str) -> Reader:
        return self.inner.open(self._inner_key(key))

    def create(self, key: str) -> Writer:
        return self.inner.create(self._inner_key(key))

    def append(self, key: str, *, create: bool = True) -> Writer:
        return self.inner.append(self._inner_key(key), create=create)

    def link(self, source: str, target: str) -> None:
        self.inner.link(self._inner_key(source), self._inner_key(target))

    def rename(self, source: str, target: str) -> None:
        self.inner.rename(self._inner_key(source), self._inner_key(target))

    def exchange(self, one: str, other: str) -> None:
        self.inner.exchange(self._inner_key(one), self._inner_key(other))

    def unlink(self, key: str) -> None:
        self.inner.unlink(self._inner_key(key))

    def mkdir(self, key: str) -> None:
        self.inner.mkdir(self._inner_key(key))

    def rmdir(self, key: str) -> None:
        self.inner.rmdir(self._inner_key(key))

    def crosses_mount(self, key: str) -> bool:
        return self.inner.crosses_mount(self._inner_key(key))

    def scan(self, key: str) -> list[Entry]:
        if not key:
            return []  # the name may have several components; who wants to know it asks the store
        return self.inner.scan(self._inner_key(key))

    def sync_file(self, key: str) -> Info:
        return self.inner.sync_file(self._inner_key(key))

    def touch(self, key: str, mtime_ns: int) -> None:
        self.inner.touch(self._inner_key(key), mtime_ns)

    def sync_dir(self, key: str) -> None:
        self.inner.sync_dir(self._inner_key(key))

    def lock(self, key: str, byte: int) -> Lock | None:
        return self.inner.lock(self._inner_key(key), byte)

    def allocate(self, key: str, size: int) -> None:
        self.inner.allocate(self._inner_key(key), size)

    def _inner_key(self, key: str) -> str:
        if key == self.name:
            return self.directory
        if not key.startswith(f"{self.name}/"):
            raise NotFound(f"{key}: only {self.name} is served here")
        rest = key[len(self.name) + 1 :]
        return f"{self.directory}/{rest}" if self.directory else rest
