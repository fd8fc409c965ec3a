"""The sources of an import: a layout, a tree of layouts, the root of another store, a bucket, an archive.

Sources are untrusted (I14): a link is followed only to be read, where an operator named the source, and the bytes must
have the digest of its name. Sources are read through a driver, as a store is, so a layout may be imported while a
server serves it.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from zotctl.config import RootConfig, S3Config, StorageConfig, is_bucket, parse_address
from zotctl.errors import (
    Damaged,
    DigestInvalid,
    IndexMissing,
    LayoutInvalid,
    NameInvalid,
    NoSuchStore,
    NotFound,
    StorageError,
    Unavailable,
    UsageError,
    ZotctlError,
)
from zotctl.jobs.finding import Finding
from zotctl.jobs.layouts import layouts_in
from zotctl.oci.codec import load_json
from zotctl.oci.digest import ALGORITHMS, Digest, digest_of, parse_digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage import Store, keys, open_store
from zotctl.storage.cache import Lru
from zotctl.storage.clock import Clock
from zotctl.storage.driver import BytesReader, Driver, Info, Reader, chunks_of, read
from zotctl.storage.facts import MISSING, Content, Read, Unusable, read_content
from zotctl.storage.file_identity import same_file
from zotctl.storage.graph import Each
from zotctl.storage.history import Timeline
from zotctl.storage.index import LARGEST_INDEX_BYTES, Index, parse_index
from zotctl.storage.opening import directory, followed, is_directory, open_file, root_over
from zotctl.storage.protocol import StoreProtocol
from zotctl.storage.root import Root
from zotctl.storage.wrappers import AliasedDriver, WrappedDriver

PIPE = "-"
NOT_FOLLOWED = "which leads to no regular file, or may not be followed, as with --move: copy it with cp -rL"
THE_LAYOUT = "layout"
"""The name of a single layout within its own driver."""

EMBEDDED_BYTES = 64 << 20
"""The most bytes of content in descriptors that are kept."""
KEPT_MANIFESTS_BYTES = 64 << 20
"""Bytes of manifests that are kept: each is read to see what it lists, and again to be copied."""
KEPT_MANIFEST_BYTES = 4 << 20
"""The largest manifest that is kept; a larger one is read twice."""
_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")


class Embedded:
    """Content that rows and manifests have in the `data` of a descriptor: image-spec, descriptor.md, "Embedded
    Content". It counts only where no blob is. Safe between threads."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._room = EMBEDDED_BYTES

    def note(self, body: bytes) -> None:
        """Remember what the descriptors in a row or a manifest have, if it has their digest and size."""
        if b'"data"' not in body:
            return
        with suppress(ValueError, TypeError, AttributeError):
            document = load_json(body)
            for value in (document, *document.values()):
                for descriptor in value if isinstance(value, list) else [value]:
                    self._note_one(descriptor)

    def _note_one(self, descriptor: object) -> None:
        with suppress(ValueError, TypeError, KeyError, DigestInvalid):
            if isinstance(descriptor, dict) and isinstance(descriptor["data"], str):
                digest, body = parse_digest(descriptor["digest"]), b64decode(descriptor["data"], validate=True)
                is_right = len(body) == descriptor["size"] and digest_of(body, digest.algorithm) == digest
                if is_right and digest not in self._bodies and len(body) <= self._room:
                    self._room -= len(body)
                    self._bodies[digest] = body

    def get(self, layout: Layout, digest: Digest) -> bytes | None:
        """The content, if the layout has no blob of it. Raises StorageError."""
        body = self._bodies.get(digest)
        return body if body is not None and layout.size(digest) is None else None


