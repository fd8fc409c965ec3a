"""import-layout from directories: names, what comes along, what stays, what is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import FailOn
from tests.images import Image, descriptor, image, index, lay_out, row
from tests.jobs.importing import (
    actions,
    blob_file,
    index_bytes,
    kinds,
    left_behind,
    local_store,
    put_blob,
    rows_of,
    run_import,
    write_layout,
)
from tests.stores import manifest_body, push_image, store_over
from zotctl.errors import IoFailed
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import repository_of
from zotctl.jobs.report import Sink
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys, opening
from zotctl.storage.local.driver import LocalDriver

FULL = "docker.io/library/busybox:1.36"
CONTAINERD = "io.containerd.image.name"
REF = "org.opencontainers.image.ref.name"


def pulls(store: Store, name: str, made: Image, reference: str) -> bool:
    """Everything of an image is there, byte for byte."""
    repository = store.repository(name)
    for body in made.blobs:
        with repository.open_blob(digest_of(body)) as reader:
            assert reader.read_at(0, reader.size) == body
    return repository.manifest(reference).body == made.manifest


def crafted(blobs: list[bytes], **fields: Any) -> Image:
    return Image(json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **fields}).encode(), blobs)


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "repository", "tag"),
    [
        ({REF: FULL}, "library/busybox", "1.36"),  # skopeo, podman, crane --annotate-ref
        ({REF: "1.36"}, "source", "1.36"),  # umoci, regctl, zot: the bare tag
        ({REF: "1.36", CONTAINERD: FULL}, "library/busybox", "1.36"),  # buildkit, docker save
        ({CONTAINERD: FULL}, "library/busybox", "1.36"),
        ({REF: "localhost:5000/team/app:v1"}, "team/app", "v1"),
        ({REF: "team/app:v1"}, "team/app", "v1"),
        ({REF: "app:v1"}, "app", "v1"),
        (None, "source", None),  # crane
    ],
)
def test_names_are_read_by_the_reading_rule(
    store: Store, made: Image, tmp_path: Path, annotations: dict[str, str] | None, repository: str, tag: str | None
) -> None:
    fields: dict[str, Any] = {"annotations": annotations} if annotations else {}
    report = run_import(store, lay_out(tmp_path / "source", made, [row(made, **fields)]))
    assert report.exit_code == 0, report.errors
    assert store.repositories() == [repository]
    assert store.repository(repository).tags() == ([tag] if tag else [])
    assert pulls(store, repository, made, tag or made.digest)


@pytest.mark.parametrize(
    "name", ["docker.io/library/busybox", "not a name!", f"app@sha256:{'a' * 64}", "", "a/b:-x", "x:" + "y" * 129]
)
def test_a_rejected_name_is_named_and_its_image_comes_without_one(
    store: Store, made: Image, tmp_path: Path, name: str
) -> None:
    report = run_import(store, lay_out(tmp_path / "source", made, [row(made, name)]), repo="a")
    assert kinds(report) == ["bad_ref_name"] and "is no tag" in report.findings[0].reason
    assert report.findings[0].digest == made.digest and report.exit_code == 0
    assert store.repository("a").tags() == [] and pulls(store, "a", made, made.digest)
    assert rows_of(store, "a")[0].get("annotations") is None


def test_a_full_name_whose_tag_is_not_unique_is_rejected(store: Store, tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    rows = [row(one, "docker.io/a/x:v1"), row(two, "quay.io/a/x:v1")]
    report = run_import(store, write_layout(tmp_path / "source", one, two, rows=rows))
    assert kinds(report) == ["bad_ref_name", "bad_ref_name"] and "not unique" in report.findings[0].reason
    assert store.repository("a/x").tags() == [] and len(rows_of(store, "a/x")) == 2


def test_of_two_rows_with_one_tag_the_last_wins(store: Store, tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    source = write_layout(tmp_path / "source", one, two, rows=[row(one, "v1"), row(two, "v1")])
    report = run_import(store, source)
    assert kinds(report) == ["duplicate_tag"]
    assert manifest_body(store, "source", "v1") == two.manifest and pulls(store, "source", one, one.digest)


def test_two_full_names_of_one_image_with_one_tag_are_one_row(store: Store, made: Image, tmp_path: Path) -> None:
    rows = [row(made, FULL), row(made, "quay.io/library/busybox:1.36")]
    assert run_import(store, lay_out(tmp_path / "source", made, rows)).findings == []
    assert len(rows_of(store, "library/busybox")) == 1


def test_full_names_of_several_repositories_go_their_own_ways(store: Store, tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    signature = image("sig", subject=two.digest)
    rows = [row(one, "docker.io/a/x:v1"), row(two, "docker.io/a/y:v1"), row(signature)]
    source = write_layout(tmp_path / "source", one, two, signature, rows=rows)
    assert run_import(store, source).exit_code == 0
    assert store.repositories() == ["a/x", "a/y"]
    assert [d.digest for d in store.repository("a/y").referrers(two.digest)] == [signature.digest]
    assert signature.digest not in store.repository("a/x").index()


def test_several_repositories_into_one_take_a_word_more(store: Store, tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    rows = [row(one, "docker.io/a/x:v1"), row(two, "docker.io/a/y:v2")]
    source = write_layout(tmp_path / "source", one, two, rows=rows)
    refused = run_import(store, source, repo="mine")
    assert refused.exit_code == 2 and "--all" in refused.errors[0]["reason"] and store.repositories() == []
    assert run_import(store, source, repo="mine", all=True).exit_code == 0
    assert store.repository("mine").tags() == ["v1", "v2"]


def test_nothing_proposes_a_name(store: Store, made: Image, tmp_path: Path) -> None:
    report = run_import(store, lay_out(tmp_path / "Not A Name", made))
    assert report.exit_code == 2 and "--repo" in report.errors[0]["reason"]


@pytest.mark.parametrize("options", [{"repo": "Bad Name"}, {"tag": "bad tag"}, {"tag": "v1", "all": True}])
def test_options_that_make_no_sense_are_refused(
    store: Store, made: Image, tmp_path: Path, options: dict[str, Any]
) -> None:
    assert run_import(store, lay_out(tmp_path / "source", made), **options).exit_code in (1, 2)
    assert left_behind(store) == []


@pytest.mark.parametrize(
    ("name", "repository"),
    [(FULL, "library/busybox"), ("busybox", None), ("HOST.io/Upper:1", None), ("h:5000/a@sha256:00", "a")],
)
def test_what_a_full_name_proposes(name: str | None, repository: str | None) -> None:
    assert repository_of(name) == repository


def test_tag_names_the_only_image(store: Store, made: Image, tmp_path: Path) -> None:
    child = image("sig", subject=made.digest)
    source = write_layout(tmp_path / "source", made, child, rows=[row(made, "not a name"), row(child)])
    run_import(store, source, repo="a", tag="v9")
    assert store.repository("a").tags() == ["v9"] and len(store.repository("a").referrers(made.digest)) == 1


def test_tag_takes_one_of_several_and_what_is_about_it(store: Store, tmp_path: Path) -> None:
    one, two = image("1"), image("2")
    signature, fallback = image("sig", subject=one.digest), image("cosign")
    cosign = f"sha256-{one.digest.encoded}.sig"
    rows = [row(one, "v1"), row(two, "v2"), row(signature), row(fallback, cosign)]
    source = write_layout(tmp_path / "source", one, two, signature, fallback, rows=rows)
    run_import(store, source, tag="v1")
    assert store.repository("source").tags() == [cosign, "v1"]
    found = store.repository("source").index()
    assert two.digest not in found and signature.digest in found
    report = run_import(store, source, tag="v7")
    assert report.exit_code == 2 and "v1, v2" in report.errors[0]["reason"]


# -- what comes along ---------------------------------------------------------------------------


def test_multi_arch_nested_indexes_and_unlisted_children(store: Store, tmp_path: Path) -> None:
    one, two = image("amd64"), image("arm64")
    source = write_layout(tmp_path / "source", one, two, rows=[])
    inner = index([(one.digest, len(one.manifest)), (two.digest, len(two.manifest))])
    put_blob(source, inner)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(inner, OCI_INDEX)]}
    outer = json.dumps(document).encode()
    top = put_blob(source, outer) | {"annotations": {REF: "v1"}}
    (source / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    assert run_import(store, source).exit_code == 0
    assert manifest_body(store, "source", "v1") == outer
    assert pulls(store, "source", one, one.digest) and pulls(store, "source", two, two.digest)
    digests = [found["digest"] for found in rows_of(store, "source")]
    assert digests[0] == digest_of(outer)
    assert set(digests) == {digest_of(outer), digest_of(inner), one.digest, two.digest}


def test_referrers_and_artifacts_come_along(store: Store, made: Image, tmp_path: Path) -> None:
    empty = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    subject = descriptor(made.manifest, OCI_MANIFEST)
    artifact = crafted([b"{}"], artifactType="application/spdx+json", config=empty, layers=[empty], subject=subject)
    source = write_layout(tmp_path / "source", made, artifact, rows=[row(made, "v1"), row(artifact)])
    run_import(store, source)
    assert [d.artifact_type for d in store.repository("source").referrers(made.digest)] == ["application/spdx+json"]


def test_i9_unknown_fields_annotations_and_the_order_of_rows_stay(store: Store, tmp_path: Path) -> None:
    made = [image(str(number)) for number in range(4)]
    rows = [
        row(made[2], "v2", platform={"os": "linux", "architecture": "riscv64"}, **{"x.unknown": [1, {"a": None}]}),
        row(made[0], annotations={"z.note": "é", REF: FULL, "a.note": "2"}),
        row(made[3], annotations={"only": "this"}),
        row(made[1], "v1"),
    ]
    source = write_layout(tmp_path / "source", *made, rows=rows)
    assert run_import(store, source, repo="a").findings == []
    found = rows_of(store, "a")
    rows[1]["annotations"][REF] = "1.36"  # type: ignore[index]
    assert found == rows
    assert [list(one) for one in found] == [list(one) for one in rows]


def test_olareg_root_rows_stay_as_they_are(store: Store, made: Image, tmp_path: Path) -> None:
    root = tmp_path / "olareg"
    signature = image("sig", subject=made.digest)
    source = write_layout(root / "app", made, signature, rows=[])
    response = index([(signature.digest, len(signature.manifest))])
    about = put_blob(source, response) | {"annotations": {"org.olareg.referrer.subject": str(made.digest)}}
    document = {
        "schemaVersion": 2,
        "manifests": [row(made, "v1"), about],
        "annotations": {"org.olareg.referrer.convert": "true"},
    }
    (source / "index.json").write_text(json.dumps(document))
    (source / "_uploads").mkdir()
    (source / "_uploads" / "upload.123").write_bytes(b"half")
    assert run_import(store, root).exit_code == 0
    assert rows_of(store, "app")[:2] == [row(made, "v1"), about]
    assert json.loads(index_bytes(store, "app"))["annotations"] == {"org.olareg.referrer.convert": "true"}
    assert [d.digest for d in store.repository("app").referrers(made.digest)] == [signature.digest]
    assert json.loads((source / "index.json").read_bytes()) == document


def test_a_tree_of_layouts_by_their_paths(store: Store, tmp_path: Path) -> None:
    for name in ("a", "a/b", "team/app"):
        lay_out(tmp_path / "tree" / name, image(name), [row(image(name), f"docker.io/other/{name}:v1")])
    assert run_import(store, tmp_path / "tree").exit_code == 0
    assert store.repositories() == ["a", "a/b", "team/app"]
    assert all(store.repository(name).tags() == ["v1"] for name in store.repositories())
    assert run_import(store, tmp_path / "tree", repo="mirror").exit_code == 2
    assert run_import(store, tmp_path / "tree", repo="mirror", all=True).exit_code == 0
    assert "mirror/team/app" in store.repositories()


def test_one_layout_in_a_tree_gets_the_name_that_is_given(store: Store, made: Image, tmp_path: Path) -> None:
    lay_out(tmp_path / "tree" / "Deep" / "down", made, [row(made, "v1")])
    (tmp_path / "tree" / "circle").symlink_to("..")
    assert run_import(store, tmp_path / "tree", repo="app").exit_code == 0 and pulls(store, "app", made, "v1")


def test_in_a_tree_the_rest_goes_on(store: Store, made: Image, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    lay_out(tree / "Bad Name", made)
    lay_out(tree / "good", made, [row(made, "v1")])
    (lay_out(tree / "cut", made) / "index.json").write_text('{"schemaVersion": 2, "manif')
    os.utime(tree / "cut" / "index.json", (1, 1))
    (lay_out(tree / "old", made) / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    report = run_import(store, tree)
    assert store.repositories() == ["good"] and report.exit_code == 5
    assert kinds(report) == ["bad_name"] and "Bad Name" in report.findings[0].reason
    assert sorted(error["repository"] for error in report.errors) == ["cut", "old"]


def test_a_root_of_zot_with_its_private_things(store: Store, made: Image, tmp_path: Path) -> None:
    root = tmp_path / "zot"
    source = lay_out(root / "app", made, [row(made, "v1")])
    for private in (source / ".uploads" / "1", source / ".sync" / "2", root / "_trivy" / "db", root / ".x" / "y"):
        private.parent.mkdir(parents=True, exist_ok=True)
        private.write_bytes(b"half")
    lay_out(root / "_trivy" / "layout", made)
    (root / "cache.db").write_bytes(b"bolt")
    assert run_import(store, root).exit_code == 0
    assert store.repositories() == ["app"]
    kept = sorted(path.name for path in Path(store.roots[0].label, "app").iterdir())
    assert kept == ["blobs", "index.json", "oci-layout"]


def test_another_store_of_ours_while_it_is_served(store: Store, tmp_path: Path) -> None:
    other = local_store(tmp_path / "other")
    push_image(other, "team/app", "v1", "v2")
    assert run_import(store, tmp_path / "other").exit_code == 0
    assert store.repositories() == ["team/app"] and store.repository("team/app").tags() == ["v1", "v2"]
    assert index_bytes(store, "team/app") != b"" and rows_of(store, "team/app") == rows_of(other, "team/app")


def test_a_store_is_not_imported_into_itself(store: Store) -> None:
    push_image(store, "a", "v1")
    for source in (store.roots[0].label, os.path.dirname(store.roots[0].label)):
        assert run_import(store, source).exit_code == 2


def test_a_running_server_shows_it_at_once(store: Store, made: Image, tmp_path: Path) -> None:
    server = store_over(LocalDriver(store.roots[0].label))
    push_image(server, "source", "before")
    run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")]))
    assert server.repository("source").tags() == ["before", "v1"] and pulls(server, "source", made, "v1")


# -- again, and tags that are there --------------------------------------------------------------


def test_importing_twice_changes_nothing(store: Store, made: Image, tmp_path: Path) -> None:
    signature = image("sig", subject=made.digest)
    rows = [row(made, FULL), row(made, "not a name"), row(signature, annotations={"a": "b"}), row(made, "v2")]
    source = write_layout(tmp_path / "source", made, signature, rows=rows)
    run_import(store, source)
    before, stamp = index_bytes(store, "library/busybox"), _stamps(store)
    report = run_import(store, source)
    assert index_bytes(store, "library/busybox") == before and _stamps(store) == stamp
    assert report.summary.get("copied_bytes", 0) == 0 and not actions(report, "import")
    assert len(actions(report, "unchanged")) == 4


def _stamps(store: Store) -> dict[str, tuple[int, int]]:
    files = [path for path in Path(store.roots[0].label, "library").rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_tag_that_is_there_is_kept_and_reported(store: Store, made: Image, tmp_path: Path) -> None:
    old = push_image(store, "source", "v1", seed="old")
    source = lay_out(tmp_path / "source", made, [row(made, "v1"), row(made, "v2")])
    report = run_import(store, source)
    assert store.repository("source").manifest("v1").digest == old
    assert store.repository("source").manifest("v2").digest == made.digest
    (kept,) = actions(report, "keep")
    assert (kept["tag"], kept["digest"], kept["source_digest"]) == ("v1", old, made.digest)


def test_overwrite_moves_a_tag_and_keeps_what_it_named(store: Store, made: Image, tmp_path: Path) -> None:
    old = push_image(store, "source", "v1", seed="old")
    run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")]), overwrite=True)
    assert store.repository("source").manifest("v1").digest == made.digest
    assert store.repository("source").manifest(old).digest == old


def test_a_push_between_copy_and_commit_keeps_its_tag(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, pushed = store.roots[0], []
    commit = root.committer.commit

    def later(name: str, change: Any) -> None:
        monkeypatch.setattr(root.committer, "commit", commit)
        pushed.append(push_image(store, name, "v1", seed="pushed"))
        commit(name, change)

    monkeypatch.setattr(root.committer, "commit", later)
    report = run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1"), row(made, "v2")]))
    assert store.repository("source").manifest("v1").digest == pushed[0]
    assert store.repository("source").manifest("v2").digest == made.digest and len(actions(report, "keep")) == 1


def test_what_vanishes_before_the_commit_is_copied_again(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store.roots[0]
    commit = root.committer.commit

    def later(name: str, change: Any) -> None:
        monkeypatch.setattr(root.committer, "commit", commit)
        root.driver.unlink(keys.blob(name, digest_of(made.blobs[1])))
        commit(name, change)

    monkeypatch.setattr(root.committer, "commit", later)
    assert run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")])).exit_code == 0
    assert pulls(store, "source", made, "v1")


def test_a_plain_row_without_a_name_gets_the_tag_in_its_place(store: Store, made: Image, tmp_path: Path) -> None:
    run_import(store, lay_out(tmp_path / "source", made, [row(made)]))
    run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1", x="y")]))
    assert rows_of(store, "source") == [row(made, "v1", x="y")]


# -- damaged and incomplete ----------------------------------------------------------------------


def test_complete_images_come_and_incomplete_ones_are_named(store: Store, made: Image, tmp_path: Path) -> None:
    broken = image("broken")
    rows = [row(made, "good"), row(broken, "v1"), row(broken, "v2")]
    source = write_layout(tmp_path / "source", made, broken, rows=rows)
    blob_file(source, broken.blobs[1]).unlink()
    report = run_import(store, source)
    assert store.repository("source").tags() == ["good"] and pulls(store, "source", made, "good")
    (finding,) = report.findings
    assert (finding.kind, finding.digest, finding.tags) == ("missing_blob", digest_of(broken.blobs[1]), ("v1", "v2"))
    assert report.exit_code == 4


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(b"short", "size_mismatch"), (None, "digest_mismatch"), (b"", "size_mismatch")],
)
def test_i2_damaged_content_is_never_taken(
    store: Store, made: Image, tmp_path: Path, damage: bytes | None, kind: str
) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    path = blob_file(source, made.blobs[1])
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]) if damage is None else damage)
    report = run_import(store, source)
    assert kinds(report) == [kind] and report.findings[0].tags == ("v1",)
    assert str(source) in report.findings[0].reason and "send it again" not in report.findings[0].reason
    assert not Path(store.roots[0].label, keys.blob("source", digest_of(made.blobs[1]))).exists()
    assert "source" not in store.repositories() or store.repository("source").tags() == []


def test_a_damaged_or_missing_manifest(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    blob_file(source, made.manifest).write_bytes(made.manifest.replace(b"sha256", b"sha257", 1))
    assert kinds(run_import(store, source)) == ["digest_mismatch"]
    blob_file(source, made.manifest).unlink()
    assert kinds(run_import(store, source)) == ["missing_manifest"]
    assert store.repositories() == []


def test_rows_that_can_not_be_read(store: Store, made: Image, tmp_path: Path) -> None:
    other = image("other")
    rows = [row(made, "v1"), {"digest": "sha256:no", "size": 1}, row(other, "v2", mediaType="text/plain")]
    report = run_import(store, write_layout(tmp_path / "source", made, other, rows=rows))
    assert sorted(kinds(report)) == ["invalid_index", "unknown_media_type"]
    assert store.repository("source").tags() == ["v1"]


def test_what_the_source_lacks_may_be_here_already(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    run_import(store, source)
    new = image("busybox", annotations={"x": "y"})
    thin = lay_out(tmp_path / "thin", new, [row(new, "v2")])
    blob_file(thin, made.blobs[1]).unlink()
    assert run_import(store, thin, repo="source").exit_code == 0
    assert pulls(store, "source", new, "v2")


def test_layers_that_must_not_be_distributed_may_be_missing(store: Store, tmp_path: Path) -> None:
    config = b'{"os":"windows"}'
    foreign = descriptor(b"far away", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    made = crafted([config], config=descriptor(config, "application/vnd.oci.image.config.v1+json"), layers=[foreign])
    assert run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")])).exit_code == 0
    assert pulls(store, "source", made, "v1")


@pytest.mark.parametrize("what", ["blob", "folder", "blobs", "index.json", "oci-layout"])
def test_i14_a_symbolic_link_in_a_layout_is_never_moved(store: Store, made: Image, tmp_path: Path, what: str) -> None:
    """Without --move it is followed (`test_import_links`)."""
    source, outside = lay_out(tmp_path / "source", made, [row(made, "v1")]), tmp_path / "outside"
    path = {"blob": blob_file(source, made.blobs[1]), "folder": source / "blobs" / "sha256"}.get(what, source / what)
    path.rename(outside)
    path.symlink_to(outside)
    report = run_import(store, source, move=True)
    assert report.exit_code in (1, 4) and store.repositories() in ([], ["source"]) and outside.exists()
    assert "link" in (report.errors[0]["reason"] if report.errors else report.findings[0].reason) or what == "blobs"
    assert left_behind(store) == [] or what in ("blob", "folder")


@pytest.mark.parametrize(
    ("content", "reason"),
    [('{"imageLayoutVersion": "1.1.0"}', "1.1.0"), ("[]", "oci-layout"), (None, "oci-layout is missing")],
)
def test_a_wrong_layout_version_is_refused(
    store: Store, made: Image, tmp_path: Path, content: str | None, reason: str
) -> None:
    source = lay_out(tmp_path / "source", made)
    (source / "oci-layout").unlink() if content is None else (source / "oci-layout").write_text(content)
    report = run_import(store, source)
    assert report.exit_code == 1 and reason in report.errors[0]["reason"] and left_behind(store) == []


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_nothing_to_import(store: Store, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    report = run_import(store, tmp_path / source)
    assert (report.exit_code, report.errors[0]["error"]) == (10, "NoSuchStore")
    assert str(tmp_path / source) in report.errors[0]["reason"]


@pytest.mark.parametrize("closed", ["directory", "file"])
def test_a_source_that_may_not_be_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """As it is for users other than root."""

    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    (tmp_path / "a.tar").touch()
    names = {"directory": ("os", SimpleNamespace(stat=refuse)), "file": ("FileIO", refuse)}
    monkeypatch.setattr(opening, *names[closed])
    report = run_import(store, tmp_path / "a.tar")
    assert (report.exit_code, report.errors[0]["error"]) == (12, "PermissionRefused")
    assert f"{tmp_path}/a.tar: Permission denied" in report.errors[0]["reason"]


# -- link, move, dry run -------------------------------------------------------------------------


def test_link_takes_the_inode_after_hashing_it(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    report = run_import(store, source, link=True)
    for body in made.blobs:
        here = Path(store.roots[0].label, keys.blob("source", digest_of(body)))
        assert here.stat().st_ino == blob_file(source, body).stat().st_ino
    assert report.summary["linked_bytes"] == sum(map(len, made.blobs)) and pulls(store, "source", made, "v1")
    assert not list(Path(store.roots[0].label, keys.TMP).iterdir())


def test_link_refuses_what_hashes_wrong(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    path = blob_file(source, made.blobs[1])
    path.write_bytes(bytes(len(made.blobs[1])))
    assert kinds(run_import(store, source, link=True)) == ["digest_mismatch"]
    assert not Path(store.roots[0].label, keys.blob("source", digest_of(made.blobs[1]))).exists()


def test_link_copies_where_it_can_not_link(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("zotctl.jobs.imports.repository.os.link", refuse)
    report = run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")]), link=True)
    assert "cross-device" in actions(report, "note")[0]["reason"] and len(actions(report, "note")) == 1
    assert pulls(store, "source", made, "v1")


@pytest.mark.parametrize("name", ["blobs", "blobs/app", "index.json", "oci-layout/app"])
def test_names_that_may_come_first_are_found_in_a_tree(store: Store, made: Image, tmp_path: Path, name: str) -> None:
    """They are names of repositories like any others, where no layout is above them."""
    lay_out(tmp_path / "tree" / name, made, [row(made, "v1")])
    lay_out(tmp_path / "tree" / "other", made, [row(made, "v1")])
    report = run_import(store, tmp_path / "tree")
    assert report.exit_code == 0 and store.repositories() == sorted([name, "other"])
    assert pulls(store, name, made, "v1")


def test_a_layout_that_is_left_out_of_a_tree_is_no_success(store: Store, made: Image, tmp_path: Path) -> None:
    """A server shows a repository that is a link; a copy of the store without it is none of all."""
    lay_out(tmp_path / "elsewhere", made, [row(made, "v1")])
    lay_out(tmp_path / "tree" / "good", made, [row(made, "v1")])
    (tmp_path / "tree" / "team").mkdir()
    (tmp_path / "tree" / "team" / "linked").symlink_to(tmp_path / "elsewhere")
    report = run_import(store, tmp_path / "tree")
    assert report.exit_code == 5 and store.repositories() == ["good"]
    (error,) = report.errors
    assert error["repository"] == "team/linked" and "symbolic link" in error["reason"]
    (tmp_path / "tree" / "team" / "linked").unlink()
    lay_out(tmp_path / "tree" / "Bad", made, [row(made, "v1")])
    report = run_import(store, tmp_path / "tree")
    assert (report.exit_code, kinds(report)) == (5, ["bad_name"])


def test_move_removes_what_we_know_and_nothing_else(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    (source / "README").write_text("mine")
    run_import(store, source, move=True)
    assert pulls(store, "source", made, "v1")
    assert [path.name for path in source.rglob("*")] == ["README"]
    source = lay_out(tmp_path / "again", made, [row(made, "v1")])
    run_import(store, source, move=True)
    assert not source.exists()


def test_move_leaves_what_is_not_whole(store: Store, made: Image, tmp_path: Path) -> None:
    broken = image("broken")
    source = write_layout(tmp_path / "source", made, broken, rows=[row(made, "v1"), row(broken, "v2")])
    blob_file(source, broken.blobs[1]).unlink()
    before = sorted(source.rglob("*"))
    report = run_import(store, source, move=True)
    assert sorted(source.rglob("*")) == before and len(actions(report, "stay")) == 1


@pytest.mark.parametrize("names", [["not a name!"], ["x.io/p/q:v1", "y.io/p/r:v1"], ["v1", "v1"]], ids=str)
def test_move_leaves_a_source_whose_names_did_not_come(store: Store, tmp_path: Path, names: list[str]) -> None:
    """An image without its name goes with the next collection of all that is untagged."""
    made = [image(str(number)) for number, _ in enumerate(names)]
    rows = [row(one, name) for one, name in zip(made, names, strict=True)]
    source = write_layout(tmp_path / "source", *made, rows=rows)
    before = sorted(source.rglob("*"))
    report = run_import(store, source, repo="a", all=True, move=True)
    (stay,) = actions(report, "stay")
    assert sorted(source.rglob("*")) == before and "without the name" in stay["reason"]
    assert all(pulls(store, "a", one, one.digest) for one in made)


def test_move_takes_one_image_with_a_tag_twice(store: Store, made: Image, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", made, rows=[row(made, "v1"), row(made, "v1")])
    run_import(store, source, move=True)
    assert not source.exists() and pulls(store, "source", made, "v1")


def test_move_leaves_what_an_index_says_and_no_repository_took(store: Store, made: Image, tmp_path: Path) -> None:
    """What stands there of the whole has a place in a new repository only."""
    source = lay_out(tmp_path / "source", made, [row(made, "v1")], annotations={"who": "ours"})
    push_image(store, "a", "other")
    report = run_import(store, source, repo="a", move=True)
    assert "beside its rows" in actions(report, "stay")[0]["reason"] and (source / "index.json").exists()
    run_import(store, source, repo="b", move=True)
    assert not source.exists() and json.loads(index_bytes(store, "b"))["annotations"] == {"who": "ours"}


def noted(made: Image, tag: str, **annotations: str) -> dict[str, Any]:
    said: dict[str, Any] = row(made, tag)
    return said | {"annotations": {**annotations, **said["annotations"]}}


@pytest.mark.parametrize("first", [True, False])
def test_move_leaves_what_a_row_says_and_none_here_does(store: Store, made: Image, tmp_path: Path, first: bool) -> None:
    """Of two rows with one tag the last one wins, and a row that is here already stays as it is."""
    rows = [noted(made, "v1", who="theirs"), noted(made, "v1", who="ours")]
    if first:
        run_import(store, lay_out(tmp_path / "first", made, rows[1:]), repo="a")
    source = lay_out(tmp_path / "source", made, rows[:1] if first else rows)
    report = run_import(store, source, repo="a", move=True)
    assert "what a row of its index.json says" in actions(report, "stay")[0]["reason"]
    assert (source / "index.json").exists() and report.exit_code == 0


def test_move_takes_what_rows_say_in_any_order(store: Store, made: Image, tmp_path: Path) -> None:
    said = noted(made, "v1", who="theirs", why="nobody knows") | {"platform": {"os": "linux", "architecture": "arm"}}
    run_import(store, lay_out(tmp_path / "first", made, [said]), repo="a")
    turned = {name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in said.items()}
    source = lay_out(tmp_path / "source", made, [dict(reversed(turned.items()))])
    run_import(store, source, repo="a", move=True)
    assert not source.exists()


def test_move_leaves_references_that_stand_beside_the_rows(store: Store, made: Image, tmp_path: Path) -> None:
    other = image("other")
    beside = json.loads(other.manifest)["layers"]
    source = write_layout(tmp_path / "source", made, other, rows=[row(made, "v1")], layers=beside)
    report = run_import(store, source, move=True)
    assert kinds(report) == ["invalid_index"] and report.exit_code == 4
    assert blob_file(source, other.blobs[1]).exists() and (source / "index.json").exists()
    assert "layers" not in json.loads(index_bytes(store, "source"))


def test_move_hashes_what_was_here_before_the_other_copy_goes(store: Store, made: Image, tmp_path: Path) -> None:
    run_import(store, lay_out(tmp_path / "first", made, [row(made, "v1")]), repo="a")
    here = Path(store.roots[0].label, keys.blob("a", digest_of(made.blobs[1])))
    here.write_bytes(bytes(len(made.blobs[1])))
    run_import(store, lay_out(tmp_path / "second", made, [row(made, "v1")]), repo="a", move=True)
    assert here.read_bytes() == made.blobs[1] and not (tmp_path / "second").exists()


def test_a_move_that_was_cut_goes_on(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])

    class Cut(Exception):
        pass

    def die(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr("zotctl.jobs.imports.moving._discard", die)
        run_import(store, source, move=True)
    assert not (source / "index.json").exists() and source.exists()
    blob_file(source, made.blobs[0]).unlink()
    blob_file(source, made.manifest).unlink()
    assert run_import(store, source, move=True).exit_code == 0
    assert not source.exists() and pulls(store, "source", made, "v1")


@pytest.mark.parametrize(("repo", "by_number"), [("a", True), ("b", True), ("a", False)])
def test_move_of_a_repository_by_another_path_removes_nothing(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str, by_number: bool
) -> None:
    """As a bind mount of it is: nothing above it says that it belongs to the store."""
    run_import(store, lay_out(tmp_path / "first", made, [row(made, "v1")]), repo="a")
    monkeypatch.setattr("zotctl.jobs.imports.moving.store_above", lambda directory: None)
    if not by_number:  # as on a file system that gives one directory two numbers
        monkeypatch.setattr("zotctl.jobs.imports.job.refuse_served", lambda store, layout: None)
    report = run_import(store, Path(store.roots[0].label, "a"), repo=repo, move=True)
    assert report.exit_code == 2 and "by another path" in report.errors[0]["reason"]
    assert pulls(store, "a", made, "v1") and store.repositories() == ["a"]


def test_move_takes_no_archive_and_no_store(store: Store, tmp_path: Path) -> None:
    other = local_store(tmp_path / "other")
    push_image(other, "app", "v1")
    (tmp_path / "a.tar").write_bytes(b"")
    for source in (tmp_path / "other", tmp_path / "other" / "app", tmp_path / "a.tar"):
        assert run_import(store, source, move=True).exit_code == 2
    assert other.repository("app").tags() == ["v1"]


def test_a_dry_run_names_what_would_come_and_changes_nothing(store: Store, made: Image, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    before = sorted(map(str, Path(store.roots[0].label).rglob("*")))
    report = run_import(store, source, dry_run=True, move=True)
    (item,) = actions(report, "import")
    size = len(made.manifest) + sum(map(len, made.blobs))
    assert (item["tag"], item["digest"], item["size_bytes"]) == ("v1", made.digest, size)
    assert report.summary["copied_bytes"] == size and report.dry_run
    assert sorted(map(str, Path(store.roots[0].label).rglob("*"))) == before and source.exists()


def test_imported_tags_are_noted_and_rows_without_one_stay_unknown(store: Store, made: Image, tmp_path: Path) -> None:
    other = image("other")
    source = write_layout(tmp_path / "source", made, other, rows=[row(made, "v1"), row(other)])
    run_import(store, source)
    past = store.roots[0].history.timeline("source")
    assert past.here == {made.digest} and set(past.tagged) == {"v1"}


def test_an_imported_tag_is_in_the_history_before_anybody_can_see_it(made: Image, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    inner = LocalDriver(str(tmp_path / "store"))
    store = store_over(FailOn(inner, "exchange", 1, IoFailed("no"), lambda key: ".index.json" in key))
    source = lay_out(tmp_path / "source", made, [row(made, "v1")])
    assert run_import(store, source).exit_code == 14
    assert set(store.roots[0].history.timeline("source").tagged) == {"v1"}
    assert rows_of(store, "source") == []
    assert run_import(store, source).exit_code == 0
    assert store.repository("source").tags() == ["v1"]


def test_progress_ends_with_all_bytes(store: Store, tmp_path: Path, made: Image) -> None:
    told: list[tuple[int, int | None]] = []

    class Told(Sink):
        def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
            told.append((done, total))

    run = Run("import-layout", store, sink=Told())
    run.finish(lambda: import_layout(run, str(lay_out(tmp_path / "source", made))))
    size = sum(map(len, (made.manifest, *made.blobs)))
    assert told[-1] == (size, size) and run.report.exit_code == 0
