"""crane: go-containerregistry, as ko, kaniko and cosign have it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from tests import images
from tests.clients.peers import Peer, assert_holds, assert_same, blobs, layout, multi_arch
from tests.jobs.importing import local_store, run_import
from tests.tools import need
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX


@pytest.fixture(autouse=True)
def _needed() -> Iterator[None]:
    need("crane")
    yield


def crane(peer: Peer, *words: str) -> str:
    return peer.run("crane", *words).strip()


def test_push_and_pull(peer: Peer) -> None:
    made = images.image("crane", layers=3)
    source = layout(peer.home / "source", made, "1.0")
    assert crane(peer, "push", str(source), f"{peer.repository}:1.0") == f"{peer.repository}@{made.digest}"
    assert_same(peer, made, "1.0")
    assert crane(peer, "digest", f"{peer.repository}:1.0") == made.digest
    assert peer.run("crane", "manifest", f"{peer.repository}:1.0").encode() == made.manifest
    assert peer.run("crane", "config", f"{peer.repository}:1.0").encode() == made.blobs[0]
    crane(peer, "pull", "--format", "oci", f"{peer.repository}:1.0", "back")
    assert_holds(peer.home / "back", made)
    crane(peer, "pull", f"{peer.repository}:1.0", "back.tar")
    crane(peer, "validate", "--tarball", "back.tar")
    crane(peer, "validate", "--remote", f"{peer.repository}:1.0")
    crane(peer, "export", f"{peer.repository}:1.0", "files.tar")


@pytest.mark.parametrize("form", ["tarball", "legacy", "oci"])
def test_what_it_pulls_is_imported_whole(peer: Peer, form: str) -> None:
    made = images.image("crane", layers=3)
    crane(peer, "push", str(layout(peer.home / "source", made, "1.0")), f"{peer.repository}:1.0")
    crane(peer, "pull", "--format", form, f"{peer.repository}:1.0", "out")
    report = run_import(local_store(peer.home / "store"), peer.home / "out", repo="a")
    assert report.exit_code == 0 and report.findings == []
    found = blobs(peer.home / "store" / "a")
    layers = made.blobs[1:] if form != "legacy" else map(gzip.decompress, made.blobs[1:])
    assert set(found.values()) >= {made.blobs[0], *layers}


def test_all_platforms(peer: Peer) -> None:
    index, children = multi_arch(peer.home / "source", "1.0", "crane")
    # crane takes the one row of a layout for the image, also if it is an index.
    crane(peer, "push", "--index", "source", f"{peer.repository}:wrapped")
    crane(peer, "copy", f"{peer.repository}@{digest_of(index)}", f"{peer.repository}:1.0")
    crane(peer, "copy", f"{peer.repository}:1.0", f"{peer.repository}/again:2.0")
    assert peer.manifest("2.0", f"{peer.name}/again") == index
    for child in children:
        assert_same(peer, child, str(child.digest), f"{peer.name}/again")
        crane(peer, "validate", "--remote", f"{peer.repository}/again@{child.digest}")
    crane(peer, "pull", "--format", "oci", f"{peer.repository}/again:2.0", "back")
    assert_holds(peer.home / "back", *children)
    assert blobs(peer.home / "back")[str(digest_of(index))] == index
    one = peer.run("crane", "manifest", "--platform", "linux/arm64", f"{peer.repository}:1.0")
    assert one.encode() == children[1].manifest


def test_lists_and_tags(peer: Peer) -> None:
    made = images.image("tags")
    peer.push(made, "b")
    crane(peer, "tag", f"{peer.repository}:b", "a")
    assert crane(peer, "ls", peer.repository).split() == ["a", "b"]
    assert peer.name in crane(peer, "catalog", peer.host).split()


def test_delete(peer: Peer) -> None:
    kept, gone = images.image("kept"), images.image("gone")
    peer.push(kept, "kept", "other")
    peer.push(gone, "gone")
    crane(peer, "delete", f"{peer.repository}:other")
    assert crane(peer, "ls", peer.repository).split() == ["gone", "kept"]
    crane(peer, "delete", f"{peer.repository}@{gone.digest}")
    assert peer.tags() == ["kept"]
    assert not peer.has(str(gone.digest))
    assert_same(peer, kept, "kept")


def test_a_copy_between_repositories_mounts(peer: Peer) -> None:
    made = images.image("mounts", layers=3)
    peer.push(made, "1.0")
    crane(peer, "copy", f"{peer.repository}:1.0", f"{peer.repository}/other:1.0")
    assert_same(peer, made, "1.0", f"{peer.name}/other")
    peer.mounted(f"{peer.name}/other", 3)


def test_all_tags_of_a_repository(peer: Peer) -> None:
    made = {f"v{number}": images.image(f"all {number}") for number in range(5)}
    for tag, image in made.items():
        peer.push(image, tag)
    crane(peer, "copy", "--all-tags", peer.repository, f"{peer.repository}/all")
    assert peer.tags(f"{peer.name}/all") == sorted(made)
    for tag, image in made.items():
        assert_same(peer, image, tag, f"{peer.name}/all")


def test_images_made_in_the_registry(peer: Peer) -> None:
    """append, mutate, flatten, rebase, index: reads and writes of one image."""
    made = images.image("base")
    peer.push(made, "base")
    (peer.home / "more.tar").write_bytes(images.gzip.decompress(images.layer("more")[0]))
    at = peer.repository
    crane(peer, "append", "--base", f"{at}:base", "--new_layer", "more.tar", "--new_tag", f"{at}:more")
    crane(peer, "mutate", "--label", "a=b", "--tag", f"{at}:labelled", f"{at}:more")
    crane(peer, "flatten", "--tag", f"{at}:flat", f"{at}:more")
    crane(peer, "index", "append", "--manifest", f"{at}:base", "--manifest", f"{at}:more", "--tag", f"{at}:index")
    for tag in ("more", "labelled", "flat", "index"):
        crane(peer, "validate", "--remote", f"{at}:{tag}")
    assert len(json.loads(peer.manifest("more"))["layers"]) == 3
    assert json.loads(peer.manifest("index"))["mediaType"] == OCI_INDEX


def test_one_blob(peer: Peer) -> None:
    made = images.image("blobs")
    peer.push(made, "1.0")
    digest = digest_of(made.blobs[0])
    assert peer.run("crane", "blob", f"{peer.repository}@{digest}").encode() == made.blobs[0]


def test_its_layout_is_served(peer: Peer) -> None:
    index, children = multi_arch(peer.home / "source", "1.0", "layout")
    crane(peer, "push", "--index", "source", f"{peer.repository}:wrapped")
    crane(peer, "copy", f"{peer.repository}@{digest_of(index)}", f"{peer.repository}:1.0")
    one = images.image("single")
    peer.push(one, "single")
    crane(peer, "pull", "--format", "oci", f"{peer.repository}:1.0", "made")
    crane(peer, "pull", "--format", "oci", "--annotate-ref", f"{peer.repository}:single", "made")
    name = peer.beside(peer.home / "made", "by-crane")
    # --annotate-ref writes the whole name; its tag answers.
    assert peer.tags(name) == ["single"]
    assert_same(peer, one, "single", name)
    assert peer.manifest(str(digest_of(index)), name) == index
    for child in children:
        assert_same(peer, child, str(child.digest), name)
    crane(peer, "validate", "--remote", f"{peer.host}/{name}:single")


def test_it_reads_our_directory(peer: Peer) -> None:
    made = images.image("ours")
    peer.push(made, "1.0")
    crane(peer, "push", str(peer.directory), f"{peer.repository}/from-directory:1.0")
    assert_same(peer, made, "1.0", f"{peer.name}/from-directory")
