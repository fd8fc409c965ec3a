"""TAB in bash, zsh and fish: what is offered, and that nothing else happens."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import images
from tests.cli.running import REPOSITORY, zotctl
from tests.stores import push_image
from tests.tools import need
from zotctl.cli.completing import KINDS, complete
from zotctl.cli.shells import DIRECTORY, FILE, NOTHING, OFFERED
from zotctl.config import RootConfig, StorageConfig
from zotctl.storage import open_store

HELLO = images.image("hello")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Layouts in a directory that was never a root: so whatever is written there is seen."""
    root = tmp_path / "store"
    images.lay_out(root / "demo" / "hello", HELLO, [images.row(HELLO, "1.0"), images.row(HELLO, "latest")])
    images.lay_out(root / "demo" / "help", HELLO, [images.row(HELLO, "localhost:5000/demo/help:2.0")])
    images.lay_out(root / "team" / "app", HELLO, [images.row(HELLO)])
    return root


def offered(kind: str, *words: str, **environ: str) -> list[str]:
    return complete(kind, words, environ)


def test_repositories_and_their_tags_and_digests(store: Path) -> None:
    gc = ("gc", "--root", str(store))
    assert offered("repositories", *gc, "--repo", "") == ["demo/hello", "demo/help", "team/app"]
    assert offered("repositories", *gc, "--repo", "demo/hel") == ["demo/hello", "demo/help"]
    assert offered("repositories", *gc, "--repo=team") == ["team/app"]
    assert offered("present", *gc, "--explain", "d") == ["demo/hello", "demo/help"]
    assert offered("present", *gc, "--explain", "demo/hello:") == ["demo/hello:1.0", "demo/hello:latest"]
    assert offered("present", *gc, "--explain=demo/help:") == ["demo/help:2.0"]
    assert offered("present", *gc, "--explain", "team/app@sha") == [f"team/app@{HELLO.digest}"]
    assert offered("present", *gc, "--explain", HELLO.digest[:12]) == [str(HELLO.digest)]
    assert offered("present", *gc, "--explain", "nothing:") == []
    assert offered("repositories", "verify", "--deep", str(store), "--repo", "t") == ["team/app"]
    out = ("import-layout", str(store), "--to", "all.tar")
    assert offered("repositories", *out, "--only", "t") == offered("repositories", *out, "--only=t") == ["team/app"]


