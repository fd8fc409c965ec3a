"""What can be imported: a layout directory, a tree of them, another store's root, an archive.

Sources are foreign: nothing in them is followed out of them (I14). They are read through a driver, as a
store is, so a symbolic link is never a file, and a layout that is being served may be read meanwhile.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from zotctl.config import RootConfig, StorageConfig, is_bucket, parse_address
from zotctl.errors import (
    CannotLink,
    Exists,
    LayoutInvalid,
    NameInvalid,
    NoSuchStore,
    NotEmpty,
    NotFound,
    StorageError,
    Unavailable,
    UsageError,
    ZotctlError,
    quoted,
)
from zotctl.jobs.imports.bucket_source import BucketSource
from zotctl.jobs.layouts import layouts_in
from zotctl.oci.digest import Digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage import Store, keys, open_store
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, Info, Reader, read
from zotctl.storage.facts import Content, Unusable, read_content
from zotctl.storage.file_identity import same_file
from zotctl.storage.graph import Each
from zotctl.storage.history import Timeline
from zotctl.storage.index import Index, parse_index
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.driver import translate
from zotctl.storage.local.history import past_in
from zotctl.storage.local.index_file import LARGEST_INDEX_BYTES
from zotctl.storage.local.network import detect
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.locks import Locks
from zotctl.storage.wrappers import AliasedDriver, ReadOnlyDriver

PIPE = "-"
THE_LAYOUT = "layout"
"""How a single layout is called within its own driver."""
MOVED = "moved"
"""The token under which the index.json of a layout lies while the layout is being removed."""
_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")


class Layout(Protocol):
    """One image layout that can be imported."""

    @property
    def label(self) -> str:
        """How people call it."""

    @property
    def proposal(self) -> str | None:
        """A repository name, by where it lies; `fixed`: it outranks what the rows say."""

    @property
    def fixed(self) -> bool: ...

    @property
    def index(self) -> Index: ...

    @property
    def names(self) -> dict[str, list[str]]:
        """Full names by the digest of a config, where they stand beside the index (docker save)."""

    def size(self, digest: Digest) -> int | None:
        """None: it is not there."""

    def absence(self, digest: Digest) -> Unusable:
        """Why it is not there."""

    def open(self, digest: Digest) -> Reader: ...
    @property
    def past(self) -> Timeline | None:
        """What the store that it lies in remembers of it."""

    @property
    def each(self) -> Each | None:
        """By which its manifests are read side by side, if each of them is a request."""

    def content(self, digest: Digest, whole: bool) -> Content:
        """As a `Read` of a graph, of what is there."""

    @property
    def require(self) -> Callable[[], None]:
        """Raises Unavailable when the source as a whole is away: then what it lacks may well be there."""


@dataclass
class StoredLayout:
    """A layout in a driver, under `name`."""

    driver: Driver
    name: str
    label: str
    index: Index
    proposal: str | None = None
    fixed: bool = False
    names: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    """Of an archive: members that were not what their names said."""
    past: Timeline | None = None
    """What the store that it lies in remembers of it."""
    require: Callable[[], None] = lambda: None
    _folders: dict[str, bool] = field(default_factory=dict)

    def size(self, digest: Digest) -> int | None:
        try:
            info = self.driver.stat(keys.blob(self.name, digest))
        except NotFound:
            return None
        return info.size if info.is_file and self._is_folder(digest.algorithm) else None

    def absence(self, digest: Digest) -> Unusable:
        if digest in self.damaged:
            return Unusable("digest_mismatch", self.damaged[digest])
        if self._is_link(digest):
            return Unusable("missing_blob", f"{digest} is a symbolic link in {self.label}, and none is followed")
        return Unusable("missing_blob", f"{digest} is not in {self.label}")

    def open(self, digest: Digest) -> Reader:
        return self.driver.open(keys.blob(self.name, digest))

    @property
    def each(self) -> Each | None:
        return self.driver.each if isinstance(self.driver, BucketSource) else None

    def content(self, digest: Digest, whole: bool) -> Content:
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
    """A layout as it is now. Raises LayoutInvalid, which names it and the rule."""
    context = LocalContext(driver, Clock(), Locks(driver, Clock()))
    try:
        index = LocalProtocol(context).read_index(name).index
    except NotFound as error:
        if not half_moved:
            raise LayoutInvalid(f"{label} is no image layout: {_reason(context, name)}") from error
        index = _set_aside(context, name, label)
    except LayoutInvalid as error:
        reason = getattr(error.__cause__, "message", error.message)
        raise LayoutInvalid(f"{label} can't be imported: {reason}") from error
    return StoredLayout(driver, name, label, index)


def requirement(driver: Driver, source: str) -> Callable[[], None]:
    """`Layout.require` of all layouts in a driver, which is there now."""
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


def _reason(context: LocalContext, name: str) -> str:
    for key in (keys.layout(name), keys.index(name)):
        info = context.stat(key)
        if info is None or not info.is_file:
            rest = "is no regular file, and no link is followed" if info else "is missing"
            return f"{key.rpartition('/')[2]} {rest} (image-spec, image-layout.md)"
    return "a part of it is missing (image-spec, image-layout.md)"


def _set_aside(context: LocalContext, name: str, label: str) -> Index:
    """The index of a layout whose removal was cut short."""
    try:
        return parse_index(read(context.driver, keys.index_temp(name, MOVED), LARGEST_INDEX_BYTES))
    except NotFound as error:
        raise LayoutInvalid(f"{label} is no image layout: {_reason(context, name)}") from error


# -- directories --------------------------------------------------------------------------------


def is_archive(source: str) -> bool:
    """Raises NoSuchStore if nothing is there, PermissionRefused."""
    if source == PIPE:
        return True
    try:
        return not stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: OSError) -> ZotctlError:
    translated = translate(error, source, "open")
    return NoSuchStore(f"{source}: no such file or directory") if isinstance(translated, NotFound) else translated


Passed = Callable[[str, ZotctlError], None]
"""Told of what a walk could not look into, or left out."""


def in_directory(source: str, passed: Passed, *, writable: bool = False) -> tuple[Driver, list[str]]:
    """The layouts at or below a directory; the one that it is itself is called THE_LAYOUT."""
    local = detect(source)
    driver: Driver = local if writable else ReadOnlyDriver(local)
    here = {entry.name for entry in driver.scan("") if not entry.is_dir}
    if here & {LAYOUT_FILE, "index.json"}:
        return AliasedDriver(driver, THE_LAYOUT, ""), [THE_LAYOUT]
    found: list[str] = []
    for place in layouts_in(driver, passed):
        if place.link:
            reason = f"{place.name} is a symbolic link, and none is followed: import it alone"
            passed(place.name, LayoutInvalid(reason))
        elif place.whole:
            found.append(place.name)
    if not found:
        raise NoSuchStore(f"{source}: no image layout in it or below it (a directory with an {LAYOUT_FILE} file)")
    return driver, sorted(found, key=lambda name: name.split("/"))


@contextmanager
def in_bucket(store: Store, source: str) -> Iterator[tuple[Driver, list[str]]]:
    """The same for s3://BUCKET/PREFIX, which is reached as the store's own buckets are. Raises NoSuchStore."""
    known = next((root.config.s3 for root in store.roots if root.config is not None and root.config.s3), None)
    config = StorageConfig(roots=(RootConfig(path=source, s3=known),), read_only=True)
    opened_store = open_store(config, store.clock)
    try:
        root = opened_store.roots[0]
        if root.stat(LAYOUT_FILE) is not None:
            yield BucketSource(root.protocol, AliasedDriver(root.driver, THE_LAYOUT, "")), [THE_LAYOUT]
        elif names := list(root.catalog.everything()):
            yield BucketSource(root.protocol, root.driver), names
        else:
            raise NoSuchStore(f"{source}: no image layout in it or below it (a prefix with an {LAYOUT_FILE} object)")
    finally:
        opened_store.close()


