from __future__ import annotations

from pathlib import Path

import tomli

from tests.config.reading import load, toml
from zotctl.config import show_config
from zotctl.config.layers import single_keys

TEXT = """
[storage]
commit = true
[[storage.routes]]
prefix = "a"
root = "/b"
[http]
port = 1
"""


def test_each_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    file = toml(tmp_path, TEXT)
    lines = show_config(load(file, {"http.drain": "1m30s"}, {"ZOTCTL_HTTP_COMPAT": "docker2s2"}))
    shown = {key: (value, origin) for key, value, origin in lines}
    assert len(shown) == len(lines)
    assert shown["storage.roots[0].path"] == ("./registry", "default")
    assert shown["storage.roots[0].commit"] == (True, f"{file}: storage.commit")
    assert shown["storage.routes[0].root.path"] == ("/b", f"{file}: storage.routes[0].root.path")
    assert shown["storage.single_layout"] == (None, "default")
    assert shown["http.port"] == (1, f"{file}: http.port")
    assert shown["http.drain"] == ("1m30s", "option --drain")
    assert shown["http.compat"] == (["docker2s2"], "environment ZOTCTL_HTTP_COMPAT")
    assert shown["http.max_manifest_size"] == ("4MiB", "default")


def test_what_is_shown_reads_as_the_same(tmp_path: Path) -> None:
    config = load(toml(tmp_path, TEXT))
    keys = single_keys()
    options = {key: value for key, value, _ in show_config(config) if key in keys}
    assert load(None, options).http == config.http


def test_no_origin_is_of_a_key_that_is_not_shown(tmp_path: Path) -> None:
    config = load(toml(tmp_path, TEXT), {"storage.commit": False})
    assert config.origins.keys() <= {key for key, _, _ in show_config(config)}


def test_the_example_of_the_man_page_is_read(tmp_path: Path) -> None:
    from zotctl.cli.docs import CONFIG_EXAMPLE

    assert tomli.loads(CONFIG_EXAMPLE)
    assert load(toml(tmp_path, CONFIG_EXAMPLE)).warnings == ()
