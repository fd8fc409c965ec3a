"""Loading a configuration: options override the environment, which overrides the file, which overrides the defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import tomli

from zotctl.config.advice import advise
from zotctl.config.document import Document
from zotctl.config.environment import CONFIG, apply_environment, apply_options
from zotctl.config.model import Config, Source
from zotctl.config.problems import Problems
from zotctl.config.reader import ConfigReader
from zotctl.config.single_writer import with_one_writer
from zotctl.config.toml import read_own
from zotctl.config.zot import is_zot, read_zot
from zotctl.errors import ConfigError
from zotctl.oci.codec import load_json


def load_config(
    path: str | None,
    *,
    options: Mapping[str, object],
    environ: Mapping[str, str],
    serving: bool = True,
    waived: Collection[str] = (),
) -> Config:
    """Read a configuration.

    `path` is a file of ours (TOML) or of zot's (JSON or TOML); None: what ZOTCTL_CONFIG names, or no file.
    `options` maps the paths of keys, such as `http.port`, to values or texts; None was not given.
    `serving` False: for a job, which lets no clients in. `waived`: keys of zot's file that are
    ignored on request. Raises ConfigError with every mistake on a line of its own.
    """
    problems = Problems(serving=serving, waived=waived)
    file = path or environ.get(CONFIG)
    document = _read(file, problems) if file else Document()
    apply_environment(document, environ, problems)
    apply_options(document, options)
    document.spread()
    config: Config = ConfigReader(file, document.origins, problems).table(Config, document.values, "")
    problems.raise_mistakes()
    advise(config, document.origins, problems)
    config = with_one_writer(config, document.origins, problems)
    problems.raise_mistakes()
    return replace(
        config,
        origins=document.origins,
        warnings=problems.warnings,
        source=Source(path, options, environ, serving, frozenset(waived)),
    )


def reload_config(config: Config) -> Config:
    """Read the sources of `config` again. Raises ConfigError; the old configuration stays valid."""
    said = config.source
    return load_config(said.path, options=said.options, environ=said.environ, serving=said.serving, waived=said.waived)


def _read(file: str, problems: Problems) -> Document:
    if file.lower().endswith((".yaml", ".yml")):
        raise ConfigError(f"{file}: YAML is not read; convert it: yq -o json {file} > zot.json")
    text = _text(file)
    if text.lstrip().startswith("{"):
        return read_zot(file, _parse_json(file, text), problems)
    values = _parse_toml(file, text)
    return read_zot(file, values, problems) if is_zot(values) else read_own(file, values)


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}") from None


def _parse_json(file: str, text: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = load_json(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    return values


def _parse_toml(file: str, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: neither TOML nor JSON: {error}") from None
