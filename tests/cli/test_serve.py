"""`zotctl serve`, up to the server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import python, zotctl
from zotctl.cli.serve import layout_name
from zotctl.errors import UsageError


def shown(*words: str, cwd: Path, environ: dict[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    run = zotctl("serve", "--show-config", "--json", *words, cwd=cwd, environ=environ)
    assert run.returncode == 0, run.stderr
    return {item["key"]: (item["value"], item["origin"]) for item in json.loads(run.stdout)["items"]}


def refused(*words: str, cwd: Path) -> str:
    run = zotctl("serve", "--show-config", *words, cwd=cwd)
    assert (run.returncode, run.stdout) == (2, "")
    return run.stderr


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    directory = tmp_path / "My Image"
    directory.mkdir()
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


def test_options_become_values(tmp_path: Path) -> None:
    values = shown(
        *("--root", "a", "--root", "b", "--listen", "[::]:0", "--commit", "--no-dedupe", "--workers", "1"),
        *(
            "--read-only",
            "--no-delete",
            "--compat",
            "docker2s2",
            "--max-manifest-size",
            "1MiB",
            "--drain",
            "5s",
        ),
        *("--log-level", "debug", "--log-format", "json"),
        cwd=tmp_path,
    )
    expected = {
        "storage.roots[0].path": ("a", "option --root"),
        "storage.roots[1].path": ("b", "option --root"),
        "storage.roots[1].create": (True, "option --root"),
        "storage.roots[0].commit": (True, "option --commit"),
        "storage.roots[0].dedupe": (False, "option --dedupe"),
        "storage.read_only": (True, "option --read-only"),
        "http.address": ("::", "option --listen"),
        "http.port": (0, "option --listen"),
        "http.workers": (1, "option --workers"),
        "http.delete": (False, "option --no-delete"),
        "http.compat": (["docker2s2"], "option --compat"),
        "http.max_manifest_size": ("1MiB", "option --max-manifest-size"),
        "http.drain": ("5s", "option --drain"),
        "log.level": ("debug", "option --log-level"),
        "log.format": ("json", "option --log-format"),
    }
    assert {key: values[key] for key in expected} == expected
    assert {key for key, (_, origin) in values.items() if origin != "default"} == {
        *expected,
        "storage.roots[0].create",
        "storage.roots[1].commit",
        "storage.roots[1].dedupe",
    }


def test_a_file_as_first_word_is_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("http.port = 1")
    assert shown("c.toml", cwd=tmp_path)["http.port"] == (1, "c.toml: http.port")
    assert shown("--config", "c.toml", cwd=tmp_path)["http.port"] == (1, "c.toml: http.port")
    assert shown(cwd=tmp_path, environ={"ZOTCTL_CONFIG": "c.toml"})["http.port"] == (1, "c.toml: http.port")
    assert "two configurations" in refused("c.toml", "--config", "c.toml", cwd=tmp_path)


def test_a_directory_as_first_word_is_the_first_root(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("http.port = 1")
    (tmp_path / "d").mkdir()
    values = shown("d", "--root", "e", "--config", "c.toml", cwd=tmp_path)
    assert [values[f"storage.roots[{i}].path"][0] for i in (0, 1)] == ["d", "e"]
    assert values["http.port"][0] == 1
    gone = zotctl("serve", "f", cwd=tmp_path)
    assert (gone.returncode, "--root f would make" in gone.stderr) == (10, True)
    assert "has no oci-layout" in refused("d", "--as", "x", cwd=tmp_path)


def test_a_layout_is_served_alone(layout: Path, tmp_path: Path) -> None:
    values = shown(layout.name, cwd=tmp_path)
    assert values["storage.single_layout.path"] == ("My Image", "argument DIR")
    assert values["storage.single_layout.name"] == ("my-image", "option --as")
    assert values["storage.roots"] == ([], "default")
    assert shown(layout.name, "--as", "a/b", cwd=tmp_path)["storage.single_layout.name"][0] == "a/b"
    assert "served alone" in refused(layout.name, "--root", "x", cwd=tmp_path)
    assert "name the repository of My Image with --as NAME" in refused(layout.name, "--as", "A", cwd=tmp_path)
    assert "give its directory" in refused("--as", "a", cwd=tmp_path)


@pytest.mark.parametrize(
    ("directory", "name"),
    [("app", "app"), ("App_1.0", "app_1.0"), ("a  b", "a-b"), ("-x-", "x"), ("a__b", "a__b"), ("a..b", "a-b"),
     ("café", "caf"), (".hidden", "hidden")],
)  # fmt: skip
def test_names_made_of_directories(tmp_path: Path, directory: str, name: str) -> None:
    (tmp_path / directory).mkdir()
    assert layout_name(str(tmp_path / directory), None) == name


def test_a_directory_that_makes_no_name(tmp_path: Path) -> None:
    (tmp_path / "日本").mkdir()
    with pytest.raises(UsageError, match="--as NAME"):
        layout_name(str(tmp_path / "日本"), None)
    with pytest.raises(UsageError, match="--as NAME"):
        layout_name("/", None)


@pytest.mark.parametrize("listen", ["5000", "::1:5000", "localhost:", "x:99999"])
def test_what_is_no_address(tmp_path: Path, listen: str) -> None:
    assert refused("--listen", listen, cwd=tmp_path).startswith("zotctl: --listen: ")


def test_every_mistake_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[http]\nprot = 1\nport = -1")
    run = zotctl("serve", "c.toml", "--drain", "x", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, ""), "the command line comes first"
    assert run.stderr.splitlines() == [
        "zotctl: c.toml: http.prot: unknown key; nearest valid key: http.port",
        "zotctl: c.toml: http.port: -1 is outside of 0 to 65535",
        "zotctl: option --drain: 'x' is not a duration such as '30s', '1h30m' or '7d'",
    ]


def test_show_config_as_text_and_lines(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"storage": {"rootDirectory": "/z", "gcDelay": "30s"}}')
    run = zotctl("serve", "--show-config", "c.json", cwd=tmp_path)
    assert 'storage.roots[0].path = "/z"  # c.json: storage.rootDirectory' in run.stdout.splitlines()
    assert "storage.roots[0].trash = unset  # default" in run.stdout.splitlines()
    assert run.stderr.startswith("zotctl: warning: c.json: storage.gcDelay: ")
    lines = zotctl("serve", "--show-config", "c.json", cwd=tmp_path, environ={"ZOTCTL_OUTPUT": "jsonl"}).stdout
    first, *items, last = map(json.loads, lines.splitlines())
    assert (first["type"], first["schema"], last["type"], last["exit_code"]) == (
        "start",
        "zotctl.config/1",
        "summary",
        0,
    )
    assert {item["type"] for item in items} == {"item"}


def test_show_config_is_a_table_on_a_terminal(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    run = zotctl("serve", "--show-config", cwd=tmp_path, environ={"NO_COLOR": "1"}, stdout=terminal)
    os.close(terminal)
    text = b""
    with (
        contextlib.suppress(OSError),
        os.fdopen(main, "rb", buffering=0) as screen,
    ):  # EIO: nobody writes any more
        while piece := screen.read(65536):
            text += piece
    assert run.returncode == 0
    assert b"KEY" in text
    assert b"http.port" in text
    assert b"5000" in text


SERVER = """
import sys, types
server = types.ModuleType("zotctl.http.supervisor")
def run(config):
    print(config.http.port)
    return 14
server.run = run
sys.modules["zotctl.http"] = types.ModuleType("zotctl.http")
sys.modules["zotctl.http.supervisor"] = server
from zotctl.cli import main
main()
"""


def test_the_server_gets_the_configuration_and_gives_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"storage": {"rootDirectory": "/z", "gcDelay": "30s"}}')
    run = python("-c", SERVER, "serve", "c.json", "--listen", ":77", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (14, "77\n")
    line = json.loads(run.stderr)
    assert (line["level"], line["component"]) == ("warning", "config")
    assert "under a minute" in line["message"]


def test_sync_in_zots_file_is_refused_unless_it_is_to_be_ignored(tmp_path: Path) -> None:
    (tmp_path / "zot.json").write_text('{"storage": {"rootDirectory": "/z"}, "extensions": {"sync": {"enable": true}}}')
    assert "--ignore-sync" in zotctl("serve", "--show-config", "zot.json", cwd=tmp_path).stderr
    assert "storage.roots[0].path" in shown("zot.json", "--ignore-sync", cwd=tmp_path)
