"""Which states a power cut may leave, from a log of driver calls (docs/design/proof.md#power-cuts).

What was not flushed may be gone: the data of a file (all, half or none of it is there, of each or of one alone), and
the names in a directory. Three kinds of file system:

- `journal`: names go in the order in which they were made, and a flush takes all before it (ext4, xfs);
- `log`: the same, but a flushed directory may overtake older changes elsewhere (btrfs);
- `any`: nothing holds but what was flushed (POSIX).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, cast

from tests.doubles.filesystem import MemoryDriver
from zotctl.storage.driver import Buffer, Checkpoint, Driver, Info, Lock, Reader, Writer
from zotctl.storage.wrappers import WrappedDriver

MODELS = ("journal", "log", "any")
DATA = ("whole", "half", "none")
"""How much of the bytes that were not flushed is there."""
ALONE = 3
"""So many of the files with bytes that were not flushed, the latest, are also tried as the only one that is empty."""
SUBSETS = 4
"""And so many subsets of the loose changes of names, by chance."""
RECENT = 15
"""Where any change may be missing: so many of the last ones are tried."""

Entry = tuple[int, str]
"""A directory and a name in it."""


@dataclass
class _File:
    body: bytes = b""
    flushed: bytes = b""

    def after_cut(self, data: str) -> bytes:
        if not self.body.startswith(self.flushed):
            return self.flushed
        rest = self.body[len(self.flushed) :]
        keep = {"whole": len(rest), "half": len(rest) // 2, "none": 0}[data]
        return self.flushed + rest[:keep]


@dataclass(frozen=True)
class _Change:
    """What one call did to names; it is there or it isn't, as a whole."""

    entries: tuple[tuple[Entry, int | None], ...]


@dataclass
class World:
    """The log, replayed up to some moment."""

    files: dict[int, _File] = field(default_factory=dict)
    directories: set[int] = field(default_factory=lambda: {0})
    names: dict[Entry, int] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    flushed: set[int] = field(default_factory=set)
    """Which changes a flush has taken."""
    last_flush: int = 0
    made: ClassVar[int] = 0
    """States that were given out, by all worlds."""

    def look(self, key: str) -> int:
        found = 0
        for part in key.split("/") if key else ():
            found = self.names[found, part]
        return found

    def entry(self, key: str) -> Entry:
        directory, _, name = key.rpartition("/")
        return self.look(directory), name

    def change(self, *entries: tuple[Entry, int | None]) -> None:
        self.changes.append(_Change(entries))
        for entry, target in entries:
            if target is None:
                self.names.pop(entry, None)
            else:
                self.names[entry] = target

    def flush(self, directory: int) -> None:
        self.last_flush = len(self.changes)
        for number, change in enumerate(self.changes):
            if any(entry[0] == directory for entry, _ in change.entries):
                self.flushed.add(number)

    def settle(self) -> None:
        """As after a long while: everything is on the device."""
        for file in self.files.values():
            file.flushed = file.body
        self.flushed = set(range(len(self.changes)))
        self.last_flush = len(self.changes)

    def states(self, model: str, seen: set[int] | None = None) -> Iterator[MemoryDriver]:
        """Every state that a cut at this moment may leave, but for those that were `seen` before."""
        seen = set() if seen is None else seen
        for kept in self._kept(model):
            names = self._names(kept)
            for data in self._data({ino for ino in names.values() if ino in self.files}):
                tree = {key: self._content(ino, data.get(ino, data[0])) for key, ino in names.items()}
                mark = hash(frozenset(tree.items()))
                if mark not in seen:
                    seen.add(mark)
                    World.made += 1
                    yield _driver(tree)

    def _data(self, there: set[int]) -> Iterator[dict[int, str]]:
        """How much of each file is there; 0: of all others."""
        loose = sorted(ino for ino in there if self.files[ino].body != self.files[ino].flushed)
        yield from ({0: data} for data in (DATA if loose else DATA[:1]))
        if len(loose) > 1:
            yield from ({0: "whole", ino: "none"} for ino in loose[-ALONE:])

    def _kept(self, model: str) -> Iterator[set[int]]:
        everything = range(len(self.changes))
        if model == "journal":
            yield from (set(range(end)) for end in range(self.last_flush, len(self.changes) + 1))
        elif model == "log":
            oldest = max(0, len(self.changes) - RECENT)
            yield from (set(range(end)) | self.flushed for end in (0, *range(oldest, len(self.changes) + 1)))
        else:
            loose = [number for number in everything if number not in self.flushed]
            yield set(everything)
            yield set(self.flushed)
            for one in loose[-RECENT:]:
                yield set(everything) - {one}
                yield self.flushed | {one}
            dice = Random(len(self.changes))
            for _ in range(SUBSETS if len(loose) > 2 else 0):
                yield self.flushed | {one for one in loose if dice.random() < 0.5}

    def _content(self, ino: int, data: str) -> bytes | None:
        return None if ino in self.directories else self.files[ino].after_cut(data)

    def _names(self, kept: set[int]) -> dict[str, int]:
        """Every key that is there when these changes are."""
        names: dict[int, dict[str, int]] = {}
        for number in sorted(kept):
            for (directory, name), target in self.changes[number].entries:
                below = names.setdefault(directory, {})
                if target is None:
                    below.pop(name, None)
                else:
                    below[name] = target
        tree: dict[str, int] = {}
        todo = [("", 0)]
        while todo:
            prefix, directory = todo.pop()
            for name, target in names.get(directory, {}).items():
                key = f"{prefix}/{name}" if prefix else name
                tree[key] = target
                if target in self.directories:
                    todo.append((key, target))
        return tree


