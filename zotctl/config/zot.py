"""zot's configuration file, JSON or TOML, made a document of ours.

The rules are those of zot's loader (pkg/cli/server/root.go): keys in any case, an unknown one is a mistake,
durations are Go's or whole nanoseconds. What is disabled is never warned about or refused. The values are
checked later, by the reader, which names zot's keys because the origins do.
"""

from __future__ import annotations

from typing import Any

from zotctl.config.document import Document
from zotctl.config.problems import Problems
from zotctl.config.zot_keys import TOP
from zotctl.config.zot_rules import Translation, ZotValue


def is_zot(values: dict[str, Any]) -> bool:
    """Whether a TOML file is zot's: it must name `storage.rootDirectory` or `storageDriver`, which ours never does."""
    top = {key.lower(): value for key, value in values.items()}
    storage = top.get("storage")
    return "distspecversion" in top or (
        isinstance(storage, dict) and any(key.lower() in ("rootdirectory", "storagedriver") for key in storage)
    )


def read_zot(file: str, values: dict[str, Any], problems: Problems) -> Document:
    """The document of a parsed file of zot's; mistakes and warnings go to `problems`."""
    translation = Translation(file, Document(), problems)
    document = translation.document
    translation.walk(TOP, ZotValue("", values, document.values, ""))
    if "storage" not in document.values:
        problems.mistake(translation.where("storage.rootDirectory"), "is missing")
    translation.default(document.values.setdefault("http", {}), "http", port=8080)
    translation.default(document.values.setdefault("log", {}), "log", level="debug")
    return document
