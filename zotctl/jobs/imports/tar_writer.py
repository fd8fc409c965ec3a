"""Writes a tar that is the same for the same content: no times, no owners, members in the order in which they come."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, cast

from zotctl.errors import UsageError
from zotctl.jobs.files import NewFile
from zotctl.storage.tar import TAR_BLOCK_BYTES, zstd_module

GZIP_LEVEL, ZSTD_LEVEL = 6, 3
"""Layers are packed already, so more would cost time and save little."""

_PLAIN, _GZIP, _ZSTD = (".tar",), (".tar.gz", ".tgz"), (".tar.zst", ".tzst")


class Output(Protocol):
    """Takes the bytes of an archive."""

    def write(self, data: Any, /) -> object:
        """Take all of it."""


class TarWriter:
    """Writes members one after another. Used by one thread.

    POSIX, pax, "ustar Interchange Format"; a path or size that a plain header can't hold is in an extended one.
    """

    def __init__(self, out: Output) -> None:
        self._out = out

    def file(self, path: str, size: int, pieces: Iterable[bytes]) -> None:
        """A regular file of `size` bytes. Raises ValueError if the pieces have another sum; the archive is no good
        then."""
        self._header(path, tarfile.REGTYPE, size=size)
        left = size
        for data in pieces:
            left -= len(data)
            self._out.write(data)
        if left:
            raise ValueError(f"{path}: {size - left} bytes instead of {size}")
        self._out.write(bytes(-size % TAR_BLOCK_BYTES))

    def link(self, path: str, target: str) -> None:
        """A hard link to an earlier member."""
        self._header(path, tarfile.LNKTYPE, linkname=target)

    def directory(self, path: str) -> None:
        """A directory; needed only where nothing lies in it."""
        self._header(f"{path}/", tarfile.DIRTYPE, mode=0o755)

    def end(self) -> None:
        """Two blocks of zeros: without them it would count as cut."""
        self._out.write(bytes(2 * TAR_BLOCK_BYTES))

    def _header(self, path: str, kind: bytes, **fields: Any) -> None:
        info = tarfile.TarInfo(path)
        info.type = kind
        for name, value in fields.items():
            setattr(info, name, value)
        self._out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def check_ending(path: str) -> None:
    """Raise UsageError for a name that does not say how an archive is to be packed, or that can't be packed so here."""
    if not path.endswith((*_PLAIN, *_GZIP, *_ZSTD)):
        raise UsageError(f"--to {path}: the name of an archive ends in .tar, .tar.zst or .tar.gz, and is packed so")
    if path.endswith(_ZSTD):
        _zstd(path)


@contextmanager
def packed(path: str, file: NewFile) -> Iterator[Output]:
    """Pack what is written into `file`, as the ending of `path` says. The same bytes become the same bytes."""
    if path.endswith(_PLAIN):
        yield file
    elif path.endswith(_GZIP):
        with gzip.GzipFile("", "wb", GZIP_LEVEL, cast(BinaryIO, file), mtime=0) as out:
            yield out
    else:
        zstd = _zstd(path)
        options = {zstd.CompressionParameter.compression_level: ZSTD_LEVEL, zstd.CompressionParameter.checksum_flag: 1}
        with zstd.ZstdFile(file, "wb", options=options) as out:
            yield out


def _zstd(path: str) -> Any:
    return zstd_module(path, "or name it .tar or .tar.gz")
