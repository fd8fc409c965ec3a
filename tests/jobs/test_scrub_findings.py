"""Scrub finds each damage, and nothing else."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from tests import images
from tests.jobs.layouts import (
    Counting,
    age,
    blob,
    cut,
    flip,
    lay_out,
    only,
    reads,
    run_scrub,
    share,
    store_of,
    told,
)  # fmt: skip
from tests.stores import push_image, push_index, store_over
from zotctl.jobs.check.verify import verify
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage.local.driver import LocalDriver

IMAGE = images.image("one", layers=3)
OTHER = images.image("other")
LAYER = IMAGE.blobs[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two layouts, nothing wrong with them."""
    lay_out(tmp_path, "app", IMAGE, "v1", "v2")
    lay_out(tmp_path, "lib/base", OTHER, "latest")
    return tmp_path


def scrubbed(root: Path, **options: object) -> Report:
    return run_scrub(store_of(root), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_sound_store_has_no_finding(root: Path, workers: int) -> None:
    report = scrubbed(root, workers=workers)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    assert report.summary["repositories"] == 2
    assert report.summary["checked_blobs"] == 5 + 4
    every = [*IMAGE.blobs, IMAGE.manifest, *OTHER.blobs, OTHER.manifest]
    assert report.summary["checked_bytes"] == sum(map(len, every))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("at", [0, 41, -1])
def test_a_flipped_bit_is_found_though_the_time_stamp_is_the_same(root: Path, at: int, workers: int) -> None:
    path = blob(root, "app", LAYER)
    flip(path, at)
    report = scrubbed(root, workers=workers)
    finding = only(report)
    assert (finding.repository, finding.digest, finding.kind) == ("app", digest_of(LAYER), "digest_mismatch")
    assert finding.tags == ("v1", "v2")
    assert finding.action == "marked"
    assert finding.details["expected_digest"] == digest_of(LAYER)
    assert finding.details["found_digest"] == digest_of(path.read_bytes())
    assert finding.details["path"] == str(path)
    assert finding.details["first_seen_at"].endswith("Z")
    assert report.exit_code == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cut_file_and_an_emptied_one(root: Path, workers: int) -> None:
    cut(blob(root, "app", LAYER), 20)
    cut(blob(root, "lib/base", OTHER.blobs[0]), 0)
    report = scrubbed(root, workers=workers)
    assert told(report) == {
        ("app", digest_of(LAYER), "size_mismatch"), ("lib/base", digest_of(OTHER.blobs[0]), "stub"),
    }  # fmt: skip
    details = {f.kind: f.details for f in report.findings}
    assert (details["size_mismatch"]["expected_bytes"], details["size_mismatch"]["found_bytes"]) == (len(LAYER), 20)
    assert (details["stub"]["expected_bytes"], details["stub"]["found_bytes"]) == (len(OTHER.blobs[0]), 0)


def test_the_empty_blob_is_no_stub(tmp_path: Path) -> None:
    made = images.image("e")
    manifest = json.loads(made.manifest)
    manifest["layers"].append(images.descriptor(b"", images.LAYER))
    made = images.Image(json.dumps(manifest).encode(), [*made.blobs, b""])
    lay_out(tmp_path, "app", made, "v1")
    assert scrubbed(tmp_path).findings == []


def test_a_removed_layer_and_a_removed_manifest(root: Path) -> None:
    blob(root, "app", LAYER).unlink()
    blob(root, "lib/base", OTHER.manifest).unlink()
    report = scrubbed(root)
    assert told(report) == {
        ("app", digest_of(LAYER), "missing_blob"), ("lib/base", OTHER.digest, "missing_manifest"),
    }  # fmt: skip
    assert {f.repository: f.tags for f in report.findings} == {"app": ("v1", "v2"), "lib/base": ("latest",)}
    assert report.exit_code == 4


def test_a_damaged_blob_that_no_manifest_names(root: Path) -> None:
    """Peers' mistake 18: zot does not look at it."""
    stray = blob(root, "app", digest_of(b"nobody's"))
    stray.write_bytes(b"something else")
    age(root)
    finding = only(scrubbed(root))
    assert (finding.kind, finding.tags) == ("digest_mismatch", ())


def test_a_damaged_manifest_is_damaged_content_and_nothing_more(root: Path) -> None:
    flip(blob(root, "app", IMAGE.manifest))
    finding = only(scrubbed(root))
    assert (finding.digest, finding.kind, finding.tags) == (IMAGE.digest, "digest_mismatch", ("v1", "v2"))


def test_a_manifest_that_does_not_parse_and_one_of_an_unknown_type(root: Path) -> None:
    """Their bytes are what their digests say, so the content is not damaged."""
    index = root / "app" / "index.json"
    document = json.loads(index.read_text())
    for body, media_type in ((b"{not json", OCI_MANIFEST), (b'{"a": 1}', "application/vnd.example.thing")):
        blob(root, "app", digest_of(body)).write_bytes(body)
        document["manifests"].append(images.descriptor(body, media_type))
    index.write_text(json.dumps(document))
    age(root)
    report = scrubbed(root)
    assert told(report) == {
        ("app", digest_of(b"{not json"), "invalid_manifest"), ("app", digest_of(b'{"a": 1}'), "unknown_media_type"),
    }  # fmt: skip


def test_one_cut_index_hides_no_other_repository(root: Path) -> None:
    """Peers' mistake 19. Its own blobs are looked at, too."""
    cut(root / "app" / "index.json", 30)
    flip(blob(root, "app", LAYER))
    flip(blob(root, "lib/base", OTHER.blobs[1]))
    assert told(scrubbed(root)) == {
        ("app", None, "invalid_index"), ("app", digest_of(LAYER), "digest_mismatch"),
        ("lib/base", digest_of(OTHER.blobs[1]), "digest_mismatch"),
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"{}", b'{"imageLayoutVersion": "9.9.9"}', b"nonsense"])
def test_a_wrong_layout_file(root: Path, body: bytes) -> None:
    (root / "app" / "oci-layout").write_bytes(body)
    age(root)
    assert told(scrubbed(root)) == {("app", None, "invalid_layout")}


