"""buildah, which builds images and has skopeo's library inside."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests import images
from tests.clients.peers import Peer, assert_same, row_digests
from tests.tools import need
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST


@pytest.fixture(autouse=True)
def _needed(peer: Peer) -> Iterator[None]:
    need("buildah", "root")
    yield
    peer.tried(*COMMAND, "rm", "--all")


COMMAND = ("buildah", "--root", "storage", "--runroot", "run", "--storage-driver", "vfs")


def buildah(peer: Peer, *words: str) -> str:
    return peer.run(*COMMAND, *words).strip()


def built(peer: Peer, name: str) -> str:
    """The image's name, and one layer with one file in it."""
    container = buildah(peer, "from", "scratch")
    (peer.home / "file").write_text(f"in {name}")
    buildah(peer, "copy", container, "file", f"/{name}")
    buildah(peer, "config", "--cmd", "/nothing", container)
    buildah(peer, "commit", "--format", "oci", container, name)
    return name


def test_push_and_pull(peer: Peer) -> None:
    image = built(peer, "app")
    target = f"docker://{peer.repository}:1.0"
    buildah(peer, "push", "--tls-verify=false", "--digestfile", "digest", image, target)
    manifest = peer.manifest("1.0")
    assert (peer.home / "digest").read_text() == digest_of(manifest)
    stored = json.loads(manifest)
    assert stored["mediaType"] == OCI_MANIFEST
    for row in (stored["config"], *stored["layers"]):
        answer = peer.client.get(f"/v2/{peer.name}/blobs/{row['digest']}")
        assert digest_of(answer.content) == row["digest"]
    buildah(peer, "rmi", "--all", "--force")
    pulled = buildah(peer, "pull", "--tls-verify=false", target)
    container = buildah(peer, "from", pulled)
    rootfs = buildah(peer, "mount", container)
    assert (peer.home / rootfs / "app").read_text() == "in app"
    assert json.loads(buildah(peer, "inspect", pulled))["FromImageDigest"] == digest_of(manifest)


def test_docker_s_format(peer: Peer) -> None:
    """An image in Docker's format is converted on the way, unless it must stay as it is."""
    container = buildah(peer, "from", "scratch")
    buildah(peer, "commit", "--format", "docker", container, "docker")
    buildah(peer, "push", "--tls-verify=false", "docker", f"docker://{peer.repository}:1.0")
    assert json.loads(peer.manifest("1.0"))["mediaType"] == OCI_MANIFEST
    words = ("push", "--tls-verify=false", "--format", "v2s2", "docker", f"docker://{peer.repository}:2.0")
    assert "docker2s2" in peer.fails(*COMMAND, *words)
    assert peer.tags() == ["1.0"]


def test_all_platforms(peer: Peer) -> None:
    buildah(peer, "manifest", "create", "list")
    for architecture in ("amd64", "arm64"):
        buildah(peer, "manifest", "add", "--arch", architecture, "list", built(peer, architecture))
    target = f"docker://{peer.repository}:1.0"
    buildah(peer, "manifest", "push", "--tls-verify=false", "--all", "--format", "oci", "list", target)
    index = json.loads(peer.manifest("1.0"))
    assert (index["mediaType"], len(index["manifests"])) == (OCI_INDEX, 2)
    for child in index["manifests"]:
        assert digest_of(peer.manifest(child["digest"])) == child["digest"]


def test_its_layout_is_served(peer: Peer) -> None:
    buildah(peer, "push", built(peer, "app"), "oci:made:1.0")
    name = peer.beside(peer.home / "made", "by-buildah")
    assert peer.tags(name) == ["1.0"]
    assert digest_of(peer.manifest("1.0", name)) == row_digests(peer.home / "made")["1.0"]
    buildah(peer, "rmi", "--all", "--force")
    buildah(peer, "pull", "--tls-verify=false", f"docker://{peer.host}/{name}:1.0")


def test_it_reads_our_directory(peer: Peer) -> None:
    made = images.image("ours")
    peer.push(made, "1.0")
    pulled = buildah(peer, "pull", f"oci:{peer.directory}:1.0")
    container = buildah(peer, "from", pulled)
    rootfs = peer.home / buildah(peer, "mount", container)
    assert sorted(path.read_text() for path in rootfs.iterdir()) == ["ours 0 " * 50, "ours 1 " * 50]
    assert_same(peer, made, "1.0")
