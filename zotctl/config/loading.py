"""Loading a configuration: options override the environment, which overrides the file, which overrides the defaults."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from zotctl.config.checks import apply_single_writer, check_whole
from zotctl.config.layers import CONFIG_VARIABLE, Document, apply_environment, apply_options, join, read_own
from zotctl.config.model import Config, RootSettings, Source, StorageConfig
from zotctl.config.problems import Problems
from zotctl.config.schema import Kind, Table, Tables, entries
from zotctl.config.zot import is_zot, read_zot
from zotctl.errors import ConfigError, about_file
from zotctl.oci.codec import load_json

MOST_LEVELS = 100
"""Levels of tables and lists in a file."""


def load_config(
    path: str | None,
    *,
    options: Mapping[str, object],
    environ: Mapping[str, str],
    serving: bool = True,
    waived: Collection[str] = (),
) -> Config:
    """Read a configuration: the file, the environment, the options, and then the checks of the whole.

    `path` is a file of ours (TOML) or of zot's (JSON, YAML or TOML); None: what ZOTCTL_CONFIG names, or no file.
    `options` maps the paths of keys, such as `http.port`, to values or strings; None was not given.
    `serving` False: for a job, which answers no clients. `waived`: keys of zot's file that are
    ignored on request. Raises ConfigError with every mistake on a line of its own, and UsageError if one of them is in
    the options.
    """
    problems = Problems(serving=serving, waived=waived)
    file = path or environ.get(CONFIG_VARIABLE)
    document = _read(file, problems) if file else Document()
    apply_environment(document, environ, problems)
    apply_options(document, options)
    document.spread()
    reader = ConfigReader(file, document.origins, problems)
    config: Config = reader.table(Config, document.values, "")
    if not reader.is_whole:
        problems.raise_mistakes()
    check_whole(config, document.origins, problems)
    config = apply_single_writer(config, document.origins, problems)
    problems.raise_mistakes()
    return replace(
        config,
        origins=document.origins,
        warnings=problems.warnings,
        source=Source(path, options, environ, serving, frozenset(waived)),
    )


def reload_config(config: Config) -> Config:
    """Read the sources of `config` again. Raises ConfigError or UsageError; the old configuration stays valid."""
    said = config.source
    return load_config(said.path, options=said.options, environ=said.environ, serving=said.serving, waived=said.waived)


def _read(file: str, problems: Problems) -> Document:
    text = _text(file)
    if file.lower().endswith((".yaml", ".yml")):
        values = _parse_yaml(file, text)
        _check_values(file, values)
        return read_zot(file, values, problems)
    is_json = file.lower().endswith(".json") or text.lstrip().startswith("{")
    values = _parse_json(file, text) if is_json else _parse_toml(file, text)
    _check_values(file, values)
    return read_zot(file, values, problems) if is_json or is_zot(values) else read_own(file, values)


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return stream.read()
    except OSError as error:
        raise ConfigError(about_file(file, error)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}") from None


def _parse_json(file: str, text: str) -> dict[str, Any]:
    try:
        values = load_json(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: not zot's configuration, which is a table of keys")
    return values


def _parse_yaml(file: str, text: str) -> dict[str, Any]:
    """Of zot's file: ours is TOML."""
    try:
        from zotctl.config.zot_yaml import parse_yaml
    except ImportError:
        raise ConfigError(f"{file}: YAML needs PyYAML; install it: pip install 'zotctl[yaml]'") from None
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{file}: not zot's configuration, which is a table of keys")
    return values or {}


def _parse_toml(file: str, text: str) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: neither TOML nor JSON: {error}") from None


def _check_values(file: str, values: dict[str, Any]) -> None:
    """Raise ConfigError for what can be in no configuration, and would break the code that only walks through it."""
    todo: list[tuple[object, int]] = [(values, 1)]
    while todo:
        value, level = todo.pop()
        if level > MOST_LEVELS:
            raise ConfigError(f"{file}: nested deeper than {MOST_LEVELS} levels")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            # TOML 1.0.0, "Integer": "Arbitrary 64-bit signed integers [...] should be accepted"
            raise ConfigError(f"{file}: a number of {value.bit_length()} bits is no integer of 64 bits")
        if isinstance(value, dict | list):
            todo += [(inner, level + 1) for inner in (value.values() if isinstance(value, dict) else value)]


class ConfigReader:
    """Reads raw tables into the classes of `model`. A mistake names the origin of its value, or else its path in
    `file`."""

    def __init__(self, file: str | None, origins: Mapping[str, str], problems: Problems) -> None:
        self._file, self._origins, self._problems = file, origins, problems
        self.is_whole = True
        """Whether every value could be read: an unknown key leaves the others as they are."""

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
        valid = [*entries(cls), *(entries(RootSettings) if cls is StorageConfig else ())]
        return self._problems.unknown(self._where(key), key, [join(path, other) for other in valid])

    def _where(self, path: str) -> str:
        return self._origins.get(path) or (f"{self._file}: {path}" if self._file else path)

    def _mistake(self, path: str, text: str) -> None:
        self.is_whole = False
        self._problems.mistake(self._where(path), text)


Line = tuple[str, Any, str]


def show_config(config: Config) -> list[Line]:
    """Key, value and origin of each key. Values are as a TOML file would have them; None: not set."""
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
