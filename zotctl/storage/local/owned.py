"""Which repositories below a root are ours to write: the one place that says so, for requests, jobs and reads alike."""

from __future__ import annotations

import logging

from zotctl.errors import NotFound, PermissionRefused
from zotctl.oci.digest import algorithms
from zotctl.storage import keys
from zotctl.storage.driver import Driver, Info

log = logging.getLogger("zotctl.storage")


class Owned:
    """Safe between threads. Looks afresh each time: a link, or a mount, may come and go."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._stores: set[str] = set()
        """Directories that were told of."""

    def has(self, name: str) -> bool:
        """Not one that is a symbolic link or another mount, be it of the same file system, nor one whose blobs are:
        that one is only read (invariants: I9, I14). Nor one in a store below this root: its servers take other
        locks."""
        parts, here = name.split("/"), self._driver.stat("").dev  # a share that was mounted anew has another
        names = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        blobs = [keys.blobs(name), *(keys.blobs_of(name, algorithm) for algorithm in algorithms())]
        return not any(
            self._is_elsewhere(directory, here) or self._is_store(directory) for directory in names
        ) and not any(self._is_elsewhere(directory, here) for directory in blobs)

    def _is_elsewhere(self, directory: str, device: int) -> bool:
        """What is not there, or may not be looked into, is not."""
        info = self._stat(directory)
        if info is None or info.is_file:
            return False
        if not info.is_dir or info.dev != device:
            return True
        try:
            return self._driver.crosses_mount(directory)
        except (NotFound, PermissionRefused):
            return False

    def _is_store(self, directory: str) -> bool:
        if self._stat(f"{directory}/{keys.VERSION}") is None:
            return False
        if directory not in self._stores:
            self._stores.add(directory)
            label = self._driver.label
            log.warning(
                f"{label}/{directory} is a store of its own, so it is only read from here: name that one, or "
                f"remove {directory}/{keys.HIDDEN} if nothing uses it any more"
            )
        return True

    def _stat(self, key: str) -> Info | None:
        try:
            return self._driver.stat(key)
        except NotFound:
            return None