@dataclass(kw_only=True)
class Layout(ABC):
    """One image layout that can be imported, with the index.json that it had when it was read."""

    label: str
    """The name of the source in messages."""
    index: Index
    proposal: str | None = None
    """A repository name, by the path of the layout. `fixed`: it overrides the names in the rows."""
    fixed: bool = False
    names: dict[str, list[str]] = field(default_factory=dict)
    """Full names by the digest of a config, from the manifest.json of `docker save`."""
    damaged: dict[str, str] = field(default_factory=dict)
    """The members of an archive whose bytes do not match their name, with the reason."""
    findings: list[Finding] = field(default_factory=list)
    """What is known already to be left out, and why."""
    past: Timeline | None = None
    """The history of the layout, if it is a repository of a store."""
    require: Callable[[], None] = lambda: None
    """Raises Unavailable if the whole source is away: then what seems to be missing may be there."""
    each: Each | None = None
    """Reads manifests in parallel, if each is a request."""
    embedded: Embedded = field(default_factory=Embedded)
    """What descriptors bring along."""

    @abstractmethod
    def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None: it is absent. Raises StorageError."""

    @abstractmethod
    def open(self, digest: Digest) -> Reader:
        """Open a blob. Raises StorageError."""

    @abstractmethod
    def content(self, digest: Digest, whole: bool) -> Content:
        """A `Read` for a graph. Raises StorageError."""

    def absence(self, digest: Digest) -> Unusable:
        """Why a blob is absent."""
        if digest in self.damaged:
            return Unusable("digest_mismatch", self.damaged[digest])
        return Unusable("missing_blob", f"{digest} is not in {self.label}")


@dataclass(kw_only=True)
class StoredLayout(Layout):
    """A layout below the key `name` of a driver."""

    driver: Driver
    name: str
    _folders: dict[str, bool] = field(default_factory=dict)

    def size(self, digest: Digest) -> int | None:
        """The size of a regular file; a symbolic link that is not followed counts as absent."""
        try:
            info = self.driver.stat(keys.blob(self.name, digest))
        except NotFound:
            return None
        return info.size if info.is_file and self._is_folder(digest.algorithm) else None

    def absence(self, digest: Digest) -> Unusable:
        """Why a blob is absent: it may be a symbolic link."""
        if digest not in self.damaged and self._is_link(digest):
            return Unusable("missing_blob", f"{digest} is a symbolic link in {self.label}, {NOT_FOLLOWED}")
        return super().absence(digest)

    def open(self, digest: Digest) -> Reader:
        """Open the file of a blob, or what a `BucketSource` has kept of it."""
        return self.driver.open(keys.blob(self.name, digest))

    def content(self, digest: Digest, whole: bool) -> Content:
        """Read and hash a manifest. A `BucketSource` keeps it, since it is read again to be copied."""
        if isinstance(self.driver, BucketSource):
            self.driver.keep(keys.blob(self.name, digest))
        with self.open(digest) as reader:
            return read_content(reader, digest, whole)

    def _is_folder(self, algorithm: str) -> bool:
        if algorithm not in self._folders:
            self._folders[algorithm] = self.driver.stat(keys.blobs_of(self.name, algorithm)).is_dir
        return self._folders[algorithm]

    def _is_link(self, digest: Digest) -> bool:
        try:
            return self.driver.stat(keys.blob(self.name, digest)).is_link or not self._is_folder(digest.algorithm)
        except StorageError:
            return False


def read_layout(driver: Driver, name: str, label: str, *, half_moved: bool = False) -> StoredLayout:
    """Read the index of a layout. `half_moved`: also one that a killed --move has set aside. Raises LayoutInvalid,
    which names the layout and the rule."""
    root = root_over(driver, Clock())
    try:
        index = root.protocol.indexes.read(name).index
    except (NotFound, IndexMissing) as error:
        if not half_moved:
            raise LayoutInvalid(f"{label} is no image layout: {_reason(root, name)}") from error
        index = _set_aside(root, name, label)
    except LayoutInvalid as error:
        reason = getattr(error.__cause__, "message", error.message)
        raise LayoutInvalid(f"{label} can't be imported: {reason}{_link_in(root, name)}") from error
    each = driver.each if isinstance(driver, BucketSource) else None
    return StoredLayout(driver=driver, name=name, label=label, index=index, each=each)


def requirement(driver: Driver, source: str) -> Callable[[], None]:
    """A `Layout.require` for all layouts in a driver: it compares with the directory that is there now."""
    if isinstance(driver, BucketSource):
        return driver.require
    first = driver.stat("")

    def require() -> None:
        try:
            now = driver.stat("")
        except StorageError as error:
            raise Unavailable(f"{source} is away: {error.message}") from error
        if not same_file(first, now):
            raise Unavailable(f"{source} is away: another directory is in its place")

    return require


def _reason(root: Root, name: str) -> str:
    for key in (keys.layout(name), keys.index(name)):
        info = root.stat(key)
        if info is None or not info.is_file:
            rest = "is missing" if info is None else "is no regular file"
            return f"{key.rpartition('/')[2]} {rest} (image-spec, image-layout.md)"
    return "a part of it is missing (image-spec, image-layout.md)"


def _link_in(root: Root, name: str) -> str:
    """What to say of a part of a layout that is a link."""
    parts = (keys.layout(name), keys.index(name), keys.blobs(name), *(keys.blobs_of(name, one) for one in ALGORITHMS))
    links = [key.removeprefix(f"{name}/") for key in parts if (info := root.stat(key)) is not None and info.is_link]
    return f"; {links[0]} is a symbolic link, {NOT_FOLLOWED}" if links else ""


def _set_aside(root: Root, name: str, label: str) -> Index:
    """The index that a killed --move has set aside."""
    try:
        return parse_index(read(root.driver, keys.index_set_aside(name), LARGEST_INDEX_BYTES))
    except NotFound as error:
        raise LayoutInvalid(f"{label} is no image layout: {_reason(root, name)}") from error


# -- content --------------------------------------------------------------------------------------


def source_reader(layout: Layout) -> Read:
    """A `Read` of the manifests of a layout, for a graph."""

    def read(digest: Digest, whole: bool) -> Content:
        size = found_size(layout, digest, MISSING)
        try:
            body = layout.embedded.get(layout, digest)
            content = layout.content(digest, whole) if body is None else Content(size, body)
        except Damaged as error:
            raise other_content(layout, digest) from error
        layout.embedded.note(content.body or b"")
        return content

    return read


def other_content(layout: Layout, digest: Digest) -> Unusable:
    """The fault of a blob whose bytes do not match its digest."""
    return Unusable("digest_mismatch", f"the content of {digest} in {layout.label} has another digest")


def found_size(layout: Layout, digest: Digest, missing: str) -> int:
    """The size of a blob. Raises Unusable, with the kind `missing` if it is absent."""
    try:
        found = layout.size(digest)
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error
    if found is None and (body := layout.embedded.get(layout, digest)) is not None:
        return len(body)
    if found is None:
        absence = layout.absence(digest)
        raise Unusable(missing if absence.kind == "missing_blob" else absence.kind, str(absence))
    return found


def require_size(layout: Layout, digest: Digest, size: int, missing: str) -> None:
    """Raise Unusable if a blob is absent, or has another size than its descriptor says."""
    if (found := found_size(layout, digest, missing)) != size:
        raise other_size(layout, digest, found, size)


def other_size(layout: Layout, digest: str, found: int, said: int) -> Unusable:
    """The fault of a blob that has `found` bytes, where a row or a manifest states `said`."""
    reason = f"{digest} has {found} bytes in {layout.label}, not the {said} of its descriptor"
    return Unusable("size_mismatch", reason)


def chunks(layout: Layout, digest: Digest, size: int) -> Iterator[bytes]:
    """The bytes of a blob, at most `size`. Raises Unusable if they can't be read."""
    try:
        if (body := layout.embedded.get(layout, digest)) is not None:
            yield body
            return
        with layout.open(digest) as reader:
            yield from pieces(reader, size)
    except NotFound as error:  # since it was looked for
        raise layout.absence(digest) from error
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error


