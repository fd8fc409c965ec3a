"""Other programs as clients, in a home of their own, and what has to be equal on both sides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import images
from tests.http.serving import Server, push_blob, until
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}
_KEPT = ("PATH", "LANG", "TMPDIR", "SSL_CERT_DIR", "SSL_CERT_FILE")


@dataclass
class Peer:
    """The registry as a test sees it: a repository `name` of its own, and programs that talk to it.

    `home` is empty at the start, and the current directory of the programs.
    """

    server: Server
    client: httpx.Client
    home: Path
    name: str

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def directory(self) -> Path:
        """The layout that the registry makes of the repository."""
        return self.below() / self.name

    def below(self) -> Path:
        """The directory that is served. Without one the test is skipped."""
        if self.server.bucket is not None:
            pytest.skip("is about a directory")
        return self.server.root

    def run(self, *words: str, stdin: str | None = None) -> str:
        """Standard output of a program that has to succeed."""
        done = self.tried(*words, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *words: str) -> str:
        """What a program prints that has to fail."""
        done = self.tried(*words)
        assert done.returncode != 0, f"{' '.join(words)}\n{done.stdout}"
        return done.stdout + done.stderr

    def tried(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            input=stdin if stdin is not None else "",
            cwd=self.home,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """That of the programs."""
        return clean_environment(self.home)

    def manifest(self, reference: str, name: str | None = None) -> bytes:
        answer = self.client.get(f"/v2/{name or self.name}/manifests/{reference}", headers=ACCEPT)
        assert answer.status_code == 200, answer.text
        return answer.content

    def has(self, reference: str, name: str | None = None) -> bool:
        answer = self.client.head(f"/v2/{name or self.name}/manifests/{reference}", headers=ACCEPT)
        assert answer.status_code in (200, 404)
        return answer.status_code == 200

    def tags(self, name: str | None = None) -> list[str]:
        found: list[str] = self.client.get(f"/v2/{name or self.name}/tags/list").raise_for_status().json()["tags"]
        return found

    def push(self, made: images.Image, *tags: str, name: str | None = None) -> None:
        """Without any peer, for tests of what comes after."""
        push_image(self.client, name or self.name, made, *tags)

    def mounted(self, name: str, count: int) -> None:
        """At least so many blobs were mounted into repository `name`: POSTs that were answered with 201, no body."""

        def is_mount(line: dict[str, object]) -> bool:
            return (line["method"], line["status"], line["bytes_in"]) == ("POST", 201, 0)

        until(lambda: sum(line.get("repository") == name and is_mount(line) for line in self.server.lines()) >= count)

    def beside(self, layout: Path, name: str) -> str:
        """Put a layout that a peer made below the root, while the server runs; the repository's name."""
        target = self.below() / self.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(layout, target)
        return f"{self.name}/{name}"


def clean_environment(home: Path) -> dict[str, str]:
    """Nobody's credentials, configuration and proxies."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "NO_COLOR": "1"}


def push_image(client: httpx.Client, name: str, made: images.Image, *tags: str) -> None:
    for blob in made.blobs:
        push_blob(client, name, blob)
    for tag in tags or (str(made.digest),):
        put_manifest(client, name, made.manifest, tag)


def put_manifest(client: httpx.Client, name: str, body: bytes, reference: str, media_type: str = OCI_MANIFEST) -> None:
    answer = client.put(f"/v2/{name}/manifests/{reference}", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == 201, answer.text


def layout(directory: Path, made: images.Image, tag: str) -> Path:
    """A layout with one tagged image."""
    return images.lay_out(directory, made, [images.row(made, tag)])


def multi_arch(directory: Path, tag: str, seed: str) -> tuple[bytes, list[images.Image]]:
    """A layout with an index of three images: the index and the images."""
    children = [images.image(f"{seed}-{number}") for number in range(3)]
    body = images.index([(child.digest, len(child.manifest)) for child in children])
    row = images.descriptor(body, OCI_INDEX) | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    for child in children:
        images.lay_out(directory, child, [row])
    (directory / "blobs" / "sha256" / digest_of(body).encoded).write_bytes(body)
    return body, children


def blobs(directory: Path) -> dict[str, bytes]:
    """All blobs of a layout, by digest."""
    found = {f"sha256:{path.name}": path.read_bytes() for path in (directory / "blobs" / "sha256").iterdir()}
    assert all(str(digest_of(body)) == digest for digest, body in found.items())
    return found


def row_digests(directory: Path) -> dict[str, str]:
    """The digests that a layout's index.json has, by tag."""
    rows: list[dict[str, Any]] = json.loads((directory / "index.json").read_text())["manifests"]
    names = [row.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for row in rows]
    return {name: row["digest"] for name, row in zip(names, rows, strict=True)}


def assert_same(peer: Peer, made: images.Image, reference: str, name: str | None = None) -> None:
    """Manifest and blobs come back through HTTP byte for byte."""
    assert peer.manifest(reference, name) == made.manifest
    for body in made.blobs:
        answer = peer.client.get(f"/v2/{name or peer.name}/blobs/{digest_of(body)}")
        assert (answer.status_code, answer.content) == (200, body)


def assert_holds(directory: Path, *made: images.Image) -> None:
    """A layout that was pulled has these images, byte for byte, and nothing false."""
    found = blobs(directory)
    for one in made:
        assert all(found.get(str(digest_of(body))) == body for body in (one.manifest, *one.blobs))
