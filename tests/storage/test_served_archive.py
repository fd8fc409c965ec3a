"""A tar as a store: what is in it can be pulled, nothing can be pushed, and nothing is unpacked."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import zotctl
from tests.images import Image, image, lay_out, row
from tests.jobs.importing import LAYOUT, header, local_store, members_of, tar_bytes
from tests.jobs.test_export import written
from tests.stores import push_image, push_index
from tests.tools import need
from zotctl.config import LayoutConfig, RootConfig, StorageConfig
from zotctl.errors import (
    ArchiveDamaged,
    BlobUnknown,
    ConfigError,
    IoFailed,
    LayoutInvalid,
    NameUnknown,
    NoSuchStore,
    ReadOnly,
    ReadOnlyStorage,
    Unavailable,
)
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, open_store, opening, remember_roots
from zotctl.storage.opening import archive

MADE = image("busybox")


def opened(path: Path, **options: Any) -> Store:
    return open_store(StorageConfig(roots=(RootConfig(path=str(path)),), **options))


def alone(path: Path, name: str) -> Store:
    return open_store(StorageConfig(roots=(), single_layout=LayoutConfig(path=str(path), name=name)))


def tree(target: Path, *more: Any) -> Path:
    target.write_bytes(tar_bytes([*members_of(MADE, prefix="a/"), *members_of(image("b"), prefix="x/b/"), *more]))
    return target


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = local_store(tmp_path / "source")
    first = push_image(store, "team/app", "v1", seed="busybox")
    push_index(store, "team/app", "all", children=[first])
    push_image(store, "team/app", seed="z", subject=first)
    push_image(store, "mirror", "v1", seed="busybox")
    return store


def require_served(store: Store, source: Store) -> None:
    assert store.repositories() == source.repositories()
    for name in source.repositories():
        one, other = store.repository(name), source.repository(name)
        assert one.tags() == other.tags()
        for tag in one.tags():
            assert one.manifest(tag).body == other.manifest(tag).body
        for body in MADE.blobs:
            with one.open_blob(digest_of(body)) as reader:
                assert reader.size == len(body) and reader.read_at(0, 1 << 20) == body
                assert reader.read_at(3, 5) == body[3:8] and reader.read_at(len(body) - 2, 9) == body[-2:]
                piece = bytearray(7)
                assert reader.read_into(len(body) - 3, memoryview(piece)) == 3 and piece[:3] == body[-3:]
        assert [one.digest for one in one.referrers(MADE.digest)] == [
            two.digest for two in other.referrers(MADE.digest)
        ]


def test_what_was_written_is_served(source: Store, tmp_path: Path) -> None:
    assert written(tmp_path / "source", tmp_path / "a.tar").exit_code == 0
    require_served(opened(tmp_path / "a.tar"), source)
    assert written(tmp_path / "source", tmp_path / "one.tar", only=["mirror"]).exit_code == 0
    store = alone(tmp_path / "one.tar", "some/name")
    assert store.repositories() == ["some/name"] and store.repository("some/name").tags() == ["v1"]
    assert store.repository("some/name").manifest("v1").body == MADE.manifest


@pytest.mark.parametrize("order", ["--sort=name", "--sort=none"])
def test_a_backup_of_a_store_by_tar(source: Store, tmp_path: Path, order: str) -> None:
    """Its blobs are hard links of one another, and some first names lie in the hidden directory."""
    need("tar")
    subprocess.run(["tar", "-C", tmp_path / "source", "-cf", tmp_path / "a.tar", order, "."], check=True)
    require_served(opened(tmp_path / "a.tar"), source)


def test_nothing_is_written(tmp_path: Path) -> None:
    before = tree(tmp_path / "a.tar").read_bytes()
    store = opened(tmp_path / "a.tar")
    repository = store.repository("a")
    assert repository.read_only
    with pytest.raises(ReadOnly):
        repository.start_upload()
    with pytest.raises(ReadOnly):
        repository.delete_manifest(MADE.digest)
    with pytest.raises((ReadOnly, ReadOnlyStorage)):
        store.repository_for_push("new").start_upload()
    with pytest.raises(ReadOnlyStorage):
        store.roots[0].driver.create("a/x")
    store.maintain()
    store.close()
    assert (tmp_path / "a.tar").read_bytes() == before and os.listdir(tmp_path) == ["a.tar"]


def test_beside_other_roots(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    tree(tmp_path / "a.tar")
    roots = (RootConfig(path=str(tmp_path / "dir"), create=True), RootConfig(path=str(tmp_path / "a.tar")))
    store = open_store(StorageConfig(roots=roots))
    push_image(store, "new", "v1")
    assert store.repositories() == ["a", "new", "x/b"]
    with pytest.raises(NameUnknown):
        store.repository("nothing")
    store.close()


def test_i14_links_lead_to_members_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    digests = [digest_of(body).encoded for body in (*MADE.blobs, MADE.manifest)]
    index = json.dumps({"schemaVersion": 2, "manifests": [row(MADE, "1")]}).encode()
    links = [header(f"l/blobs/sha256/{d}", tarfile.SYMTYPE, linkname=f"../../../a/blobs/sha256/{d}") for d in digests]
    lost, loop = (digest_of(name).encoded for name in (b"lost", b"loop"))
    bad = [
        header(f"l/blobs/sha256/{lost}", tarfile.SYMTYPE, linkname=str(tmp_path / "secret")),
        header(f"l/blobs/sha256/{loop}", tarfile.SYMTYPE, linkname=loop),
    ]
    path = tree(tmp_path / "a.tar", *links, *bad, ("l/oci-layout", LAYOUT), ("l/index.json", index))
    repository = opened(path).repository("l")
    assert repository.manifest("1").body == MADE.manifest
    with repository.open_blob(digest_of(MADE.blobs[1])) as reader:
        assert reader.read_at(0, 1 << 20) == MADE.blobs[1]
    for name in (b"lost", b"loop"):
        with pytest.raises(BlobUnknown):
            repository.open_blob(digest_of(name))


def test_one_that_is_replaced_goes_on_and_one_that_is_changed_is_away(tmp_path: Path) -> None:
    path = tree(tmp_path / "a.tar")
    store = opened(path)
    os.rename(tree(tmp_path / "new.tar", ("more", b"x" * 5000)), path)
    assert store.repository("a").manifest("1.36").body == MADE.manifest
    store = opened(path)
    reader = store.repository("a").open_blob(digest_of(MADE.blobs[1]))
    os.truncate(path, 700)
    assert isinstance(store.roots[0].state(), Unavailable)
    with pytest.raises(Unavailable):
        store.repository("x/b")
    with pytest.raises(IoFailed):
        reader.read_at(0, 10)
    reader.close()


def test_what_can_not_be_served_is_refused_with_a_way_out(tmp_path: Path) -> None:
    body = tree(tmp_path / "a.tar").read_bytes()
    found = members_of(MADE)
    for content, error, message in (
        (b"\x1f\x8b" + bytes(600), ConfigError, "gzip -d"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), ConfigError, "zstd -d"),
        (b"\x50\x2a\x4d\x18" + bytes(600), ConfigError, "zstd -d"),
        (b"\xfd7zXZ\0" + bytes(600), ConfigError, "packed with xz"),
        (tar_bytes([("manifest.json", b"[]")]), LayoutInvalid, "import-layout"),
        (tar_bytes([*found, found[0]]), LayoutInvalid, "twice"),
        (tar_bytes([*found, header("x", tarfile.CHRTYPE)]), LayoutInvalid, "device"),
        (body[: body.rindex(b"oci-layout")], ArchiveDamaged, "cut"),
        (body.rstrip(b"\0")[:-400], ArchiveDamaged, "cut short"),
        (body[: -(-len(body.rstrip(b"\0")) // 512) * 512], ArchiveDamaged, "does not end as a tar does"),
        (b"[storage]\n" * 60, NoSuchStore, "is a file, not a directory"),
        (tar_bytes(found), ConfigError, "serve it alone"),
    ):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(error, match=message):
            opened(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.tar", "images"])
def test_no_directory_is_made_in_place_of_one_that_went_away(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a worker that starts between `rm` and `mv`: the directory would pass for an empty registry."""
    monkeypatch.setattr(opening, "_archives", set())
    config = StorageConfig(roots=(RootConfig(path=str(tree(tmp_path / name))),))
    remember_roots(config)
    (tmp_path / name).rename(tmp_path / "kept")
    with pytest.raises(NoSuchStore, match=r"the archive .* is not there"):
        open_store(config)
    assert not (tmp_path / name).exists()
    (tmp_path / "kept").rename(tmp_path / name)
    assert open_store(config).repositories() == ["a", "x/b"]