def _driver(tree: dict[str, bytes | None]) -> MemoryDriver:
    driver = MemoryDriver()
    for key, body in sorted(tree.items()):
        if body is None:
            driver.mkdir(key)
        else:
            with driver.create(key) as writer:
                writer.write([body])
    return driver


class Recorder(WrappedDriver):
    """Hands every call on, and keeps the world as the device would have to have it."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self.world = World()
        self._ids = itertools.count(1)
        self.steps = 0

    def create(self, key: str) -> Writer:
        writer = super().create(key)
        return cast(Writer, _RecordingWriter(self, writer, self._new_file(key)))

    def append(self, key: str, *, create: bool = True) -> Writer:
        writer = super().append(key, create=create)
        try:
            return cast(Writer, _RecordingWriter(self, writer, self.world.look(key)))
        except KeyError:
            return cast(Writer, _RecordingWriter(self, writer, self._new_file(key)))

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._did((self.world.entry(target), self.world.look(source)))

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        moved, old = self.world.look(source), self.world.names.get(self.world.entry(target))
        if moved != old:
            self._did((self.world.entry(source), None), (self.world.entry(target), moved))

    def exchange(self, one: str, other: str) -> None:
        super().exchange(one, other)
        first, second = self.world.look(one), self.world.look(other)
        self._did((self.world.entry(one), second), (self.world.entry(other), first))

    def unlink(self, key: str) -> None:
        super().unlink(key)
        self._did((self.world.entry(key), None))

    def mkdir(self, key: str) -> None:
        super().mkdir(key)
        made = next(self._ids)
        self.world.directories.add(made)
        self._did((self.world.entry(key), made))

    def rmdir(self, key: str) -> None:
        super().rmdir(key)
        self._did((self.world.entry(key), None))

    def sync_file(self, key: str) -> Info:
        found = super().sync_file(key)
        file = self.world.files[self.world.look(key)]
        file.flushed = file.body
        self.step()
        return found

    def sync_dir(self, key: str) -> None:
        super().sync_dir(key)
        self.world.flush(self.world.look(key))
        self.step()

    def lock(self, key: str, byte: int) -> Lock | None:
        found = super().lock(key, byte)
        if self.world.entry(key) not in self.world.names:
            self._new_file(key)
        return found

    def step(self) -> None:
        """Called after each call; a test looks at the states here."""
        self.steps += 1

    def _new_file(self, key: str) -> int:
        made = next(self._ids)
        self.world.files[made] = _File()
        self._did((self.world.entry(key), made))
        return made

    def _did(self, *entries: tuple[Entry, int | None]) -> None:
        self.world.change(*entries)
        self.step()


class _RecordingWriter:
    def __init__(self, recorder: Recorder, inner: Writer, ino: int) -> None:
        self._recorder, self._inner, self._file = recorder, inner, recorder.world.files[ino]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, buffers: Sequence[Buffer]) -> int:
        count = self._inner.write(buffers)
        self._file.body += b"".join(buffers)
        self._recorder.step()
        return count

    def copy(self, source: Reader) -> None:
        self._inner.copy(source)
        self._file.body += source.read_at(0, source.size)
        self._recorder.step()

    def truncate(self, size: int) -> None:
        self._inner.truncate(size)
        self._file.body = self._file.body[:size]

    def sync(self) -> None:
        self._inner.sync()
        self._file.flushed = self._file.body
        self._recorder.step()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


class Watched(Recorder):
    """Looks at every state after every call."""

    def __init__(self, look: Callable[[MemoryDriver], list[str]], model: str) -> None:
        super().__init__(MemoryDriver())
        self.look, self._model = look, model
        self.faults: list[str] = []
        self.looked = 0
        self.watching = False
        self.seen: set[int] = set()
        """States that were looked at; to be emptied when more is reserved."""

    def step(self) -> None:
        super().step()
        if self.watching and not self.faults:
            for state in self.world.states(self._model, self.seen):
                self.looked += 1
                self.faults += self.look(state)


class NoDataFlush(WrappedDriver):
    """A mutant of the storage: `sync` of a file does nothing."""

    def create(self, key: str) -> Writer:
        return cast(Writer, _Unflushed(super().create(key)))

    def append(self, key: str, *, create: bool = True) -> Writer:
        return cast(Writer, _Unflushed(super().append(key, create=create)))

    def sync_file(self, key: str) -> Info:
        return self.inner.stat(key)

    def checkpoint(self) -> Checkpoint | None:
        if (checkpoint := self.inner.checkpoint()) is None:
            return None
        checkpoint.close()
        return NoCheckpoint()


class NoCheckpoint:
    def sync(self) -> None:
        pass

    def covers(self, info: Info) -> bool:
        return False

    def close(self) -> None:
        pass


class _Unflushed:
    def __init__(self, inner: Writer) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sync(self) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


class NoNameFlush(WrappedDriver):
    """A mutant of the storage: `sync_dir` does nothing."""

    def sync_dir(self, key: str) -> None:
        pass
