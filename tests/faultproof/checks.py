"""What must hold in every state of a store, read as any other tool would: files and two specs, none of our code.

`faults_of` gives the broken invariants as text, so that a test of a test can ask for them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.doubles.filesystem import MemoryDriver
from zotctl.storage import keys

Files = Mapping[str, bytes]
"""Every regular file by its key."""

REF_NAME = "org.opencontainers.image.ref.name"


def files_below(root: Path) -> dict[str, bytes]:
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def files_in(driver: MemoryDriver) -> dict[str, bytes]:
    return {key: body for key, _, body in driver.files()}


def layouts(files: Files) -> list[str]:
    """Whatever has an `oci-layout` is a layout to another reader."""
    found = (key.rpartition("/")[0] for key in files if key.endswith("/oci-layout"))
    return sorted(name for name in found if not name.startswith(keys.HIDDEN))


def faults_of(files: Files, *, whole: bool = True, temps: bool = True) -> list[str]:
    """I1, I2, I3 and I5. `whole` false: a layer may be short or gone (a power cut with commit = false), never
    a manifest. `temps` false: nothing half-done may lie about either (after an error, not after a kill)."""
    faults: list[str] = []
    for name in layouts(files):
        faults += _layout_faults(files, name, whole)
    for key, body in files.items():
        if whole and not _hashes_right(key, body) and not key.startswith(keys.DAMAGED):
            faults.append(f"I2 {key} has other content ({len(body)} bytes)")
        if not temps and (keys.INDEX_TEMP_PREFIX in key or key.startswith(f"{keys.TMP}/")):
            faults.append(f"left over: {key}")
    return faults


def _layout_faults(files: Files, name: str, whole: bool) -> Iterator[str]:
    try:
        if json.loads(files[f"{name}/oci-layout"]) != {"imageLayoutVersion": "1.0.0"}:
            yield f"I1 {name}/oci-layout is not one"
    except ValueError:
        yield f"I1 {name}/oci-layout is truncated"
    try:
        document = json.loads(files[f"{name}/index.json"])
        rows = document["manifests"]
    except KeyError:
        yield f"I1 {name} has no index.json"
        return
    except ValueError:
        yield f"I3 {name}/index.json is truncated: {files[f'{name}/index.json'][:40]!r}"
        return
    for row in rows:
        yield from _manifest_faults(files, name, row, whole)


def _manifest_faults(files: Files, name: str, row: dict[str, Any], whole: bool) -> Iterator[str]:
    body = files.get(_blob(name, row["digest"]))
    if body is None:
        yield f"I5 {name}: index.json leads to {row['digest']}, which is not there"
        return
    if len(body) != row["size"] or not _is(body, row["digest"]):
        yield f"I3 {name}: the manifest {row['digest']} is truncated ({len(body)} of {row['size']} bytes)"
        return
    manifest = json.loads(body)
    for child in manifest.get("manifests", []):
        yield from _manifest_faults(files, name, child, whole)
    for blob in [manifest[key] for key in ("config",) if key in manifest] + manifest.get("layers", []):
        content = files.get(_blob(name, blob["digest"]))
        if whole and content is None:
            yield f"I5 {name}: {row['digest']} needs {blob['digest']}, which is not there"
        elif whole and content is not None and len(content) != blob["size"]:
            yield f"I2 {name}: {blob['digest']} has {len(content)} bytes, not {blob['size']}"


def tags(files: Files, name: str) -> dict[str, str]:
    """Tag to digest, as index.json says; empty where there is none."""
    if f"{name}/index.json" not in files or f"{name}/oci-layout" not in files:
        return {}
    rows = json.loads(files[f"{name}/index.json"])["manifests"]
    return {row["annotations"][REF_NAME]: row["digest"] for row in rows if REF_NAME in row.get("annotations", {})}


def _blob(name: str, digest: str) -> str:
    return f"{name}/blobs/{digest.replace(':', '/')}"


def _is(body: bytes, digest: str) -> bool:
    algorithm, _, encoded = digest.partition(":")
    return _hash(algorithm, body) == encoded


@lru_cache(1000)
def _hash(algorithm: str, body: bytes) -> str:
    return hashlib.new(algorithm, body).hexdigest()


def _hashes_right(key: str, body: bytes) -> bool:
    """True for whatever is no content under its digest."""
    parts = key.split("/")
    pooled = key.startswith(f"{keys.POOL}/") and len(parts) == 5
    if not pooled and (len(parts) < 4 or parts[-3] != "blobs"):
        return True
    return _hash(parts[2] if pooled else parts[-2], body) == parts[-1]
