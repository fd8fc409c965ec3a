"""Limits on what a store takes: how many repositories, and how many bytes below a prefix.

Bytes are decided when a manifest is pushed, by what the manifests say: what two repositories below a prefix share
counts once, and what waits to be collected does not count. Blobs that no manifest references yet are limited by the
free space of the disk alone. The number of repositories is decided by all that would make another one: a blob does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from zotctl.config import Quota
from zotctl.errors import NameUnknown, QuotaExceeded
from zotctl.oci.manifest import Manifest
from zotctl.storage.protocol import WouldBlock
from zotctl.storage.root import is_below
from zotctl.storage.store import Store

KEPT_S = 30.0
"""For so long the bytes of other repositories are remembered: a push into one looks at that one alone."""
KEPT_LISTS = 64
"""Of a client that pushes into ever new repositories no more is remembered."""


class Quotas:
    """The limits of one store. Thread-safe.

    Two pushes at the same moment may both pass: a limit is exceeded by what is pushed at once, and by what was pushed
    through another worker or server within `KEPT_S`.
    """

    def __init__(self, store: Store, quotas: Sequence[Quota], max_repositories: int) -> None:
        self._store, self._max_repositories = store, max_repositories
        self._quotas = tuple(sorted(quotas, key=lambda quota: len(quota.prefix)))
        self._mutex = threading.Lock()
        self._others: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    def check_name(self, name: str, *, wait: bool = True) -> None:
        """Raises QuotaExceeded if the repository `name` is not there and would be one too many.

        With `wait` false, WouldBlock instead of a longer look.
        """
        if not self._max_repositories:
            return
        try:
            self._store.repository(name, wait=wait).generation()
        except NameUnknown:
            if not wait:
                raise WouldBlock from None
            self._check_count(name)

    def check(self, name: str, manifest: Manifest) -> None:
        """Raises QuotaExceeded if the repository `name` may not take `manifest`."""
        quotas = [quota for quota in self._quotas if is_below(name, quota.prefix)]
        if not quotas and not self._max_repositories:
            return
        try:
            own = self._store.repository(name).usage()
        except NameUnknown:
            own = {}
        if not own:
            self._check_count(name)
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
        for quota in quotas:
            self._add(quota.prefix, name, wanted)

    def _check_count(self, name: str) -> None:
        limit = self._max_repositories
        # One that is there without a manifest is in the list itself.
        if limit and len([other for other in self._store.repositories(limit + 1) if other != name]) >= limit:
            raise QuotaExceeded(f"there are {limit} repositories, as many as may be: {name} is not created")

    def _usage_of_others(self, prefix: str, name: str) -> dict[str, int]:
        now = self._store.clock.elapsed()
        with self._mutex:
            kept = self._others.get((prefix, name))
            if kept is not None and now < kept[0] + KEPT_S:
                return dict(kept[1])
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
            if len(self._others) > KEPT_LISTS:
                self._others.pop(next(iter(self._others)))
            return dict(found)

    def _add(self, prefix: str, name: str, wanted: Mapping[str, int]) -> None:
        """What is pushed here counts for the other repositories at once: their lists are remembered."""
        with self._mutex:
            for (kept_prefix, kept_name), (_, found) in self._others.items():
                if kept_prefix == prefix and kept_name != name:
                    found |= wanted
