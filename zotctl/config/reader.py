"""From raw values to the classes of the model: every value checked, every mistake kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zotctl.config.document import join
from zotctl.config.model import RootSettings, StorageConfig
from zotctl.config.problems import Problems
from zotctl.config.refusals import UNSAFE
from zotctl.config.schema import Table, Tables, entries
from zotctl.config.values import Kind


class ConfigReader:
    """Reads tables. A mistake is named by the `origins` of its value, else by its path in `file`."""

    def __init__(self, file: str | None, origins: Mapping[str, str], problems: Problems) -> None:
        self._file, self._origins, self._problems = file, origins, problems

    def table(self, cls: type, raw: object, path: str) -> Any:
        """An instance of `cls`, or None after a mistake."""
        if not isinstance(raw, dict):
            return self._mistake(path, f"{raw!r} is not a table")
        known = entries(cls)
        for name in raw:
            if name not in known:
                self._unknown(cls, path, name)
        values = {
            name: self._value(entry.key.kind, raw[name], join(path, name))
            for name, entry in known.items()
            if name in raw
        }
        missing = [name for name, entry in known.items() if entry.required and name not in raw]
        for name in missing:
            self._mistake(join(path, name), "is missing")
        return None if missing else cls(**values)

    def _value(self, kind: Kind | Table, raw: object, path: str) -> Any:
        if isinstance(kind, Tables):
            return self._tables(kind.cls, raw, path)
        if isinstance(kind, Table):
            return self.table(kind.cls, raw, path)
        try:
            return kind.read(raw)
        except ValueError as error:
            return self._mistake(path, str(error))

    def _tables(self, cls: type, raw: object, path: str) -> Any:
        if not isinstance(raw, list):
            return self._mistake(path, f"{raw!r} is not a list of tables")
        return tuple(self.table(cls, item, f"{path}[{i}]") for i, item in enumerate(raw))

    def _unknown(self, cls: type, path: str, name: str) -> None:
        key = join(path, name)
        if (text := UNSAFE.get(key)) is not None:
            return self._problems.unsafe(self._where(key), key, text)
        valid = [*entries(cls), *(entries(RootSettings) if cls is StorageConfig else ())]
        return self._problems.unknown(self._where(key), key, [join(path, other) for other in valid])

    def _where(self, path: str) -> str:
        return self._origins.get(path) or (f"{self._file}: {path}" if self._file else path)

    def _mistake(self, path: str, text: str) -> None:
        self._problems.mistake(self._where(path), text)
