"""A driver over a tar that is not packed: each member is read at its place in the file, and nothing is unpacked.

Only headers are read when it is opened. Archives are untrusted (I14): a link leads to a member, or nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import FileIO
from typing import NamedTuple

from zotctl.errors import ArchiveDamaged, ConfigError, IoFailed, LayoutInvalid, NotFound, Unavailable, quoted
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage.driver import Driver, Entry, Info, Reader
from zotctl.storage.local.driver import translated
from zotctl.storage.tar import MOST_HOPS, TAR_BLOCK_BYTES, Tar, packed_otherwise, packing
from zotctl.storage.wrappers import ReadOnlyDriver

PATHS_BYTES = 256 << 20
"""The most bytes of paths."""


class _Place(NamedTuple):
    """Where the bytes of a member are: an offset in the archive, and their number."""

    offset: int
    size: int


class ArchiveDriver(ReadOnlyDriver):
    """The members of a tar as files below their paths. Every write is refused. Safe between threads.

    The file stays open, so that it may be replaced under its name; then this driver goes on with the old one. One that
    is written into is Unavailable from then on, for what is where has changed.
    """

    def __init__(self, beside: Driver, path: str) -> None:
        """`beside`: the driver of the directory that the archive lies in. Raises ConfigError for a packed one,
        LayoutInvalid for what is none or is damaged, StorageErrors."""
        super().__init__(beside)
        self._path = path
        with translated(path):
            self._file = FileIO(path)  # closed with its last reader
        self._fd = self._file.fileno()
        self._first = os.fstat(self._fd)
        self._files = _members(_Bytes(self._fd, self._first.st_size, path))
        markers = [path for path in self._files if path.rpartition("/")[2] == LAYOUT_FILE]
        if not markers:
            raise LayoutInvalid(
                f"{path} holds no image layout ({LAYOUT_FILE}); what docker save wrote can be served once it is "
                "imported: zotctl import-layout"
            )
        self.is_layout = LAYOUT_FILE in markers
        """Whether it is one layout, and not a tree of them."""
        self._folders = _folders(self._files)

    @property
    def label(self) -> str:
        """The path of the archive."""
        return self._path

    def stat(self, key: str) -> Info:
        """A member, or a directory that has some. Raises NotFound, Unavailable."""
        self._require_same()
        if (place := self._files.get(key)) is not None:
            return self._info(place)
        if key in self._folders:
            return self._info(_Place(0, 0))._replace(mode=stat.S_IFDIR | 0o555)
        raise NotFound(f"{self._path}: no {key} in it")

    def open(self, key: str) -> Reader:
        """A member. Raises NotFound, Unavailable."""
        self._require_same()
        if (place := self._files.get(key)) is None:
            raise NotFound(f"{self._path}: no {key} in it")
        return _MemberReader(self, self._fd, key, place)

    def scan(self, key: str) -> list[Entry]:
        """The names in a directory. Raises NotFound, Unavailable."""
        self._require_same()
        try:
            names = self._folders[key]
        except KeyError:
            raise NotFound(f"{self._path}: no {key} in it") from None
        return [Entry(name, is_dir=is_dir, is_file=not is_dir) for name, is_dir in names.items()]

    def crosses_mount(self, key: str) -> bool:
        """False: all of it is one file."""
        return False

    def _require_same(self) -> None:
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._first.st_size, self._first.st_mtime_ns):
            raise Unavailable(f"{self._path} was changed while it is served: start again, or send SIGHUP")

    def _info(self, place: _Place) -> Info:
        """Of members that share their bytes the number is the same, too."""
        first = self._first
        times = (first.st_mtime_ns, first.st_ctime_ns)
        return Info(1 + place.offset, place.size, *times, 1, stat.S_IFREG | 0o444, first.st_uid, first.st_gid,
                    first.st_dev)  # fmt: skip


class _MemberReader:
    """An open member. Contract: `storage.driver.Reader`. It keeps the driver, and so the file, open."""

    def __init__(self, driver: ArchiveDriver, fd: int, key: str, place: _Place) -> None:
        self._driver, self._fd, self._key, self._place = driver, fd, key, place
        self.size = place.size

    def info(self) -> Info:
        """The member."""
        return self._driver.stat(self._key)

    def fileno(self) -> int | None:
        """None: the descriptor is that of the whole archive."""
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        """Raises IoFailed if the archive is shorter by now."""
        count = max(0, min(count, self.size - offset))
        with translated(self._driver.label, "read"):
            data = os.pread(self._fd, count, self._place.offset + offset)
        self._require(len(data) or not count)
        return data

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Raises IoFailed if the archive is shorter by now."""
        count = max(0, min(len(buffer), self.size - offset))
        with translated(self._driver.label, "read"):
            found = os.preadv(self._fd, [buffer[:count]], self._place.offset + offset)
        self._require(found or not count)
        return found

    def _require(self, found: object) -> None:
        if not found:
            raise IoFailed(f"{self._driver.label} is shorter than it was: {self._key} is cut")

    def once(self) -> None:
        """Nothing is known of the others that read it."""

    def uncache(self) -> None:
        """The same."""

    def labels(self) -> dict[str, bytes]:
        """None are attached."""
        return {}

    def close(self) -> None:
        """The archive stays open."""

    def __enter__(self) -> _MemberReader:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class _Bytes:
    """The bytes of a file for `Tar`, which passes over members without reading them."""

    def __init__(self, fd: int, size: int, label: str) -> None:
        self._fd, self._size, self.label, self.position = fd, size, label, 0

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        with translated(self.label, "read"):
            data = os.pread(self._fd, size, self.position)
        self.position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over `size` bytes, fewer only at the end. Returns how many."""
        size = min(size, self._size - self.position)
        self.position += size
        return size


def _members(plain: _Bytes) -> dict[str, _Place]:
    """Where each member is. Raises LayoutInvalid for what no archive of images has, ConfigError if it is packed."""
    beginning = os.pread(plain._fd, TAR_BLOCK_BYTES, 0)
    if packed_with := packing(beginning):
        raise ConfigError(
            f"{plain.label} is packed with {packed_with}, and only a plain tar can be served: unpack it ({packed_with} "
            "-d), or take it over with zotctl import-layout"
        )
    if other := packed_otherwise(beginning):
        raise ConfigError(f"{plain.label} is packed with {other}, and only a plain tar can be served: unpack it first")
    tar = Tar(plain)
    files: dict[str, _Place] = {}
    links: dict[str, str] = {}
    room = PATHS_BYTES
    for member in tar:
        room -= len(member.path) + len(member.target or "")
        if room < 0:
            raise tar.refusal(f"its paths have more than {PATHS_BYTES} bytes")
        if member.path in files or member.path in links:
            raise tar.refusal(f"{quoted(member.path)} is in it twice")
        if member.target is None:
            files[member.path] = _Place(plain.position, member.size)
        else:
            links[member.path] = member.target
    if not tar.has_end:
        raise ArchiveDamaged(f"{plain.label} does not end as a tar does; it may have been cut: zotctl verify tells")
    return files | dict(_led_to(files, links))


def _led_to(files: dict[str, _Place], links: dict[str, str]) -> Iterator[tuple[str, _Place]]:
    """What links lead to; those that lead to no member are left out."""
    for path, target in links.items():
        for _ in range(MOST_HOPS):
            if target not in links:
                break
            target = links[target]
        if (place := files.get(target)) is not None:
            yield path, place


def _folders(files: dict[str, _Place]) -> dict[str, dict[str, bool]]:
    """By directory the names in it, each with whether it is a directory itself."""
    found: dict[str, dict[str, bool]] = {"": {}}
    for path in files:
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, {})[name] = False
        while directory:
            above, _, name = directory.rpartition("/")
            if found.setdefault(above, {}).get(name):
                break
            found[above][name] = True
            directory = above
    return found