def proposed_by_path(path: str) -> str | None:
    """A repository name from the last part of a path: `images/busybox.tar.gz` proposes `busybox`."""
    last = os.path.basename(os.path.abspath(path))
    for ending in _ARCHIVE_ENDINGS:
        last = last.removesuffix(ending)
    return valid_name(last)


def valid_name(text: str) -> str | None:
    try:
        return parse_name(text)
    except NameInvalid:
        return None


def refuse_own(source: str, roots: Sequence[str]) -> None:
    """A store can't be imported into itself. Raises UsageError."""
    if is_bucket(source):
        own = [root for root in roots if is_bucket(root) and parse_address(root).overlaps(parse_address(source))]
        if own:
            raise UsageError(f"{source} is the store {own[0]} itself, holds it, or lies in it")
        return
    real = os.path.realpath(source)
    for root in (os.path.realpath(root) for root in roots if not is_bucket(root)):
        if os.path.commonpath([real, root]) == real:
            raise UsageError(f"{source} is the store {root} itself, or holds it")


def past_beside(source: str, name: str, now: float) -> Timeline | None:
    """What the store in which a layout lies remembers of it. None: it lies in none."""
    real = os.path.realpath(source if name == THE_LAYOUT else os.path.join(source, name))
    store = store_above(os.path.dirname(real))
    if store is None:
        return None
    with suppress(StorageError):
        return past_in(ReadOnlyDriver(detect(store)), os.path.relpath(real, store), now)
    return None


