"""import-layout of what the tools themselves write, and skopeo's result on what comes out."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import PATIENCE_S
from tests.images import Image, lay_out, row
from tests.jobs.importing import gzipped, index_bytes, rows_of, run_import
from tests.jobs.test_import_layouts import pulls
from tests.tools import ZSTD_MODULE, need
from zotctl.storage import Store

NAME = "docker.io/library/busybox:1.36"


@pytest.fixture
def plain(made: Image, tmp_path: Path) -> Path:
    return lay_out(tmp_path / "plain", made, [row(made, "1.36")])


def run(*command: object) -> None:
    need(str(command[0]))
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("archive", [False, True])
def test_skopeo(store: Store, made: Image, plain: Path, tmp_path: Path, archive: bool) -> None:
    target = tmp_path / ("out.tar" if archive else "out")
    kind = "oci-archive" if archive else "oci"
    run("skopeo", "--insecure-policy", "copy", f"oci:{plain}:1.36", f"{kind}:{target}:{NAME}")
    assert run_import(store, target).exit_code == 0
    assert pulls(store, "library/busybox", made, "1.36")
    imported = Path(store.roots[0].label, "library", "busybox")
    run("skopeo", "--insecure-policy", "copy", f"oci:{imported}:1.36", f"dir:{tmp_path}/dir")


@pytest.mark.parametrize("packed", [False, True])
def test_skopeo_docker_archive(store: Store, made: Image, plain: Path, tmp_path: Path, packed: bool) -> None:
    """And back: config and layers are what they were."""
    out = tmp_path / "out.tar"
    run("skopeo", "--insecure-policy", "copy", f"oci:{plain}:1.36", f"docker-archive:{out}:{NAME}")
    if packed:
        out.write_bytes(gzipped(out.read_bytes()))
    report = run_import(store, out)
    assert report.exit_code == 0 and report.findings == []
    imported = Path(store.roots[0].label, "library", "busybox")
    run("skopeo", "--insecure-policy", "copy", f"oci:{imported}:1.36", f"dir:{tmp_path}/dir")
    found = {path.read_bytes() for path in (tmp_path / "dir").iterdir()}
    assert found >= {made.blobs[0], *map(gzip.decompress, made.blobs[1:])}


def test_regctl(store: Store, made: Image, plain: Path, tmp_path: Path) -> None:
    run("regctl", "image", "copy", f"ocidir://{plain}:1.36", f"ocidir://{tmp_path}/out:v2")
    run("regctl", "image", "export", f"ocidir://{plain}:1.36", tmp_path / "exported.tar")
    assert run_import(store, tmp_path / "out").exit_code == 0 and pulls(store, "out", made, "v2")
    assert run_import(store, tmp_path / "exported.tar", repo="e").exit_code == 0
    assert pulls(store, "e", made, made.digest)


def test_oras(store: Store, made: Image, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "sbom.json").write_text("{}")
    run("oras", "attach", "--oci-layout", f"{plain}:1.36", "--artifact-type", "application/spdx+json",
        "--disable-path-validation", f"{tmp_path}/sbom.json:application/json")  # fmt: skip
    assert run_import(store, plain).exit_code == 0 and pulls(store, "plain", made, "1.36")
    assert [d.artifact_type for d in store.repository("plain").referrers(made.digest)] == ["application/spdx+json"]
    before = index_bytes(store, "plain")
    assert run_import(store, plain).exit_code == 0 and index_bytes(store, "plain") == before


def test_umoci(store: Store, tmp_path: Path) -> None:
    run("umoci", "init", "--layout", tmp_path / "out")
    run("umoci", "new", "--image", f"{tmp_path}/out:latest")
    assert run_import(store, tmp_path / "out").exit_code == 0
    assert store.repository("out").tags() == ["latest"]


def test_buildah(store: Store, made: Image, plain: Path, tmp_path: Path) -> None:
    need("buildah")
    storage = ["--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    try:
        run("buildah", *storage, "pull", f"oci:{plain}:1.36")
        images = subprocess.check_output(["buildah", *map(str, storage), "images", "-q"], text=True).split()
        run("buildah", *storage, "push", images[0], f"oci-archive:{tmp_path}/b.tar:localhost/app:v1")
        run("buildah", *storage, "push", images[0], f"docker-archive:{tmp_path}/d.tar:localhost/docker/app:v1")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"buildah does not work here: {error.stderr!r:.200}")
    assert run_import(store, tmp_path / "b.tar").exit_code == 0
    assert store.repository("app").tags() == ["v1"]
    assert run_import(store, tmp_path / "d.tar").exit_code == 0
    assert store.repository("docker/app").tags() == ["v1"]


def test_gnu_tar_and_zstd(store: Store, made: Image, plain: Path, tmp_path: Path) -> None:
    need("zstd", ZSTD_MODULE)
    run("tar", "-C", tmp_path, "-cf", tmp_path / "a.tar", "plain")
    run("zstd", "-q", tmp_path / "a.tar", "-o", tmp_path / "a.tar.zst")
    run("tar", "-C", plain, "-czf", tmp_path / "b.tgz", ".")
    for name, repository in (("a.tar", "one"), ("a.tar.zst", "two"), ("b.tgz", "three")):
        assert run_import(store, tmp_path / name, repo=repository).exit_code == 0
        assert pulls(store, repository, made, "1.36")


def test_what_was_imported_is_a_layout_for_every_reader(store: Store, plain: Path, tmp_path: Path) -> None:
    run_import(store, plain)
    layout = Path(store.roots[0].label, "plain")
    run("skopeo", "inspect", "--raw", f"oci:{layout}:1.36")
    run("regctl", "manifest", "get", f"ocidir://{layout}:1.36")
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert rows_of(store, "plain")[0]["annotations"] == {"org.opencontainers.image.ref.name": "1.36"}
