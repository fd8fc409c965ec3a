"""Reads tar archives of any origin, plain or compressed, from a file or a pipe, once from front to end.

Archives are untrusted (I14). Nothing is extracted, no memory or time grows with what a header claims, and what leads
out of the archive is refused or leads nowhere.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, Protocol

from zotctl.errors import ArchiveDamaged, LayoutInvalid, UsageError, quoted
from zotctl.oci.digest import Digest, digest_of_hash, new_hash
from zotctl.storage.driver import CHUNK_BYTES

TAR_BLOCK_BYTES = 512
MOST_MEMBERS = 1_000_000
HEADER_BYTES = 1 << 20
"""The largest extended header, which is kept in memory."""
BOMB_FLOOR_BYTES = 1 << 30
BOMB_RATIO = 250
"""Above the floor, what grows by more than this ratio is refused. gzip grows zeros by at most 1032."""
PADDING_BYTES = 1 << 20
MOST_HOPS = 40
"""As many links as Linux follows in one path."""
OUTSIDE = "/"
"""The target of a link that leads out of the archive."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPED = tuple(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))
"""A frame that zstd passes over (RFC 8878, 3.1.2); what pzstd packs begins with one."""
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_PASSED = (tarfile.DIRTYPE,)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_PAX, _GLOBAL = tarfile.XHDTYPE, tarfile.XGLTYPE
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_SPARSE = "GNU.sparse"


# -- bytes --------------------------------------------------------------------------------------


class _CountedArchive(io.RawIOBase):
    """Counts the bytes of an archive as it comes in. `head`: its first bytes, which were read to see its format."""

    def __init__(self, inner: BinaryIO, head: bytes) -> None:
        self._inner, self._head, self.count = inner, head, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._inner.read(len(buffer)) or b""
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class TarBytes:
    """The unpacked bytes of a tar. Raises LayoutInvalid if it is cut short, damaged, or grows too much (a bomb)."""

    def __init__(self, stream: BinaryIO, label: str) -> None:
        head = _read_full(stream, 6)
        self.label, self.count = label, 0
        self._packed = _CountedArchive(stream, head)
        raw = io.BufferedReader(self._packed, CHUNK_BYTES)
        self._stream, faults = _unpacked(raw, head, label)
        self._faults: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, *faults)

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""
        try:
            data = _read_full(self._stream, size)
        except self._faults as error:
            raise ArchiveDamaged(f"{self.label} is cut short or damaged: {error}") from error
        self.count += len(data)
        if self.count > BOMB_FLOOR_BYTES and self.count > BOMB_RATIO * self._packed.count:
            raise LayoutInvalid(
                f"{self.label} is refused: {self._packed.count} bytes became {self.count}, "
                f"more than {BOMB_RATIO} of one"
            )
        return data

    def skip(self, size: int) -> int:
        """Read `size` bytes for nothing; fewer only at the end. Returns how many."""
        left = size
        while left and (data := self.read(min(left, CHUNK_BYTES))):
            left -= len(data)
        return size - left


class Plain(Protocol):
    """The unpacked bytes of a tar, from front to end."""

    label: str

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end."""

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; fewer only at the end. Returns how many."""


