"""A configuration being loaded: the raw values as our TOML file would have them, and where each was set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zotctl.config.address import is_bucket
from zotctl.config.model import DEFAULT_ROOT, RootSettings
from zotctl.config.schema import KeyEntry, Table, entries

ZOT_DEFAULT = "default of zot"
"""The origin of a value that neither zot's file nor our defaults have."""


@dataclass(slots=True)
class Document:
    """`origins` tells by path, such as `storage.roots[0].path`; the paths in `forced` came after the file."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)

    def force(self, path: str, value: object, origin: str) -> None:
        """Set a value over what the file says."""
        *tables, name = path.split(".")
        table = self.values
        for step in tables:
            table = _table(table, step)
        table[name] = value
        self.forget(path)
        self.note(path, value, origin)
        self.forced.add(path)

    def forget(self, path: str) -> None:
        """Forget where `path` and all in it were said."""
        for known in [known for known in self.origins if within(known, path)]:
            del self.origins[known]

    def note(self, path: str, value: object, origin: str) -> None:
        """Everything in `value` was said at `origin`."""
        for leaf in leaves(path, value):
            self.origins[leaf] = origin

    def spread(self) -> None:
        """Give each root what [storage] says for all; what came after the file beats a root's own word."""
        storage = _table(self.values, "storage")
        common = {name: storage.pop(name) for name in entries(RootSettings) if name in storage}
        if "single_layout" in storage:
            storage.update(roots=[], routes=[])
            self.forget("storage.roots")
            self.forget("storage.routes")
        elif "roots" not in storage:
            storage["roots"] = [{"path": DEFAULT_ROOT.path, "create": DEFAULT_ROOT.create}]
        for path, root in self._roots(storage):
            self._lay_under(root, path, common, "storage", entries(RootSettings))
            if isinstance(address := root.get("path"), str) and is_bucket(address):
                root.setdefault("dedupe", False)
                root.setdefault("s3", {})
        for name in common:
            self.forget(f"storage.{name}")

    def _lay_under(
        self, table: dict[str, Any], path: str, common: dict[str, Any], source: str, known: Mapping[str, KeyEntry]
    ) -> None:
        """Give a table the keys of one that is for all, where it says nothing itself."""
        for name, value in common.items():
            kind = known[name].key.kind if name in known else None
            own = table.get(name, {})
            if isinstance(kind, Table) and kind.layered and isinstance(value, dict) and isinstance(own, dict):
                table[name] = dict(own)
                self._lay_under(table[name], f"{path}.{name}", value, f"{source}.{name}", entries(kind.cls))
            elif name not in table or f"{source}.{name}" in self.forced:
                table[name] = value
                self._inherit(f"{source}.{name}", f"{path}.{name}")

    def _roots(self, storage: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The table of each root, with its path."""
        found = [(f"storage.roots[{i}]", root) for i, root in enumerate(_list(storage, "roots"))]
        for i, route in enumerate(_list(storage, "routes")):
            if isinstance(route, dict):
                found.append((f"storage.routes[{i}].root", route.get("root")))
        return [(path, root) for path, root in found if isinstance(root, dict)]

    def _inherit(self, source: str, target: str) -> None:
        for path, origin in list(self.origins.items()):
            if within(path, source):
                self.origins[target + path.removeprefix(source)] = origin


def leaves(path: str, value: object) -> list[str]:
    """The paths of all single values below `path`. A list of texts is one value, a list of tables is not."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(join(path, name), inner)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [leaf for i, item in enumerate(value) for leaf in leaves(f"{path}[{i}]", item)]
    return [path]


def within(path: str, table: str) -> bool:
    """Whether `path` is `table` or lies in it."""
    return path == table or path.startswith((f"{table}.", f"{table}["))


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The table `name`, made if it isn't there. One that is no table is left for the reader to name."""
    found = parent.setdefault(name, {})
    return found if isinstance(found, dict) else {}


def _list(table: dict[str, Any], name: str) -> list[Any]:
    found = table.get(name)
    return found if isinstance(found, list) else []