def pieces(reader: Reader, size: int) -> Iterator[bytes]:
    """The bytes of an open blob, at most `size`. Raises Unusable if they can't be read."""
    try:
        yield from chunks_of(reader, size)
    except StorageError as error:
        raise Unusable("unreadable", error.message) from error


# -- directories --------------------------------------------------------------------------------


def is_archive(source: str) -> bool:
    """Whether a source is an archive: a file, or "-". Raises NoSuchStore if nothing is there, PermissionRefused."""
    if source == PIPE:
        return True
    try:
        return not is_directory(source)
    except NotFound as error:
        raise NoSuchStore(f"{source}: no such file or directory") from error


OnSkipped = Callable[[str, ZotctlError], None]
"""Called with each directory that a walk could not read, or left out, and the reason."""


def in_directory(
    source: str, on_skipped: OnSkipped, *, writable: bool = False, follow: bool = True
) -> tuple[Driver, list[str]]:
    """The names of the layouts below a directory; if it is a layout itself, only that one, as THE_LAYOUT. Raises
    NoSuchStore. `follow`: links are followed, since an operator has named the source; not where it is removed."""
    driver = directory(source, writable=writable)
    here = {entry.name for entry in driver.scan("") if not entry.is_dir}
    if here & {LAYOUT_FILE, "index.json"}:
        alone = AliasedDriver(driver, THE_LAYOUT, "")
        return (followed(alone, source, THE_LAYOUT) if follow else alone), [THE_LAYOUT]
    driver = followed(driver, source) if follow else driver
    found: list[str] = []
    for place in layouts_in(driver, on_skipped):
        if place.is_link:
            reason = f"{place.name} is a symbolic link, and none is followed: import it alone"
            on_skipped(place.name, LayoutInvalid(reason))
        elif place.has_marker:
            found.append(place.name)
    if not found:
        raise NoSuchStore(f"{source}: no image layout in it or below it (a directory with an {LAYOUT_FILE} file)")
    return driver, sorted(found, key=lambda name: name.split("/"))


