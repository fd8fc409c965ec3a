"""oras: artifacts, and who refers to them."""

from __future__ import annotations

import json

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, blobs, layout, multi_arch
from tests.tools import need
from zotctl.oci.digest import digest_of

SBOM = "application/spdx+json"


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("oras")


def oras(peer: Peer, *words: str) -> str:
    return peer.run("oras", *words).strip()


def pushed(peer: Peer, tag: str, text: str) -> str:
    """An artifact of one file; its digest."""
    (peer.home / "file.txt").write_text(text)
    words = ("--artifact-type", "application/vnd.test", f"{peer.repository}:{tag}", "file.txt:text/plain")
    answer = oras(peer, "push", "--plain-http", "--format", "json", *words)
    return str(json.loads(answer)["digest"])


def attached(peer: Peer, reference: str, artifact_type: str) -> str:
    (peer.home / "attached.txt").write_text(artifact_type)
    words = ("--artifact-type", artifact_type, reference, "attached.txt:text/plain")
    answer = oras(peer, "attach", "--plain-http", "--format", "json", *words)
    return str(json.loads(answer)["digest"])


def discovered(peer: Peer, reference: str, *options: str) -> dict[str, str]:
    """Digests of the direct referrers, and their types."""
    found = json.loads(oras(peer, "discover", *options, "--format", "json", reference))
    return {row["digest"]: row["artifactType"] for row in found.get("referrers") or []}


def test_push_and_pull(peer: Peer) -> None:
    digest = pushed(peer, "1.0", "content")
    manifest = peer.manifest("1.0")
    assert digest_of(manifest) == digest
    assert oras(peer, "resolve", "--plain-http", f"{peer.repository}:1.0") == digest
    fetched = peer.run("oras", "manifest", "fetch", "--plain-http", f"{peer.repository}:1.0")
    assert fetched.encode() == manifest
    oras(peer, "pull", "--plain-http", "--output", "back", f"{peer.repository}:1.0")
    assert (peer.home / "back" / "file.txt").read_text() == "content"


def test_attach_and_discover(peer: Peer) -> None:
    pushed(peer, "1.0", "subject")
    at = f"{peer.repository}:1.0"
    first, second = attached(peer, at, SBOM), attached(peer, at, "application/other")
    assert discovered(peer, at, "--plain-http") == {first: SBOM, second: "application/other"}
    assert discovered(peer, at, "--plain-http", "--artifact-type", SBOM) == {first: SBOM}
    # A referrer of a referrer, and its end.
    third = attached(peer, f"{peer.repository}@{first}", "application/third")
    assert third in oras(peer, "discover", "--plain-http", at)
    oras(peer, "manifest", "delete", "--plain-http", "--force", f"{peer.repository}@{second}")
    assert discovered(peer, at, "--plain-http").keys() == {first}
    # No fallback tag: the registry has the referrers API, and OCI-Subject says so.
    assert peer.tags() == ["1.0"]


def test_copy_with_referrers(peer: Peer) -> None:
    digest = pushed(peer, "1.0", "subject")
    referrer = attached(peer, f"{peer.repository}:1.0", SBOM)
    plain = ("--from-plain-http", "--to-plain-http")
    oras(peer, "copy", "--recursive", *plain, f"{peer.repository}:1.0", f"{peer.repository}/again:2.0")
    assert discovered(peer, f"{peer.repository}/again:2.0", "--plain-http") == {referrer: SBOM}
    assert digest_of(peer.manifest("2.0", f"{peer.name}/again")) == digest
    peer.mounted(f"{peer.name}/again", 1)


def test_all_platforms(peer: Peer) -> None:
    index, children = multi_arch(peer.home / "source", "1.0", "oras")
    oras(peer, "copy", "--from-oci-layout", "--to-plain-http", "source:1.0", f"{peer.repository}:1.0")
    assert peer.manifest("1.0") == index
    for child in children:
        assert_same(peer, child, str(child.digest))
    oras(peer, "copy", "--from-plain-http", "--to-oci-layout", f"{peer.repository}:1.0", "back:1.0")
    assert_holds(peer.home / "back", *children)
    assert blobs(peer.home / "back")[str(digest_of(index))] == index
    words = ("--platform", "linux/arm64", f"{peer.repository}:1.0")
    fetched = peer.run("oras", "manifest", "fetch", "--plain-http", *words)
    assert fetched.encode() == children[1].manifest


