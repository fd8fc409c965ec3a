"""From a configuration to a store."""

from __future__ import annotations

import os

from zotctl.config import LayoutConfig, RootConfig, StorageConfig
from zotctl.errors import ConfigError
from zotctl.storage.clock import Clock
from zotctl.storage.local.network import detect
from zotctl.storage.local.opening import open_root
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.local.site import Site
from zotctl.storage.locks import Locks
from zotctl.storage.root import Root
from zotctl.storage.store import Store
from zotctl.storage.wrappers import Aliased, ReadOnly


def open_store(config: StorageConfig, clock: Clock | None = None) -> Store:
    """All roots and routes as one store. Raises ConfigError, HeldElsewhere, PermissionRefused."""
    clock = clock or Clock()
    if config.single_layout is not None:
        return Store([_open_layout(config.single_layout, clock)], clock, only=config.single_layout.name)
    _refuse_nested([*config.roots, *(route.root for route in config.routes)])
    read_only = config.read_only
    roots = [open_root(root, clock, read_only=read_only) for root in config.roots]
    routes = [open_root(r.root, clock, read_only=read_only, route=r) for r in config.routes]
    return Store([*roots, *routes], clock)


def _open_layout(layout: LayoutConfig, clock: Clock) -> Root:
    """One layout directory under one name, read-only: nothing is written anywhere."""
    inner = ReadOnly(detect(layout.path))
    driver = Aliased(inner, layout.name, "")
    site = Site(driver, clock, Locks(driver, clock), commit=False, dedupe=False)
    return Root(LocalProtocol(site, marker=""), read_only=True)


def _is_same(path: str, other: str) -> bool:
    """One directory that is mounted at two places."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False  # one is still to be made, or `open_root` says what is wrong with it


def _refuse_nested(roots: list[RootConfig]) -> None:
    """Two roots that are one, or one within the other, would see the same repository twice."""
    paths = [os.path.realpath(root.path) for root in roots]
    for i, path in enumerate(paths):
        for other in paths[:i]:
            if os.path.commonpath([path, other]) in (path, other) or _is_same(path, other):
                raise ConfigError(f"the storage roots {other} and {path} are nested or the same; keep them apart")
