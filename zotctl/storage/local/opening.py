"""Opens a directory as a root: makes or refuses it, tries it out, and gives it its hidden directory.

It walks nothing: a start does not depend on how much is stored (I12).
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR

from zotctl.config import RootConfig, Route
from zotctl.errors import (
    ConfigError,
    HeldElsewhere,
    NoLocks,
    NoSpace,
    NoSuchStore,
    NotFound,
    PermissionRefused,
    ReadOnlyStorage,
    StorageError,
    Unavailable,
)
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.distribution import is_distribution, way_over
from zotctl.storage.driver import Driver, place, read
from zotctl.storage.local.context import LocalContext, in_the_way
from zotctl.storage.local.driver import LocalDriver, translated
from zotctl.storage.local.network import detect, probe
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.locks import Locks
from zotctl.storage.root import FORMAT_BODY, Root, refuse_unknown_format
from zotctl.storage.turns import SERVER_TURNS
from zotctl.storage.wrappers import ReadOnlyDriver

DIRECTORIES = (keys.UPLOADS, keys.TMP, keys.POOL, keys.LEASES, keys.DAMAGED, keys.TRASH)
ZOT_DATABASES = ("cache.db", "meta.db")

MAKE = "set create = true in zotctl.toml, or start it once with ZOTCTL_STORAGE_CREATE=true (zot's file has no such key)"
"""zot makes its root; on a mount point without its share that would begin a second, empty store."""

log = logging.getLogger("zotctl.storage")


_there: set[str] = set()
"""Directories that were roots when this process, or its parent before the fork, looked at them."""


def remember(path: str) -> None:
    """Remember that this directory is a root, so that no process that is forked from now on makes it again."""
    path = os.path.abspath(path)
    if os.path.isfile(os.path.join(path, keys.VERSION)):
        _there.add(path)


def _refuse_what_went_away(path: str) -> None:
    if path in _there and not os.path.isfile(os.path.join(path, keys.VERSION)):
        raise Unavailable(f"the storage root {path} is away: it was there when the server began; is it mounted?")


def open_root(settings: RootConfig, clock: Clock, *, read_only: bool = False, route: Route | None = None) -> Root:
    """Open one directory. Raises NoSuchStore: missing, or empty and without our marker (an NFS share
    that is not mounted looks like that), or one that goes away meanwhile; HeldElsewhere while zot runs on it;
    PermissionRefused when another user owns the store; Unavailable where one went away (`remember`); ConfigError for a
    hidden directory of a format that a later version made, and for a directory inside another store."""
    path = os.path.abspath(settings.path)
    try:
        with translated(path):
            return _open(settings, path, clock, read_only, route)
    except NotFound as error:
        raise NoSuchStore(f"the storage root {path} has gone away: {error.message}; is it mounted?") from error


def _open(settings: RootConfig, path: str, clock: Clock, read_only: bool, route: Route | None) -> Root:
    if not read_only:
        _refuse_what_went_away(path)
        _refuse_inside_another(path)
    _make_or_refuse(path, create=settings.create)
    _refuse_layout(path)
    local = _detect(path)
    _refuse_unknown_format(local, path)
    writable = not read_only and _prepare(local, path)
    if writable:
        _try_out(local, path)
    driver: Driver = local if writable else ReadOnlyDriver(local)
    turn = SERVER_TURNS.of(path, clock)
    context = LocalContext(driver, clock, Locks(driver, clock), settings.commit, settings.dedupe, not writable, turn)
    marker = keys.VERSION if context.stat(keys.VERSION) else ""
    return Root(LocalProtocol(context, settings.min_free, marker=marker), not writable, settings, route)


def _make_or_refuse(path: str, *, create: bool) -> None:
    if create:
        _make(path)  # without a look beforehand: two workers may come here at once
    elif not _is_directory(path):
        if os.path.lexists(path):
            raise _no_directory(path)
        raise NoSuchStore(f"the storage root {path} is not there: is it mounted? To have it made, {MAKE}")
    elif _is_empty(path):
        raise NoSuchStore(
            f"the storage root {path} is empty and was never used: is it mounted? If it is really new, {MAKE}"
        )


def _no_directory(path: str) -> NoSuchStore:
    at = path
    while not os.path.lexists(at):
        at = os.path.dirname(at)  # a parent that is a file
    what = "is a file, not a directory" if os.path.isfile(at) else "is not a directory"
    way = "" if at == path else f"{at} "
    return NoSuchStore(f"the storage root {path}{':' * bool(way)} {way}{what}; name the directory of the store")


def _is_directory(path: str) -> bool:
    """Is there a directory? Raises OSError where that can't be told."""
    try:
        return S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _no_directory(path) from error
    except OSError as error:
        raise ConfigError(f"the storage root {path} can't be made: {error.strerror}") from error


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except PermissionError as error:
        raise PermissionRefused(f"the storage root {path} can't be read: {error.strerror}") from error


