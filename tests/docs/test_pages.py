"""Every command of the guides runs word for word, in order, on a machine of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.machine import BLOCK, HERE, TOOLS, Machine

DOCS = HERE / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if BLOCK.search(path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_the_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    Machine(tmp_path / "home").run(page.read_text())


FROM_THE_START = {"skopeo", "umoci", "curl", "tar", "openssl"}
PACKAGE_OF = {"htpasswd": "apache2-utils"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_a_page_says_where_its_programs_come_from(page: Path) -> None:
    """By a package that it installs, or by a link. The machine of a test has them all."""
    text = page.read_text()
    commands = "\n".join(BLOCK.findall(text))
    installed = set(" ".join(re.findall(r"apt-get install -y (.*)", commands)).split())
    linked = set(re.findall(r"\[(\w+)\]\(https://github.com/", text))
    for tool in (TOOLS & set(re.findall(r"^ *(?:.*[|&(] *)?([\w-]+) ", commands, re.MULTILINE))) - FROM_THE_START:
        assert PACKAGE_OF.get(tool, tool) in installed or tool in linked, tool


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    """The net holds: else the test above says nothing."""
    for number, command in enumerate(("zotctl verify nothing", "docker burn it", "systemctl start other")):
        with pytest.raises(AssertionError):
            Machine(tmp_path / str(number)).run(f"```sh\n{command}\ntrue\n```\n")


def test_no_block_of_commands_has_another_language() -> None:
    for page in DOCS.rglob("*.md"):
        fences = set(re.findall(r"^```(\w+)$", page.read_text(), re.MULTILINE))
        assert fences <= {"sh", "toml"}, page
