"""Reads YAML as zot does: the values that its decoder (go.yaml.in/yaml/v3) gives, so that a file means what it means
there.

That is YAML 1.2's core schema and a little of 1.1: `yes` and `on` are strings, `0777` is octal, `12:30` is a string,
keys are text. What zot's decoder refuses is refused: a repeated key, a node that contains itself, more aliases than a
file needs. PyYAML comes with the extra `zotctl[yaml]`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

MOST_NODES = 100_000
"""Values and keys of a file, those that an alias repeats included."""


def parse_yaml(text: str) -> Any:
    """The value of the only document in `text`. Raises ValueError, which names the line."""
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Not safe between threads."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._below: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Counts what an alias repeats: a few lines of aliases can stand for more values than memory holds."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._nodes
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._below:
                raise _refused(event, f"*{event.anchor} contains itself")
            self._nodes += self._below[id(node)]
        else:
            self._nodes += 1
            self._below[id(node)] = self._nodes - before
        if self._nodes > MOST_NODES:
            raise _refused(event, f"more than {MOST_NODES} values with what aliases repeat")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are text, as in Go's map[string]any."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused(key, "a key is no string")
            if key.value in seen:
                raise _refused(key, f"key {key.value!r} is there twice")
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _refused(node: Any, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    digits = text.lstrip("+-")
    base = 8 if digits.isdigit() and digits.startswith("0") else 0
    try:
        return int(text, base)
    except ValueError:
        raise _refused(node, f"{node.value[:20]!r} is no integer") from None


def _real(loader: _Loader, node: yaml.ScalarNode) -> float:
    try:
        return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _refused(node, f"{node.value[:20]!r} is no number") from None


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    if (text := node.value.lower()) not in ("true", "false"):
        raise _refused(node, f"{node.value[:20]!r} is neither true nor false")
    return bool(text == "true")


def _unknown_tag(loader: _Loader, node: yaml.Node) -> Any:
    raise _refused(node, f"the tag {node.tag.removeprefix('tag:yaml.org,2002:')} is not read")


def _time(loader: _Loader, node: yaml.ScalarNode) -> Any:
    raise _refused(node, f"{node.value!r} is a time stamp, which no key of zot's takes; put it into quotes")


_SIGNS = "+-"
_DIGITS = "0123456789"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)", _SIGNS + _DIGITS),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _SIGNS + _DIGITS + ".",
    ),
    ("timestamp", r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ]\s*[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}.*)?", _DIGITS),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))
for _tag, _constructor in (
    ("null", yaml.SafeLoader.construct_yaml_null),
    ("bool", _truth),
    ("int", _whole),
    ("float", _real),
    ("str", yaml.SafeLoader.construct_yaml_str),
    ("seq", yaml.SafeLoader.construct_yaml_seq),
    ("map", yaml.SafeLoader.construct_yaml_map),
    ("timestamp", _time),
):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _constructor)
_Loader.add_constructor(None, _unknown_tag)
