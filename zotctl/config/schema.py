"""The keys of a table, from the annotations of its class."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from zotctl.config.values import Kind


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the keys of `cls`; a text in its place is the value of the key `short`."""

    cls: type
    short: str | None = None
    layered: bool = False
    """A key that one root's table doesn't have is taken from the table for all roots."""


@dataclass(frozen=True, slots=True)
class Tables(Table):
    """A list of such tables."""


@dataclass(frozen=True, slots=True)
class Key:
    """The annotation of a key: kind, meaning, and what its default is called if the value says too little."""

    kind: Kind | Table
    doc: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key in its table."""

    name: str
    key: Key
    default: Any

    @property
    def required(self) -> bool:
        return self.default is MISSING


@cache
def entries(cls: type) -> dict[str, KeyEntry]:
    """The keys of a class by name, those that must be there first. Attributes without a Key are none."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for item in fields(cls):
        for key in getattr(hints[item.name], "__metadata__", ()):
            default = item.default if item.default_factory is MISSING else item.default_factory()
            found[item.name] = KeyEntry(item.name, key, default)
    return dict(sorted(found.items(), key=lambda item: not item[1].required))
