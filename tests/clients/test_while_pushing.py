"""Other programs read the registry's own directory while pushes into it run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, push_image
from tests.http.serving import until
from tests.tools import need

ROUNDS = 6
PUSHERS = 3


@contextmanager
def pushes(peer: Peer) -> Iterator[list[tuple[str, images.Image]]]:
    """What was pushed so far by threads that go on until the end, each with tags of its own."""
    stop, done, failures = threading.Event(), [], []

    def push(number: int) -> None:
        with peer.server.client() as client:
            for count in range(10_000):
                if stop.is_set():
                    return
                tag, made = f"p{number}-{count}", images.image(f"{peer.name} {number} {count}")
                try:
                    push_image(client, peer.name, made, tag)
                except Exception as error:
                    failures.append(error)
                    return
                done.append((tag, made))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(PUSHERS)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def skopeo(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    seen = json.loads(peer.run("skopeo", "inspect", f"oci:{peer.directory}:{tag}"))
    assert seen["Digest"] == str(made.digest)
    back = f"oci:back-{number}:x"
    peer.run("skopeo", "copy", "--preserve-digests", f"oci:{peer.directory}:{tag}", back)
    assert_holds(peer.home / f"back-{number}", made)


def umoci(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    assert tag in peer.run("umoci", "list", "--layout", str(peer.directory)).split()
    stat = json.loads(peer.run("umoci", "stat", "--json", "--image", f"{peer.directory}:{tag}"))
    assert len(stat["history"]) == 2
    peer.run("umoci", "unpack", "--rootless", "--image", f"{peer.directory}:{tag}", f"bundle-{number}")


def buildah(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    need("root")
    words = ("--root", "storage", "--runroot", "run", "--storage-driver", "vfs")
    peer.run("buildah", *words, "pull", f"oci:{peer.directory}:{tag}")


def crane(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    peer.run("crane", "validate", "--remote", f"{peer.repository}:{tag}")
    # The directory as it is at this moment, as one index.
    target = f"{peer.host}/{peer.name}-snapshots:{number}"
    peer.run("crane", "push", "--index", str(peer.directory), target)
    index = json.loads(peer.manifest(str(number), f"{peer.name}-snapshots"))
    assert str(made.digest) in {row["digest"] for row in index["manifests"]}


def regctl(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    assert tag in peer.run("regctl", "tag", "ls", f"ocidir://{peer.directory}").split()
    peer.run("regctl", "image", "copy", f"ocidir://{peer.directory}:{tag}", f"ocidir://back-{number}:x")
    assert_holds(peer.home / f"back-{number}", made)


def oras(peer: Peer, tag: str, made: images.Image, number: int) -> None:
    assert tag in peer.run("oras", "repo", "tags", "--oci-layout", str(peer.directory)).split()
    words = ("--from-oci-layout", "--to-oci-layout", f"{peer.directory}:{tag}", f"back-{number}:x")
    peer.run("oras", "copy", *words)
    assert_holds(peer.home / f"back-{number}", made)


@pytest.mark.parametrize("read", [skopeo, umoci, buildah, crane, regctl, oras], ids=lambda read: read.__name__)
def test_reading_while_pushing(peer: Peer, read: Callable[[Peer, str, images.Image, int], None]) -> None:
    need(read.__name__)
    first = images.image("first")
    peer.push(first, "first")
    with pushes(peer) as done:
        for number in range(ROUNDS):
            before = len(done)
            read(peer, *([("first", first), *done][-1]), number)
        until(lambda: len(done) > before)
    pushed = [("first", first), *done]
    assert peer.tags() == sorted(tag for tag, _ in pushed)
    for tag, made in pushed[:: max(1, len(pushed) // 20)]:
        assert_same(peer, made, tag)