@contextmanager
def bucket_root(store: Store, source: str, s3: S3Config | None = None) -> Iterator[Root]:
    """The root at s3://BUCKET/PREFIX, with the endpoint and credentials `s3`, or else those of the store's own buckets.
    Raises NoSuchStore and what opening a store does."""
    known = s3 or next((root.config.s3 for root in store.roots if root.config is not None and root.config.s3), None)
    config = StorageConfig(roots=(RootConfig(path=source, s3=known),), read_only=True)
    opened_store = open_store(config, store.clock, foreign=True)
    try:
        yield opened_store.roots[0]
    finally:
        opened_store.close()


def in_bucket(root: Root, source: str) -> tuple[BucketSource, list[str]]:
    """What `in_directory` says, of the root that a source is. Raises NoSuchStore."""
    if root.stat(LAYOUT_FILE) is not None:
        return BucketSource(root.protocol, AliasedDriver(root.driver, THE_LAYOUT, "")), [THE_LAYOUT]
    if names := list(root.catalog.everything()):
        return BucketSource(root.protocol, root.driver), names
    raise NoSuchStore(f"{source}: no image layout in it or below it (a prefix with an {LAYOUT_FILE} object)")


def proposed_by_path(path: str) -> str | None:
    """The repository that the last part of a path proposes: `images/busybox.tar.gz` proposes `busybox`."""
    last = os.path.basename(os.path.abspath(path))
    for ending in _ARCHIVE_ENDINGS:
        last = last.removesuffix(ending)
    return valid_name(last)


def valid_name(text: str) -> str | None:
    """`text`, if it is a repository name, or else None."""
    try:
        return parse_name(text)
    except NameInvalid:
        return None


def refuse_own(source: str, roots: Sequence[str], below: str = "") -> None:
    """Raise UsageError if the source is the store itself, or overlaps with it. `below`: what of a bucket is read."""
    if is_bucket(source):
        read = parse_address(f"{source}/{below}")
        own = [root for root in roots if is_bucket(root) and parse_address(root).overlaps(read)]
        if own:
            raise UsageError(f"{source} is the store {own[0]} itself, holds it, or lies in it")
        return
    real = os.path.realpath(source)
    for root in (os.path.realpath(root) for root in roots if not is_bucket(root)):
        if os.path.commonpath([real, root]) == real:
            raise UsageError(f"{source} is the store {root} itself, or holds it")


