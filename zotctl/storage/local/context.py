"""What the parts of the local protocol share: one root's driver, clock, locks and options, and the steps that several
of them take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from zotctl.errors import CannotLink, Changed, Damaged, Exists, IoFailed, NoSpace, NotFound, PermissionRefused
from zotctl.oci.digest import ALGORITHMS, Digest
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Entry, Generation, Info, Reader, scan_or_empty
from zotctl.storage.file_identity import HeldFile, same_file
from zotctl.storage.local.durable import Durable, Flushed
from zotctl.storage.local.storage_clock import StorageClock
from zotctl.storage.locks import Held, Locks
from zotctl.storage.turns import Turn, at_once

T = TypeVar("T")

COMPARE_BLOCK_BYTES = 1 << 20
SETTLED_S = 0.05
"""Seconds after which another change must have another time stamp: more than a tick of the kernel's clock."""
COARSE_NS = 2 * 10**9
"""The coarsest time stamps there are: FAT's. ext3, and ext4 with small inodes, have whole seconds."""
FINE_NS = 1000
"""Where stamps are finer, they keep a time that is a multiple of this: those of NTFS and CIFS are of 100 ns, UDF's of
this."""

log = logging.getLogger("zotctl.storage")


def in_the_way(label: str, key: str) -> Damaged:
    """The error for a name of zotctl's that leads to something else."""
    return Damaged(f"{label}/{key}: something that is not zotctl's is in the way; move it away, and it is made anew")


def has_coarse_times(info: Info) -> bool:
    """Does the file system seem to keep whole seconds only? Told by the change time, which no program chooses."""
    return info.ctime_ns % 10**9 == 0


def settle_s(info: Info) -> float:
    """Seconds for which a file or directory is to be seen as it is, until another change must give it another stamp."""
    return SETTLED_S + (COARSE_NS / 1e9 if has_coarse_times(info) else 0)


