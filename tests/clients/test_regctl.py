"""regctl: regclient, with its own code for layouts and referrers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, blobs, layout, multi_arch
from tests.tools import need
from zotctl.oci.digest import digest_of

SBOM = "application/spdx+json"


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("regctl")


def regctl(peer: Peer, *words: str, stdin: str | None = None) -> str:
    host = ("--host", f"reg={peer.host},tls=disabled")
    return peer.run("regctl", *words, *host, stdin=stdin).strip()


def ocidir(directory: Path, tag: str) -> str:
    return f"ocidir://{directory}:{tag}"


def test_push_and_pull(peer: Peer) -> None:
    made = images.image("regctl", layers=3)
    source = layout(peer.home / "source", made, "1.0")
    regctl(peer, "image", "copy", ocidir(source, "1.0"), f"{peer.repository}:1.0")
    assert_same(peer, made, "1.0")
    assert regctl(peer, "image", "digest", f"{peer.repository}:1.0") == made.digest
    body = regctl(peer, "manifest", "get", "--format", "raw-body", f"{peer.repository}:1.0")
    assert body.encode() == made.manifest
    regctl(peer, "image", "copy", f"{peer.repository}:1.0", ocidir(peer.home / "back", "1.0"))
    assert_holds(peer.home / "back", made)
    regctl(peer, "image", "export", f"{peer.repository}:1.0", "image.tar")
    regctl(peer, "image", "import", f"{peer.repository}:2.0", "image.tar")
    assert_same(peer, made, "2.0")


def test_all_platforms(peer: Peer) -> None:
    index, children = multi_arch(peer.home / "source", "1.0", "regctl")
    regctl(peer, "image", "copy", ocidir(peer.home / "source", "1.0"), f"{peer.repository}:1.0")
    regctl(peer, "image", "copy", f"{peer.repository}:1.0", f"{peer.repository}/again:2.0")
    for name, tag in ((peer.name, "1.0"), (f"{peer.name}/again", "2.0")):
        assert peer.manifest(tag, name) == index
        for child in children:
            assert_same(peer, child, str(child.digest), name)
    regctl(peer, "image", "copy", f"{peer.repository}/again:2.0", ocidir(peer.home / "back", "2.0"))
    assert_holds(peer.home / "back", *children)
    assert blobs(peer.home / "back")[str(digest_of(index))] == index
    words = ("--platform", "linux/arm64", f"{peer.repository}:1.0")
    assert regctl(peer, "manifest", "get", "--format", "raw-body", *words).encode() == children[1].manifest


def test_an_index_made_in_the_registry(peer: Peer) -> None:
    made = [images.image(f"member {number}") for number in range(2)]
    for number, image in enumerate(made):
        peer.push(image, f"m{number}")
    refs = [word for number in range(2) for word in ("--ref", f"{peer.repository}:m{number}")]
    regctl(peer, "index", "create", f"{peer.repository}:index", *refs)
    children = json.loads(peer.manifest("index"))["manifests"]
    assert {child["digest"] for child in children} == {str(image.digest) for image in made}


def test_lists(peer: Peer) -> None:
    made = images.image("tags")
    tags = [f"v{number:02}" for number in range(25)]
    peer.push(made, *tags)
    assert regctl(peer, "tag", "ls", peer.repository).split() == tags
    some = regctl(peer, "tag", "ls", "--limit", "3", "--last", "v10", peer.repository).split()
    assert some == ["v11", "v12", "v13"]
    assert peer.name in regctl(peer, "repo", "ls", peer.host).split()


def test_delete(peer: Peer) -> None:
    kept, gone = images.image("kept"), images.image("gone")
    peer.push(kept, "kept", "other")
    peer.push(gone, "gone")
    regctl(peer, "tag", "rm", f"{peer.repository}:other")
    assert peer.tags() == ["gone", "kept"]
    regctl(peer, "manifest", "rm", f"{peer.repository}@{gone.digest}")
    assert peer.tags() == ["kept"]
    assert not peer.has(str(gone.digest))
    regctl(peer, "blob", "delete", peer.repository, str(digest_of(gone.blobs[0])))
    assert peer.client.head(f"/v2/{peer.name}/blobs/{digest_of(gone.blobs[0])}").status_code == 404
    assert_same(peer, kept, "kept")


def test_artifacts_and_referrers(peer: Peer) -> None:
    made = images.image("subject")
    peer.push(made, "1.0")
    at = f"{peer.repository}:1.0"
    regctl(peer, "artifact", "put", "--artifact-type", SBOM, "--subject", at, stdin="an SBOM")
    regctl(peer, "artifact", "put", "--artifact-type", "application/other", "--subject", at, stdin="other")
    listed = json.loads(regctl(peer, "artifact", "list", "--format", "{{json .}}", at))["descriptors"]
    assert {row["artifactType"] for row in listed} == {SBOM, "application/other"}
    chosen = json.loads(regctl(peer, "artifact", "list", "--filter-artifact-type", SBOM, "--format", "{{json .}}", at))
    assert [row["artifactType"] for row in chosen["descriptors"]] == [SBOM]
    assert regctl(peer, "artifact", "get", "--subject", at, "--filter-artifact-type", SBOM) == "an SBOM"
    assert SBOM in regctl(peer, "artifact", "tree", at)
    # No fallback tag: the registry has the referrers API, and OCI-Subject says so.
    assert peer.tags() == ["1.0"]


def test_a_copy_with_referrers(peer: Peer) -> None:
    made = images.image("with referrers")
    peer.push(made, "1.0")
    at = f"{peer.repository}:1.0"
    regctl(peer, "artifact", "put", "--artifact-type", SBOM, "--subject", at, stdin="an SBOM")
    regctl(peer, "image", "copy", "--referrers", at, f"{peer.repository}/again:1.0")
    found = peer.client.get(f"/v2/{peer.name}/again/referrers/{made.digest}").json()["manifests"]
    assert [row["artifactType"] for row in found] == [SBOM]


def test_a_copy_between_repositories_mounts(peer: Peer) -> None:
    made = images.image("mounts", layers=3)
    peer.push(made, "1.0")
    regctl(peer, "image", "copy", f"{peer.repository}:1.0", f"{peer.repository}/other:1.0")
    assert_same(peer, made, "1.0", f"{peer.name}/other")
    peer.mounted(f"{peer.name}/other", 3)


def test_blobs_by_hand(peer: Peer) -> None:
    digest = regctl(peer, "blob", "put", peer.repository, stdin="by hand")
    assert digest == digest_of(b"by hand")
    assert regctl(peer, "blob", "get", peer.repository, digest) == "by hand"


def test_an_image_changed_in_the_registry(peer: Peer) -> None:
    peer.push(images.image("mod"), "1.0")
    regctl(peer, "image", "mod", f"{peer.repository}:1.0", "--create", "2.0", "--annotation", "a=b")
    assert json.loads(peer.manifest("2.0"))["annotations"] == {"a": "b"}


def test_its_layout_is_served(peer: Peer) -> None:
    made = {tag: images.image(f"layout {tag}") for tag in ("a", "b")}
    for tag, image in made.items():
        peer.push(image, tag)
        regctl(peer, "artifact", "put", "--artifact-type", SBOM, "--subject", f"{peer.repository}:{tag}", stdin=tag)
        source = f"{peer.repository}:{tag}"
        regctl(peer, "image", "copy", "--referrers", source, ocidir(peer.home / "made", tag))
    name = peer.beside(peer.home / "made", "by-regctl")
    # In a layout, regctl keeps referrers under the tags of the referrers tag schema.
    assert [tag for tag in peer.tags(name) if not tag.startswith("sha256-")] == ["a", "b"]
    for tag, image in made.items():
        assert_same(peer, image, tag, name)
        found = peer.client.get(f"/v2/{name}/referrers/{image.digest}").json()["manifests"]
        assert [row["artifactType"] for row in found] == [SBOM]


def test_it_reads_our_directory(peer: Peer) -> None:
    made = images.image("ours")
    peer.push(made, "1.0", "2.0")
    assert regctl(peer, "tag", "ls", f"ocidir://{peer.directory}").split() == ["1.0", "2.0"]
    assert regctl(peer, "image", "digest", ocidir(peer.directory, "1.0")) == made.digest
    regctl(peer, "image", "copy", ocidir(peer.directory, "2.0"), ocidir(peer.home / "back", "2.0"))
    assert_holds(peer.home / "back", made)
