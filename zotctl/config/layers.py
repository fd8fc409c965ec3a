"""The layers of a configuration: the raw values as our TOML file would have them, and where each was set.

A file comes first, then the environment (a variable for each single key, ZOTCTL_<SECTION>_<KEY>), then options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zotctl.config.address import is_bucket, split_roots
from zotctl.config.model import DEFAULT_ROOT, Config, RootSettings
from zotctl.config.problems import Problems
from zotctl.config.schema import KeyEntry, Kind, Table, Tables, entries

ZOT_DEFAULT = "default of zot"
"""The origin of a value that zot's file does not set, where zot's default differs from ours."""


@dataclass(slots=True)
class Document:
    """Raw values, as a TOML file of ours would have them, and where each was set.

    `origins` says that by path, such as `storage.roots[0].path`. The paths in `overridden` were set by the environment
    or by options. Not safe between threads.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)

    def override(self, path: str, value: object, origin: str) -> None:
        """Replace what the file says by a value that was set elsewhere."""
        *tables, name = path.split(".")
        table = self.values
        for step in tables:
            table = _table(table, step)
        table[name] = value
        self.forget(path)
        self.note(path, value, origin)
        self.overridden.add(path)

    def forget(self, path: str) -> None:
        """Forget where `path`, and everything below it, was set."""
        for known in [known for known in self.origins if within(known, path)]:
            del self.origins[known]

    def note(self, path: str, value: object, origin: str) -> None:
        """Note that everything in `value` was set at `origin`."""
        for leaf in leaves(path, value):
            self.origins[leaf] = origin

    def spread(self) -> None:
        """Copy the keys that [storage] sets for all roots into each root.

        A root's own value wins, except over a value from the environment or an option.
        """
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
        """Copy the keys of `common` that a root's table does not set itself."""
        for name, value in common.items():
            kind = known[name].key.kind if name in known else None
            own = table.get(name, {})
            if isinstance(kind, Table) and kind.layered and isinstance(value, dict) and isinstance(own, dict):
                table[name] = dict(own)
                self._lay_under(table[name], f"{path}.{name}", value, f"{source}.{name}", entries(kind.cls))
            elif name not in table or f"{source}.{name}" in self.overridden:
                table[name] = value
                self._inherit(f"{source}.{name}", f"{path}.{name}")

    def _roots(self, storage: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The table of each root, with the path of that table."""
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
    """The paths of all single values below `path`. A list of strings is one value, a list of tables is not."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(join(path, name), inner)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [leaf for i, item in enumerate(value) for leaf in leaves(f"{path}[{i}]", item)]
    return [path]


def within(path: str, table: str) -> bool:
    """Whether `path` is `table` or lies in it."""
    return path == table or path.startswith((f"{table}.", f"{table}["))


def join(path: str, name: str) -> str:
    """The path of the key `name` in the table at `path`; "" is the top."""
    return f"{path}.{name}" if path else name


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The table `name`, created if it is absent. `ConfigReader` reports a value that is no table."""
    found = parent.setdefault(name, {})
    return found if isinstance(found, dict) else {}


def _list(table: dict[str, Any], name: str) -> list[Any]:
    found = table.get(name)
    return found if isinstance(found, list) else []


def read_own(file: str, values: dict[str, Any]) -> Document:
    """The document of a parsed TOML file."""
    _expand(values)
    document = Document(values)
    for name, value in values.items():
        document.note(name, value, "")
    document.origins = {path: f"{file}: {path}" for path in document.origins}
    return document


def _expand(values: dict[str, Any]) -> None:
    """`roots = ["/a"]` is short for `roots = [{ path = "/a" }]`, and `root = "/a"` of a route likewise."""
    storage = values.get("storage")
    if not isinstance(storage, dict):
        return
    if isinstance(roots := storage.get("roots"), list):
        storage["roots"] = [_root(root) for root in roots]
    if isinstance(routes := storage.get("routes"), list):
        for route in routes:
            if isinstance(route, dict) and "root" in route:
                route["root"] = _root(route["root"])


def _root(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


CONFIG_VARIABLE = "ZOTCTL_CONFIG"
ROOT_VARIABLE = "ZOTCTL_ROOT"
OUTSIDE = ("ZOTCTL_OUTPUT", "ZOTCTL_DEBUG")
"""Variables that set no key of the configuration; the command line reads them."""
OF_TESTS = frozenset(
    f"ZOTCTL_{name}" for name in ("EXAMPLES", "FAULTS", "RANDOM", "REQUIRE_TOOLS", "SCHEDULES", "SEED", "SOAK")
)
"""Variables that only the project's own tests read; CONTRIBUTING.md describes them."""

_ROOTS = "storage.roots"
SHORT = {
    ROOT_VARIABLE: _ROOTS,
    "ZOTCTL_DEDUPE": "storage.dedupe",
    "ZOTCTL_SINGLE_WRITER": "storage.s3.single_writer",
}
"""Shorter names of some variables, with the paths of their keys."""
_OPTIONS = {
    _ROOTS: "--root",
    "storage.single_layout.path": "DIR",
    "storage.single_layout.name": "--as",
    "http.address": "--listen",
    "http.port": "--listen",
    "http.delete": "--no-delete",
    "metrics.enabled": "--metrics",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The options, and an argument, that are not named like their key."""


def single_keys() -> dict[str, Kind]:
    """The keys that one string can set, by path: what the environment may name."""
    common = {name: entry for name, entry in entries(RootSettings).items() if _holds_for_all(entry)}
    return {**dict(_single_keys("", entries(Config))), **dict(_single_keys("storage", common))}


def _holds_for_all(entry: KeyEntry) -> bool:
    kind = entry.key.kind
    return isinstance(kind, Kind) or kind.layered


def _single_keys(path: str, known: dict[str, KeyEntry]) -> Iterator[tuple[str, Kind]]:
    for name, entry in known.items():
        kind = entry.key.kind
        if isinstance(kind, Kind):
            yield join(path, name), kind
        elif not isinstance(kind, Tables):
            yield from _single_keys(join(path, name), entries(kind.cls))


def variable(path: str) -> str:
    """The variable of a key: ZOTCTL_HTTP_PORT of `http.port`."""
    return f"ZOTCTL_{path.upper().replace('.', '_')}"


def apply_environment(document: Document, environ: Mapping[str, str], problems: Problems) -> None:
    """Override the file by the environment.

    An unknown variable with the prefix of a section is a mistake. Any other unknown ZOTCTL_ variable is a warning,
    since another program may use it.
    """
    paths = {**SHORT, **{variable(path): path for path in (*single_keys(), _ROOTS)}}
    sections = tuple(f"ZOTCTL_{name.upper()}_" for name in entries(Config))
    for name, text in sorted(environ.items()):
        if name in paths:
            _override(document, paths[name], text, f"environment {name}")
        elif name.startswith(sections):
            problems.unknown(f"environment {name}", name, paths, "variable")
        elif name.startswith("ZOTCTL_") and name not in {CONFIG_VARIABLE, *OUTSIDE, *OF_TESTS}:
            problems.doubtful(f"environment {name}", name, (*paths, CONFIG_VARIABLE, *OUTSIDE), "variable")


def apply_options(document: Document, options: Mapping[str, object]) -> None:
    """Override the file and the environment by the options and arguments of a command, by path. None: not given."""
    for path, value in options.items():
        if value is not None:
            name = _OPTIONS.get(path) or f"--{path.rpartition('.')[2].replace('_', '-')}"
            kind = "option" if name.startswith("--") else "argument"
            _override(document, path, value, f"{kind} {name}")  # as COMMAND_LINE of `problems` knows them


def _override(document: Document, path: str, value: Any, origin: str) -> None:
    """Parse a string from the environment or an option. Roots that are named there are created if they do not exist."""
    if path == _ROOTS:
        roots = split_roots(value) if isinstance(value, str) else value
        value = [{"path": root, "create": True} for root in roots if root]
    elif isinstance(value, str):
        value = single_keys()[path].parse(value)
    document.override(path, value, origin)
