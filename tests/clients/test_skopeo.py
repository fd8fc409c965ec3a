"""skopeo: containers/image, as podman, buildah and CRI-O have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, blobs, layout, multi_arch, row_digests
from tests.http.serving import serving
from tests.tools import need
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import DOCKER_MANIFEST, OCI_MANIFEST


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("skopeo")


def push(peer: Peer, made: images.Image, tag: str = "1.0") -> None:
    source = layout(peer.home / f"source-{tag}", made, tag)
    copy(peer, f"oci:{source}:{tag}", f"docker://{peer.repository}:{tag}")


def copy(peer: Peer, source: str, target: str, *options: str) -> str:
    safe = [f"--{end}-tls-verify=false" for end, at in (("src", source), ("dest", target)) if "docker://" in at]
    return peer.run("skopeo", "copy", *safe, *options, source, target)


def test_push_and_pull(peer: Peer) -> None:
    made = images.image("skopeo", layers=3)
    push(peer, made)
    assert_same(peer, made, "1.0")
    copy(peer, f"docker://{peer.repository}:1.0", "oci:back:1.0", "--preserve-digests")
    assert_holds(peer.home / "back", made)
    copy(peer, f"docker://{peer.repository}@{made.digest}", "dir:as-dir", "--preserve-digests")
    assert (peer.home / "as-dir" / "manifest.json").read_bytes() == made.manifest


def test_push_by_digest(peer: Peer) -> None:
    made = images.image("by digest")
    source = layout(peer.home / "source", made, "x")
    copy(peer, f"oci:{source}:x", f"docker://{peer.repository}@{made.digest}")
    assert_same(peer, made, str(made.digest))
    assert peer.tags() == []


def test_inspect_and_list_tags(peer: Peer) -> None:
    made = images.image("inspect")
    for tag in ("b", "a"):
        push(peer, made, tag)
    seen = json.loads(peer.run("skopeo", "inspect", "--tls-verify=false", f"docker://{peer.repository}:a"))
    assert (seen["Digest"], seen["RepoTags"]) == (str(made.digest), ["a", "b"])
    raw = peer.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{peer.repository}:a")
    assert raw.encode() == made.manifest
    listed = json.loads(peer.run("skopeo", "list-tags", "--tls-verify=false", f"docker://{peer.repository}"))
    assert listed["Tags"] == ["a", "b"]


def test_delete(peer: Peer) -> None:
    kept, gone = images.image("kept"), images.image("gone")
    push(peer, kept, "kept")
    push(peer, gone, "gone")
    peer.run("skopeo", "delete", "--tls-verify=false", f"docker://{peer.repository}:gone")
    assert not peer.has(str(gone.digest))
    assert peer.tags() == ["kept"]
    assert_same(peer, kept, "kept")


def test_all_platforms(peer: Peer) -> None:
    index, children = multi_arch(peer.home / "source", "1.0", "skopeo")
    copy(peer, "oci:source:1.0", f"docker://{peer.repository}:1.0", "--all")
    copy(peer, f"docker://{peer.repository}:1.0", f"docker://{peer.repository}/again:2.0", "--all")
    for name, tag in ((peer.name, "1.0"), (f"{peer.name}/again", "2.0")):
        assert peer.manifest(tag, name) == index
        for child in children:
            assert_same(peer, child, str(child.digest), name)
    copy(peer, f"docker://{peer.repository}/again:2.0", "oci:back:2.0", "--all")
    assert_holds(peer.home / "back", *children)
    assert blobs(peer.home / "back")[str(digest_of(index))] == index


def test_one_platform_of_several(peer: Peer) -> None:
    _, children = multi_arch(peer.home / "source", "1.0", "one of")
    copy(peer, "oci:source:1.0", f"docker://{peer.repository}:1.0", "--all")
    peer.run(
        *("skopeo", "--override-arch", "arm64", "copy", "--src-tls-verify=false", "--preserve-digests"),
        *(f"docker://{peer.repository}:1.0", "oci:back:arm"),
    )
    assert row_digests(peer.home / "back") == {"arm": str(children[1].digest)}


def test_a_copy_between_repositories_mounts(peer: Peer) -> None:
    made = images.image("mounts", layers=3)
    push(peer, made)
    copy(peer, f"docker://{peer.repository}:1.0", f"docker://{peer.repository}/other:1.0")
    assert_same(peer, made, "1.0", f"{peer.name}/other")
    peer.mounted(f"{peer.name}/other", 3)


def test_sync(peer: Peer) -> None:
    made = {tag: images.image(f"sync {tag}") for tag in ("a", "b")}
    for tag, image in made.items():
        peer.push(image, tag)
    words = ("--src-tls-verify=false", "--src", "docker", "--dest", "dir", peer.repository, "synced")
    peer.run("skopeo", "sync", *words)
    manifests = {path.read_bytes() for path in (peer.home / "synced").rglob("manifest.json")}
    assert manifests == {image.manifest for image in made.values()}


def as_docker(peer: Peer, made: images.Image) -> str:
    """The image with a Docker schema 2 manifest, in a directory."""
    source = layout(peer.home / "source", made, "1.0")
    copy(peer, f"oci:{source}:1.0", "dir:docker", "--format", "v2s2")
    return "dir:docker"


def test_a_docker_manifest_is_converted_on_the_way(peer: Peer) -> None:
    made = images.image("docker")
    copy(peer, as_docker(peer, made), f"docker://{peer.repository}:1.0")
    stored = json.loads(peer.manifest("1.0"))
    assert stored["mediaType"] == OCI_MANIFEST
    assert [layer["digest"] for layer in stored["layers"]] == [str(digest_of(body)) for body in made.blobs[1:]]
    copy(peer, f"docker://{peer.repository}:1.0", "oci:back:1.0")


def test_a_docker_manifest_that_must_stay_one_is_refused(peer: Peer) -> None:
    source = as_docker(peer, images.image("docker"))
    words = ("--dest-tls-verify=false", "--format", "v2s2", source, f"docker://{peer.repository}:1.0")
    told = peer.fails("skopeo", "copy", *words)
    assert "docker2s2" in told and DOCKER_MANIFEST in told
    assert peer.client.get(f"/v2/{peer.name}/manifests/1.0").status_code == 404


def test_a_docker_manifest_is_accepted_with_compat(peer: Peer, tmp_path: Path) -> None:
    source = as_docker(peer, images.image("docker"))
    with serving(tmp_path / "server", "--compat", "docker2s2", workers=2) as server:
        target = f"docker://127.0.0.1:{server.port}/docker:1.0"
        copy(peer, source, target, "--preserve-digests")
        stored = (peer.home / "docker" / "manifest.json").read_bytes()
        with server.client() as client:
            answer = client.get("/v2/docker/manifests/1.0", headers={"Accept": DOCKER_MANIFEST})
        assert (answer.content, answer.headers["content-type"]) == (stored, DOCKER_MANIFEST)
        copy(peer, target, "dir:back", "--preserve-digests")
        assert (peer.home / "back" / "manifest.json").read_bytes() == stored
        assert "traceback" not in server.log()


def test_its_layout_is_served(peer: Peer) -> None:
    made = {tag: images.image(f"layout {tag}") for tag in ("a", "b")}
    for tag, image in made.items():
        peer.push(image, tag)
        copy(peer, f"docker://{peer.repository}:{tag}", f"oci:made:{tag}", "--preserve-digests")
    name = peer.beside(peer.home / "made", "by-skopeo")
    assert peer.tags(name) == ["a", "b"]
    for tag, image in made.items():
        assert_same(peer, image, tag, name)
    copy(peer, f"docker://{peer.host}/{name}:a", "dir:back", "--preserve-digests")
    assert (peer.home / "back" / "manifest.json").read_bytes() == made["a"].manifest


def test_it_reads_our_directory(peer: Peer) -> None:
    made = images.image("ours")
    push(peer, made)
    seen = json.loads(peer.run("skopeo", "inspect", f"oci:{peer.directory}:1.0"))
    assert seen["Digest"] == str(made.digest)
    copy(peer, f"oci:{peer.directory}:1.0", "oci:back:1.0", "--preserve-digests")
    assert_holds(peer.home / "back", made)


def test_it_writes_into_our_directory(peer: Peer) -> None:
    """Not while others push: it rewrites index.json (docs/serve.md, "What it does not promise")."""
    first, second = images.image("first"), images.image("second")
    push(peer, first, "first")
    source = layout(peer.home / "other", second, "second")
    copy(peer, f"oci:{source}:second", f"oci:{peer.directory}:second", "--preserve-digests")
    assert peer.tags() == ["first", "second"]
    assert_same(peer, first, "first")
    assert_same(peer, second, "second")
