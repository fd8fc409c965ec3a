"""Short ways to a configuration, and to what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from zotctl.config import Config, load_config
from zotctl.errors import ConfigError


def load(
    path: Path | None = None,
    options: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    return load_config(str(path) if path else None, options=options or {}, environ=environ or {})


def toml(directory: Path, text: str) -> Path:
    path = directory / "zotctl.toml"
    path.write_text(text)
    return path


def zot(directory: Path, values: object) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(values))
    return path


def mistakes(
    path: Path | None = None,
    options: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Each mistake, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, options, environ)
    assert caught.value.exit_code == 3
    assert caught.value.detail is None or caught.value.message == "\n".join(caught.value.detail)
    return [line.removeprefix(f"{path}: ") for line in caught.value.message.splitlines()]
