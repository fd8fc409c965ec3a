"""Which repositories below a root are ours to write: the one place that says so, for requests, jobs and reads alike."""

from __future__ import annotations

import logging

from zotctl.errors import NotFound
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
        """Not one that is a symbolic link or on another file system: that one is only read (invariants: I9, I14).
        Nor one in a store below this root: its servers take other locks."""
        parts, here = name.split("/"), self._driver.stat("").dev  # a share that was mounted anew has another
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            info = self._stat(above)
            if info is not None and (not info.is_dir or info.dev != here or self._is_store(above)):
                return False
        return True

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
