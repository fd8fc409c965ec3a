"""import-layout follows what the bytes say: mislabelled images, caches of builds, and subjects come whole or stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.doubles.objects import MemoryObjects
from tests.images import LAYER, Image, build_cache, descriptor, image, lay_out, row
from tests.jobs.importing import blob_file, kinds, local_store, run_import, tar_of
from tests.stores import bucket_store
from zotctl.errors import BlobUnknown, ManifestUnknown
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store

SUBJECT = image("subject")


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield bucket_store(MemoryObjects()) if request.param == "bucket" else local_store(tmp_path / "store")


def source_of(directory: Path, *bodies: bytes, rows: list[dict[str, Any]]) -> Path:
    lay_out(directory, Image(bodies[0], list(bodies[1:])), rows)
    return directory


def has(store: Store, *bodies: bytes) -> bool:
    repository = store.repository("source")
    try:
        return all(repository.blob(digest_of(body)) == len(body) for body in bodies)
    except BlobUnknown:
        return False


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("typed", [True, False])
def test_an_image_that_is_called_an_index_comes_whole(store: Store, tmp_path: Path, typed: bool, move: bool) -> None:
    """Once, only its manifest came, and --move removed the rest. The row is named, as by `verify`."""
    made = image()
    body = made.manifest if typed else made.manifest.replace(f'"mediaType": "{OCI_MANIFEST}", '.encode(), b"", 1)
    rows = [row(Image(body, []), "v1", mediaType=OCI_INDEX)]
    source = source_of(tmp_path / "source", body, *made.blobs, rows=rows)
    report = run_import(store, source, move=move)
    assert (report.exit_code, kinds(report)) == (4, ["media_type_mismatch"])
    assert has(store, body, *made.blobs)
    assert (source / "index.json").exists() != move


@pytest.mark.parametrize("size", [1 << 63, 1 << 200, -(1 << 63) - 1], ids=["64 bits", "many", "below nothing"])
@pytest.mark.parametrize("place", ["layer", "row"])
def test_a_size_that_no_file_has_costs_its_image_only(store: Store, tmp_path: Path, place: str, size: int) -> None:
    """It once was a bug that ended the run."""
    made, sound = image("wrong"), image("sound")
    document = json.loads(made.manifest)
    document["layers"][0]["size"] = size
    body = json.dumps(document).encode()
    wrong = row(Image(body, []), "wrong") if place == "layer" else descriptor(made.blobs[1], LAYER) | {"size": size}
    source = source_of(tmp_path / "source", body, *made.blobs, sound.manifest, *sound.blobs,
                       rows=[wrong, row(sound, "sound")])  # fmt: skip
    report = run_import(store, source)
    assert (report.exit_code, kinds(report)) == (4, ["size_mismatch"])
    assert store.repository("source").tags() == ["sound"]


def test_the_fields_of_both_shapes_come(store: Store, tmp_path: Path) -> None:
    made, child = image("both"), image("child")
    listed = json.loads(images.index([(child.digest, len(child.manifest))]))["manifests"]
    body = json.dumps(json.loads(made.manifest) | {"manifests": listed}).encode()
    source = source_of(tmp_path / "source", body, *made.blobs, child.manifest, *child.blobs,
                       rows=[descriptor(body, OCI_MANIFEST)])  # fmt: skip
    assert run_import(store, source, move=True).exit_code == 0
    assert has(store, body, *made.blobs, child.manifest, *child.blobs)


@pytest.mark.parametrize("archive", [False, True])
def test_a_build_cache_comes_with_its_tag(store: Store, tmp_path: Path, archive: bool) -> None:
    index, parts = build_cache()
    rows = [row(Image(index, []), "cache", mediaType=OCI_INDEX)]
    source = source_of(tmp_path / "source", index, *parts, rows=rows)
    place = tmp_path / "source.tar" if archive else source
    if archive:
        place.write_bytes(tar_of(source))
    assert run_import(store, place, dry_run=True).summary["blobs"] == 1 + len(parts)
    report = run_import(store, place)
    assert (report.exit_code, report.findings) == (0, [])
    assert has(store, index, *parts)
    assert store.repository("source").tags() == ["cache"]
    assert list(store.repository("source").index().digests) == [digest_of(index)]
    (item,) = (item for item in report.items if item["action"] == "import")
    assert item["size_bytes"] == sum(map(len, [index, *parts]))


def test_a_cache_is_moved_whole_and_one_that_lacks_something_stays(store: Store, tmp_path: Path) -> None:
    index, parts = build_cache()
    source = source_of(tmp_path / "source", index, *parts, rows=[row(Image(index, []), "cache", mediaType=OCI_INDEX)])
    blob_file(source, parts[0]).rename(tmp_path / "aside")
    report = run_import(store, source, move=True)
    assert (kinds(report), report.findings[0].tags) == (["missing_blob"], ("cache",))
    assert blob_file(source, index).exists()
    (tmp_path / "aside").rename(blob_file(source, parts[0]))
    assert run_import(store, source, move=True).exit_code == 0
    assert has(store, index, *parts) and not source.exists()


def test_a_row_of_index_json_may_be_a_leaf(store: Store, tmp_path: Path) -> None:
    body = image().blobs[1]
    source = source_of(tmp_path / "source", body, rows=[descriptor(body, LAYER)])
    assert run_import(store, source, move=True).exit_code == 0
    assert has(store, body)


@pytest.mark.parametrize("move", [False, True])
def test_a_subject_without_a_row_comes_with_its_signature(store: Store, tmp_path: Path, move: bool) -> None:
    signature = image("sig", subject=SUBJECT.digest)
    source = source_of(tmp_path / "source", signature.manifest, *signature.blobs, SUBJECT.manifest, *SUBJECT.blobs,
                       rows=[row(signature, "sig")])  # fmt: skip
    assert run_import(store, source, move=move).exit_code == 0
    assert has(store, *SUBJECT.blobs)
    assert store.repository("source").manifest(SUBJECT.digest).body == SUBJECT.manifest
    assert SUBJECT.digest not in store.repository("source").index()


@pytest.mark.parametrize("said", [len(b"an SBOM"), 1])
def test_a_subject_that_is_no_manifest_comes_with_its_signature(store: Store, tmp_path: Path, said: int) -> None:
    body = b"an SBOM"
    about = descriptor(body, LAYER) | {"size": said}
    signature = image("sig")
    manifest = json.dumps(json.loads(signature.manifest) | {"subject": about}).encode()
    rows = [descriptor(manifest, OCI_MANIFEST)]
    source = source_of(tmp_path / "source", manifest, *signature.blobs, body, rows=rows)
    assert run_import(store, source, move=True).exit_code == 0
    assert has(store, body, manifest) and not source.exists()


@pytest.mark.parametrize("move", [False, True])
def test_what_is_left_out_is_no_success(store: Store, tmp_path: Path, move: bool) -> None:
    """It may be whole, so it is no damage either."""
    child = b'{"spdxVersion": "SPDX-2.3"}'
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(child, "application/spdx+json")]}).encode()
    source = source_of(tmp_path / "source", index, child, rows=[row(Image(index, []), "v1", mediaType=OCI_INDEX)])
    report = run_import(store, source, move=move)
    assert (report.exit_code, kinds(report)) == (5, ["unknown_media_type"])
    assert report.findings[0].tags == ("v1",) and blob_file(source, child).exists()


def test_a_subject_that_is_not_there_is_no_matter(store: Store, tmp_path: Path) -> None:
    signature = image("sig", subject=SUBJECT.digest)
    report = run_import(store, lay_out(tmp_path / "source", signature, [row(signature, "sig")]), move=True)
    assert (report.exit_code, report.findings) == (0, [])
    with pytest.raises(ManifestUnknown):
        store.repository("source").manifest(SUBJECT.digest)


def test_a_damaged_subject_costs_no_signature_and_is_not_moved_away(store: Store, tmp_path: Path) -> None:
    signature = image("sig", subject=SUBJECT.digest)
    source = source_of(tmp_path / "source", signature.manifest, *signature.blobs, SUBJECT.manifest, *SUBJECT.blobs,
                       rows=[row(signature, "sig")])  # fmt: skip
    blob_file(source, SUBJECT.manifest).write_bytes(SUBJECT.manifest[:-1] + b" ")
    report = run_import(store, source, move=True)
    assert [(finding.digest, finding.kind) for finding in report.findings] == [(SUBJECT.digest, "digest_mismatch")]
    assert store.repository("source").tags() == ["sig"]
    assert all(blob_file(source, body).exists() for body in SUBJECT.blobs)


def test_a_child_has_the_size_that_its_index_says(store: Store, tmp_path: Path) -> None:
    child = image("child")
    index = images.index([(child.digest, len(child.manifest) + 1)])
    source = source_of(tmp_path / "source", index, child.manifest, *child.blobs,
                       rows=[row(Image(index, []), "v1", mediaType=OCI_INDEX)])  # fmt: skip
    report = run_import(store, source)
    assert [(finding.digest, finding.kind) for finding in report.findings] == [(child.digest, "size_mismatch")]
    assert store.repositories() == []