def store_above(directory: str) -> str | None:
    """The root of ours that this is, or that it lies in."""
    while not os.path.isdir(os.path.join(directory, keys.HIDDEN)):
        if directory == os.path.dirname(directory):
            return None
        directory = os.path.dirname(directory)
    return directory


# -- removing what was moved --------------------------------------------------------------------


def refuse_move(source: str) -> None:
    """Only a plain layout is moved: clients may have reserved at a store's servers what we would remove (I6)."""
    if is_bucket(source):
        raise UsageError(f"--move removes image layouts in directories, not in buckets: {source}")
    real = os.path.realpath(source)
    if is_archive(source):
        raise UsageError(f"--move removes image layouts in directories, not archives: {source}")
    if (store := store_above(real)) is not None:
        raise UsageError(f"{source} belongs to the store {store}: import it without --move, then delete it there")


def refuse_served(store: Store, layout: StoredLayout) -> None:
    """A repository of the store by another path, such as a bind mount, for which nothing above it speaks: what is there
    already would be removed as what was moved. Raises UsageError."""
    here = [_info(layout.driver, key) for key in (layout.name, keys.blobs(layout.name))]
    for root in (root for root in store.roots if not root.by_requests):
        for name in root.catalog.everything():
            there = [_info(root.driver, key) for key in (name, keys.blobs(name))]
            if any(same_file(one, other) for one, other in zip(here, there, strict=True)):
                raise UsageError(f"{layout.label} is the repository {name} of the store {root.label}, by another path")


def _info(driver: Driver, key: str) -> Info | None:
    with suppress(StorageError):
        return driver.stat(key)
    return None


def remove_layout(layout: StoredLayout, digests: Sequence[Digest], taken: Callable[[], None]) -> None:
    """Remove what was imported, and nothing that we don't know. The index goes first, so that no reader
    reads a layout whose blobs are going; a cut run finds it beside. Raises LayoutInvalid if it changed.

    `taken` is asked when the index is set aside, and raises ZotctlError if what was imported is not there any more.
    """
    driver, name = layout.driver, layout.name
    aside = keys.index_temp(name, MOVED)
    with suppress(NotFound):  # set aside by a run that was cut
        driver.rename(keys.index(name), aside)
    try:
        _require_same(layout, aside)
        taken()
    except ZotctlError:
        _put_back(driver, aside, keys.index(name))
        raise
    for digest in digests:
        _discard(driver, keys.blob(name, digest))
    for key in (keys.layout(name), aside):
        _discard(driver, key)
    folders = [*(keys.blobs_of(name, a) for a in sorted({d.algorithm for d in digests})), keys.blobs(name), name]
    for folder in folders:
        with suppress(NotFound, NotEmpty, StorageError):
            driver.rmdir(folder)


def _require_same(layout: StoredLayout, key: str) -> None:
    """Of what was set aside, which no tool finds any more: a look before that could miss what is written meanwhile."""
    now = parse_index(read(layout.driver, key, LARGEST_INDEX_BYTES))
    if now.render() != layout.index.render():
        raise LayoutInvalid(f"{layout.label} was changed while it was imported; it is left in place, run it again")


def _put_back(driver: Driver, aside: str, key: str) -> None:
    """Over nothing: what a tool has written anew counts more than what it replaces."""
    try:
        driver.link(aside, key)
    except CannotLink:
        driver.rename(aside, key)
    except Exists:
        pass
    _discard(driver, aside)


def _discard(driver: Driver, key: str) -> None:
    with suppress(NotFound):
        driver.unlink(key)


# -- archives -----------------------------------------------------------------------------------


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """The bytes of an archive: a file, or what a pipe gives."""
    if source == PIPE:
        yield sys.stdin.buffer
        return
    with _file(source) as stream:
        yield stream


def _file(source: str) -> io.FileIO:
    try:
        return io.FileIO(source)
    except OSError as error:
        raise _unreadable(source, error) from error


def bad_name(name: str) -> str:
    return f"{quoted(name)} is no repository name; import it alone, with --repo"
