"""What can only be seen in the whole of a configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zotctl.config.model import Config, RootConfig
from zotctl.config.problems import Problems


def advise(config: Config, origins: Mapping[str, str], problems: Problems) -> None:
    """Name what contradicts itself, and warn about what probably isn't meant so."""
    if not config.storage.roots and config.storage.single_layout is None:
        problems.mistake(origins.get("storage.roots", "storage.roots"), "no root; name a directory")
    _advise_routes(config, origins, problems)
    for path, root in _roots(config):
        _advise_root(path, root, origins, problems)


def _advise_routes(config: Config, origins: Mapping[str, str], problems: Problems) -> None:
    prefixes = Counter(route.prefix for route in config.storage.routes)
    for i, route in enumerate(config.storage.routes):
        if prefixes[route.prefix] > 1:
            path = f"storage.routes[{i}].prefix"
            problems.mistake(origins.get(path, path), f"{route.prefix!r} has two routes")


def _roots(config: Config) -> list[tuple[str, RootConfig]]:
    """Every root with its path in the configuration."""
    return [
        *((f"storage.roots[{i}]", root) for i, root in enumerate(config.storage.roots)),
        *((f"storage.routes[{i}].root", route.root) for i, route in enumerate(config.storage.routes)),
    ]


def _advise_root(path: str, root: RootConfig, origins: Mapping[str, str], problems: Problems) -> None:
    if root.gc and root.gc_delay < 60:
        problems.warn(origins[f"{path}.gc_delay"], "under a minute: a slow push may lose what it has sent")
    for i, policy in enumerate(root.retention.policies if root.retention else ()):
        if not policy.repositories:
            where = f"{path}.retention.policies[{i}].repositories"
            problems.warn(origins.get(where, where), "an empty list matches no repository")
