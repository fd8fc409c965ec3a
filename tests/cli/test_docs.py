"""Man pages and completions: what is committed is what the command tree makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import tomli

from tests.cli.running import REPOSITORY
from zotctl.cli import dedupe, gc, import_layout, scrub, serve, verify
from zotctl.cli.docs import documents

DOCUMENTS = dict(documents())


@pytest.mark.parametrize("path", DOCUMENTS)
def test_what_is_committed_is_current(path: str) -> None:
    assert (REPOSITORY / path).read_text() == DOCUMENTS[path], "run: python -m zotctl.cli.docs"


def test_all_are_installed() -> None:
    project = tomli.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"].keys() == DOCUMENTS.keys()


def test_nothing_else_is_there() -> None:
    found = {
        str(path.relative_to(REPOSITORY)) for name in ("man", "completions") for path in (REPOSITORY / name).iterdir()
    }
    assert found == DOCUMENTS.keys()


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.startswith("man/")])
def test_pages_are_clean(path: str, tmp_path: Path) -> None:
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    page = tmp_path / Path(path).name
    page.write_text(DOCUMENTS[path])
    run = subprocess.run(["mandoc", "-T", "lint", str(page)], capture_output=True, text=True, check=False)
    assert [line for line in run.stdout.splitlines() if "referenced manual not found" not in line] == []


@pytest.mark.parametrize("path", ["man/zotctl.1", "man/zotctl-serve.1"])
def test_pages_have_the_sections_that_scripts_need(path: str) -> None:
    for section in ("EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"):
        assert f"\n.SH {section}\n" in DOCUMENTS[path]


def test_examples_fit_into_a_terminal() -> None:
    """Of 80 columns, of which help leaves 78: they are not wrapped."""
    for module in (serve, gc, scrub, verify, dedupe, import_layout):
        assert not [line for line in module.EXAMPLES.splitlines() if len(line) > 78], module.__name__
