"""umoci: image layouts, unpacked to runtime bundles and made of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, row_digests
from tests.http.serving import until
from tests.tools import need, program
from zotctl.storage.keys import parse_swap


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


def test_a_tag_that_it_sets_between_our_last_look_and_our_rename_is_kept(tmp_path: Path) -> None:
    """The kernel holds our swap back until umoci has renamed its index.json in."""
    need("strace")
    root, directory = tmp_path / "root", tmp_path / "root/app"
    root.mkdir()

    def umoci(*arguments: str) -> None:
        subprocess.run([program("umoci"), *arguments], check=True, capture_output=True, timeout=60)

    umoci("init", "--layout", str(directory))
    umoci("new", "--image", f"{directory}:a")
    images.lay_out(tmp_path / "ours", images.image("ours"))
    importing = [sys.executable, "-m", "zotctl", "import-layout", str(tmp_path / "ours"), "--root", str(root)]
    subprocess.run([*importing, "--repo", "app", "--tag", "first"], check=True, capture_output=True, timeout=60)
    trace = tmp_path / "trace"
    delayed = ["-f", "-o", str(trace), "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=4000000"]
    ours = subprocess.Popen([program("strace"), *delayed, *importing, "--repo", "app", "--tag", "ours"])
    try:
        until(lambda: any(map(parse_swap, os.listdir(directory))), 60)
        ours.send_signal(signal.SIGSTOP)  # of strace, without which the command does not go on
        umoci("tag", "--image", f"{directory}:a", "b")
        assert any(map(parse_swap, os.listdir(directory)))
        ours.send_signal(signal.SIGCONT)
        assert ours.wait(120) == 0
    finally:
        ours.kill()
        ours.wait()
    assert "RENAME_EXCHANGE" in trace.read_text()
    assert sorted(row_digests(directory)) == ["a", "b", "first", "ours"]
    assert not any(map(parse_swap, os.listdir(directory)))