def past_beside(source: str, name: str, clock: Clock) -> Timeline | None:
    """The history of a layout that is a repository of a store. None: it is not."""
    real = os.path.realpath(source if name == THE_LAYOUT else os.path.join(source, name))
    store = store_above(os.path.dirname(real))
    if store is None:
        return None
    with suppress(StorageError):
        return root_over(directory(store), clock).history.timeline(os.path.relpath(real, store))
    return None


def store_above(directory: str) -> str | None:
    """The root of a store of ours that a directory is, or lies in; None: there is none."""
    while not os.path.isdir(os.path.join(directory, keys.HIDDEN)):
        if directory == os.path.dirname(directory):
            return None
        directory = os.path.dirname(directory)
    return directory


# -- buckets ----------------------------------------------------------------------------------------


class BucketSource(WrappedDriver):
    """The tree of a bucket. Each folder of blobs is listed once, after the index.json that leads there was read, so
    that the list has all that the index needs. Safe between threads."""

    def __init__(self, protocol: StoreProtocol, tree: Driver) -> None:
        """`tree`: the bucket's driver, or a part of it."""
        super().__init__(tree)
        self._protocol = protocol
        self._folders: dict[str, dict[str, Info]] = {}
        self._mutex = threading.Lock()
        self._bodies: Lru[str, bytes] = Lru(KEPT_MANIFESTS_BYTES)

    def require(self) -> None:
        """Raise Unavailable if the bucket is away."""
        if (error := self._protocol.state()) is not None:
            raise error

    def stat(self, key: str) -> Info:
        """The state of a key; of a blob or a folder of blobs by the listing. Raises NotFound, StorageError."""
        folder, _, name = key.rpartition("/")
        if folder.rpartition("/")[2] == "blobs" and self._listed(key):
            return Info(0, 0, 0, 0, 1, stat.S_IFDIR | 0o755, 0, 0, 0)
        if not _is_blob(key):
            return self.inner.stat(key)
        if (found := self._listed(folder).get(name)) is None:
            raise NotFound(f"{self.label}/{key}: no such object")
        return found

    def _listed(self, folder: str) -> dict[str, Info]:
        with self._mutex:
            if folder not in self._folders:
                found: dict[str, Info] = {}
                with suppress(NotFound):
                    found = {entry.name: entry.info for entry in self.inner.scan(folder) if entry.info is not None}
                self._folders[folder] = found
            return self._folders[folder]

    def open(self, key: str) -> Reader:
        """Open a key; a manifest that was kept is not requested again."""
        body = self._bodies.get(key)
        return self.inner.open(key) if body is None else BytesReader(body)

    def timeline(self, name: str) -> Timeline:
        """The history of a repository that the store there has written."""
        return self._protocol.history.written(name)

    def each(self, calls: Sequence[Callable[[], None]]) -> None:
        """Make these calls in parallel."""
        self._protocol.each(calls)

    def keep(self, key: str) -> None:
        """Read and keep a manifest, which will be opened now, and again to be copied. Raises StorageError."""
        if self._bodies.get(key) is None and self.stat(key).size <= KEPT_MANIFEST_BYTES:
            with self.inner.open(key) as reader:
                if reader.size <= KEPT_MANIFEST_BYTES:
                    body = reader.read_at(0, reader.size)
                    self._bodies.put(key, body, len(body) + 200)


def _is_blob(key: str) -> bool:
    *_, blobs, algorithm, encoded = ["", "", *key.split("/")]
    with suppress(DigestInvalid):
        return blobs == "blobs" and bool(parse_digest(f"{algorithm}:{encoded}"))
    return False


# -- archives -----------------------------------------------------------------------------------


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """Open an archive: a file, or standard input for "-". Raises NoSuchStore."""
    if source == PIPE:
        yield sys.stdin.buffer
        return
    try:
        stream = open_file(source)
    except NotFound as error:
        raise NoSuchStore(f"{source}: no such file or directory") from error
    with stream:
        yield stream