def test_a_missing_layout_file_and_a_missing_index(root: Path) -> None:
    (root / "app" / "oci-layout").unlink()
    (root / "lib/base" / "index.json").unlink()
    for directory in ("app", "lib/base"):
        os.utime(root / directory, (1e9, 1e9))
    assert told(scrubbed(root)) == {("app", None, "invalid_layout"), ("lib/base", None, "invalid_index")}


def test_a_row_without_a_digest(root: Path) -> None:
    index = root / "app" / "index.json"
    document = json.loads(index.read_text())
    document["manifests"].append({"mediaType": OCI_MANIFEST, "digest": "sha256:../../x", "size": 3})
    index.write_text(json.dumps(document))
    age(root)
    assert told(scrubbed(root)) == {("app", None, "invalid_index")}


def test_digests_that_lead_out_of_the_store_are_not_followed(root: Path) -> None:
    """I14: a manifest of somebody else names whatever it likes."""
    manifest = json.loads(IMAGE.manifest)
    manifest["layers"].append({"mediaType": images.LAYER, "digest": "sha256:../../../../etc/passwd", "size": 3})
    made = images.Image(json.dumps(manifest).encode(), IMAGE.blobs)
    lay_out(root, "evil", made, "v1")
    finding = only(scrubbed(root))
    assert (finding.repository, finding.digest, finding.kind) == ("evil", made.digest, "invalid_manifest")
    assert "etc/passwd', which is no digest" in finding.reason


def test_a_row_and_a_descriptor_that_say_another_size(root: Path) -> None:
    """The content is right, so it is not marked; but clients refuse it."""
    index = root / "app" / "index.json"
    index.write_text(index.read_text().replace(f'"size": {len(IMAGE.manifest)}', '"size": 7'))
    age(root)
    finding = only(scrubbed(root))
    assert (finding.digest, finding.kind, finding.action) == (IMAGE.digest, "size_mismatch", "none")
    assert (finding.details["expected_bytes"], finding.details["found_bytes"]) == (7, len(IMAGE.manifest))


