"""Opens the store that a configuration describes: its roots, routes or single layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import FileIO
from stat import S_ISDIR
from typing import TYPE_CHECKING

from zotctl.config import LayoutConfig, RootConfig, Route, StorageConfig, is_bucket, parse_address
from zotctl.errors import ConfigError, LayoutInvalid, NameInvalid, NoSuchStore, NotFound, StorageError
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, read
from zotctl.storage.index import LARGEST_INDEX_BYTES, REPOSITORY, parse_index
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.driver import translated as translated
from zotctl.storage.local.following import FollowingDriver
from zotctl.storage.local.network import detect
from zotctl.storage.local.opening import open_root, remember
from zotctl.storage.local.opening import refuse_beside_zot as refuse_beside_zot
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.locks import Locks
from zotctl.storage.root import Root
from zotctl.storage.store import Store
from zotctl.storage.wrappers import AliasedDriver, ReadOnlyDriver

if TYPE_CHECKING:
    from zotctl.storage.local.archive import ArchiveDriver

_PARTS = (LAYOUT_FILE, "index.json", "blobs")
"""What a layout has at its top."""


def open_store(
    config: StorageConfig, clock: Clock | None = None, *, serving: bool = False, foreign: bool = False
) -> Store:
    """All roots and routes as one store. `serving`: a bucket that is away now may come back later. `foreign`: a bucket
    may be the storage of another registry, to be read by an import. Raises ConfigError, HeldElsewhere,
    PermissionRefused, and, for a bucket, Unavailable and NoSuchStore."""
    clock = clock or Clock()
    if config.single_layout is not None:
        return Store([_open_layout(config.single_layout, clock)], clock, only=config.single_layout.name)
    _refuse_nested(config.every_root)
    open_one = partial(_open, clock=clock, read_only=config.read_only, serving=serving, foreign=foreign)
    roots = [open_one(root) for root in config.roots]
    routes = [open_one(route.root, route=route) for route in config.routes]
    return Store([*roots, *routes], clock)


_archives: set[str] = set()
"""Archives that were there when this process, or its parent before the fork, looked at them."""


def remember_roots(config: StorageConfig) -> None:
    """Remember the directories and archives that are roots now: no process that is forked from now on makes a directory
    on an empty mount point, or in place of an archive."""
    for root in config.every_root:
        if not is_bucket(root.path):
            remember(root.path)
            if os.path.isfile(root.path):
                _archives.add(os.path.abspath(root.path))


def preload(config: StorageConfig) -> None:
    """Import the modules that the roots need, before processes are forked. Opens nothing."""
    for root in config.every_root:
        if is_bucket(root.path):
            from zotctl.storage.bucket.opening import preload_bucket

            preload_bucket(root)
        elif os.path.isfile(root.path):
            import zotctl.storage.local.archive  # noqa: F401


def _open(
    root: RootConfig, route: Route | None = None, *, clock: Clock, read_only: bool, serving: bool, foreign: bool
) -> Root:
    """By the scheme of its address, or as an archive if it is a file."""
    if is_bucket(root.path):
        from zotctl.storage.bucket.opening import open_bucket  # botocore takes most of a second to load

        return open_bucket(root, clock, read_only=read_only, serving=serving, foreign=foreign, route=route)
    if os.path.isfile(root.path) and is_tar(root.path):
        return _open_archive(root, route, clock)
    if not os.path.lexists(root.path) and (root.path.endswith(".tar") or os.path.abspath(root.path) in _archives):
        # A directory of its name would pass for an empty registry, and be in the way of the archive.
        raise NoSuchStore(f"the archive {root.path} is not there; to have a directory of this name, make it first")
    return open_root(root, clock, read_only=read_only, route=route)


def _open_archive(root: RootConfig, route: Route | None, clock: Clock) -> Root:
    """A tar of several layouts as a root, read-only."""
    driver = archive(root.path)
    if driver.is_layout:
        raise ConfigError(
            f"{root.path} is an archive of one image layout, and no root: serve it alone, with zotctl serve {root.path}"
        )
    opened = root_over(driver, clock, marker="", config=root, route=route)
    opened.is_archive = True
    return opened


def archive(path: str) -> ArchiveDriver:
    """The members of a tar that is not packed. Raises ConfigError, LayoutInvalid, StorageErrors."""
    from zotctl.storage.local.archive import ArchiveDriver  # few serve one

    path = os.path.abspath(path)
    return ArchiveDriver(detect(os.path.dirname(path)), path)


def is_tar(path: str) -> bool:
    """Whether a file begins as a tar does, packed or not, or as what can't be unpacked here. Raises StorageErrors."""
    from zotctl.storage.tar import TAR_BLOCK_BYTES, is_like_tar, packed_otherwise

    with translated(path), open(path, "rb") as file:
        beginning = file.read(TAR_BLOCK_BYTES)
    return is_like_tar(beginning) or bool(packed_otherwise(beginning))


