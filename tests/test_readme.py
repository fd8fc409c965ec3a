"""The README and the pages for operators are true: their commands run word for word, and what they list exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http.serving import serving
from tests.tools import need
from zotctl.cli.app import app
from zotctl.errors import EXIT_CODES

HERE = Path(__file__).parent.parent
README = (HERE / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PAGES = {str(path.relative_to(HERE / "docs")): path.read_text() for path in sorted((HERE / "docs").rglob("*.md"))}
MOST_WORDS = {"README.md": 900, "ARCHITECTURE.md": 1200}


@pytest.mark.parametrize("page", MOST_WORDS)
def test_a_first_page_is_short(page: str) -> None:
    assert len((HERE / page).read_text().split()) <= MOST_WORDS[page]


def test_two_commands_each_alone_in_its_block() -> None:
    start, test = BLOCKS[0], BLOCKS[1]
    assert start.count("\n") == test.count("\n") == 1
    assert start.strip().endswith("zotctl serve")
    assert "pytest" in test


def test_ci_runs_the_test_command() -> None:
    command = BLOCKS[1].strip()
    ours = re.sub(r"\.\[test[^]]*\]", ".[test]", (HERE / ".ci" / "run").read_text())
    assert command in ours


def test_ci_takes_the_two_commands_from_the_readme_before_it_installs_anything() -> None:
    script = (HERE / ".ci" / "run").read_text()
    (taken,) = re.findall(r"< <\((.*)\)\n", script)
    commands = subprocess.run(["bash", "-c", taken], cwd=HERE, capture_output=True, text=True, check=True).stdout
    assert commands == BLOCKS[0] + BLOCKS[1]
    assert script.index('"${commands[1]}"') < script.index("apt-get")


def test_the_exit_codes() -> None:
    listed = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGES["jobs.md"], re.MULTILINE))
    assert listed == {str(code): meaning for code, meaning in EXIT_CODES.items()}


def test_every_command_is_there() -> None:
    commands = app.registered_commands
    named = {command.name or (command.callback.__name__ if command.callback else "") for command in commands}
    assert named == {"serve", "gc", "scrub", "dedupe", "import-layout", "verify"}
    told = named | {"help"}  # which is `--help` in another place, and no command of its own
    assert named <= commands_named(README) <= told
    assert all(commands_named(page) <= told for page in PAGES.values())


def commands_named(page: str) -> set[str]:
    return set(re.findall(r"(?<![/=\w])zotctl ([a-z][a-z-]+)", " ".join(re.findall(r"`[^`\n]+`", page))))


def test_the_linked_files_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (HERE / target).exists(), target


def test_a_push_and_a_pull_word_for_word(tmp_path: Path) -> None:
    need("skopeo")
    need("umoci")
    with serving(tmp_path / "home") as server:
        (tmp_path / "registry").symlink_to(server.root)
        for block in BLOCKS[2:4]:
            script = block.replace("127.0.0.1:5000", f"127.0.0.1:{server.port}")
            done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="it runs on Linux only")
def test_the_configurations_of_the_pages_are_read(tmp_path: Path) -> None:
    shown = ""
    for block in re.findall(r"```toml\n(.*?)```", "\n".join([README, *PAGES.values()]), re.DOTALL):
        (tmp_path / "zotctl.toml").write_text(block)
        command = [sys.executable, "-m", "zotctl.cli", "serve", "--show-config", "--config", "zotctl.toml"]
        environ = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        shown += done.stdout
    assert 'storage.routes[0].prefix = "team-a"' in shown
    assert 'storage.roots[1].s3.region = "eu-west-1"' in shown
