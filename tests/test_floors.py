"""The floors of the house (ARCHITECTURE.md): who may import whom, and who may touch the outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zotctl.config import RootConfig, StorageConfig
from zotctl.storage.opening import open_store
from zotctl.storage.root import Root

PACKAGE = Path(__file__).parent.parent / "zotctl"

FLOORS = ["errors", "oci", "logs", "config", "auth", "storage", "jobs", "web", "http", "cli"]
"""From the ground up; each may use those before it."""

ONLY_IN = {
    "httptools": ["http"],
    "asyncio": ["http"],
    "boto3": ["storage/bucket/objects/connection.py"],
    "botocore": ["storage/bucket/objects/connection.py"],
    "urllib3": ["storage/bucket/objects"],
    "httpx": ["jobs"],
    "rich": ["cli/progress.py", "cli/report.py"],
    "typer": ["cli"],
    "wcmatch": ["config/globs.py"],
    "jinja2": ["web/render.py"],
    "prometheus_client": ["http/metrics.py", "jobs/metrics.py"],
    "yaml": ["config/zot_yaml.py"],
    "fcntl": [
        "storage/local",
        "storage/turns.py",
        "jobs",
        "http/ratelimit.py",
        "http/uploadlimit.py",
        "http/splice.py",
    ],
}
"""Where a library may be imported, and nowhere else."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def floor(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_uses_only_what_is_below_it(path: Path) -> None:
    if floor(path) in ("__init__", "__main__"):
        return
    here = FLOORS.index(floor(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "zotctl" and len(parts) > 1:
            assert FLOORS.index(parts[1]) <= here, f"{path.name} imports {name}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_used_in_one_place(path: Path) -> None:
    inside = str(path.relative_to(PACKAGE))
    for name in imports(path):
        places = ONLY_IN.get(name.split(".")[0], [""])
        assert any(inside.startswith(place) for place in places), f"{inside} imports {name}; only {places} may"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path: Path) -> None:
    if floor(path) == "cli":
        return
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    assert "print" not in names


def test_the_environment_is_read_in_one_place() -> None:
    readers = [p for p in modules() if "os.environ" in p.read_text()]
    allowed = {"cli/__init__.py", "cli/serve.py", "cli/jobs.py", "http/systemd.py", "http/sockets.py"}
    assert {str(p.relative_to(PACKAGE)) for p in readers} <= allowed


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_json_is_decoded_in_one_place(path: Path) -> None:
    """A decoder of Python's raises what its callers don't think of, as RecursionError (`oci/codec.py`)."""
    if str(path.relative_to(PACKAGE)) == "oci/codec.py":
        return
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    assert not names & {"json.loads", "json.load", "json.JSONDecoder"}
    assert not [name for name in names if name.endswith(".json")]


FILE_CALLS = {
    "access", "chmod", "chown", "fstat", "lchown", "link", "listdir", "lstat", "makedirs", "mkdir", "open", "pread",
    "readlink", "rename", "replace", "rmdir", "scandir", "stat", "statvfs", "symlink", "truncate", "unlink", "utime",
    "walk",
}  # fmt: skip
SEE_OS_ERRORS = {
    "storage/local/driver.py",
    "storage/local/syscalls.py",  # for the driver only
    "storage/local/network.py",
    "storage/local/archive.py",  # a driver, too
    "storage/local/opening.py",  # before there is a driver, inside `translated`
    "storage/bucket/lease.py",  # /proc
    "storage/bucket/objects/connection.py",  # the files of credentials
    "storage/opening.py",  # the same, for files and directories that are in no store
    "jobs/imports/repository.py",  # --link: what can't be linked is copied
    "jobs/local/jobs.py",  # for it
    "jobs/metrics.py",  # the file of --metrics-file, for the command line
    "jobs/files.py",  # the same, and that of --report
    "jobs/check/own_state.py",  # where verify keeps its place
}
"""What works on files without a driver, below http/ and cli/: here an error of the system is seen, and translated."""


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if floor(path) in ("storage", "jobs")],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_the_system_is_called_where_its_errors_are_translated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        by_os = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "os" and called.attr in FILE_CALLS
        if by_os or (isinstance(called, ast.Name) and called.id == "open"):
            assert str(path.relative_to(PACKAGE)) in SEE_OS_ERRORS, f"{path.name}, line {node.lineno}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_knows_its_own_store_only(path: Path) -> None:
    """`storage/` and `jobs/` know none; `storage.opening` and `jobs.stores` choose."""
    inside = str(path.relative_to(PACKAGE))
    found = {tuple(parts[1:3]) for name in imports(path) if len(parts := name.split(".")) > 2 and parts[0] == "zotctl"}
    found &= {(floor, kind) for floor in ("storage", "jobs") for kind in ("local", "bucket")}
    for kind in ("local", "bucket"):
        if inside.startswith((f"storage/{kind}/", f"jobs/{kind}/")):
            found.discard(("storage", kind))
        if inside.startswith(f"jobs/{kind}/"):
            found.discard(("jobs", kind))
    if inside == "storage/opening.py":
        found -= {("storage", "local"), ("storage", "bucket")}
    if inside == "jobs/stores.py":
        found -= {("jobs", "local"), ("jobs", "bucket")}
    assert not found, f"{inside} imports {found}: ask the root, or `jobs.stores`"


@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_only_the_jobs_of_a_store_look_behind_the_seam(kind: str) -> None:
    """`local_of` and `bucket_of` give the steps of a store; a root itself offers none."""
    users = {str(path.relative_to(PACKAGE)) for path in modules() if f"{kind}_of(" in path.read_text()}
    users.remove(f"storage/{kind}/protocol.py")
    assert users
    assert all(user.startswith(f"jobs/{kind}/") for user in users), users
    assert not hasattr(Root, kind)


LOADED = """
import sys
from zotctl.cli import main
try:
    main()
finally:
    print(*sys.modules)
"""


@pytest.mark.parametrize("job", ["gc", "dedupe", "scrub"])
def test_a_job_on_a_directory_loads_nothing_of_buckets(job: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    open_store(StorageConfig(roots=(RootConfig(path=str(root), create=True),))).close()
    command = [sys.executable, "-c", LOADED, job, "--root", str(root), "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.split()
    assert "zotctl.storage.local.protocol" in loaded
    foreign = ("zotctl.storage.bucket", "zotctl.jobs.bucket", "boto", "urllib3")
    assert not [name for name in loaded if name.startswith(foreign)]


def test_a_collection_of_a_bucket_loads_no_job_of_directories() -> None:
    code = "import sys, zotctl.jobs.gc, zotctl.jobs.bucket.jobs; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in ran.stdout.split() if name.startswith("zotctl.jobs.local")]


def test_the_jobs_inside_a_server_load_no_client_of_registries() -> None:
    """httpx and what it loads take 13 MiB in each server."""
    code = "import sys, zotctl.jobs.schedule; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in ran.stdout.split() if name.partition(".")[0] in ("httpx", "rich", "typer", "urllib3")]


def test_a_server_loads_no_library_that_its_configuration_does_not_ask_for() -> None:
    """Each takes a tenth to half a MiB at rest."""
    code = """
import sys
from zotctl.config import load_config
from zotctl.http import job_process, supervisor
job_process.preload(load_config(None, options={}, environ={}))
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"bcrypt", "blake3", "email", "tarfile", "tomli", "wcmatch"}