def name_in_archive(path: str) -> str | None:
    """The repository that an archive of one layout says it is, "" if it says none; None: it holds a tree of layouts.
    Raises what `archive` raises."""
    driver = archive(path)
    if not driver.is_layout:
        return None
    with suppress(NotFound, LayoutInvalid, NameInvalid):
        return parse_name(parse_index(read(driver, "index.json", LARGEST_INDEX_BYTES)).annotation(REPOSITORY))
    return ""


def _open_layout(layout: LayoutConfig, clock: Clock) -> Root:
    """One layout directory under one name, read-only: nothing is written anywhere."""
    inner: Driver = archive(layout.path) if os.path.isfile(layout.path) else directory(layout.path)
    driver = AliasedDriver(inner, layout.name, "")
    return root_over(driver, clock, marker=keys.layout(layout.name))


def first_link(config: StorageConfig) -> str | None:
    """The first symbolic link that a registry meets in a single layout and does not follow (I14); None: there is
    none."""
    if config.single_layout is None:
        return None
    path = config.single_layout.path
    if os.path.isfile(path):
        return None
    driver = directory(path)
    with suppress(StorageError):
        folders = ["", "blobs", *(f"blobs/{entry.name}" for entry in driver.scan("blobs") if entry.is_dir)]
        for folder in folders:
            for entry in driver.scan(folder):
                key = f"{folder}/{entry.name}".lstrip("/")
                if not (entry.is_dir or entry.is_file) and (folder or key in _PARTS) and driver.stat(key).is_link:
                    return os.path.join(path, key)
    return None


def root_over(
    driver: Driver,
    clock: Clock,
    *,
    marker: str = keys.VERSION,
    config: RootConfig | None = None,
    route: Route | None = None,
) -> Root:
    """A read-only root over any driver, for layouts that are in no store: nothing is made or changed. `marker`: the key
    that shows that the storage is there."""
    context = LocalContext(driver, clock, Locks(driver, clock), commit=False, dedupe=False)
    return Root(LocalProtocol(context, marker=marker), True, config, route)


def directory(path: str, *, writable: bool = False) -> Driver:
    """A directory that need not be a store. Raises NotFound with the first call if it is not there."""
    driver = detect(path)
    return driver if writable else ReadOnlyDriver(driver)


def followed(driver: Driver, path: str, prefix: str = "") -> Driver:
    """A driver that follows the links of the tree that an operator has named as a source. `path`: what `driver` shows
    below the key `prefix`."""
    return FollowingDriver(driver, path, prefix)


def is_directory(path: str) -> bool:
    """Raises NotFound, PermissionRefused and other StorageErrors where that can't be told."""
    with translated(path):
        return S_ISDIR(os.stat(path).st_mode)


def open_file(path: str) -> FileIO:
    """A file beside any store, such as an archive, to be read from front to end. Raises StorageError."""
    with translated(path):
        return FileIO(path)


def _refuse_nested(roots: Sequence[RootConfig]) -> None:
    """Two roots that are one, or one within the other, would see the same repository twice."""
    for i, root in enumerate(roots):
        for other in roots[:i]:
            if _overlap(root, other):
                raise ConfigError(
                    f"the storage roots {other.path} and {root.path} are nested or the same; keep them apart"
                )


def _overlap(root: RootConfig, other: RootConfig) -> bool:
    if is_bucket(root.path) != is_bucket(other.path):
        return False
    if is_bucket(root.path):
        one_server = (root.s3.endpoint if root.s3 else None) == (other.s3.endpoint if other.s3 else None)
        return one_server and parse_address(root.path).overlaps(parse_address(other.path))
    one, two = os.path.realpath(root.path), os.path.realpath(other.path)
    if os.path.commonpath([one, two]) in (one, two):
        return True
    try:
        return os.path.samefile(one, two)  # one directory that is mounted at two places
    except OSError:
        return False  # one is still to be made, or `open_root` says what is wrong with it
