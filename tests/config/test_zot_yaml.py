"""zot's file in YAML means what it means to zot, and what the same file in JSON means."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.reading import load, mistakes, zot
from zotctl.config import show_config
from zotctl.config.zot_yaml import MOST_NODES, parse_yaml

WHOLE: dict[str, Any] = {
    "distSpecVersion": "1.1.1",
    "storage": {
        "rootDirectory": "/z", "gcDelay": 7_200_000_000_000, "gcTimeWindow": "01:00-08:00", "dedupe": False, "gc": None,
        "subPaths": {"/a": {"rootDirectory": "/a", "commit": True}},
        "retention": {"policies": [{"repositories": ["**"], "keepTags": [{"patterns": ["v.*"]}]}]},
    },
    "http": {
        "address": "127.0.0.1", "port": "5000", "auth": {"htpasswd": {"path": "/users"}},
        "accessControl": {
            "repositories": {"**": {"policies": [{"users": ["ann", "7"], "actions": ["read"]}]}},
            "adminPolicy": {"users": ["root"], "actions": ["read"]},
        },
    },
    "log": {"level": "warn"},
    "extensions": {"scrub": {"enable": True, "interval": "24h"}},
}  # fmt: skip


def written(directory: Path, text: str) -> Path:
    path = directory / "zot.yaml"
    path.write_text(text)
    return path


def shown(path: Path) -> list[tuple[str, Any, str]]:
    return [(key, value, origin.replace(str(path), "FILE")) for key, value, origin in show_config(load(path))]


def test_it_means_what_the_same_file_in_json_means(tmp_path: Path) -> None:
    assert shown(written(tmp_path, yaml.safe_dump(WHOLE))) == shown(zot(tmp_path, WHOLE))


def test_it_is_written_by_hand(tmp_path: Path) -> None:
    text = """
    # everything that is the same for both
    storage: &store
      RootDirectory: /z
      commit: TRUE
      subPaths:
        /a: {<<: *store, rootDirectory: /a}
    http: {port: 5000, realm: ~}
    """
    file = written(tmp_path, text.replace("<<: *store", "commit: true"))
    config = load(file)
    assert (config.storage.roots[0].commit, config.storage.routes[0].root.path, config.http.port) == (True, "/a", 5000)
    assert config.origins["storage.roots[0].commit"] == f"{file}: storage.commit"
    (mistake,) = mistakes(written(tmp_path, text))
    assert mistake == "not YAML: line 7: *store contains itself"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("on", "on"), ("True", True), ("tRUE", "tRUE"), ("~", None), ("", None), ("Null", None),
        ("0777", 511), ("0o17", 15), ("0x1F", 31), ("-0b11", -3), ("1_000", 1000), ("+5", 5), ("089", 89.0),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("12:30", "12:30"), ("01:00-08:00", "01:00-08:00"),
        ("1.1.1", "1.1.1"), ("!!str 1", "1"), ("'1'", "1"), ("=", "="),
        ("{1: x, true: y}", {"1": "x", "true": "y"}),
        ("{<<: {a: 1, b: 1}, a: 2}", {"a": 2, "b": 1}),
    ],
)  # fmt: skip
def test_values_are_those_of_zots_decoder(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


def bomb(item: str) -> str:
    lines = [f"a: &a {item % ', '.join(['1'] * 9 if '[%' in item else ['{k: 1}'] * 9)}"]
    lines += [f"{b}: &{b} {item % ', '.join([f'*{a}'] * 9)}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: key 'a' is there twice"),
        ("a: &x [*x]", "line 1: *x contains itself"),
        ("a: *x", "line 1: found undefined alias 'x'"),
        ("a: 2001-01-01", "line 1: '2001-01-01' is a time stamp, which no key of zot's takes; put it into"),
        ("a: !!python/name:os.system x", "line 1: the tag python/name:os.system is not read"),
        ("a: !!binary '%'", "line 1: the tag binary is not read"),
        ("? [a]\n: b", "line 1: a key is no string"),
        ("a: b\n---\nc: d", "line 2: but found another document"),
        ("a: [1,", "line 1: expected the node content"),
        ("\ta: 1", "line 1: found character '\\t' that cannot start any token"),
        ("a: \x01", "unacceptable character #x0001"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: !!int x", "line 1: 'x' is no integer"),
        ("a: !!float x", "line 1: 'x' is no number"),
        ("a: !!bool x", "line 1: 'x' is neither true nor false"),
        (bomb("[%s]"), f"line 6: more than {MOST_NODES} values with what aliases repeat"),
        (bomb("{<<: [%s]}"), f"line 6: more than {MOST_NODES} values with what aliases repeat"),
        ("[a]", "not zot's configuration, which is a table of keys"),
        ("storage: {}", "storage.rootDirectory: is missing"),
        ("", "storage.rootDirectory: is missing"),
        ("a: " + "[" * 110 + "]" * 110, "nested deeper than 100 levels"),
        ("a: 0x" + "f" * 5000, "is no integer of 64 bits"),
    ],
    ids=range(22),
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (mistake,) = mistakes(written(tmp_path, text))
    assert said in mistake


def test_an_alias_counts_as_what_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zotctl.config.zot_yaml.MOST_NODES", 30)
    assert parse_yaml("a: &a [1, 2, 3, 4, 5, 6, 7]\nb: [*a, *a]")["b"] == [[1, 2, 3, 4, 5, 6, 7]] * 2
    with pytest.raises(ValueError, match="more than 30 values"):
        parse_yaml("a: &a [1, 2, 3, 4, 5, 6, 7]\nb: [*a, *a, *a]")


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name == "zotctl.config.zot_yaml":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    for name in ("zot.yaml", "zot.YML"):
        path = tmp_path / name
        path.write_text("storage: {}")
        assert mistakes(path) == ["YAML needs PyYAML; install it: pip install 'zotctl[yaml]'"]
