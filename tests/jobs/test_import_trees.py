"""Trees of layouts in a tar: backups of stores, and packages with other things beside the layout."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.images import Image, image, index, lay_out, row
from tests.jobs.docker_archives import Members, saved
from tests.jobs.importing import (
    LAYOUT,
    actions,
    blob_file,
    header,
    index_bytes,
    kinds,
    left_behind,
    local_store,
    members_of,
    run_import,
    tar_bytes,
)
from tests.jobs.test_import_docker import archive, checked
from tests.jobs.test_import_layouts import pulls
from tests.stores import drop_rows, push_image, push_index
from tests.tools import ZSTD_MODULE, need
from zotctl.jobs.imports import archives
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, tar

FULL = "docker.io/library/busybox:1.36"


def backed_up(source: Path, target: Path, *options: str) -> Path:
    """By GNU tar, which writes hard links of what it has written before: of the pool first."""
    need("tar")
    subprocess.run(["tar", "-C", source, "-cf", target, *options, "."], check=True)
    return target


def test_what_another_repository_has_is_staged_for_a_tree(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --all, layouts go below the repository of --repo, which has the large layer already."""
    monkeypatch.setattr(archives, "LISTED_BODY_BYTES", 0)
    made = image("same")
    push_image(store, "mirror", "v1", seed="same")
    path = tmp_path / "tree.tar"
    path.write_bytes(tar_bytes([*members_of(made, prefix="a/"), *members_of(made, prefix="b/")]))
    report = run_import(store, path, repo="mirror", all=True)
    assert (report.exit_code, report.findings) == (0, [])
    assert pulls(store, "mirror/a", made, "1.36") and pulls(store, "mirror/b", made, "1.36")


@pytest.mark.parametrize("packed", [False, True])
def test_a_lone_layout_in_a_folder_is_asked_about_as_one_at_the_top(store: Store, tmp_path: Path, packed: bool) -> None:
    """Its images name two repositories, and --repo one."""
    made = image()
    rows = [row(made, "docker.io/library/one:1"), row(made, "docker.io/library/two:1")]
    source = tmp_path / "package"
    lay_out(source / "images", made, rows)
    given = backed_up(source, tmp_path / "package.tar") if packed else source
    report = run_import(store, given, repo="app")
    assert report.exit_code == 2 and "with --all" in report.errors[0]["reason"], report.document()
    assert run_import(store, given).exit_code == 0
    assert store.repositories() == ["library/one", "library/two"]


# -- stores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["--sort=name", "--sort=none"])
def test_a_backup_of_a_store_is_what_the_store_is(tmp_path: Path, store: Store, order: str) -> None:
    source = local_store(tmp_path / "source")
    for name in ("team/app", "team/app/tools", "mirror"):
        push_image(source, name, "v1", seed="same")
        push_image(source, name, "latest", seed=name)
    push_index(source, "team/app", "multi", children=[image("same").digest])
    drop_rows(source, "mirror", push_image(source, "mirror", "v2", seed="gone"))
    path = backed_up(tmp_path / "source", tmp_path / "backup.tar", order)
    beside = local_store(tmp_path / "beside")
    assert run_import(beside, tmp_path / "source").exit_code == 0
    report = run_import(store, path)
    assert report.exit_code == 0, report.document()
    assert store.repositories() == beside.repositories() == source.repositories()
    for name in store.repositories():
        assert index_bytes(store, name) == index_bytes(beside, name)
    assert checked(store, path).exit_code == 0
    assert not [one for one in left_behind(store) if "tmp" in one]


def test_a_store_of_one_repository(tmp_path: Path, store: Store, made: Image) -> None:
    """Its path counts, and no name that is written in its rows."""
    source = local_store(tmp_path / "source")
    lay_out(tmp_path / "in", made, [row(made, FULL)])
    run_import(source, tmp_path / "in", repo="team/app")
    assert run_import(store, backed_up(tmp_path / "source", tmp_path / "b.tar")).exit_code == 0
    assert store.repositories() == ["team/app"] and pulls(store, "team/app", made, "1.36")


def test_a_store_that_was_packed_with_the_directories_above_it(tmp_path: Path, store: Store, made: Image) -> None:
    """As `tar -cf backup.tar /srv/registry` does, which strips the first slash only."""
    source = local_store(tmp_path / "srv" / "registry")
    push_image(source, "team/app", "v1", seed="busybox")
    push_image(source, "other", "v1", seed="busybox")
    assert (
        run_import(store, backed_up(tmp_path, tmp_path / "b.tar", "--exclude=b.tar", "--exclude=./store")).exit_code
        == 0
    )
    assert store.repositories() == ["other", "team/app"] and pulls(store, "team/app", made, "v1")


