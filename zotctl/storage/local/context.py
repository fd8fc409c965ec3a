"""What the parts of the local protocol share: one root's driver, clock, locks and options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from zotctl.errors import Damaged, Exists, IoFailed, NoSpace, NotFound
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Info, Reader
from zotctl.storage.file_identity import same_file
from zotctl.storage.local.durable import Durable
from zotctl.storage.local.owned import Owned
from zotctl.storage.locks import Locks

T = TypeVar("T")

COMPARE_BLOCK = 1 << 20
SETTLED = 0.05
"""Seconds after which a second change must have another time stamp."""


def in_the_way(label: str, key: str) -> Damaged:
    """Of a name of our own that leads to something else than we make there."""
    return Damaged(f"{label}/{key}: something that is not zotctl's is in the way; move it away, and it is made anew")


@dataclass
class LocalContext:
    driver: Driver
    clock: Clock
    locks: Locks
    commit: bool = False
    dedupe: bool = True
    conflict: Callable[[], None] = lambda: None
    """Called when a commit begins again because another process's came between."""
    make_room: Callable[[], bool] = lambda: False
    """Give back what is kept for a full disk; False: nothing was."""
    durable: Durable = field(init=False)
    owned: Owned = field(init=False)

    def __post_init__(self) -> None:
        self.durable = Durable(self.driver, commit=self.commit)
        self.owned = Owned(self.driver)

    def with_room(self, step: Callable[[], T]) -> T:
        """A step of what frees room: on a full disk once more, with what is kept for that. Raises NoSpace without."""
        try:
            return step()
        except NoSpace:
            if not self.make_room():
                raise
            return step()

    def stat(self, key: str) -> Info | None:
        try:
            return self.driver.stat(key)
        except NotFound:
            return None

    def is_settled(self, info: Info) -> bool:
        """Would a change from now on have another time stamp? Within a tick of the kernel's clock it would not."""
        return self.clock.now() - max(info.mtime_ns, info.ctime_ns) / 1e9 > SETTLED

    def discard(self, key: str) -> None:
        """Remove a name that may be gone already."""
        with suppress(NotFound):
            self.driver.unlink(key)

    def replace(self, key: str, parts: Iterable[bytes]) -> None:
        """Give a file of our own other content as a whole: after a power cut it is the old one or the new one.

        Written beside and flushed before it gets the name, with `commit` and without: what it replaces was safe.
        """
        temp = keys.tmp(self.clock.token())
        try:
            with self.driver.create(temp) as writer:
                writer.write(list(parts))
                writer.sync()
            try:
                self.driver.rename(temp, key)
            except NotFound:
                self.make_dirs(keys.parent(key))
                self.driver.rename(temp, key)
        finally:
            self.discard(temp)

    def make_dirs(self, key: str) -> None:
        """A directory and all above it, also while other processes make them."""
        try:
            self.driver.mkdir(key)
            self.durable.made(key)
        except Exists:
            pass
        except NotFound:
            if not (above := keys.parent(key)):
                raise  # the root itself is away: never to be made in passing
            if (found := self.stat(above)) is not None and not found.is_dir:
                raise Exists(f"{above}: something that is no directory is in the way") from None
            self.make_dirs(above)
            self.make_dirs(key)

    def link_into(self, source: str, target: str) -> None:
        """Link into a directory that may have to be made. NotFound then means the source."""
        try:
            self.driver.link(source, target)
        except NotFound:
            self.driver.stat(source)
            self.make_dirs(keys.parent(target))
            self.driver.link(source, target)

    def same_bytes(self, one: Reader, other: str) -> bool:
        """Compare, for a copy is never believed unread (docs/design/local.md#upload). False if the other is gone, or
        if the one can't be read."""
        try:
            with self.driver.open(other) as b:
                if one.size != b.size:
                    return False
                if same_file(one.info(), b.info()):
                    return True
                steps = range(0, one.size, COMPARE_BLOCK)
                return all(b.read_at(at, COMPARE_BLOCK) == _read(one, at) for at in steps)
        except NotFound:
            return False

    def flush_names(self, directory: str) -> None:
        """[commit] The names in a directory, and all that leads to it. Raises NotFound."""
        if self.durable.waits:
            self.durable.names(directory)


def _read(reader: Reader, offset: int) -> bytes | None:
    """None: the device can't give it, so it is no copy to rely on."""
    try:
        return reader.read_at(offset, COMPARE_BLOCK)
    except IoFailed:
        return None
