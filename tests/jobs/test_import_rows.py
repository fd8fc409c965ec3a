"""Rows that only some tools write: whole with their names, or said in the exit code."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.images import Image, build_cache, descriptor, image, index, lay_out, row
from tests.jobs.importing import blob_file, kinds, rows_of, run_import, tar_of, write_layout
from tests.jobs.test_import_docker import archive
from tests.jobs.test_import_layouts import pulls
from tests.stores import manifest_body
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.imports import sources
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import ARTIFACT, EMPTY, OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME
from zotctl.storage import Store

FULL = "docker.io/library/busybox:1.36"


def sound(store: Store) -> bool:
    run = Run("verify", store, dry_run=True)
    report: Report = run.finish(lambda: verify(run, VerifyOptions(deep=True)))
    return report.exit_code == 0


def kind_row(made: Image, kind: str, name: str | None = FULL) -> dict[str, Any]:
    names = {REF_NAME: name.removeprefix("docker.io/"), CONTAINERD_NAME: name} if name else {}
    return row(made) | {"annotations": {"kind": kind, **names}}


def tag_of(made: Image, suffix: str) -> str:
    return f"sha256-{made.digest.encoded}.{suffix}"


# -- what contradicts itself ------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "archive"])
def test_what_a_row_calls_by_another_type_comes_and_is_said(
    store: Store, made: Image, tmp_path: Path, packed: bool
) -> None:
    """The exit code is that of `verify`, which names the same."""
    rows = [row(made, "v1", mediaType=OCI_INDEX), row(image("other"), "v2")]
    source = write_layout(tmp_path / "app", made, image("other"), rows=rows)
    if packed:
        (tmp_path / "app.tar").write_bytes(tar_of(source))
        source = tmp_path / "app.tar"
    for dry_run in (True, False, False):
        report = run_import(store, source, dry_run=dry_run)
        (finding,) = report.findings
        assert (report.exit_code, finding.kind, finding.tags) == (4, "media_type_mismatch", ("v1",))
        assert (finding.digest, finding.repository, finding.action) == (made.digest, "app", "none")
    assert pulls(store, "app", made, "v1") and store.repository("app").tags() == ["v1", "v2"]
    run = Run("verify", store, dry_run=True)
    assert kinds(run.finish(lambda: verify(run))) == ["media_type_mismatch"]


# -- cosign and Hauler ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["dev.cosignproject.cosign", "dev.hauler"])
def test_rows_of_one_name_and_several_kinds(store: Store, made: Image, tmp_path: Path, prefix: str) -> None:
    parts = {kind: image(kind) for kind in ("sigs", "atts", "sboms")}
    other, about = image("other"), image("referrer", subject=made.digest)
    rows = [
        *(kind_row(one, f"{prefix}/{kind}") for kind, one in parts.items()),
        kind_row(made, f"{prefix}/image"),
        kind_row(other, f"{prefix}/imageIndex", "docker.io/library/other:2"),
        kind_row(about, f"{prefix}/referrers/{'a' * 64}"),
    ]
    report = run_import(store, write_layout(tmp_path / "s", made, other, about, *parts.values(), rows=rows))
    assert report.exit_code == 0 and report.findings == [] and sound(store)
    repository = store.repository("library/busybox")
    assert repository.tags() == ["1.36", *sorted(tag_of(made, one) for one in ("att", "sbom", "sig"))]
    assert pulls(store, "library/busybox", parts["sigs"], tag_of(made, "sig"))
    assert [one.digest for one in repository.referrers(made.digest)] == [about.digest]
    assert store.repository("library/other").tags() == ["2"]


def test_cosign_save_names_nothing(store: Store, made: Image, tmp_path: Path) -> None:
    sig = image("sig")
    rows = [
        kind_row(made, "dev.cosignproject.cosign/image", None),
        kind_row(sig, "dev.cosignproject.cosign/sigs", None),
    ]
    source = write_layout(tmp_path / "app", made, sig, rows=rows)
    assert run_import(store, source, tag="1.0").exit_code == 0
    assert store.repository("app").tags() == ["1.0", tag_of(made, "sig")]


@pytest.mark.parametrize("images", [0, 2])
def test_an_attachment_of_no_clear_image_is_said(store: Store, made: Image, tmp_path: Path, images: int) -> None:
    tops = [image(str(number)) for number in range(images)]
    rows = [kind_row(made, "dev.hauler/sigs"), *(kind_row(top, "dev.hauler/image") for top in tops)]
    report = run_import(store, write_layout(tmp_path / "s", made, *tops, rows=rows))
    assert report.exit_code == 5 and set(kinds(report)) == {"bad_ref_name"}
    assert store.repository("library/busybox").tags() == []
    assert all(one.digest in store.repository("library/busybox").index() for one in (made, *tops))


def test_a_kind_of_something_else_is_no_kind(store: Store, made: Image, tmp_path: Path) -> None:
    rows = [kind_row(made, "sigs"), kind_row(image("b"), "dev.hauler/charts", "docker.io/charts/b:1")]
    assert run_import(store, write_layout(tmp_path / "s", made, image("b"), rows=rows)).exit_code == 0
    assert store.repository("library/busybox").tags() == ["1.36"] and store.repository("charts/b").tags() == ["1"]


# -- names with digests -------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [REF_NAME, CONTAINERD_NAME])
@pytest.mark.parametrize(
    ("head", "repository", "tags"),
    [(FULL, "library/busybox", ["1.36"]), ("h:5000/a", "a", []), ("app:1", "app", ["1"]), ("app", "app", [])],
)
def test_a_name_with_its_digest(
    store: Store, made: Image, tmp_path: Path, annotation: str, head: str, repository: str, tags: list[str]
) -> None:
    named = row(made) | {"annotations": {annotation: f"{head}@{made.digest}"}}
    report = run_import(store, lay_out(tmp_path / "s", made, [named]))
    assert report.exit_code == 0 and report.findings == []
    assert store.repositories() == [repository] and store.repository(repository).tags() == tags
    assert pulls(store, repository, made, made.digest)


def test_a_name_with_another_digest_is_no_tag(store: Store, made: Image, tmp_path: Path) -> None:
    report = run_import(store, lay_out(tmp_path / "s", made, [row(made, f"a:1@sha256:{'0' * 64}")]))
    assert kinds(report) == ["bad_ref_name"] and store.repository("a").tags() == []


# -- descriptors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_index", [False, True])
@pytest.mark.parametrize("missing", [None, ""])
def test_a_row_without_a_media_type_gets_its_manifests(
    store: Store, made: Image, tmp_path: Path, is_index: bool, missing: str | None
) -> None:
    body = index([(made.digest, len(made.manifest))]) if is_index else made.manifest
    bare = row(Image(body, []), "v1") | ({} if missing is None else {"mediaType": missing})
    if missing is None:
        del bare["mediaType"]
    source = lay_out(tmp_path / "s", made, [bare])
    blob_file(source, body).write_bytes(body)
    for _ in range(2):
        assert run_import(store, source).exit_code == 0 and sound(store)
        assert rows_of(store, "s")[0]["mediaType"] == (OCI_INDEX if is_index else OCI_MANIFEST)
        assert manifest_body(store, "s", "v1") == body


def embedded(body: bytes, media_type: str = EMPTY, **fields: Any) -> dict[str, Any]:
    return descriptor(body, media_type) | {"data": base64.b64encode(body).decode()} | fields


@pytest.mark.parametrize("where", ["directory", "archive"])
@pytest.mark.parametrize("options", [{}, {"link": True}])
def test_content_that_descriptors_bring_along(
    store: Store, tmp_path: Path, where: str, options: dict[str, Any]
) -> None:
    """A manifest in its row, its config in the manifest, and no blobs of either."""
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b"}
    body = json.dumps(manifest | {"config": embedded(b"{}"), "layers": [descriptor(b"{}", EMPTY)]}).encode()
    source = lay_out(tmp_path / "s", image("other"), [row(Image(body, []), "v1") | embedded(body, OCI_MANIFEST)])
    place: Path = source if where == "directory" else tmp_path / "s.tar"
    if where == "archive":
        place.write_bytes(tar_of(source))
    assert run_import(store, place, dry_run=True).exit_code == 0
    assert run_import(store, place, **options).exit_code == 0 and sound(store)
    assert manifest_body(store, "s", "v1") == body
    assert blob_file(Path(store.roots[0].label, "s"), b"{}").read_bytes() == b"{}"


@pytest.mark.parametrize(
    "wrong", [{"data": "W10="}, {"data": "{}"}, {"data": 5}, {"data": None}, {"size": 3}, {"digest": "sha256:a"}]
)
def test_i2_what_does_not_match_its_digest_is_not_brought_along(
    store: Store, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b", "layers": [],
                       "config": embedded(b"{}") | wrong}).encode()  # fmt: skip
    source = lay_out(tmp_path / "s", Image(body, []), [row(Image(body, []), "v1")])
    report = run_import(store, source)
    assert report.exit_code == 4 and kinds(report) in (["missing_blob"], ["invalid_manifest"])
    assert store.repositories() in ([], ["s"])


def test_i2_a_manifest_in_a_row_has_its_digest(store: Store, made: Image, tmp_path: Path) -> None:
    wrong = row(made, "v1") | {"data": base64.b64encode(made.manifest[:-1] + b" ").decode()}
    source = lay_out(tmp_path / "s", made, [wrong])
    blob_file(source, made.manifest).unlink()
    report = run_import(store, source)
    assert report.exit_code == 4 and kinds(report) == ["missing_manifest"] and store.repositories() in ([], ["s"])


def test_i13_no_more_of_it_is_kept_than_memory_has(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "EMBEDDED_BYTES", 1)
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b", "layers": [],
                       "config": embedded(b"{}")}).encode()  # fmt: skip
    source = lay_out(tmp_path / "s", Image(body, []), [row(Image(body, []), "v1")])
    assert run_import(store, source).exit_code == 4


def test_an_index_of_layers(store: Store, made: Image, tmp_path: Path) -> None:
    """A cache of BuildKit."""
    body, blobs = build_cache()
    rows = [row(made, "v1"), row(Image(body, []), "cache") | {"mediaType": OCI_INDEX}]
    source = lay_out(tmp_path / "s", made, rows)
    for blob in (body, *blobs):
        blob_file(source, blob).write_bytes(blob)
    for place in (source, archive(tmp_path / "s.tar", [])):
        if place.suffix:
            place.write_bytes(tar_of(source))
        assert run_import(store, place).exit_code == 0 and sound(store)
    assert store.repository("s").tags() == ["cache", "v1"]
    assert all(blob_file(Path(store.roots[0].label, "s"), blob).exists() for blob in blobs)


def test_an_artifact_of_the_release_candidates(store: Store, made: Image, tmp_path: Path) -> None:
    sbom = b"an sbom"
    body = json.dumps({"mediaType": ARTIFACT, "artifactType": "application/spdx", "blobs": [descriptor(sbom, "a/b")],
                       "subject": descriptor(made.manifest, OCI_MANIFEST)}).encode()  # fmt: skip
    rows = [row(made, "v1"), row(Image(body, []), "sbom") | {"mediaType": ARTIFACT}]
    source = lay_out(tmp_path / "s", made, rows)
    blob_file(source, body).write_bytes(body)
    assert run_import(store, source).exit_code == 4  # its blob is not there
    assert store.repository("s").tags() == ["v1"]
    blob_file(source, sbom).write_bytes(sbom)
    assert run_import(store, source).exit_code == 0 and sound(store)
    assert store.repository("s").tags() == ["sbom", "v1"]
    assert blob_file(Path(store.roots[0].label, "s"), sbom).read_bytes() == sbom
    assert [one.digest for one in store.repository("s").referrers(made.digest)] == [digest_of(body)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mediaType": "application/x-strange"}, 5),
        ({"digest": "md5:" + "a" * 32}, 4),
        ({"digest": "sha256:" + "a" * 64}, 4),
        ({"size": 5}, 4),
    ],
)
def test_a_tagged_row_that_does_not_come_costs_the_exit_code_0(
    store: Store, made: Image, tmp_path: Path, change: dict[str, Any], code: int
) -> None:
    report = run_import(store, lay_out(tmp_path / "s", made, [row(made, "v1") | change]))
    assert report.exit_code == code and report.findings and "v1" not in str(store.repositories())
