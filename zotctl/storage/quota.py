"""Limits on what a store takes: how many repositories, and how many bytes below a prefix.

They are decided when a manifest is pushed, by what the manifests say: what two repositories below a prefix share counts
once, and what waits to be collected does not count. Blobs that no manifest references yet are limited by the free space
of the disk alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from zotctl.config import Quota
from zotctl.errors import NameUnknown, QuotaExceeded
from zotctl.oci.manifest import Manifest
from zotctl.storage.root import is_below
from zotctl.storage.store import Store

KEPT_S = 30.0
"""For so long the bytes of other repositories are remembered: a push into one looks at that one alone."""


class Quotas:
    """The limits of one store. Thread-safe.

    Two pushes at the same moment may both pass: a limit is exceeded by what is pushed at once, and by what was pushed
    elsewhere within `KEPT_S`.
    """

    def __init__(self, store: Store, quotas: Sequence[Quota], max_repositories: int) -> None:
        self._store, self._max_repositories = store, max_repositories
        self._quotas = tuple(sorted(quotas, key=lambda quota: len(quota.prefix)))
        self._mutex = threading.Lock()
        self._others: dict[tuple[str, str], tuple[float, Mapping[str, int]]] = {}

    def check(self, name: str, manifest: Manifest) -> None:
        """Raises QuotaExceeded if the repository `name` may not take `manifest`."""
        quotas = [quota for quota in self._quotas if is_below(name, quota.prefix)]
        if not quotas and not self._max_repositories:
            return
        try:
            own = self._store.repository(name).usage()
        except NameUnknown:
            self._check_count(name)
            own = {}
        wanted = {str(manifest.digest): manifest.size}
        wanted |= {one.digest: one.size for one in (*manifest.blobs, *manifest.children)}
        for quota in quotas:
            used = {**self._usage_of_others(quota.prefix, name), **own}
            missing = sum(size for digest, size in wanted.items() if digest not in used)
            total = sum(used.values())
            if missing and total + missing > quota.bytes:
                numbers = {"prefix": quota.prefix, "limit_bytes": quota.bytes, "used_bytes": total}
                raise QuotaExceeded(
                    f"{quota.prefix} may have {quota.bytes} bytes and has {total}; this needs {missing} more",
                    {**numbers, "needed_bytes": missing},
                )

    def _check_count(self, name: str) -> None:
        limit = self._max_repositories
        if limit and len(self._store.repositories(limit)) >= limit:
            raise QuotaExceeded(f"there are {limit} repositories, as many as may be: {name} is not created")

    def _usage_of_others(self, prefix: str, name: str) -> Mapping[str, int]:
        now = self._store.clock.elapsed()
        with self._mutex:
            kept = self._others.get((prefix, name))
        if kept is not None and now < kept[0] + KEPT_S:
            return kept[1]
        found: dict[str, int] = {}
        for other in self._store.repositories():
            if other != name and is_below(other, prefix):
                try:
                    found |= self._store.repository(other).usage()
                except NameUnknown:
                    continue
        with self._mutex:
            self._others = {key: value for key, value in self._others.items() if now < value[0] + KEPT_S}
            self._others[prefix, name] = (now, found)
        return found