def test_layers_that_must_not_be_distributed_may_be_absent(tmp_path: Path) -> None:
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": str(digest_of(b"elsewhere")), "size": 9,
    }  # fmt: skip
    manifest = json.loads(IMAGE.manifest)
    manifest["layers"].append(foreign)
    lay_out(tmp_path, "app", images.Image(json.dumps(manifest).encode(), IMAGE.blobs), "v1")
    assert scrubbed(tmp_path).findings == []


def test_a_missing_subject_is_no_finding(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", images.image("s", subject=digest_of(b"gone")), "sig")
    assert scrubbed(tmp_path).findings == []


def test_a_link_in_the_place_of_a_blob_is_a_missing_blob(root: Path, tmp_path: Path) -> None:
    path = blob(root, "app", LAYER)
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")
    assert told(scrubbed(root)) == {("app", digest_of(LAYER), "missing_blob")}


def test_leftovers_are_told_and_are_no_damage(root: Path) -> None:
    (root / "app" / ".index.json.zotctl-0123").write_bytes(b"{")
    young = root / "app" / ".index.json.zotctl-4567"
    store = store_of(root)
    (root / ".zotctl" / "tmp" / "dead").write_bytes(b"x")
    age(root)
    young.write_bytes(b"{")
    report = run_scrub(store)
    assert report.findings == []  # the link and inode times are of now
    store.clock.now = lambda: os.stat(young).st_mtime + 90_000  # type: ignore[method-assign]
    report = run_scrub(store)
    assert told(report) == {("app", None, "orphan"), ("", None, "orphan")}
    assert len(report.findings) == 3
    assert report.exit_code == 0


def test_names_that_are_no_digests_are_nobodys_business(root: Path) -> None:
    blobs = root / "app" / "blobs" / "sha256"
    for name in (".nfs0000001", "put_blob123", "f" * 63):
        (blobs / name).write_bytes(b"x")
    (root / "app" / "blobs" / "md5").mkdir()
    (root / "app" / "blobs" / "sha256" / ("e" * 64)).mkdir()
    assert scrubbed(root).findings == []


def test_sha512(tmp_path: Path) -> None:
    body = b"some content"
    lay_out(tmp_path, "app", IMAGE, "v1")
    (tmp_path / "app/blobs/sha512").mkdir()
    path = blob(tmp_path, "app", digest_of(body, "sha512"))
    path.write_bytes(body)
    assert scrubbed(tmp_path).findings == []
    flip(path)
    age(tmp_path)
    assert only(scrubbed(tmp_path)).digest == digest_of(body, "sha512")


# -- which tags ---------------------------------------------------------------------------------


def test_all_tags_through_children_and_indexes_and_referrers(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    child = push_image(store, "app", seed="c")
    other = push_image(store, "app", "plain", seed="d")
    index = push_index(store, "app", "multi", children=[child, other])
    nested = images.index([(index, store.repository("app").manifest(index).size)]).replace(
        OCI_MANIFEST.encode(), OCI_INDEX.encode()
    )
    store.repository("app").put_manifest(check_manifest(nested, OCI_INDEX), nested, ["nested"])
    push_image(store, "app", "sig", seed="sig", subject=index)
    flip(blob(tmp_path, "app", images.image("c").blobs[1]))
    flip(blob(tmp_path, "app", images.image("sig", subject=index).blobs[0]))
    age(tmp_path)
    report = run_scrub(store)
    tags = {f.digest: f.tags for f in report.findings}
    assert tags[digest_of(images.image("c").blobs[1])] == ("multi", "nested")
    assert tags[digest_of(images.image("sig", subject=index).blobs[0])] == ("multi", "nested", "sig")
    assert len(report.findings) == 2, "the manifests above are good"


# -- shared content -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_shared_content_is_read_once_and_told_for_each_name(tmp_path: Path, workers: int) -> None:
    names = ["a", "b", "c/d"]
    for name in names:
        lay_out(tmp_path, name, IMAGE, name[0])
    for name in names[1:]:
        share(blob(tmp_path, "a", LAYER), blob(tmp_path, name, LAYER))
    flip(blob(tmp_path, "a", LAYER))
    driver = Counting(str(tmp_path))
    report = run_scrub(store_over(driver), workers=workers)
    assert reads(driver, digest_of(LAYER)) == 1
    assert {(f.repository, f.tags, f.details["path"]) for f in report.findings} == {
        (name, (name[0],), str(blob(tmp_path, name, LAYER))) for name in names
    }
    assert {f.action for f in report.findings} == {"marked"}
    assert len(list((tmp_path / ".zotctl/damaged/sha256" / digest_of(LAYER).encoded).iterdir())) == 1


def test_good_shared_content_is_read_once(tmp_path: Path) -> None:
    store = store_over(driver := Counting(str(tmp_path)))
    for name in ("a", "b", "c"):
        push_image(store, name, "v1", seed="same")
    driver.opened.clear()
    report = run_scrub(store)
    layer = digest_of(images.image("same").blobs[1])
    assert reads(driver, layer) == 1
    assert report.summary["checked_blobs"] == 12
    assert report.summary["read_bytes"] * 3 == report.summary["checked_bytes"]


def test_one_inode_under_two_digests(root: Path) -> None:
    """Right for one of them."""
    wrong = blob(root, "app", digest_of(b"another"))
    os.link(blob(root, "app", LAYER), wrong)
    finding = only(scrubbed(root))
    assert finding.digest == digest_of(b"another")


# -- scope --------------------------------------------------------------------------------------


def test_only_some_repositories(root: Path) -> None:
    flip(blob(root, "app", LAYER))
    flip(blob(root, "lib/base", OTHER.blobs[0]))
    assert {f.repository for f in scrubbed(root, repos=["lib/**"]).findings} == {"lib/base"}


def test_a_dry_run_changes_nothing(root: Path) -> None:
    flip(blob(root, "app", LAYER))
    store = store_of(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    finding = only(run_scrub(store, dry_run=True, repair=True, resume=True))
    assert finding.action == "none"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_quick_reads_no_content(root: Path) -> None:
    cut(blob(root, "app", LAYER), 3)
    flip(blob(root, "lib/base", OTHER.blobs[1]))
    driver = Counting(str(root))
    report = run_scrub(store_over(driver), quick=True)
    assert told(report) == {("app", digest_of(LAYER), "size_mismatch")}
    assert only(report).action == "none"


def test_a_root_that_is_away_is_an_error_and_no_damage(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    lay_out(other, "there", OTHER, "v1")
    flip(blob(other, "there", OTHER.blobs[0]))
    store = store_of(root, other)
    (root / ".zotctl" / "version").unlink()
    report = run_scrub(store)
    assert told(report) == {("there", digest_of(OTHER.blobs[0]), "digest_mismatch")}
    assert [error["repository"] for error in report.errors] == [str(root)]


def test_two_roots_share_nothing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    lay_out(other, "app2", IMAGE, "v1")
    flip(blob(other, "app2", LAYER))
    report = run_scrub(store_of(root, other))
    assert only(report).details["path"] == str(blob(other, "app2", LAYER))
    assert not (root / ".zotctl" / "bad").exists()


def test_memory_does_not_depend_on_the_size_of_a_blob(tmp_path: Path) -> None:
    """I13: a blob of 64 MiB is read in pieces."""
    body = os.urandom(1 << 20) * 64
    lay_out(tmp_path, "app", IMAGE, "v1")
    path = blob(tmp_path, "app", parse_digest(digest_of(body)))
    path.write_bytes(body)
    store = store_of(tmp_path)
    tracemalloc.start()
    try:
        assert run_scrub(store, workers=2).findings == []
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_digest_that_can_not_be_computed_is_unreadable_to_scrub_as_to_verify(tmp_path: Path) -> None:
    """It may be right: exit 5, and no damage."""
    push_image(store_of(tmp_path), "app", "v1")
    index = tmp_path / "app" / "index.json"
    body = json.loads(index.read_bytes())
    body["manifests"].append(body["manifests"][0] | {"digest": "sha384:" + "a" * 96, "annotations": {}})
    index.write_text(json.dumps(body))
    run = Run("verify", store_of(tmp_path))
    for report in (run_scrub(store_of(tmp_path)), run.finish(lambda: verify(run))):
        assert [(finding.kind, "sha384" in finding.reason) for finding in report.findings] == [("unreadable", True)]
        assert report.exit_code == 5
