"""Layouts of symbolic links, as bazel and nix make them: followed where an operator named them as a source, and nowhere
else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.images import Image, image, lay_out, row
from tests.jobs.importing import actions, blob_file, kinds, run_import
from tests.jobs.test_import_layouts import pulls
from tests.stores import push_image
from zotctl.config import LayoutConfig, RootConfig, StorageConfig
from zotctl.errors import ZotctlError
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import verify
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, first_link, open_store


def linked(tmp_path: Path, made: Image, *, relative: bool = True, name: str = "linked") -> Path:
    """Each file of the layout is a link to one below `cache`."""
    cache = lay_out(tmp_path / "cache", made, [row(made, "1.36")])
    target = tmp_path / name
    for path in sorted(cache.rglob("*")):
        link = target / path.relative_to(cache)
        link.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            link.symlink_to(os.path.relpath(path, link.parent) if relative else path)
    return target


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("options", [{}, {"link": True}])
def test_a_layout_of_links(store: Store, made: Image, tmp_path: Path, relative: bool, options: dict[str, Any]) -> None:
    source = linked(tmp_path, made, relative=relative)
    assert actions(run_import(store, source, dry_run=True), "import")
    report = run_import(store, source, **options)
    assert report.exit_code == 0, report.document()
    assert pulls(store, "linked", made, "1.36")
    here = blob_file(Path(store.roots[0].label, "linked"), made.blobs[1])
    there = blob_file(tmp_path / "cache", made.blobs[1])
    assert here.is_file() and not here.is_symlink() and here.stat().st_ino != there.stat().st_ino


def test_a_tree_of_them_and_folders_that_are_links(store: Store, made: Image, tmp_path: Path) -> None:
    linked(tmp_path, made, name="tree/a")
    other = lay_out(tmp_path / "tree" / "b", made, [row(made, "1.36")])
    shutil.rmtree(other / "blobs")
    (other / "blobs").symlink_to("../../cache/blobs")
    third = lay_out(tmp_path / "tree" / "c", made, [row(made, "1.36")])
    shutil.rmtree(third / "blobs" / "sha256")
    (third / "blobs" / "sha256").symlink_to(tmp_path / "cache" / "blobs" / "sha256")
    assert run_import(store, tmp_path / "tree").exit_code == 0
    assert all(pulls(store, name, made, "1.36") for name in ("a", "b", "c"))


@pytest.mark.parametrize("target", ["nothing", ".", "fifo", "loop", "/dev/zero", "other"])
def test_i14_what_a_link_leads_to_has_its_digest(store: Store, made: Image, tmp_path: Path, target: str) -> None:
    """Nothing that is no regular file is opened, and no other bytes come in."""
    source = linked(tmp_path, made)
    blob = blob_file(source, made.blobs[1])
    blob.unlink()
    os.mkfifo(blob.parent / "fifo")
    (blob.parent / "other").write_bytes(bytes(len(made.blobs[1])))
    blob.symlink_to(blob.name if target == "loop" else target)
    report = run_import(store, source)
    assert report.exit_code == 4 and kinds(report) == ["digest_mismatch" if target == "other" else "missing_blob"]
    assert not store.repositories() or store.repository("linked").tags() == []


@pytest.mark.parametrize("part", ["index.json", "oci-layout"])
def test_i14_a_part_of_a_layout_that_leads_to_no_file(store: Store, made: Image, tmp_path: Path, part: str) -> None:
    source = linked(tmp_path, made)
    (source / part).unlink()
    (source / part).symlink_to("/dev/zero")
    report = run_import(store, source)
    assert report.exit_code == 1 and "cp -rL" in report.errors[0]["reason"] and store.repositories() == []


def test_i4_a_move_follows_no_link(store: Store, made: Image, tmp_path: Path) -> None:
    """It would remove what another tree has."""
    source = lay_out(tmp_path / "source", made, [row(made, "1.36")])
    shutil.move(source / "blobs", tmp_path / "blobs")
    (source / "blobs").symlink_to("../blobs")
    for dry_run in (True, False):
        report = run_import(store, source, move=True, dry_run=dry_run)
        assert report.exit_code == 1 and "cp -rL" in report.errors[0]["reason"]
    assert blob_file(tmp_path, made.blobs[1]).read_bytes() == made.blobs[1] and store.repositories() == []


def test_a_repair_from_a_layout_of_links(store: Store, made: Image, tmp_path: Path) -> None:
    push_image(store, "a", "v1", seed="busybox")
    blob = blob_file(Path(store.roots[0].label, "a"), made.blobs[1])
    blob.write_bytes(b"damaged")
    run = Run("scrub", store)
    options = ScrubOptions(repair=True, repair_from=str(linked(tmp_path, made)))
    assert run.finish(lambda: scrub(run, options)).summary["repaired"] == 1
    assert blob.read_bytes() == made.blobs[1]


def checked(path: Path) -> Report:
    store = open_store(StorageConfig(roots=(), single_layout=LayoutConfig(str(path), "app")))
    run = Run("verify", store, dry_run=True)
    return run.finish(lambda: verify(run))


def test_i14_what_serves_a_layout_follows_none_and_says_what_to_do(made: Image, tmp_path: Path) -> None:
    source = linked(tmp_path, made)
    config = StorageConfig(roots=(), single_layout=LayoutConfig(str(source), "app"))
    assert first_link(config) in (str(source / "index.json"), str(source / "oci-layout"))
    with pytest.raises(ZotctlError):
        open_store(config).repository("app").tags()
    assert checked(source).exit_code == 4 and "cp -rL" in checked(source).findings[0].reason
    for part in ("index.json", "oci-layout"):
        (source / part).unlink()
        shutil.copy(tmp_path / "cache" / part, source / part)
    assert str(first_link(config)).startswith(str(source / "blobs" / "sha256"))
    assert any("cp -rL" in finding.reason for finding in checked(source).findings)
    assert any(made.digest == finding.digest for finding in checked(source).findings)
    subprocess.run(["cp", "-rL", source, tmp_path / "copy"], check=True)
    assert first_link(StorageConfig(roots=(), single_layout=LayoutConfig(str(tmp_path / "copy"), "app"))) is None
    assert checked(tmp_path / "copy").exit_code == 0
    assert first_link(StorageConfig(roots=(RootConfig(path=str(tmp_path)),))) is None


def test_digests_of_links_by_another_algorithm(store: Store, tmp_path: Path) -> None:
    """A name of another algorithm is computed, too."""
    made = image("sha512")
    source = linked(tmp_path, made)
    body = made.blobs[1]
    folder = source / "blobs" / "sha512"
    folder.mkdir()
    (folder / digest_of(body, "sha512").encoded).symlink_to(blob_file(tmp_path / "cache", body))
    assert run_import(store, source).exit_code == 0 and pulls(store, "linked", made, "1.36")
