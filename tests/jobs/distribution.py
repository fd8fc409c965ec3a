"""For the tests of imports from distribution: what it writes, and the program itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.buckets import free_port
from tests.images import Image
from tests.tools import program
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store
from zotctl.storage.bucket.objects.seam import Objects

BASE = "docker/registry/v2"


def write_link(directory: Path, digest: Digest) -> None:
    directory.mkdir(parents=True)
    (directory / "link").write_text(str(digest))


def hold(old: Path, body: bytes) -> Digest:
    digest = digest_of(body)
    file = data_of(old, digest)
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_bytes(body)
    return digest


def data_of(old: Path, digest: Digest) -> Path:
    return old / BASE / "blobs" / "sha256" / digest.encoded[:2] / digest.encoded / "data"


def push(old: Path, name: str, made: Image, tag: str | None = None) -> None:
    """Write what a push writes."""
    repository = old / BASE / "repositories" / name
    for body in made.blobs:
        write_link(repository / "_layers/sha256" / hold(old, body).encoded, digest_of(body))
    hold(old, made.manifest)
    write_link(repository / "_manifests/revisions/sha256" / made.digest.encoded, made.digest)
    if tag is not None:
        write_link(repository / "_manifests/tags" / tag / "index/sha256" / made.digest.encoded, made.digest)
        write_link(repository / "_manifests/tags" / tag / "current", made.digest)


def put_all(old: Path, objects: Objects) -> None:
    """Put a tree into a bucket."""
    for file in old.rglob("*"):
        if file.is_file():
            objects.put(str(file.relative_to(old)), file.read_bytes())


def tags(store: Store, name: str) -> dict[str | None, str | None]:
    return {row.tag: row.digest for row in store.repository(name).root.protocol.indexes.read(name).index.rows()}


@contextmanager
def registry(directory: Path, storage: dict[str, Any]) -> Iterator[str]:
    """The program, with its configuration in `directory`: its address."""
    address = f"127.0.0.1:{free_port()}"
    config = directory / "config.yml"
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))  # which is YAML
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [program("docker-registry"), "serve", str(config)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(400):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                    break
            time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait(20)