def test_the_store_is_where_the_command_would_look(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = tmp_path / "more"
    images.lay_out(more / "team-a" / "app", HELLO)
    file = tmp_path / "zotctl.toml"
    roots = f'roots = ["{store}", "s3://images/a"]\nroutes = [{{ prefix = "team-a", root = "{more}" }}]'
    file.write_text(f"[storage]\n{roots}\n")
    wanted = ["demo/hello", "demo/help", "team-a/app", "team/app"]
    assert offered("repositories", "gc", "--config", str(file), "--repo", "") == wanted
    assert offered("repositories", "gc", "--repo", "", ZOTCTL_CONFIG=str(file)) == wanted
    assert offered("repositories", "gc", "--repo", "", ZOTCTL_ROOT=f"{store}:{more}") == wanted
    zot = tmp_path / "zot.json"
    zot.write_text(json.dumps({"storage": {"rootDirectory": str(more)}, "http": {"port": "5000"}}))
    assert offered("repositories", "gc", "--config", str(zot), "--repo", "") == ["team-a/app"]
    monkeypatch.chdir(tmp_path)
    assert offered("repositories", "gc", "--repo", "") == []
    assert not (tmp_path / "registry").exists()
    (tmp_path / "registry").symlink_to(more)
    assert offered("repositories", "gc", "--repo", "") == ["team-a/app"]


def test_words_are_read_as_the_shell_reads_them(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(store.parent))
    for root in ("~/store", "$HOME/store", f"'{store}'", f'"{store}"'):
        assert offered("present", "gc", "--root", root, "--explain", "demo/help:") == ["demo/help:2.0"]
    assert offered("present", "gc", "--root", str(store), "--explain", '"demo/help:') == ["demo/help:2.0"]


def test_the_past_and_the_trash(tmp_path: Path) -> None:
    with_trash = tmp_path / "root"
    opened = open_store(StorageConfig(roots=(RootConfig(path=str(with_trash), create=True),)))
    old = push_image(opened, "demo/app", "1.0", seed="old")
    push_image(opened, "demo/app", "2.0", seed="new")
    opened.repository("demo/app").delete_manifest("1.0")
    opened.close()
    (with_trash / ".zotctl" / "trash" / "20260101T000000-1" / "gone" / "blobs").mkdir(parents=True)
    gc = ("gc", "--root", str(with_trash))
    assert offered("present", *gc, "--explain", "demo/app:") == ["demo/app:2.0"]
    assert offered("past", *gc, "--history", "demo/app:") == ["demo/app:1.0", "demo/app:2.0"]
    assert offered("past", *gc, "demo/app:") == []
    assert offered("restorable", *gc, "--restore", "demo/app:") == ["demo/app:1.0", "demo/app:2.0"]
    assert f"demo/app@{old}" in offered("restorable", *gc, "--restore", "demo/app@")
    assert offered("restorable", *gc, "--restore", "") == ["20260101T000000-1", "demo/app", "gone"]


def test_tags_to_import(store: Path, tmp_path: Path) -> None:
    layout = store / "demo" / "hello"
    words = ("import-layout", "--root", str(store), "--repo", "demo/help", "--tag", "")
    assert offered("tags", *words) == ["2.0"]
    assert offered("tags", words[0], str(layout), *words[1:]) == ["1.0", "latest"]


def test_what_is_wrong_offers_nothing(store: Path, tmp_path: Path) -> None:
    os.mkfifo(store / "team" / "fifo")
    (store / "team" / "bad").mkdir()
    (store / "team" / "bad" / "oci-layout").touch()
    (store / "team" / "bad" / "index.json").write_text("{")
    (store / "team" / "pipe").mkdir()
    (store / "team" / "pipe" / "oci-layout").touch()
    os.mkfifo(store / "team" / "pipe" / "index.json")
    (store / "team" / "circle").symlink_to(store)
    (store / "demo" / "hello" / "index.json").write_text(
        json.dumps({"manifests": [{"digest": "sha256:$(id)"}, {"digest": "sha256:`id`\n"}]})
    )
    gc = ("gc", "--root", str(store), "--explain")
    assert offered("present", *gc, "team/bad:") == offered("present", *gc, "team/pipe:") == []
    assert offered("present", *gc, "demo/hello@") == offered("present", *gc, "../team/app@") == []
    assert offered("present", *gc, "team/") == ["team/app", "team/bad", "team/pipe"]
    broken = tmp_path / "broken.toml"
    broken.write_text("[")
    for words in (["gc", "--config", str(broken), ""], ["gc", "--config", "/nothing", ""], ["gc"], []):
        assert offered("repositories", *words) == []
    assert offered("no such kind", "gc", "") == []


def test_a_longer_beginning_looks_into_less(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, looked = os.scandir, list[str]()

    def counting(path: str) -> object:
        looked.append(os.path.relpath(path, store))
        return scan(path)

    monkeypatch.setattr(os, "scandir", counting)
    assert offered("repositories", "gc", "--root", str(store), "--repo", "demo/hello") == ["demo/hello"]
    assert looked == [".", "demo", "demo/hello"]


def completed(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Of a process that was not ended by its limit of time, as on a machine that is busy."""
    while (run := zotctl("__complete", *words, cwd=cwd)).returncode == -signal.SIGALRM:
        assert (run.stdout, run.stderr) == ("", "")
    return run


def test_nothing_is_written_and_nothing_is_said(store: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in [store, *store.rglob("*")]}
    for kind in KINDS:
        complete(kind, ["gc", "--root", str(store), "--history", "demo/hello:"], {})
    run = completed("restorable", "gc", "--root", str(store), "--restore", "demo/hello:", cwd=store)
    assert (run.returncode, run.stdout, run.stderr) == (0, "demo/hello:1.0\ndemo/hello:latest\n", "")
    run = completed()
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert {path: path.lstat().st_mtime_ns for path in [store, *store.rglob("*")]} == before


def test_each_kind_of_value_has_its_answer() -> None:
    assert set(OFFERED.values()) <= {DIRECTORY, FILE, NOTHING, *KINDS}


# -- the shells -----------------------------------------------------------------------------------


@pytest.fixture
def shells(tmp_path: Path) -> dict[str, str]:
    """An environment in which `zotctl` is this one."""
    program = tmp_path / "zotctl"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m zotctl.cli "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}


def said(shells: dict[str, str], *command: str, **options: object) -> list[str]:
    run = subprocess.run(
        command, env=shells, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=60, check=False, **options
    )  # type: ignore[call-overload]
    return list(run.stdout.splitlines())


IN_BASH = """
compopt() { echo "compopt $*"; }
source completions/zotctl.bash
COMP_LINE=$1 COMP_POINT=${#1} COMP_CWORD=$(($# - 2))
COMP_WORDS=("${@:2}")
_zotctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def in_bash(shells: dict[str, str], line: str) -> list[str]:
    """What the shell would put behind the last of its word breaks, and what it is told to do then."""
    need("bash")
    words = re.findall(r"[^\s:@=]+|[:@=]+", line) + ([""] if line.endswith(" ") else [])
    return said(shells, "bash", "-c", IN_BASH, "bash", line, *words, stderr=subprocess.STDOUT)


def test_bash_completes(shells: dict[str, str], store: Path) -> None:
    assert in_bash(shells, "zotctl sc") == ["scrub"]
    assert in_bash(shells, "zotctl serve --log") == ["--log-level", "--log-format"]
    assert in_bash(shells, "zotctl gc --untagged p") == ["pushed"]
    assert in_bash(shells, "zotctl gc --delay ") == [""]
    assert in_bash(shells, "zotctl verify ") == ["compopt -o default", ""]
    assert in_bash(shells, f"zotctl verify --root {store} --repo te") == ["team/app"]
    explain = f"zotctl gc --root {store} --explain"
    assert in_bash(shells, f"{explain} te") == ["compopt -o nospace", "team/app"]
    assert in_bash(shells, f"{explain} demo/hello:") == ["1.0", "latest"]
    assert in_bash(shells, f"{explain}=demo/hello:l") == ["latest"]
    assert in_bash(shells, f"{explain} demo/hello@{HELLO.digest[:9]}") == [HELLO.digest.removeprefix("sha256:")]


def test_fish_completes(shells: dict[str, str], store: Path) -> None:
    def in_fish(line: str) -> list[str]:
        script = f"source completions/zotctl.fish; complete -C '{line}'"
        return [found.split("\t")[0] for found in said(shells, "fish", "-c", script, stderr=subprocess.STDOUT)]

    need("fish")
    assert in_fish("zotctl serve --log") == ["--log-format", "--log-level"]
    assert in_fish("zotctl gc --untagged ") == ["all", "none", "pushed"]
    assert in_fish(f"zotctl gc --root {store} --explain demo/hello:") == ["demo/hello:1.0", "demo/hello:latest"]
    assert in_fish(f"zotctl gc --root {store} --repo=te") == ["--repo=team/app"]


IN_ZSH = """
fpath=({completions} $fpath)
autoload -Uz compinit; compinit -u -D
lines=({lines})
zle-line-init() {{
    for line in $lines; do LBUFFER=$line; zle complete-word; print -r -- "$LBUFFER|" >> {out}; done
    exit
}}
zle -N zle-line-init
"""
"""A shell that begins to edit a line completes all of ours, and ends."""


def test_zsh_completes(shells: dict[str, str], store: Path, tmp_path: Path) -> None:
    need("zsh")
    explain = f"zotctl gc --root {store} --explain"
    lines = {
        "zotctl sc": "zotctl scrub ",
        "zotctl gc --untagged p": "zotctl gc --untagged pushed ",
        f"{explain} te": f"{explain} team/app",
        f"{explain} demo/hello:l": f"{explain} demo/hello:latest ",
        f"{explain}=team/app@": f"{explain}=team/app@{HELLO.digest} ",
    }
    out = tmp_path / "out"
    (tmp_path / ".zshrc").write_text(
        IN_ZSH.format(completions=REPOSITORY / "completions", lines=" ".join(f"'{line}'" for line in lines), out=out)
    )
    controller, terminal = pty.openpty()
    said(shells | {"TERM": "dumb"}, "zsh", "-d", "-i", stdin=terminal, stderr=terminal)
    os.close(terminal)
    os.close(controller)
    assert out.read_text().splitlines() == [f"{line}|" for line in lines.values()]