@pytest.mark.parametrize("job", [["gc"], ["scrub"], ["dedupe"], ["verify", "--deep"]], ids=lambda job: job[0])
def test_jobs_go_on_beside_one(tmp_path: Path, job: list[str]) -> None:
    lay_out(tmp_path / "s" / "mine", MADE, [row(MADE, "1")])
    path = tree(tmp_path / "a.tar")
    before = path.read_bytes()
    done = zotctl(*job, "--root", str(tmp_path / "s"), "--root", str(path), "-q")
    assert done.returncode == 0 and done.stdout == done.stderr == "", done
    assert path.read_bytes() == before
    done = zotctl(*job, "--root", str(path))
    assert done.returncode == 10 and "zotctl verify" in done.stderr


def test_its_paths_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zotctl.storage.local.archive.PATHS_BYTES", 300)
    with pytest.raises(LayoutInvalid, match="its paths have more than 300 bytes"):
        archive(str(tree(tmp_path / "a.tar")))


def test_on_the_command_line(tmp_path: Path, made: Image) -> None:
    lay_out(tmp_path / "s" / "team" / "app", made, [row(made, "1")])
    assert written(tmp_path / "s", tmp_path / "One.tar").exit_code == 0
    (tmp_path / "My Image.tar").write_bytes(tar_bytes(members_of(made)))
    tree(tmp_path / "tree.tar")
    for words, key, value in (
        (["One.tar"], "storage.single_layout.name", "team/app"),
        (["One.tar", "--as", "b"], "storage.single_layout.name", "b"),
        (["My Image.tar"], "storage.single_layout.name", "my-image"),
        (["tree.tar", "--root", "x"], "storage.roots[0].path", "tree.tar"),
    ):
        done = zotctl("serve", "--show-config", "--json", *words, cwd=tmp_path)
        assert done.returncode == 0, done
        assert {item["key"]: item["value"] for item in json.loads(done.stdout)["items"]}[key] == value
    for words, message in ((["tree.tar", "--as", "b"], "tree of them"), (["One.tar", "--root", "x"], "leave --root")):
        done = zotctl("serve", "--show-config", *words, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr


@pytest.fixture
def made() -> Image:
    return MADE
