"""Wrappers round a driver. Tests insert faults, delays and counters in the same way (`tests/faults.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from zotctl.errors import NotFound, ReadOnlyStorage
from zotctl.storage.driver import Capabilities, Checkpoint, Driver, Entry, Info

M = TypeVar("M", bound=Callable[..., Any])


def _hand_on(method: M) -> M:
    """The same method of the driver inside."""
    name = method.__name__

    def call(self: WrappedDriver, *arguments: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **options)

    return cast(M, call)


def _hand_on_inside(method: M) -> M:
    """The same method of the driver inside, with the keys inside: its string arguments are keys."""
    name = method.__name__

    def call(self: AliasedDriver, *arguments: Any, **options: Any) -> Any:
        inside = [self.inner_key(one) if isinstance(one, str) else one for one in arguments]
        return getattr(self.inner, name)(*inside, **options)

    return cast(M, call)


class WrappedDriver:
    """Passes every call on. A wrapper overrides what it changes. As safe between threads as the driver inside."""

    def __init__(self, inner: Driver) -> None:
        self.inner = inner

    @property
    def label(self) -> str:
        """That of the driver inside."""
        return self.inner.label

    @property
    def capabilities(self) -> Capabilities:
        """Those of the driver inside."""
        return self.inner.capabilities

    stat = _hand_on(Driver.stat)
    open = _hand_on(Driver.open)
    create = _hand_on(Driver.create)
    append = _hand_on(Driver.append)
    link = _hand_on(Driver.link)
    rename = _hand_on(Driver.rename)
    exchange = _hand_on(Driver.exchange)
    unlink = _hand_on(Driver.unlink)
    mkdir = _hand_on(Driver.mkdir)
    rmdir = _hand_on(Driver.rmdir)
    crosses_mount = _hand_on(Driver.crosses_mount)
    scan = _hand_on(Driver.scan)
    sync_file = _hand_on(Driver.sync_file)
    touch = _hand_on(Driver.touch)
    sync_dir = _hand_on(Driver.sync_dir)
    checkpoint = _hand_on(Driver.checkpoint)
    lock = _hand_on(Driver.lock)
    allocate = _hand_on(Driver.allocate)
    space = _hand_on(Driver.space)


class ReadOnlyDriver(WrappedDriver):
    """Raises `ReadOnlyStorage` for every call that changes something, even a lock, which creates its file."""

    def _refuse(self, *arguments: object, **options: object) -> NoReturn:
        *_, key = (one for one in arguments if isinstance(one, str))
        raise ReadOnlyStorage(f"{self.label} is served read-only: {key} can't be changed")

    create = append = link = rename = exchange = unlink = mkdir = rmdir = touch = lock = allocate = _refuse

    def sync_file(self, key: str) -> Info:
        """Nothing of ours is to be flushed."""
        return self.stat(key)

    def sync_dir(self, key: str) -> None:
        """Nothing of ours is to be flushed."""

    def checkpoint(self) -> Checkpoint | None:
        """None: there is nothing to flush at once."""
        return None


class AliasedDriver(WrappedDriver):
    """One directory of a driver, which may be "" (its root), under a name of its own, and nothing else."""

    def __init__(self, inner: Driver, name: str, directory: str) -> None:
        super().__init__(inner)
        self.name, self.directory = name, directory

    open = _hand_on_inside(Driver.open)
    create = _hand_on_inside(Driver.create)
    append = _hand_on_inside(Driver.append)
    link = _hand_on_inside(Driver.link)
    rename = _hand_on_inside(Driver.rename)
    exchange = _hand_on_inside(Driver.exchange)
    unlink = _hand_on_inside(Driver.unlink)
    mkdir = _hand_on_inside(Driver.mkdir)
    rmdir = _hand_on_inside(Driver.rmdir)
    crosses_mount = _hand_on_inside(Driver.crosses_mount)
    sync_file = _hand_on_inside(Driver.sync_file)
    touch = _hand_on_inside(Driver.touch)
    sync_dir = _hand_on_inside(Driver.sync_dir)
    lock = _hand_on_inside(Driver.lock)
    allocate = _hand_on_inside(Driver.allocate)

    def stat(self, key: str) -> Info:
        """The root "" is the directory."""
        return self.inner.stat(self.inner_key(key or self.name))

    def scan(self, key: str) -> Sequence[Entry]:
        """Nothing of the root "": the name may have several components. The store knows it."""
        return self.inner.scan(self.inner_key(key)) if key else []

    def inner_key(self, key: str) -> str:
        """The key for the driver inside. Raises NotFound for one outside of the directory."""
        if key == self.name:
            return self.directory
        if not key.startswith(f"{self.name}/"):
            raise NotFound(f"{key}: only {self.name} is served here")
        rest = key[len(self.name) + 1 :]
        return f"{self.directory}/{rest}" if self.directory else rest