def _detect(path: str) -> LocalDriver:
    driver = detect(path)
    hidden = Path(path, keys.HIDDEN)
    try:
        owner = (hidden if hidden.exists() else Path(path)).stat()
    except PermissionError as error:
        raise PermissionRefused(f"the storage root {path} can't be read: {error.strerror}") from error
    if os.geteuid() not in (0, owner.st_uid) and hidden.exists() and os.access(hidden, os.W_OK):
        raise PermissionRefused(
            f"the store {path} belongs to uid {owner.st_uid} and this process runs as uid {os.geteuid()}: files of two "
            f"owners could not be shared; run it with `sudo -u '#{owner.st_uid}'`"
        )
    if driver.filesystem == "overlay":
        log.warning(f"{path} is on overlayfs, where writing breaks hard links: use a volume")
    return detect(path, owner=(owner.st_uid, owner.st_gid))


def _refuse_inside_another(path: str) -> None:
    """Raise ConfigError for a directory inside a store: with locks and a trash of its own, two writers of one
    repository would not see each other."""
    for above in Path(os.path.realpath(path)).parents:
        with suppress(OSError):
            if (above / keys.VERSION).is_file():
                raise ConfigError(f"{path} lies in the store {above}: name that one, and what to look at by --repo")


def _refuse_layout(path: str) -> None:
    """Raise ConfigError for an image layout, and for the storage of another registry: it would be a store without a
    repository, and get a hidden directory. A store that is in use is none, even with a stray `oci-layout`."""
    if os.path.exists(os.path.join(path, keys.VERSION)):
        return
    if is_distribution(path):
        raise ConfigError(way_over(path))
    if os.path.isfile(os.path.join(path, LAYOUT_FILE)):
        raise ConfigError(
            f"{path} is an image layout, not a store of them: name the directory that it lies in, or give {path} "
            "without --root to `zotctl serve` or `zotctl verify`"
        )


def _refuse_unknown_format(driver: Driver, path: str) -> None:
    with suppress(StorageError):  # none yet, or none that this user may read
        refuse_unknown_format(read(driver, keys.VERSION, 4096), path)


def _prepare(driver: Driver, path: str) -> bool:
    """Make the hidden directory; False where nothing can be written."""
    refuse_beside_zot(path)
    context = LocalContext(driver, Clock(), Locks(driver, Clock()))
    try:
        for directory in DIRECTORIES:
            context.make_dirs(directory)
        _refuse_what_is_in_the_way(context)
        written = keys.tmp(f"written-{context.clock.token()}")
        driver.create(written).close()
        driver.unlink(written)
    except (ReadOnlyStorage, PermissionRefused) as error:
        log.warning(f"{path} can't be written, so it is only read: {error.message}")
        return False
    except NoSpace:
        log.warning(f"{path} is full: reading and deleting go on")
    _mark(context)
    return True


def _refuse_what_is_in_the_way(context: LocalContext) -> None:
    """Raises Damaged where one of our names leads to something else than we made there."""
    for key in (*DIRECTORIES, keys.LOCK, keys.VERSION):
        info = context.stat(key)
        if info is None or (info.is_dir if key in DIRECTORIES else info.is_file):
            continue
        if key not in DIRECTORIES or not info.is_link or not _leads_to_directory(context.driver, key):
            raise in_the_way(context.driver.label, key)


def _leads_to_directory(driver: Driver, key: str) -> bool:
    try:
        driver.scan(key)
    except NotFound:
        return False
    return True


def _mark(context: LocalContext) -> None:
    """Write `version`, the sign that this is a root and that it is mounted."""
    known = context.stat(keys.VERSION)
    if known is not None and known.size:
        return
    temp = keys.tmp(context.clock.token())
    with suppress(NoSpace):
        with context.driver.create(temp) as writer:
            writer.write([FORMAT_BODY])
            writer.sync()
        if known is None:
            place(context.driver, temp, keys.VERSION)  # never over another one: while it is missing, servers answer 503
        else:
            context.driver.rename(temp, keys.VERSION)
        context.discard(temp)


def _try_out(driver: LocalDriver, path: str) -> None:
    driver.capabilities = probe(driver, keys.TMP)
    if not driver.capabilities.links:
        log.warning(f"{path} has no hard links: content is stored once for each repository (no deduplication)")
    if not driver.capabilities.locks:
        log.warning(f"{path} has no file locks: one process only, and no job beside it")


def refuse_beside_zot(path: str) -> None:
    """Raise HeldElsewhere while zot runs here. It keeps its locks in memory, so both must not write; its database is
    locked while it runs."""
    for name in ZOT_DATABASES:
        with suppress(NotFound, PermissionRefused), translated(database := os.path.join(path, name)):
            fd = os.open(database, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                with suppress(NoLocks), translated(database, "lock"):  # without any, zot does not start there either
                    if not _may_lock(fd):
                        raise HeldElsewhere(f"zot is running on {path} ({name} is locked); stop it first")
            finally:
                os.close(fd)


def _may_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
