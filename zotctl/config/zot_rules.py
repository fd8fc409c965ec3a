"""The rules for keys of zot's file: a key is honoured (`to`, `into`, `each`), warned about, refused, or passed over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zotctl.config.layers import ZOT_DEFAULT, Document, join
from zotctl.config.problems import Problems

BOOLEANS = frozenset(
    ("dedupe", "commit", "gc", "remotecache", "redirectbloburl", "fastrestart", "dryrun", "deletereferrers",
     "deleteuntagged", "enable", "securesession", "apikey")
)  # fmt: skip
"""The keys of zot's that are booleans, in lower case."""
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("", "0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class ZotValue:
    """A key and a value of zot's file. `table`, which has the path `path`, is the table of ours that the value goes
    into."""

    key: str
    value: Any
    table: dict[str, Any]
    path: str


@dataclass(frozen=True, slots=True)
class Translation:
    """The translation of one file of zot's. Not safe between threads."""

    file: str
    document: Document
    problems: Problems

    def where(self, key: str) -> str:
        """The place of a key, as problems and origins name it."""
        return f"{self.file}: {key}"

    def walk(self, keys: Keys, found: ZotValue) -> None:
        """Apply the rules of a table to its keys, which may be written in any case. null counts as absent."""
        if not isinstance(found.value, dict):
            return self.problems.mistake(self.where(found.key), f"{found.value!r} is not a table")
        spelled = {key.lower(): key for key in keys}
        seen: set[str] = set()
        for written, value in found.value.items():
            name = spelled.get(written.lower())
            path = join(found.key, name or written)
            if name is None:
                valid = [join(found.key, key) for key in keys]
                self.problems.unknown(self.where(path), path, valid)
            elif name in seen:
                self.problems.mistake(self.where(path), "is there twice, in different case")
            elif value is not None:
                seen.add(name)
                said = truth(value) if name.lower() in BOOLEANS else value
                keys[name](self, ZotValue(path, said, found.table, found.path))

    def set(self, found: ZotValue, name: str, value: object) -> None:
        """Set a key of ours that came from a key of zot's."""
        found.table[name] = value
        self.document.note(f"{found.path}.{name}", value, self.where(found.key))

    def default(self, table: dict[str, Any], path: str, **values: object) -> None:
        """Set keys of ours to zot's defaults where its file is silent and our defaults differ."""
        for name, value in values.items():
            if name not in table:
                table[name] = value
                self.document.note(f"{path}.{name}", value, ZOT_DEFAULT)


Rule = Callable[[Translation, ZotValue], None]
Keys = Mapping[str, Rule]
Convert = Callable[[Translation, ZotValue], object]


def to(name: str, convert: Convert = lambda _, found: found.value) -> Rule:
    """The key is honoured: its value, once converted, becomes that of our key `name`. None counts as absent."""

    def rule(translation: Translation, found: ZotValue) -> None:
        if (value := convert(translation, found)) is not None:
            translation.set(found, name, value)

    return rule


def into(name: str, keys: Keys) -> Rule:
    """The key is honoured: its table becomes our table `name`, unless it is empty."""

    def rule(translation: Translation, found: ZotValue) -> None:
        inner: dict[str, Any] = {}
        translation.walk(keys, ZotValue(found.key, found.value, inner, join(found.path, name)))
        if inner:
            found.table[name] = found.table.get(name, {}) | inner  # what an extension has put there stays

    return rule


def each(name: str, keys: Keys) -> Rule:
    """The key is honoured: its list of tables becomes our list `name`."""

    def rule(translation: Translation, found: ZotValue) -> None:
        if not isinstance(found.value, list):
            return translation.set(found, name, found.value)
        inner: list[dict[str, Any]] = [{} for _ in found.value]
        found.table[name] = inner
        for i, value in enumerate(found.value):
            translation.walk(keys, ZotValue(f"{found.key}[{i}]", value, inner[i], f"{found.path}.{name}[{i}]"))

    return rule


def group(keys: Keys) -> Rule:
    """The table has no counterpart here; each of its keys has its own rule."""
    return lambda translation, found: translation.walk(keys, found)


def warned(text: str) -> Rule:
    """The key is ignored, with a warning."""

    def rule(translation: Translation, found: ZotValue) -> None:
        if not disabled(found.value):
            translation.problems.warn(translation.where(found.key), text)

    return rule


def refused(text: str) -> Rule:
    """The key is a mistake: ignoring it would be unsafe."""

    def rule(translation: Translation, found: ZotValue) -> None:
        if not disabled(found.value):
            translation.problems.mistake(translation.where(found.key), text)

    return rule


def unsafe(text: str) -> Rule:
    """The key is a mistake for a server; a job ignores it, since it answers no clients."""

    def rule(translation: Translation, found: ZotValue) -> None:
        if not disabled(found.value):
            translation.problems.unsafe(translation.where(found.key), found.key, text)

    return rule


def passed_over(translation: Translation, found: ZotValue) -> None:
    """The rule of a key that is ignored without a warning, since nothing is lost."""


def switch(translation: Translation, found: ZotValue) -> None:
    """The rule of an `enable` that `disabled` has looked at."""
    if not isinstance(found.value, bool):
        translation.problems.mistake(translation.where(found.key), f"{found.value!r} is neither true nor false")


def enabled_if_empty(rule: Rule) -> Rule:
    """The rule of an extension that zot enables even by an empty table."""
    return lambda translation, found: rule(
        translation, replace(found, value={"enable": True}) if found.value == {} else found
    )


def truth(value: object) -> object:
    """What zot's loader takes for a boolean (mapstructure's weak types): some texts, and every number. Anything else
    comes back, and is a mistake there and here."""
    if isinstance(value, str):
        return value in _TRUE if value in (*_TRUE, *_FALSE) else value
    return value != 0 if isinstance(value, int | float) else value


def disabled(value: object) -> bool:
    """Whether zot ignores this value: an extension that is not enabled, or anything empty."""
    if isinstance(value, dict) and any(key.lower() == "enable" and not truth(on) for key, on in value.items()):
        return True
    return not value


def duration(translation: Translation, found: ZotValue) -> object:
    """A duration: a whole number counts nanoseconds. Days and weeks are accepted with a warning, since zot refuses
    them."""
    if isinstance(found.value, int) and not isinstance(found.value, bool):
        return f"{found.value}ns"
    if isinstance(found.value, str) and re.search("[dw]", found.value):
        translation.problems.warn(translation.where(found.key), f"zot doesn't know days and weeks: {found.value!r}")
    return found.value


def text(_: Translation, found: ZotValue) -> object:
    """A string; an empty one counts as absent."""
    return None if found.value == "" else found.value