def test_damage_in_a_backup_is_told_as_in_the_store(tmp_path: Path, store: Store, made: Image) -> None:
    """The first name of a damaged file in the tar may be the one below damaged/."""
    source = local_store(tmp_path / "source")
    push_image(source, "a", "v1", seed="busybox")
    push_image(source, "b", "v1", seed="b")
    blob = blob_file(tmp_path / "source" / "a", made.blobs[1])
    for name in blob.parent.parent.parent.parent.rglob(blob.name):
        name.unlink()
    blob.write_bytes(b"something else")
    aside = tmp_path / "source" / ".zotctl" / "damaged" / "sha256" / blob.name
    aside.mkdir(parents=True)
    os.link(blob, aside / "7")
    report = run_import(store, backed_up(tmp_path / "source", tmp_path / "b.tar"))
    assert report.exit_code == 4 and kinds(report) == ["digest_mismatch"] and report.findings[0].tags == ("v1",)
    assert store.repositories() == ["b"]
    found = checked(store, tmp_path / "b.tar")
    assert found.exit_code == 4 and [one.repository for one in found.findings] == ["a"]


def test_where_the_layouts_of_a_tree_go(tmp_path: Path, store: Store, made: Image) -> None:
    path = archive(tmp_path / "t.tar", [*members_of(made, prefix="a/"), *members_of(image("b"), prefix="x/b/")])
    assert run_import(store, path, repo="mirror", all=True).exit_code == 0
    assert store.repositories() == ["mirror/a", "mirror/x/b"]
    report = run_import(store, path, repo="mirror")
    assert report.exit_code == 2 and "holds 2 layouts" in report.errors[0]["reason"]
    assert [item["repository"] for item in actions(run_import(store, path, dry_run=True), "import")] == ["a", "x/b"]
    odd = archive(tmp_path / "o.tar", [*members_of(made, prefix="A/"), *members_of(made, prefix="b/")])
    report = run_import(store, odd)
    assert report.exit_code == 5 and kinds(report) == ["bad_name"] and "b" in store.repositories()


def test_one_broken_layout_costs_no_other(tmp_path: Path, store: Store, made: Image) -> None:
    broken = [m for m in members_of(made, prefix="b/") if m[0] != "b/index.json"]
    links = [header("c", tarfile.SYMTYPE, linkname="a")]
    path = archive(tmp_path / "t.tar", [*members_of(made, prefix="a/"), *broken, *links])
    report = run_import(store, path)
    assert report.exit_code == 5 and store.repositories() == ["a"]
    assert sorted(error["repository"] for error in report.errors) == ["b", "c"]
    assert checked(store, path).exit_code == 4


# -- packages ---------------------------------------------------------------------------------------


def package(made: Image, rows: list[dict[str, Any]], prefix: str) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    """Zarf's shape: one layout in a folder, and beside it what has nothing to do with it, stray links included."""
    return [
        ("checksums.txt", b"aa  zarf.yaml\n"),
        ("components/app.tar", tar_bytes([("etc/conf", b"x")])),
        *members_of(made, *rows, prefix=prefix),
        ("manifests/deployment.json", b'{"kind": "Deployment"}'),
        ("manifest.json", b'{"package": "no image"}'),
        header("latest", tarfile.SYMTYPE, linkname="/opt/elsewhere"),
        header("up", tarfile.SYMTYPE, linkname="../../../etc/passwd"),
        header("loop", tarfile.SYMTYPE, linkname="loop"),
        ("sboms.tar", tar_bytes([("sbom.json", b"{}")])),
        ("zarf.yaml", b"kind: ZarfPackageConfig\n"),
    ]


def test_a_package(tmp_path: Path, store: Store, made: Image) -> None:
    need(ZSTD_MODULE)
    path = archive(tmp_path / "p.tar.zst", package(made, [row(made, FULL)], "images/"), tar.zstd_module("").compress)
    report = run_import(store, path)
    assert report.exit_code == 0, report.document()
    assert store.repositories() == ["library/busybox"] and pulls(store, "library/busybox", made, "1.36")
    assert all(one.startswith((".zotctl/pool/", "library/")) for one in left_behind(store))
    lay_out(tmp_path / "unpacked" / "images", made, [row(made, FULL)])
    (tmp_path / "unpacked" / "zarf.yaml").write_text("kind: ZarfPackageConfig\n")
    beside = local_store(tmp_path / "beside")
    assert run_import(beside, tmp_path / "unpacked").exit_code == 0
    assert index_bytes(beside, "library/busybox") == index_bytes(store, "library/busybox")


