"""Short ways to a configuration, and to what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from zotctl.config import Config, load_config
from zotctl.errors import ConfigError, UsageError


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
    """Each mistake, without the name of the file. With one on the command line the exit code is 2, and else 3."""
    with pytest.raises((ConfigError, UsageError)) as caught:
        load(path, options, environ)
    lines = caught.value.message.splitlines()
    assert caught.value.exit_code == (2 if any(line.startswith(("option ", "argument ")) for line in lines) else 3)
    assert caught.value.detail is None or lines == [line for each in caught.value.detail for line in each.splitlines()]
    return [line.removeprefix(f"{path}: ") for line in lines]
