"""For the tests of import-layout: layouts of several images, archives, and what a run left behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.images import Image, descriptor, lay_out, row
from tests.stores import store_over
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import Store
from zotctl.storage.local.driver import LocalDriver

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def local_store(path: Path) -> Store:
    path.mkdir(parents=True, exist_ok=True)
    return store_over(LocalDriver(str(path)))


def run_import(
    store: Store, source: Path | str, *, dry_run: bool = False, max_duration: float | None = None, **options: Any
) -> Report:
    run = Run("import-layout", store, dry_run=dry_run, max_duration=max_duration)
    return run.finish(lambda: import_layout(run, str(source), ImportOptions(**options)))


def write_layout(directory: Path, *made: Image, rows: list[dict[str, Any]], **fields: Any) -> Path:
    """One layout with several images; a lone `rows` says what index.json holds."""
    for one in made:
        lay_out(directory, one, rows, **fields)
    return directory


def put_blob(directory: Path, body: bytes) -> dict[str, Any]:
    """One more blob, and the descriptor of an index for it."""
    (directory / "blobs" / "sha256" / digest_of(body).encoded).write_bytes(body)
    return descriptor(body, OCI_INDEX)


def blob_file(directory: Path, body: bytes) -> Path:
    return directory / "blobs" / "sha256" / digest_of(body).encoded


def index_bytes(store: Store, name: str) -> bytes:
    return Path(store.roots[0].label, name, "index.json").read_bytes()


def rows_of(store: Store, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(index_bytes(store, name))["manifests"]
    return rows


def actions(report: Report, action: str) -> list[dict[str, Any]]:
    return [item for item in report.items if item["action"] == action]


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.findings]


def left_behind(store: Store) -> list[str]:
    """Files of the store that neither a repository nor a pool accounts for."""
    root = Path(store.roots[0].label)
    usual = (".zotctl/version", ".zotctl/lock", ".zotctl/leases/", ".zotctl/reserve", ".zotctl/history/")
    files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    return sorted(name for name in files if not name.startswith(usual))


def members_of(made: Image, *rows: dict[str, Any], prefix: str = "") -> list[tuple[str, bytes]]:
    """An archive as most tools write it: blobs first, index.json behind them."""
    blobs = {f"{prefix}blobs/sha256/{digest_of(body).encoded}": body for body in (*made.blobs, made.manifest)}
    index = json.dumps({"schemaVersion": 2, "manifests": list(rows) or [row(made, "1.36")]}).encode()
    return [*blobs.items(), (f"{prefix}index.json", index), (f"{prefix}oci-layout", LAYOUT)]


def tar_bytes(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Members are name and content, or a header alone: a link, a device, a lie."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def tar_of(directory: Path, prefix: str = "") -> bytes:
    names = sorted(path for path in directory.rglob("*") if path.is_file())
    return tar_bytes([(f"{prefix}{path.relative_to(directory)}", path.read_bytes()) for path in names])


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def header(name: str, kind: bytes, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def piped(monkeypatch: Any, body: bytes) -> None:
    """Standard input becomes a real pipe that gives these bytes, in pieces."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(body)
        os._exit(0)
    os.close(writing)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
