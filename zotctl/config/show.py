"""The effective configuration, and where each value was set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zotctl.config.document import join
from zotctl.config.model import Config
from zotctl.config.schema import Table, Tables, entries

Line = tuple[str, Any, str]


def show_config(config: Config) -> list[Line]:
    """(key, value, origin) of each key. Values are as a TOML file would have them; None: not set."""
    return [(key, value, config.origins.get(key, "default")) for key, value in _lines(config, "")]


def _lines(table: Any, path: str) -> Iterator[tuple[str, Any]]:
    cls: type = type(table)
    for name, entry in entries(cls).items():
        yield from _values(entry.key.kind, getattr(table, name), join(path, name))


def _values(kind: Any, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(kind, Tables) and value:
        for i, item in enumerate(value):
            yield from _lines(item, f"{path}[{i}]")
    elif isinstance(kind, Table) and value:
        yield from _lines(value, path)
    elif isinstance(kind, Table):
        yield path, [] if isinstance(kind, Tables) else None
    else:
        yield path, None if value is None else kind.show(value)