def _read_full(stream: Any, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unpacked(raw: Any, head: bytes, label: str) -> tuple[Any, tuple[type[Exception], ...]]:
    packed_with = packing(head)
    if packed_with == "gzip":
        return gzip.GzipFile(fileobj=raw), ()
    if packed_with == "zstd":
        zstd = zstd_module(label)
        return zstd.ZstdFile(raw), (zstd.ZstdError,)
    if other := packed_otherwise(head):
        raise LayoutInvalid(f"{label} is packed with {other}; a tar may be plain, gzip or zstd")
    return raw, ()


def zstd_module(label: str, instead: str = "or unpack it first") -> Any:
    """What packs and unpacks zstd. Raises UsageError if this Python has no such thing; `instead`: another way out."""
    for module in ("compression.zstd", "backports.zstd"):
        with suppress(ModuleNotFoundError):
            return import_module(module)
    raise UsageError(f"{label} is packed with zstd: install the extra, pip install 'zotctl[zstd]', {instead}")


# -- members ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive, or a link. `path` is relative and has no ".."."""

    path: str
    size: int = 0
    target: str | None = None
    """Of a link: the path in the archive that it names, or OUTSIDE. None: it is a file."""


class Tar:
    """Iterates over the regular members and the links of a tar.

    `tarfile` parses single headers only, since its own loop keeps extended headers of any size in memory, and follows
    sparse maps.
    """

    def __init__(self, plain: Plain) -> None:
        self._plain, self.label = plain, plain.label
        self._left = self._padding = 0
        self._ahead = b""
        self._count = 0
        self.has_end = False
        """Whether it ends as POSIX says, with blocks of zeros; what was cut between two members does not."""
        self.has_more = False
        """Whether another archive follows its end, which `tar` passes over as well."""

    def __iter__(self) -> Iterator[Member]:
        extended = dict[str, str]()
        while (header := self._header()) is not None:
            self._count += 1
            if self._count > MOST_MEMBERS:
                raise self.refusal(f"it has more than {MOST_MEMBERS} members")
            if header.type in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
                extended |= self._extended(header)
                continue
            member = self._member(header, extended)
            extended = {}
            if member is not None:
                yield member
            self._skip()

    def beginning(self) -> bytes:
        """The first bytes of the current member, at most a block; `chunks` gives them again."""
        if not self._ahead and self._left:
            self._ahead = self._plain.read(min(self._left, TAR_BLOCK_BYTES))
        return self._ahead

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the current member. Raises LayoutInvalid if the archive is cut short."""
        while self._left:
            data, self._ahead = self._ahead or self._plain.read(min(self._left, CHUNK_BYTES)), b""
            if not data:
                raise ArchiveDamaged(f"{self.label} is cut short")
            self._left -= len(data)
            yield data

    def text(self, limit: int, name: str) -> bytes:
        """The whole current member. Raises LayoutInvalid if it has more than `limit` bytes."""
        if self._left > limit:
            raise self.refusal(f"{name} has {self._left} bytes, more than {limit}")
        return b"".join(self.chunks())

    def refusal(self, reason: str) -> LayoutInvalid:
        """The error for something that no archive of a layout has."""
        return LayoutInvalid(f"{self.label} is refused: {reason}")

    def _header(self) -> tarfile.TarInfo | None:
        block = self._plain.read(TAR_BLOCK_BYTES)
        self.has_end = bool(block)
        if not block or block == bytes(TAR_BLOCK_BYTES):
            self.has_more = _is_followed(self._plain.read(PADDING_BYTES))  # by padding, which a pipe has to lose
            return None
        if len(block) < TAR_BLOCK_BYTES and self._count:
            raise ArchiveDamaged(f"{self.label} is cut short")
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise ArchiveDamaged(f"{self.label} is no tar archive, or damaged: {error}") from error
        self._begin(header.size, header.name)
        return header

    def _begin(self, size: int, name: str) -> None:
        if not 0 <= size < 1 << 62:
            raise self.refusal(f"{quoted(name)} says that it has {size} bytes")
        self._left, self._padding = size, -size % TAR_BLOCK_BYTES

    def _skip(self) -> None:
        left = self._left - len(self._ahead) + self._padding
        if self._plain.skip(left) < left:
            raise ArchiveDamaged(f"{self.label} is cut short")
        self._left, self._padding, self._ahead = 0, 0, b""

    def _member(self, header: tarfile.TarInfo, extended: dict[str, str]) -> Member | None:
        path = self._path(extended.get("path", header.name))
        if _SPARSE in extended or header.type == tarfile.GNUTYPE_SPARSE:
            raise self.refusal(f"{quoted(path)} is a sparse file")
        if header.type in _FILES:
            self._begin(self._size(extended, header.size), path)
            return Member(path, self._left)
        self._begin(0, path)
        if header.type in _LINKS:
            return Member(path, target=_target(path, extended.get("linkpath", header.linkname), header.type))
        if header.type not in _PASSED:
            raise self.refusal(f"{quoted(path)} is a device or the like")
        return None

    def _path(self, name: str) -> str:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self.refusal(f"the member {quoted(name)} would lie outside of it")
        return "/".join(part for part in parts if part not in ("", "."))

    def _size(self, extended: dict[str, str], size: int) -> int:
        text = extended.get("size", str(size))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self.refusal(f"a member says that it has {quoted(text)} bytes")
        return int(text)

    def _extended(self, header: tarfile.TarInfo) -> dict[str, str]:
        body = self.text(HEADER_BYTES, "an extended header")
        self._skip()
        if header.type in (_LONG_NAME, _LONG_LINK):
            keyword = "path" if header.type == _LONG_NAME else "linkpath"
            return {keyword: body.split(b"\0")[0].decode("utf-8", "surrogateescape")}
        records = self._records(body)
        if header.type == _GLOBAL and records.keys() & {"path", "size", "linkpath"}:
            raise self.refusal("one name or size for all members")
        return records if header.type == _PAX else {}

    def _records(self, body: bytes) -> dict[str, str]:
        """The records of a pax header that matter: "%d %s=%s\\n", length, keyword, value (POSIX, "pax Extended
        Header")."""
        records, start = dict[str, str](), 0
        while start < len(body):
            blank = body.find(b" ", start, start + 8)
            digits = body[start:blank] if blank > start else b""
            end = start + (int(digits) if digits.isdigit() else 0)
            if not start < blank < end - 1 < len(body) or body[end - 1 : end] != b"\n":
                raise self.refusal("an extended header is damaged")
            keyword, _, value = body[blank + 1 : end - 1].partition(b"=")
            name = _SPARSE if keyword.startswith(_SPARSE.encode()) else keyword.decode("utf-8", "replace")
            if name in ("path", "size", "linkpath", _SPARSE):
                records[name] = value.decode("utf-8", "surrogateescape")
            start = end
        return records


def _is_followed(rest: bytes) -> bool:
    """Whether another archive begins in what follows the end of one."""
    zeros = len(rest) - len(rest.lstrip(b"\0"))
    start = zeros - zeros % TAR_BLOCK_BYTES
    return zeros < len(rest) and is_like_tar(rest[start : start + TAR_BLOCK_BYTES])


def _target(path: str, name: str, kind: bytes) -> str:
    """A symbolic link starts from its directory, a hard link from the top of the archive."""
    if name.startswith("/") or "\0" in name:
        return OUTSIDE
    parts = path.split("/")[:-1] if kind == tarfile.SYMTYPE else []
    for part in name.split("/"):
        if part == ".." and not parts:
            return OUTSIDE
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


# -- layers ---------------------------------------------------------------------------------------


def packing(beginning: bytes) -> str:
    """How content that begins so is packed: "gzip", "zstd", or "" if it is not, as far as we know."""
    return "gzip" if beginning.startswith(_GZIP) else "zstd" if beginning.startswith((_ZSTD, *_SKIPPED)) else ""


def packed_otherwise(beginning: bytes) -> str:
    """How content that begins so is packed, in a way that is not unpacked here; "" if it is not."""
    return next((name for magic, name in _OTHERS.items() if beginning.startswith(magic)), "")


def is_like_tar(beginning: bytes) -> bool:
    """Whether content that begins with this block may be a tar, packed or not."""
    if packing(beginning):
        return True
    if len(beginning) < TAR_BLOCK_BYTES:
        return False
    with suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(beginning, "utf-8", "surrogateescape")
        return True
    return beginning == bytes(TAR_BLOCK_BYTES)


class Growth:
    """How much all packed layers of an archive have grown: many small bombs are one. Used by one thread."""

    def __init__(self) -> None:
        self.packed = self.unpacked = 0

    @property
    def is_too_much(self) -> bool:
        """Whether no more is to be unpacked."""
        return self.unpacked > BOMB_FLOOR_BYTES and self.unpacked > BOMB_RATIO * self.packed


class Unpacked:
    """Hashes the unpacked bytes of content while it is read, in little memory. `growth`: that of the whole archive.
    Used by one thread."""

    def __init__(self, packed_with: str, growth: Growth) -> None:
        self._hash, self._growth = new_hash("sha256"), growth
        self._unpacker: Any = None
        self._new, self._faults = _gzip_unpacker, (zlib.error, EOFError)
        self.fault, self.is_damaged = "", False
        """Why it can't be unpacked, and whether that is because it is damaged."""
        if packed_with == "zstd":
            self._begin_zstd()
        else:
            self._unpacker = self._new()

    def _begin_zstd(self) -> None:
        try:
            zstd = zstd_module("a layer")
        except UsageError as error:
            self.fault = error.message
        else:
            self._new, self._faults = zstd.ZstdDecompressor, (zstd.ZstdError, EOFError)
            self._unpacker = self._new()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._growth.packed += len(data)
        try:
            while data and not self.fault:
                data = self._step(data)
        except self._faults as error:
            self.fault, self.is_damaged = f"it can't be unpacked: {error}", True

    def _step(self, data: bytes) -> bytes:
        """Unpack a piece, and return what is left of `data`."""
        if self._unpacker.eof:
            if not data.strip(b"\0"):
                return b""
            self._unpacker = self._new()
        self._take(self._unpacker.decompress(data, CHUNK_BYTES))
        if self._unpacker.eof:
            return bytes(self._unpacker.unused_data)
        if self._new is _gzip_unpacker:
            return bytes(self._unpacker.unconsumed_tail)
        while not (self._unpacker.eof or self._unpacker.needs_input or self.fault):  # zstd keeps what is packed still
            self._take(self._unpacker.decompress(b"", CHUNK_BYTES))
        return bytes(self._unpacker.unused_data)

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._growth.unpacked += len(piece)
        if self._growth.is_too_much:
            packed, unpacked = self._growth.packed, self._growth.unpacked
            self.fault = f"{packed} bytes of layers became {unpacked}, more than {BOMB_RATIO} of one"

    def digest(self) -> Digest | None:
        """The digest of the unpacked bytes; None: they can't be told, and `fault` says why."""
        if not self.fault and not self._unpacker.eof:
            self.fault, self.is_damaged = "it is cut short", True
        return None if self.fault else digest_of_hash("sha256", self._hash)


def _gzip_unpacker() -> Any:
    return zlib.decompressobj(31)
