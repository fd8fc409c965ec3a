"""The environment: a variable for each single key, ZOTCTL_<SECTION>_<KEY>."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zotctl.config.address import split_roots
from zotctl.config.document import Document, join
from zotctl.config.model import Config, RootSettings
from zotctl.config.problems import Problems
from zotctl.config.schema import KeyEntry, Tables, entries
from zotctl.config.values import Kind

CONFIG = "ZOTCTL_CONFIG"
ROOT = "ZOTCTL_ROOT"
OUTSIDE = ("ZOTCTL_OUTPUT", "ZOTCTL_DEBUG")
"""Variables that are no part of the configuration; the command line reads them."""
OF_TESTS = frozenset(
    f"ZOTCTL_{name}" for name in ("EXAMPLES", "FAULTS", "RANDOM", "REQUIRE_TOOLS", "SCHEDULES", "SEED", "SOAK")
)
"""Variables that only the project's own tests read; CONTRIBUTING.md describes them."""

_ROOTS = "storage.roots"
SHORT = {
    ROOT: _ROOTS,
    "ZOTCTL_DEDUPE": "storage.dedupe",
    "ZOTCTL_SINGLE_WRITER": "storage.s3.single_writer",
}
"""Variables that are shorter than those of their keys."""
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
"""Options, and an argument, that are not called as their key."""


def single_keys() -> dict[str, Kind]:
    """The keys that one text can set, by path."""
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
    """Lay the variables over the file. An unknown variable that begins as those of a section is a mistake; any other
    unknown ZOTCTL_ variable is a warning, since another program may use it."""
    paths = {**SHORT, **{variable(path): path for path in (*single_keys(), _ROOTS)}}
    sections = tuple(f"ZOTCTL_{name.upper()}_" for name in entries(Config))
    for name, text in sorted(environ.items()):
        if name in paths:
            force(document, paths[name], text, f"environment {name}")
        elif name.startswith(sections):
            problems.unknown(f"environment {name}", name, paths, "variable")
        elif name.startswith("ZOTCTL_") and name not in {CONFIG, *OUTSIDE, *OF_TESTS}:
            problems.doubtful(f"environment {name}", name, (*paths, CONFIG, *OUTSIDE), "variable")


def apply_options(document: Document, options: Mapping[str, object]) -> None:
    """Lay the options and arguments of a command, by path, over the rest. One that is None was not given."""
    for path, value in options.items():
        if value is not None:
            name = _OPTIONS.get(path) or f"--{path.rpartition('.')[2].replace('_', '-')}"
            kind = "option" if name.startswith("--") else "argument"
            force(document, path, value, f"{kind} {name}")


def force(document: Document, path: str, value: Any, origin: str) -> None:
    """Set a value from outside the file. Roots named there are created if they do not exist."""
    if path == _ROOTS:
        roots = split_roots(value) if isinstance(value, str) else value
        value = [{"path": root, "create": True} for root in roots if root]
    elif isinstance(value, str):
        value = single_keys()[path].parse(value)
    document.force(path, value, origin)