def test_an_index_made_in_the_registry(peer: Peer) -> None:
    made = [images.image(f"member {number}") for number in range(2)]
    for number, image in enumerate(made):
        peer.push(image, f"m{number}")
    oras(peer, "manifest", "index", "create", "--plain-http", f"{peer.repository}:index", "m0", "m1")
    children = json.loads(peer.manifest("index"))["manifests"]
    assert [child["digest"] for child in children] == [str(image.digest) for image in made]


def test_lists_and_tags(peer: Peer) -> None:
    pushed(peer, "b", "content")
    oras(peer, "tag", "--plain-http", f"{peer.repository}:b", "a", "c")
    assert oras(peer, "repo", "tags", "--plain-http", peer.repository).split() == ["a", "b", "c"]
    assert oras(peer, "repo", "tags", "--plain-http", "--last", "a", peer.repository).split() == ["b", "c"]
    assert peer.name in oras(peer, "repo", "ls", "--plain-http", peer.host).split()


def test_delete(peer: Peer) -> None:
    digest = pushed(peer, "1.0", "content")
    oras(peer, "manifest", "delete", "--plain-http", "--force", f"{peer.repository}@{digest}")
    assert (peer.has("1.0"), peer.has(digest)) == (False, False)
    blob = str(digest_of(b"content"))
    oras(peer, "blob", "delete", "--plain-http", "--force", f"{peer.repository}@{blob}")
    assert peer.client.head(f"/v2/{peer.name}/blobs/{blob}").status_code == 404


def test_blobs_by_hand(peer: Peer) -> None:
    (peer.home / "blob").write_text("by hand")
    digest = str(digest_of(b"by hand"))
    oras(peer, "blob", "push", "--plain-http", f"{peer.repository}@{digest}", "blob")
    oras(peer, "blob", "fetch", "--plain-http", "--output", "back", f"{peer.repository}@{digest}")
    assert (peer.home / "back").read_text() == "by hand"


def test_backup_and_restore(peer: Peer) -> None:
    made = images.image("backup")
    peer.push(made, "1.0")
    referrer = attached(peer, f"{peer.repository}:1.0", SBOM)
    oras(peer, "backup", "--plain-http", "--include-referrers", "--output", "saved.tar", f"{peer.repository}:1.0")
    oras(peer, "restore", "--plain-http", "--input", "saved.tar", f"{peer.repository}/again:1.0")
    assert_same(peer, made, "1.0", f"{peer.name}/again")
    assert discovered(peer, f"{peer.repository}/again:1.0", "--plain-http") == {referrer: SBOM}


def test_its_layout_is_served(peer: Peer) -> None:
    made = {tag: images.image(f"layout {tag}") for tag in ("a", "b")}
    referrers = {}
    for tag, image in made.items():
        peer.push(image, tag)
        referrers[tag] = attached(peer, f"{peer.repository}:{tag}", SBOM)
        words = ("--from-plain-http", "--to-oci-layout", f"{peer.repository}:{tag}", f"made:{tag}")
        oras(peer, "copy", "--recursive", *words)
    name = peer.beside(peer.home / "made", "by-oras")
    assert peer.tags(name) == ["a", "b"]
    for tag, image in made.items():
        assert_same(peer, image, tag, name)
        assert discovered(peer, f"{peer.host}/{name}:{tag}", "--plain-http") == {referrers[tag]: SBOM}


def test_it_reads_our_directory(peer: Peer) -> None:
    made = images.image("ours")
    peer.push(made, "1.0")
    referrer = attached(peer, f"{peer.repository}:1.0", SBOM)
    at = f"{peer.directory}:1.0"
    assert oras(peer, "repo", "tags", "--oci-layout", str(peer.directory)).split() == ["1.0"]
    assert peer.run("oras", "manifest", "fetch", "--oci-layout", at).encode() == made.manifest
    assert discovered(peer, at, "--oci-layout") == {referrer: SBOM}
    oras(peer, "copy", "--from-oci-layout", "--to-oci-layout", at, "back:1.0")
    assert_holds(peer.home / "back", made)


def test_it_writes_into_our_directory(peer: Peer) -> None:
    """Not while others push: it rewrites index.json (docs/serve.md, "What it does not promise")."""
    first, second = images.image("first"), images.image("second")
    peer.push(first, "first")
    layout(peer.home / "other", second, "second")
    words = ("--from-oci-layout", "--to-oci-layout", "other:second", f"{peer.directory}:second")
    oras(peer, "copy", *words)
    assert peer.tags() == ["first", "second"]
    assert_same(peer, first, "first")
    assert_same(peer, second, "second")