class Settling:
    """Since when the generation of a directory is seen, so that its listing may be remembered by it. No time stamp is
    compared with a clock: the host's may be ahead of the storage's."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: tuple[Generation | None, float] = None, 0.0

    def settled(self, info: Info, clock: Clock) -> Generation | None:
        """To be asked after the look at the directory and before it is listed: its generation, if whatever the list
        does not show will give it another. None: within a tick after a change it may have the same."""
        now = clock.elapsed()
        seen = self._seen  # one look, for threads
        if info.generation != seen[0]:
            self._seen = seen = info.generation, now
        return info.generation if now - seen[1] > settle_s(info) else None


@dataclass
class LocalContext:
    """The driver, clock, locks and options of one root. Safe between threads, as its driver and locks are."""

    driver: Driver
    clock: Clock
    locks: Locks
    commit: bool = False
    dedupe: bool = True
    read_only: bool = False
    turn: Turn = at_once
    """At a repository's index.json, between the processes of this server."""
    conflict: Callable[[], None] = lambda: None
    """Called when a commit begins again because another process's came between."""
    make_room: Callable[[], bool] = lambda: False
    """Free the room that is kept for a full disk. False: there was none."""
    durable: Durable = field(init=False)
    storage_clock: StorageClock = field(init=False)
    _stores_below: set[str] = field(init=False, default_factory=set)
    """Stores below this root that were logged already."""

    def __post_init__(self) -> None:
        self.durable = Durable(self.driver, commit=self.commit)
        self.storage_clock = StorageClock(self.driver, self.clock)

    def with_room(self, step: Callable[[], T]) -> T:
        """Run a step that frees room, on a full disk a second time with the reserve. Raises NoSpace without one."""
        try:
            return step()
        except NoSpace:
            if not self.make_room():
                raise
            return step()

    def stat(self, key: str) -> Info | None:
        """None: there is none."""
        try:
            return self.driver.stat(key)
        except NotFound:
            return None

    def scan(self, directory: str) -> Sequence[Entry]:
        """The names in a directory; none where there is no directory."""
        return scan_or_empty(self.driver, directory)

    def discard(self, key: str) -> None:
        """Remove a name that may be gone already."""
        with suppress(NotFound):
            self.driver.unlink(key)

    def replace(self, key: str, parts: Iterable[bytes], beside: str = "") -> None:
        """Replace a file of our own as a whole: after a power cut it is the old one or the new one. `beside`: a name
        that the new one has as well until it has this one.

        The new file is written beside it and flushed first, with `commit` and without, since the old one was safe.
        """
        temp = keys.tmp(self.clock.token())
        try:
            with self.driver.create(temp) as writer:
                writer.write(list(parts))
                writer.sync()
            if beside:
                self.discard(beside)  # of a process that died
                with suppress(CannotLink, Exists):
                    self.link_into(temp, beside)
            self._rename_into(temp, key)
            if beside:
                self.discard(beside)
        finally:
            self.discard(temp)

    def make_dirs(self, key: str) -> None:
        """Make a directory and all above it, also while other processes make them."""
        try:
            self.driver.mkdir(key)
            self.durable.note_made(key)
        except Exists:
            pass
        except NotFound:
            if not (above := keys.parent(key)):
                raise  # the root itself is away, and is never made in passing
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
        """Compare byte for byte, since a copy is never believed unread (docs/design/local.md#upload). False also if the
        other is gone, or the one can't be read."""
        try:
            with self.driver.open(other) as b:
                if one.size != b.size:
                    return False
                if same_file(one.info(), b.info()):
                    return True
                steps = range(0, one.size, COMPARE_BLOCK_BYTES)
                return all(b.read_at(at, COMPARE_BLOCK_BYTES) == _read(one, at) for at in steps)
        except NotFound:
            return False

    # -- which repositories are ours to write (docs/design/local.md#the-tree) ------------------------

    def owns(self, name: str) -> bool:
        """May this repository be written? Not if it, or its `blobs`, is a symbolic link or another mount, even of the
        same file system (I9, I14), nor in a store below this root, whose servers take other locks.

        Looks afresh each time, since a link or a mount may come and go.
        """
        parts, here = name.split("/"), self.driver.stat("").dev  # a share that was mounted anew has another
        names = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        blobs = [keys.blobs(name), *(keys.blobs_of(name, algorithm) for algorithm in ALGORITHMS)]
        return not any(
            self._is_elsewhere(directory, here) or self._is_store(directory) for directory in names
        ) and not any(self._is_elsewhere(directory, here) for directory in blobs)

    def _is_elsewhere(self, directory: str, device: int) -> bool:
        """Is this directory a link or on another mount? Not if it is missing, or may not be looked into."""
        info = self.stat(directory)
        if info is None or info.is_file:
            return False
        if not info.is_dir or info.dev != device:
            return True
        try:
            return self.driver.crosses_mount(directory)
        except (NotFound, PermissionRefused):
            return False

    def _is_store(self, directory: str) -> bool:
        if self.stat(keys.within(directory, keys.VERSION)) is None:
            return False
        if directory not in self._stores_below:
            self._stores_below.add(directory)
            log.warning(
                f"{self.driver.label}/{directory} is a store of its own, so it is only read from here: name that one, "
                f"or remove {keys.within(directory, keys.HIDDEN)} if nothing uses it any more"
            )
        return True

    # -- a verified file gets a name (docs/design/local.md#is-it-the-same-file) ----------------------

    @contextmanager
    def own_name(self, key: str, held: HeldFile) -> Iterator[str]:
        """Give the held file that `key` leads to one more name, in `tmp`, which only the caller has while the block
        runs.

        Between a look at a name and a call that uses it, another process may put another file there. What is linked or
        renamed from this name is the file that was looked at. Raises Changed if `key` leads to another file by now or
        its bytes were changed, NotFound if it leads nowhere, CannotLink.
        """
        temp = keys.tmp(self.clock.token())
        try:
            with suppress(Exists):  # no other process has this name: a network told of an error, and yet it was done
                self.driver.link(key, temp)
            if not held.is_at(self.stat(temp)):
                raise Changed(f"{key} leads to another file than the one that was looked at")
            yield temp
        finally:
            self.discard(temp)

    def replace_blob(
        self,
        name: str,
        digest: Digest,
        temp: str,
        still: Callable[[Info], bool],
        locks: Locks,
        held: Held | None = None,
    ) -> bool:
        """Rename `temp` over a blob, if the blob is a file for which `still` returns true. LP: the rename. `held`: the
        lock of the repository, if the caller has it.

        Without that look under the lock, a blob that was deleted meanwhile would come back (I7). False: nothing was
        done.
        """
        blob, new = keys.blob(name, digest), self.durable.flush(temp)
        with nullcontext() if held is not None else locks.hold(name):
            now = self.stat(blob)
            if now is None or not now.is_file or not still(now):
                return False
            if self.driver.capabilities.local:
                self.durable.replace(new, blob)
            else:
                self._replace_by_trash(name, digest, new)
        return True

    def _replace_by_trash(self, name: str, digest: Digest, new: Flushed) -> None:
        """An NFS client replaces a file that is open on its host by two requests, and may die between them. So what
        replaces a blob goes by way of the trash, from which a request brings it back."""
        kept = keys.trashed(keys.REPLACED_RUN, name, digest)
        try:
            self._rename_into(new.key, kept)
        except CannotLink:  # the trash itself is another mount
            return self.durable.replace(new, keys.blob(name, digest))
        self.durable.replace(new._replace(key=kept), keys.blob(name, digest))
        self.discard(kept)  # it is left where a request came between: of two names of one inode both stay

    def _rename_into(self, source: str, target: str) -> None:
        """Rename into a directory that may have to be made. Raises NotFound: the source is gone."""
        try:
            self.driver.rename(source, target)
        except NotFound:
            self.make_dirs(keys.parent(target))
            self.driver.rename(source, target)


def open_own(driver: Driver, key: str) -> Reader:
    """A file of our own or, while none has its name, what is to take its place (`keys.renewed`). Raises NotFound."""
    for name in (key, keys.renewed(key)):
        with suppress(NotFound):
            return driver.open(name)
    return driver.open(key)  # it has got its name between the two looks


def _read(reader: Reader, offset: int) -> bytes | None:
    """A block of a file; None: the device cannot read it, so the file is no copy to rely on."""
    try:
        return reader.read_at(offset, COMPARE_BLOCK_BYTES)
    except IoFailed:
        return None
