"""skopeo pulls an image of which it has most files already: of a layer in zstd:chunked, only the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.clients.peers import Peer
from tests.http.serving import until
from tests.tools import missing, need

FILES, FILE_BYTES = 40, 50_000
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{home}/{what}"
runroot = "{home}/{what}-run"
[storage.options]
pull_options = {{enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}}
"""


@pytest.fixture(autouse=True)
def _needed(peer: Peer) -> Iterator[None]:
    need("buildah", "skopeo", "root")
    for what in ("built", "pulled"):
        (peer.home / f"{what}.conf").write_text(STORAGE.format(home=peer.home, what=what))
    yield
    for what in ("built", "pulled"):
        peer.tried(*_with(peer, what), "buildah", "rm", "--all")
        peer.tried(*_with(peer, what), "buildah", "rmi", "--all", "--force")


def _with(peer: Peer, what: str) -> tuple[str, str]:
    return "env", f"CONTAINERS_STORAGE_CONF={peer.home}/{what}.conf"


def _push(peer: Peer, tag: str) -> None:
    started = peer.tried(*_with(peer, "built"), "buildah", "from", "scratch")
    if started.returncode and "overlay" in started.stderr:
        missing("a file system that overlays stand on")
    container = started.stdout.strip()
    peer.run(*_with(peer, "built"), "buildah", "copy", "--quiet", container, "files", "/files")
    peer.run(*_with(peer, "built"), "buildah", "commit", "--quiet", container, tag)
    target = f"docker://{peer.repository}:{tag}"
    chunked = ("--compression-format", "zstd:chunked")
    peer.run(*_with(peer, "built"), "buildah", "push", "--quiet", "--tls-verify=false", *chunked, tag, target)


def _pull(peer: Peer, tag: str) -> int:
    """The bytes of blobs that this takes."""
    before = len(_blob_bytes(peer))
    image = f"{peer.repository}:{tag}"
    peer.run(
        *_with(peer, "pulled"), "skopeo", "copy", "--quiet", "--src-tls-verify=false",
        f"docker://{image}", f"containers-storage:{image}",
    )  # fmt: skip
    # The line of an answer is written when its last byte was taken.
    with peer.server.client() as client:
        client.get(f"/v2/{peer.name}/manifests/{tag}", headers={"User-Agent": f"after {tag}"})
    until(lambda: any(line.get("user_agent") == f"after {tag}" for line in peer.server.lines()))
    return sum(_blob_bytes(peer)[before:])


def _blob_bytes(peer: Peer) -> list[int]:
    route = "/v2/<name>/blobs/<digest>"
    found = (line for line in peer.server.lines() if line.get("repository") == peer.name)
    return [line["bytes_out"] for line in found if line.get("route") == route and line["method"] == "GET"]


def test_of_a_changed_layer_only_the_changed_file_is_pulled(peer: Peer) -> None:
    rng, folder = random.Random(1), peer.home / "files"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}").write_bytes(rng.randbytes(FILE_BYTES))
    _push(peer, "1.0")
    (folder / "17").write_bytes(rng.randbytes(FILE_BYTES))
    _push(peer, "2.0")
    whole = FILES * FILE_BYTES
    assert whole < _pull(peer, "1.0") < 1.2 * whole
    assert FILE_BYTES < _pull(peer, "2.0") < 3 * FILE_BYTES
