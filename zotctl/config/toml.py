"""Our own configuration file: TOML, and nothing is changed but that a root may be a path alone."""

from __future__ import annotations

from typing import Any

from zotctl.config.document import Document


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
