"""Wheel and sdist: complete, well described, and each works where nothing else of ours is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx

from tests.tools import need
from zotctl import __version__
from zotctl.cli.docs import documents

HERE = Path(__file__).parents[2]


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=HERE, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(home: Path) -> Path:
    """The interpreter of a new environment that has the libraries of this one, and not zotctl."""
    venv.create(home, symlinks=True)
    (place,) = (home / "lib").glob("python*/site-packages")
    libraries = Path(httpx.__file__).parents[1]
    for entry in libraries.iterdir():
        if not entry.name.startswith(("zotctl", "_editable_impl_zotctl", "__pycache__")) and entry.suffix != ".pth":
            (place / entry.name).symlink_to(entry)
    return home / "bin" / "python"


def assert_works(python: Path, archive: Path) -> None:
    """Installed from the archive alone, it starts, and its man pages and completions are found from its environment."""
    home = python.parent.parent
    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(archive))
    program = home / "bin" / "zotctl"
    assert run(str(program), "--version", PYTHONPATH="").split() == ["zotctl", __version__]
    assert "import-layout" in run(str(program), "--help", PYTHONPATH="")
    installed = {path.name for path in (home / "share").rglob("*") if path.is_file()}
    assert {Path(path).name.replace("zotctl.bash", "zotctl") for path, _ in documents()} <= installed
    assert not list((home / "lib").glob("python*/site-packages/tests"))


def test_both_are_described_and_installed(tmp_path: Path) -> None:
    need("build", "hatchling", "twine", "pip")
    built = tmp_path / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), ".")
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    with zipfile.ZipFile(wheel) as zipped:
        tops = {name.split("/")[0] for name in zipped.namelist()}
    assert tops == {"zotctl", f"zotctl-{__version__}.dist-info", f"zotctl-{__version__}.data"}
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {
        "README.md",
        "LICENSE",
        "mkdocs.yml",
        "contrib/Containerfile",
        "docs/tutorial.md",
        "tests/tools.py",
    } <= names
    for number, archive in enumerate((wheel, sdist)):
        assert_works(bare(tmp_path / str(number)), archive)


def test_the_debian_package_has_the_same_version() -> None:
    first = (HERE / "contrib" / "debian" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"zotctl ({__version__}) ")
