"""The image of contrib/Containerfile: built, run as its own user, pushed to, pulled from, stopped.

No image can be fetched here, so the base is this machine's Python, put together from files; the libraries come with it,
as if pip had fetched them (the README's first command does that, in `.ci/run`). buildah stands for podman.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import tomli
from packaging.requirements import Requirement

from tests import images
from tests.buckets import free_port
from tests.http.serving import push_blob, until
from tests.tools import need, program
from zotctl.oci.media_types import OCI_MANIFEST

HERE = Path(__file__).parents[2]
BASE, MADE = "localhost/python", "localhost/zotctl"
LIBRARIES = "/usr/local/libraries"
USER = 65532
EXTRAS = ("zstd", "yaml", "bearer")
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "lib2to3",
    "turtledemo",
    "site-packages",
    "config-*",
    "*.a",
    "ensurepip",
)
"""Of Python's own files."""


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    need("root", "ldd", "hatchling")
    yield Buildah(tmp_path)
    # It mounts its storage on itself, and leaves that.
    subprocess.run(["umount", "--quiet", "--lazy", str(tmp_path / "storage" / "overlay")], check=False)


class Buildah:
    """buildah with a storage of its own; `chroot` needs neither a runtime nor cgroups."""

    def __init__(self, home: Path) -> None:
        self.command = [
            program("buildah"), "--root", str(home / "storage"), "--runroot", str(home / "run"),
            "--storage-driver", "overlay",
        ]  # fmt: skip
        self.environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(home)}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*self.command, *words], env=self.environment, cwd=HERE, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()


def _needed(binary: Path) -> set[str]:
    """The libraries of the system that it loads."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    return {path for path in re.findall(r"(/\S+) \(0x", listed) if os.path.exists(path)}


def _distributions(*wanted: str) -> set[str]:
    """These, and what they need."""
    found, todo = set[str](), list(wanted)
    while todo:
        if (name := todo.pop()) not in found:
            with suppress(metadata.PackageNotFoundError):
                needs = [Requirement(text) for text in metadata.requires(name) or ()]
                found.add(name)
                todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def _copy_libraries(target: Path) -> None:
    """What zotctl and its build need."""
    project = tomli.loads((HERE / "pyproject.toml").read_text())["project"]
    extras = [text for name in EXTRAS for text in project["optional-dependencies"][name]]
    named = [Requirement(text).name for text in [*project["dependencies"], *extras]]
    for name in _distributions(*named, "hatchling", "pip"):
        for file in metadata.files(name) or ():
            inside = str(file)
            if not inside.startswith(("..", "botocore/data/")) and "__pycache__" not in inside:
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target / inside)


def make_base(buildah: Buildah) -> None:
    """An image of Python and a shell."""
    made = buildah.run("from", "scratch")
    root = Path(buildah.run("mount", made))
    prefix = Path(sys.base_prefix)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    home = root / "usr" / "local"
    shutil.copytree(prefix / "lib" / name, home / "lib" / name, ignore=LEFT_OUT, symlinks=True)
    (home / "bin").mkdir()
    interpreter = prefix / "bin" / name
    shutil.copy2(interpreter, home / "bin" / name)
    (home / "bin" / "python3").symlink_to(name)
    _copy_libraries(root / LIBRARIES[1:])
    (root / "tmp").mkdir(mode=0o1777)
    (root / "bin").mkdir()
    needed = set[str]()
    for tool in ("sh", "mkdir"):
        shutil.copy2(os.path.realpath(program(tool)), root / "bin" / tool)
        needed |= _needed(root / "bin" / tool)
    for binary in [
        interpreter,
        *(home / "lib" / name / "lib-dynload").glob("*.so"),
        *(root / LIBRARIES[1:]).rglob("*.so"),
    ]:
        needed |= _needed(binary)
    for path in needed:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(path), root / path[1:])
    variables = {
        "PATH": "/usr/local/bin:/bin", "PYTHONPATH": LIBRARIES, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
    }  # fmt: skip
    buildah.run("config", *(f"--env={key}={value}" for key, value in variables.items()), made)
    buildah.run("umount", made)
    buildah.run("commit", "--quiet", "--rm", made, BASE)


@contextmanager
def running(buildah: Buildah, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The image's own command, on another port."""
    made = buildah.run("from", "--pull-never", MADE)
    entry, command = (
        buildah.run("inspect", "--format", f"{{{{.OCIv1.Config.{key}}}}}", made) for key in ("Entrypoint", "Cmd")
    )
    words = [*entry.strip("[]").split(), *command.strip("[]").replace("0.0.0.0:5000", f"127.0.0.1:{port}").split()]
    assert words[:2] == ["zotctl", "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*buildah.command, "run", made, "--", *words], env=buildah.environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)
        buildah.run("rm", made)


def _server(pid: int) -> int:
    """The first process below that is Python. Go starts children from any thread."""
    while "python" not in os.readlink(f"/proc/{pid}/exe"):
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        (pid,) = [int(child) for listed in lists for child in listed]
    return pid


def test_start_push_pull_stop(tmp_path: Path, buildah: Buildah) -> None:
    port, log = free_port(), tmp_path / "log"
    make_base(buildah)
    buildah.run(
        "build",
        "--quiet",
        "--pull-never",
        "--build-arg",
        f"PYTHON={BASE}",
        "-t",
        MADE,
        "-f",
        "contrib/Containerfile",
        ".",
    )
    assert buildah.run("inspect", "--type", "image", "--format", "{{.OCIv1.Config.User}}", MADE) == f"{USER}:{USER}"
    made = images.image("contained")
    with (
        running(buildah, port, log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        until(lambda: process.poll() is not None or b"serving on" in log.read_bytes(), 60)
        assert process.poll() is None, log.read_text()
        server = _server(process.pid)
        status = Path(f"/proc/{server}/status").read_text()
        assert re.search(rf"^Uid:\t{USER}\t{USER}\t{USER}\t", status, re.M) and re.search(
            r"^CapEff:\t0+$", status, re.M
        )
        for body in made.blobs:
            push_blob(client, "demo/hello", body)
        path, headers = "/v2/demo/hello/manifests/1.0", {"Content-Type": OCI_MANIFEST}
        assert client.put(path, content=made.manifest, headers=headers).status_code == 201
        assert client.get(path).content == made.manifest
        os.kill(server, signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def test_the_file_keeps_what_it_says() -> None:
    """Who runs it is no root, and nothing is fetched but by pip and the base."""
    text = (HERE / "contrib" / "Containerfile").read_text()
    assert f"/src[{','.join(EXTRAS)}]" in text
    assert f"USER {USER}:{USER}" in text and "curl" not in text and "ADD " not in text
    for copied in re.findall(r"^COPY ([^-].*) /src", text, re.M):
        assert all((HERE / name).exists() for name in copied.split())
