"""umoci: image layouts, unpacked to runtime bundles and made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, row_digests
from tests.tools import need


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("umoci")


def fresh(peer: Peer, directory: Path, *tags: str) -> None:
    """A layout of umoci's making, with images that have a layer."""
    peer.run("umoci", "init", "--layout", str(directory))
    (peer.home / "file").write_text("from umoci")
    for tag in tags:
        peer.run("umoci", "new", "--image", f"{directory}:{tag}")
        peer.run("umoci", "insert", "--rootless", "--image", f"{directory}:{tag}", "file", f"/{tag}")


def test_its_layout_is_served(peer: Peer) -> None:
    fresh(peer, peer.home / "made", "a", "b")
    name = peer.beside(peer.home / "made", "by-umoci")
    assert peer.tags(name) == ["a", "b"]
    for tag in ("a", "b"):
        digest = row_digests(peer.home / "made")[tag]
        manifest = peer.manifest(tag, name)
        assert manifest == (peer.home / "made" / "blobs" / "sha256" / digest[7:]).read_bytes()
        for row in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
            answer = peer.client.get(f"/v2/{name}/blobs/{row['digest']}")
            assert (answer.status_code, len(answer.content)) == (200, row["size"])


def test_its_layout_is_served_while_it_grows(peer: Peer) -> None:
    """umoci works below the root, in a directory that is served."""
    directory = peer.directory / "growing"
    directory.parent.mkdir(parents=True)
    fresh(peer, directory, "a")
    assert peer.tags(f"{peer.name}/growing") == ["a"]
    peer.run("umoci", "tag", "--image", f"{directory}:a", "b")
    assert peer.tags(f"{peer.name}/growing") == ["a", "b"]
    assert peer.manifest("a", f"{peer.name}/growing") == peer.manifest("b", f"{peer.name}/growing")
    peer.run("umoci", "remove", "--image", f"{directory}:a")
    assert peer.tags(f"{peer.name}/growing") == ["b"]
    # What is pushed by HTTP is seen by umoci, and what it had stays.
    made = images.image("pushed")
    peer.push(made, "pushed", name=f"{peer.name}/growing")
    assert peer.run("umoci", "list", "--layout", str(directory)).split() == ["b", "pushed"]


def test_it_reads_our_directory(peer: Peer) -> None:
    made = {tag: images.image(tag) for tag in ("1.0", "2.0")}
    for tag, image in made.items():
        peer.push(image, tag)
    assert peer.run("umoci", "list", "--layout", str(peer.directory)).split() == ["1.0", "2.0"]
    stat = json.loads(peer.run("umoci", "stat", "--json", "--image", f"{peer.directory}:2.0"))
    assert len([entry for entry in stat["history"] if entry["layer"]]) == 2
    peer.run("umoci", "unpack", "--rootless", "--image", f"{peer.directory}:2.0", "bundle")
    contents = [path.read_text() for path in (peer.home / "bundle" / "rootfs").iterdir()]
    assert sorted(contents) == ["2.0 0 " * 50, "2.0 1 " * 50]


def test_it_changes_our_directory(peer: Peer) -> None:
    """A new image on top of one that was pushed, back to the world through HTTP."""
    made = images.image("base")
    peer.push(made, "base")
    (peer.home / "file").write_text("on top")
    words = ("--image", f"{peer.directory}:base", "--tag", "more", "file", "/more")
    peer.run("umoci", "insert", "--rootless", *words)
    assert peer.tags() == ["base", "more"]
    assert_same(peer, made, "base")
    layers = json.loads(peer.manifest("more"))["layers"]
    assert [layer["digest"] for layer in layers[:2]] == [row["digest"] for row in json.loads(made.manifest)["layers"]]
    assert peer.client.get(f"/v2/{peer.name}/blobs/{layers[2]['digest']}").status_code == 200
    assert_holds(peer.directory, made)
