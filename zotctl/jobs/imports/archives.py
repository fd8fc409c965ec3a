"""Reads archives of layouts: tar, plain or compressed, from a file or a pipe, once from front to end.

Archives are untrusted (I14). Nothing is extracted by its path: the bytes of regular members that have the name of a
blob are verified like an upload, everything else is passed over or refused, and nothing of a refused archive stays.
index.json often comes last, so the blobs are staged in a layout of their own in the hidden directory, which no
collector looks at. From there each repository gets them by one link.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, BinaryIO, Protocol, TypeVar

from zotctl.errors import (
    Damaged,
    DigestInvalid,
    LayoutInvalid,
    ManifestInvalid,
    NotFound,
    UsageError,
    ZotctlError,
    quoted,
)
from zotctl.jobs.imports.sources import Layout, StoredLayout
from zotctl.jobs.run import Run
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, digest_of_hash, new_hash, parse_digest
from zotctl.oci.layout import check_layout
from zotctl.storage import keys
from zotctl.storage.driver import CHUNK_BYTES, BytesReader, Reader
from zotctl.storage.facts import BEGINNING_BYTES, Content, is_like_json
from zotctl.storage.index import Index, empty_index, parse_index
from zotctl.storage.root import Root

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)

TAR_BLOCK_BYTES = 512
MOST_MEMBERS = 1_000_000
HEADER_BYTES = 1 << 20
"""The largest extended header, which is kept in memory."""
TEXT_BYTES = 64 << 20
"""The largest index.json and manifest.json."""
BOMB_FLOOR_BYTES = 1 << 30
BOMB_RATIO = 250
"""Above the floor, an archive that grows by more than this ratio is refused. gzip grows zeros by at most 1032."""
PADDING_BYTES = 1 << 20
LISTED_BODY_BYTES, LISTED_BODIES_BYTES = 4 << 20, 256 << 20
"""The largest manifest, and the most bytes of manifests, that are kept in memory of an archive that is only listed."""
STAGING = keys.tmp("import-layout")
"""The staged layout. Each root has one, since a writer holds the lease of the job."""

_INNER = re.compile(
    r"(?:(?P<prefix>.+)/)?(?P<inner>oci-layout|index\.json|manifest\.json|blobs/(?P<alg>[^/]+)/(?P<enc>[^/]+))"
)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_PASSED = (tarfile.DIRTYPE,)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
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
            raise LayoutInvalid(f"{self.label} is cut short or damaged: {error}") from error
        self.count += len(data)
        if self.count > BOMB_FLOOR_BYTES and self.count > BOMB_RATIO * self._packed.count:
            raise LayoutInvalid(
                f"{self.label} is refused: {self._packed.count} bytes became {self.count}, "
                f"more than {BOMB_RATIO} of one"
            )
        return data


def _read_full(stream: Any, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unpacked(raw: Any, head: bytes, label: str) -> tuple[Any, tuple[type[Exception], ...]]:
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw), ()
    if head.startswith(_ZSTD):
        zstd = _zstd(label)
        return zstd.ZstdFile(raw), (zstd.ZstdError,)
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise LayoutInvalid(f"{label} is packed with {name}; a tar may be plain, gzip or zstd")
    return raw, ()


def _zstd(label: str) -> Any:
    for module in ("compression.zstd", "backports.zstd"):
        with suppress(ModuleNotFoundError):
            return import_module(module)
    raise UsageError(f"{label} is packed with zstd: install the extra, pip install 'zotctl[zstd]', or unpack it first")


# -- members ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive. `path` is relative and has no ".."."""

    path: str
    size: int