def test_layouts_and_saved_images_in_one_tar(tmp_path: Path, store: Store, made: Image) -> None:
    docker = saved("docker", (image("d"), None))
    below = [(f"saved/{m[0]}", m[1]) for m in docker if isinstance(m, tuple)]
    path = archive(tmp_path / "t.tar", [*members_of(made, prefix="a/"), *below])
    assert run_import(store, path).exit_code == 0
    assert store.repositories() == ["a", "saved"]


# -- links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_blobs_that_are_links_within_the_archive(tmp_path: Path, store: Store, made: Image, kind: bytes) -> None:
    members: list[Any] = []
    for name, body in members_of(made):
        if name.startswith("blobs"):
            up = "../../" if kind == tarfile.SYMTYPE else ""
            members += [(f"files/{len(members)}", body), header(name, kind, linkname=f"{up}files/{len(members)}")]
        else:
            members.append((name, body))
    report = run_import(store, archive(tmp_path / "a.tar", members))
    assert report.exit_code == 4  # only what is named like a blob, or looks like a part of an image, was read
    shared: Members = [*members_of(made, prefix="one/"), ("two/oci-layout", LAYOUT), ("two/index.json", members[-2][1])]
    by_folder = [*shared, header("two/blobs", tarfile.SYMTYPE, linkname="../one/blobs")]
    digests = [digest_of(body).encoded for body in (*made.blobs, made.manifest)]
    up = "../../../" if kind == tarfile.SYMTYPE else ""
    by_file = [
        *shared, *(header(f"two/blobs/sha256/{d}", kind, linkname=f"{up}one/blobs/sha256/{d}") for d in digests),
    ]  # fmt: skip
    for number, found in enumerate((by_folder, by_file)):
        here = local_store(tmp_path / str(number))
        report = run_import(here, archive(tmp_path / "b.tar", found))
        assert report.exit_code == 0, report.document()
        assert pulls(here, "one", made, "1.36") and pulls(here, "two", made, "1.36")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "nothing", "."])
@pytest.mark.parametrize("part", ["index.json", "oci-layout", "blob"])
def test_i14_parts_of_a_layout_that_lead_elsewhere(
    tmp_path: Path, store: Store, made: Image, part: str, target: str
) -> None:
    members: list[Any] = members_of(made)
    name = members[0][0] if part == "blob" else part
    found = [header(m[0], tarfile.SYMTYPE, linkname=target) if m[0] == name else m for m in members]
    report = run_import(store, archive(tmp_path / "a.tar", found))
    assert store.repositories() == [] and left_behind(store) == []
    if part == "blob":
        assert report.exit_code == 4 and kinds(report) == ["missing_blob"]
        assert "leads to nothing" in report.findings[0].reason
    else:
        assert report.exit_code == 1 and "tar --dereference" in report.errors[0]["reason"]


def test_i14_a_link_to_other_bytes_is_damage(tmp_path: Path, store: Store, made: Image) -> None:
    members: list[Any] = members_of(made)
    links = [header(members[1][0], tarfile.SYMTYPE, linkname=members[2][0].rpartition("/")[2])]
    report = run_import(store, archive(tmp_path / "a.tar", [members[0], *members[2:], *links]))
    assert report.exit_code == 4 and kinds(report) == ["digest_mismatch"] and store.repositories() == []


def test_i14_links_beside_a_layout_are_passed_over(tmp_path: Path, store: Store, made: Image) -> None:
    blob = f"blobs/sha256/{'a' * 64}"
    strays = [header(name, tarfile.SYMTYPE, linkname="../../../etc") for name in ("blobs", blob, "elsewhere", "x/y")]
    assert run_import(store, archive(tmp_path / "a.tar", [*strays, *members_of(made)]), repo="a").exit_code == 0
    assert pulls(store, "a", made, "1.36")


def test_an_index_in_a_tree(tmp_path: Path, store: Store, made: Image) -> None:
    """What an index lists comes with it, from its own layout only."""
    body = index([(made.digest, len(made.manifest))])
    rows = json.dumps({"schemaVersion": 2, "manifests": [row(Image(body, []), "v1")]}).encode()
    other = [(f"b/blobs/sha256/{digest_of(body).encoded}", body), ("b/index.json", rows), ("b/oci-layout", LAYOUT)]
    report = run_import(store, archive(tmp_path / "t.tar", [*members_of(made, prefix="a/"), *other]))
    assert report.exit_code == 4 and set(kinds(report)) == {"missing_manifest"} and store.repositories() == ["a"]