class Tar:
    """Iterates over the regular members of a tar.

    `tarfile` parses single headers only, since its own loop keeps extended headers of any size in memory, and follows
    sparse maps.
    """

    def __init__(self, plain: TarBytes) -> None:
        self._plain, self.label = plain, plain.label
        self._left = self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        count, extended = 0, dict[str, str]()
        while (header := self._header()) is not None:
            count += 1
            if count > MOST_MEMBERS:
                raise self.refusal(f"it has more than {MOST_MEMBERS} members")
            if header.type in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
                extended |= self._extended(header)
                continue
            member = self._member(header, extended)
            extended = {}
            if member is not None:
                yield member
            self._skip()

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the current member. Raises LayoutInvalid if the archive is cut short."""
        while self._left:
            data = self._plain.read(min(self._left, CHUNK_BYTES))
            if not data:
                raise LayoutInvalid(f"{self.label} is cut short")
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
        if not block or block == bytes(TAR_BLOCK_BYTES):
            self._plain.read(PADDING_BYTES)  # a writer of the pipe may have padding left
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise LayoutInvalid(f"{self.label} is no tar archive, or damaged: {error}") from error
        self._begin(header.size, header.name)
        return header

    def _begin(self, size: int, name: str) -> None:
        if not 0 <= size < 1 << 62:
            raise self.refusal(f"{quoted(name)} says that it has {size} bytes")
        self._left, self._padding = size, -size % TAR_BLOCK_BYTES

    def _skip(self) -> None:
        for _ in self.chunks():
            pass
        if len(self._plain.read(self._padding)) < self._padding:
            raise LayoutInvalid(f"{self.label} is cut short")
        self._padding = 0

    def _member(self, header: tarfile.TarInfo, extended: dict[str, str]) -> Member | None:
        path = self._path(extended.get("path", header.name))
        if _SPARSE in extended or header.type == tarfile.GNUTYPE_SPARSE:
            raise self.refusal(f"{quoted(path)} is a sparse file")
        if header.type in _FILES:
            self._begin(self._size(extended, header.size), path)
            return Member(path, self._left)
        if header.type not in _PASSED:
            raise self.refusal(f"{quoted(path)} is a link, a device or the like")
        self._begin(0, path)
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
        if header.type == _LONG_NAME:
            return {"path": body.split(b"\0")[0].decode("utf-8", "surrogateescape")}
        if header.type == _LONG_LINK:
            return {}
        records = self._records(body)
        if header.type == _GLOBAL and records.keys() & {"path", "size"}:
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
            if name in ("path", "size", _SPARSE):
                records[name] = value.decode("utf-8", "surrogateescape")
            start = end
        return records


# -- a layout out of members --------------------------------------------------------------------


class ArchiveStage(Protocol[L_co]):
    """Takes the blobs of an archive until its index has come. `L_co`: the layout that it then makes of them."""

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob need not be taken."""

    def take(self, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        """Take a blob. Raises DigestInvalid if the bytes are something else; nothing of them is kept."""

    def layout(self, label: str, index: Index, names: dict[str, list[str]], damaged: dict[str, str]) -> L_co:
        """The layout of all blobs that were taken. `damaged`: what `take` refused, and why."""


@dataclass
class _Found:
    """What an archive has beside its blobs."""

    prefix: str | None = None
    seen: set[str] = field(default_factory=set)
    index: Index | None = None
    names: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    has_marker: bool = False


def read_archive(run: Run, stream: BinaryIO, label: str, stage: ArchiveStage[L]) -> L:
    """Read a whole archive into `stage`, and return its layout. Raises LayoutInvalid, which says why it is refused."""
    tar, found = Tar(TarBytes(stream, label)), _Found()
    for member in tar:
        run.check()
        if (match := _INNER.fullmatch(member.path)) is not None:
            _remember(tar, found, match)
            _take(run, tar, member, match, found, stage)
    if found.index is None or not found.has_marker:
        raise LayoutInvalid(_incomplete(label, found))
    return stage.layout(label, found.index, found.names, found.damaged)


def _remember(tar: Tar, found: _Found, match: re.Match[str]) -> None:
    prefix, inner = match["prefix"] or "", match["inner"]
    if found.prefix is None:
        found.prefix = prefix
    if prefix != found.prefix:
        raise tar.refusal(f"it holds several layouts ({quoted(found.prefix)} and {quoted(prefix)}); one is taken")
    if inner in found.seen:
        raise tar.refusal(f"{quoted(inner)} is in it twice")
    found.seen.add(inner)


def _take(run: Run, tar: Tar, member: Member, match: re.Match[str], found: _Found, stage: ArchiveStage[Any]) -> None:
    if match["inner"] == "oci-layout":
        check_layout(tar.text(4096, "oci-layout"))
        found.has_marker = True
    elif match["inner"] == "index.json":
        found.index = parse_index(tar.text(TEXT_BYTES, "index.json"))
    elif match["inner"] == "manifest.json":
        found.names = docker_names(tar.text(TEXT_BYTES, "manifest.json"))
    else:
        with suppress(DigestInvalid):
            _take_blob(run, tar, parse_digest(f"{match['alg']}:{match['enc']}"), member.size, found, stage)


def _take_blob(run: Run, tar: Tar, digest: Digest, size: int, found: _Found, stage: ArchiveStage[Any]) -> None:
    if stage.has(digest, size):
        return
    try:
        stage.take(digest, size, _paced(run, tar, digest))
    except DigestInvalid as error:
        found.damaged[digest] = error.message


def _paced(run: Run, tar: Tar, digest: Digest) -> Iterator[bytes]:
    for data in tar.chunks():
        run.throttle.take(len(data))
        yield data


def _incomplete(label: str, found: _Found) -> str:
    if found.names and found.index is None:
        return f"{label} was saved by a Docker before 25: convert it (skopeo copy docker-archive:{label} oci:DIR)"
    missing = "index.json" if found.index is None else "oci-layout"
    return f"{label} holds no image layout: {missing} is missing (image-spec, image-layout.md), or it was cut short"


def docker_names(body: bytes) -> dict[str, list[str]]:
    """The image names in the manifest.json of `docker save`, by the digest of the config. Nothing else in it is
    used."""
    names: dict[str, list[str]] = {}
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        for image in load_json(body):
            config = str(image.get("Config")).removesuffix(".json").rpartition("/")[2]
            tags = [tag for tag in image.get("RepoTags") or () if isinstance(tag, str)]
            names.setdefault(f"sha256:{config}", []).extend(tags)
    return names


# -- in a root ----------------------------------------------------------------------------------


class Staging:
    """Stages blobs in a layout in the hidden directory of a root.

    What a killed run has staged is used. `repository`: the target, if it is known: a layer that it has is not staged.
    """

    def __init__(self, root: Root, repository: str | None) -> None:
        self._root, self._repository = root, repository

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is staged already, or is a large one that the repository has."""
        if self._holds(STAGING, digest, size):
            return True
        return bool(self._repository and size > LISTED_BODY_BYTES and self._holds(self._repository, digest, size))

    def _holds(self, name: str, digest: Digest, size: int) -> bool:
        try:
            return self._root.maintenance.look(name, digest).size == size
        except (NotFound, Damaged):
            return False

    def take(self, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        """Write the blob into the staged layout. Raises DigestInvalid."""
        self._root.maintenance.take(STAGING, digest, chunks)

    def layout(self, label: str, index: Index, names: dict[str, list[str]], damaged: dict[str, str]) -> StoredLayout:
        """The staged layout."""
        driver = self._root.driver
        return StoredLayout(driver=driver, name=STAGING, label=label, index=index, names=names, damaged=damaged)


@contextmanager
def staged(run: Run, root: Root, stream: BinaryIO, label: str, repository: str | None = None) -> Iterator[StoredLayout]:
    """Stage an archive in `root`, for the block. After a kill or --max-duration it stays, for the next run to
    continue."""
    try:
        yield read_archive(run, stream, label, Staging(root, repository))
    except ZotctlError:
        root.maintenance.discard(STAGING)
        raise
    root.maintenance.discard(STAGING)


# -- in memory: nothing is written -----------------------------------------------------------------


class ArchiveListing(Layout):
    """The sizes of all blobs of an archive, and the bytes of those that may be manifests.

    It is a stage while the archive is read, and then the layout that a dry run imports and `verify` checks. `took` is
    called with the size of each blob.
    """

    def __init__(self, took: Callable[[int], object] = lambda size: None) -> None:
        super().__init__(label="", index=empty_index())
        self._took = took
        self.sizes: dict[Digest, int] = {}
        self.wrong: dict[Digest, Digest] = {}
        """The digests of the bytes of damaged blobs, by the digests in their names."""
        self.not_kept: set[str] = set()
        """What may be a manifest, but is too large to be kept."""
        self._bodies: dict[str, bytes] = {}
        self._held = 0

    def has(self, digest: Digest, size: int) -> bool:
        """False: every blob is read."""
        return False

    def take(self, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        """Hash the blob, note it if it is damaged, and keep it if it may be a manifest."""
        state, kept, beginning = new_hash(digest.algorithm), list[bytes](), b""
        is_kept = size <= LISTED_BODY_BYTES and self._held + size <= LISTED_BODIES_BYTES
        for data in chunks:
            state.update(data)
            beginning = beginning or bytes(data[:BEGINNING_BYTES])
            if is_kept:
                kept.append(data)
        self.sizes[digest] = size
        if (found := digest_of_hash(digest.algorithm, state)) != digest:
            self.wrong[digest] = found
            self.damaged[digest] = f"the content has the digest {found}, not {digest}"
        elif is_like_json(beginning) and is_kept:
            self._bodies[digest] = b"".join(kept)
            self._held += size
        elif is_like_json(beginning):
            self.not_kept.add(digest)
        self._took(size)

    def layout(self, label: str, index: Index, names: dict[str, list[str]], damaged: dict[str, str]) -> ArchiveListing:
        """This object, with what the archive has beside the blobs."""
        self.label, self.index, self.names = label, index, names
        return self

    def size(self, digest: Digest) -> int | None:
        """The size of a blob; None if it is damaged or absent."""
        return None if digest in self.damaged else self.sizes.get(digest)

    def open(self, digest: Digest) -> Reader:
        """Open a blob that was kept. Raises NotFound."""
        if digest not in self._bodies:
            raise NotFound(f"{digest} is not kept in a dry run")
        return BytesReader(self._bodies[digest])

    def content(self, digest: Digest, whole: bool) -> Content:
        """The content as it was hashed. Raises NotFound, and ManifestInvalid if it was too large to be kept."""
        if digest in self.not_kept:
            raise ManifestInvalid(f"{digest} has {self.sizes[digest]} bytes, too many to be looked at in a dry run")
        if digest not in self.sizes:
            raise NotFound(f"{digest} is not in {self.label}")
        return Content(self.sizes[digest], self._bodies.get(digest))
