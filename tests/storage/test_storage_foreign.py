"""A layout that another tool made is served at once, as it is, and a read writes nothing (I9)."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.storage import foreign
from tests.storage.foreign import TOOLS, Expected
from tests.storage.mounting import mount_at
from tests.stores import push_blob, push_image, store_over
from tests.tools import need
from zotctl.errors import (
    BlobUnknown,
    LayoutInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    ReadOnly,
    Referenced,
    ZotctlError,
)
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import parse_name
from zotctl.storage import Store
from zotctl.storage.driver import Writer
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import WrappedDriver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """Open before anything is put under the root."""
    opened = store_over(LocalDriver(str(root)))
    assert opened.repositories() == []
    yield opened
    opened.close()


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory: what a write of any kind would change, but no access time."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 20 else b""
        found[str(path)] = (
            info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns,
            info.st_ctime_ns, content,
        )  # fmt: skip
    return found


def read_all(store: Store, name: str, expected: Expected) -> None:
    """Everything a client may ask of it, and the answers."""
    repository = store.repository(name)
    assert repository.tags() == sorted(expected.tags)
    for tag, digest in expected.tags.items():
        assert repository.manifest(tag).digest == digest
    for digest, body in expected.digests.items():
        found = repository.manifest(digest)
        assert (found.digest, found.body) == (digest, body)
        assert repository.blob(digest) == len(body)
        for layer in blobs_of(json.loads(body)):
            assert repository.blob(layer["digest"]) == layer["size"]
            with repository.open_blob(layer["digest"]) as reader:
                assert digest_of(reader.read_at(0, reader.size)) == layer["digest"]
    for subject, referrers in expected.referrers.items():
        assert [d.digest for d in repository.referrers(subject)] == referrers
    for missing in ("nobody", "gone", str(digest_of(b"absent"))):
        with pytest.raises(ManifestUnknown):
            repository.manifest(missing)
    with pytest.raises(BlobUnknown):
        repository.blob(digest_of(b"absent"))


def blobs_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = [manifest["config"], *manifest["layers"]] if "config" in manifest else []
    return [d | {"digest": parse_digest(d["digest"])} for d in found]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_i9_a_layout_of_each_tool_is_served_at_once_and_left_as_it_is(
    tool: Callable[[Path], Expected], store: Store, root: Path, tmp_path: Path
) -> None:
    expected = tool(tmp_path / "made")
    foreign.age(tmp_path / "made")
    (tmp_path / "made").rename(root / "app")
    before = tree(root)
    read_all(store, "app", expected)
    assert store.repositories() == ["app"]
    read_all(store_over(ReadLog(LocalDriver(str(root)))), "app", expected)
    assert tree(root) == before, "a read wrote something"


class ReadLog(WrappedDriver):
    """A driver on which every change fails the test, so that nothing hides in a time stamp's grain."""

    def create(self, key: str) -> Any:
        raise AssertionError(f"a read creates {key}")

    def append(self, key: str, *, create: bool = True) -> Any:
        return self.inner.append(key) if key == ".zotctl/version" else self._refuse(key)

    def link(self, source: str, target: str) -> None:
        self._refuse(target)

    def rename(self, source: str, target: str) -> None:
        self._refuse(target)

    def exchange(self, one: str, other: str) -> None:
        self._refuse(other)

    def unlink(self, key: str) -> None:
        self._refuse(key)

    def lock(self, key: str, byte: int) -> Any:
        self._refuse(key)

    def _refuse(self, key: str) -> None:
        raise AssertionError(f"a read changes {key}")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_i9_our_write_keeps_all_that_was_there(tool: Callable[[Path], Expected], store: Store, root: Path) -> None:
    expected = tool(root / "app")
    foreign.age(root / "app")
    before = tree(root / "app")
    was = json.loads((root / "app" / "index.json").read_bytes())
    ours = push_image(store, "app", "ours", seed="ours")
    now = json.loads((root / "app" / "index.json").read_bytes())
    assert now["manifests"][:-1] == (was["manifests"] or [])
    assert {**now, "manifests": 0} == {**was, "manifests": 0}
    assert list(now) == list(was)
    after = tree(root / "app")
    touched = {path for path in before if after.get(path, ())[:1] != before[path][:1]}
    assert touched == {str(root / "app" / "index.json")}, "only index.json is replaced"
    assert after[str(root / "app" / "index.json")][1] == before[str(root / "app" / "index.json")][1], "its mode"
    store.repository_for_push("app").delete_manifest(ours)
    assert json.loads((root / "app" / "index.json").read_bytes()) == {**was, "manifests": was["manifests"] or []}
    read_all(store, "app", expected)
    read_all(store_over(LocalDriver(str(root))), "app", expected)


def test_i9_an_edit_in_place_is_noticed(store: Store, root: Path) -> None:
    one, two = images.image("one"), images.image("two")
    images.lay_out(root / "app", one)
    images.lay_out(root / "app", two, rows=[images.row(one, "v1"), images.row(two)])
    assert store.repository("app").tags() == ["v1"]
    path = root / "app" / "index.json"
    inode = path.stat().st_ino
    for number in range(20):
        rows = [images.row(two, f"w{number % 10}"), images.row(one, f"v{number % 10}")]
        path.write_text(json.dumps({"schemaVersion": 2, "manifests": rows}))  # of the same length each time
        assert store.repository("app").tags() == [f"v{number % 10}", f"w{number % 10}"]
    assert path.stat().st_ino == inode
    assert store.repository("app").manifest("w9").digest == two.digest


def test_i9_a_replaced_or_removed_layout_is_noticed(store: Store, root: Path) -> None:
    one, two = images.image("one"), images.image("two")
    images.lay_out(root / "app", one, rows=[images.row(one, "v1")])
    images.lay_out(root / "other", two, rows=[images.row(two, "v1")])
    assert store.repository("app").manifest("v1").digest == one.digest
    (root / "app").rename(root / "kept")
    (root / "other").rename(root / "app")
    assert store.repository("app").manifest("v1").digest == two.digest
    assert store.repositories() == ["app", "kept"]
    shutil.rmtree(root / "app")
    with pytest.raises(NameUnknown):
        store.repository("app")
    assert store.repositories() == ["kept"]


def test_i9_blobs_that_come_later_are_found(store: Store, root: Path, tmp_path: Path) -> None:
    """rsync and cp copy index.json before blobs as often as not."""
    made = images.image("late", subject=digest_of(b"subject"))
    images.lay_out(tmp_path / "made", made, rows=[images.row(made, "v1")])
    shutil.copytree(tmp_path / "made", root / "app", ignore=lambda _, names: [n for n in names if n == "sha256"])
    with pytest.raises(ManifestUnknown):
        store.repository("app").manifest("v1")
    assert store.repository("app").referrers(digest_of(b"subject")) == []
    shutil.copytree(tmp_path / "made" / "blobs" / "sha256", root / "app" / "blobs" / "sha256")
    assert store.repository("app").manifest("v1").body == made.manifest
    assert [d.digest for d in store.repository("app").referrers(digest_of(b"subject"))] == [made.digest]


def test_i9_a_foreign_writer_in_the_middle_is_waited_for(store: Store, root: Path) -> None:
    made = images.image()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    path = root / "app" / "index.json"
    whole = path.read_text()
    path.write_text(whole[:60])
    # The clock of the store sleeps while it waits: end the write then.
    store.clock.sleep = lambda seconds: path.write_text(whole)  # type: ignore[method-assign, assignment]
    assert store.repository("app").tags() == ["v1"]


# -- not to be served ---------------------------------------------------------------------------


def bad_json(app: Path) -> None:
    (app / "index.json").write_text('{"schemaVersion": 2, "manifests": [')


def empty_file(app: Path) -> None:
    (app / "index.json").write_text("")


def old_schema(app: Path) -> None:
    (app / "index.json").write_text('{"schemaVersion": 1, "manifests": []}')


def wrong_version(app: Path) -> None:
    (app / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')


def no_version(app: Path) -> None:
    (app / "oci-layout").write_text("{}")


def layout_is_a_link(app: Path) -> None:
    (app / "oci-layout").rename(app.parent / "elsewhere")
    (app / "oci-layout").symlink_to(app.parent / "elsewhere")


def blobs_is_a_link(app: Path) -> None:
    (app / "blobs").rename(app.parent / "outside")
    (app / "blobs").symlink_to(app.parent / "outside")


def sha256_is_a_link(app: Path) -> None:
    (app / "blobs" / "sha256").rename(app.parent / "outside")
    (app / "blobs" / "sha256").symlink_to(app.parent / "outside")


def blobs_is_a_file(app: Path) -> None:
    shutil.rmtree(app / "blobs")
    (app / "blobs").write_text("")


def index_is_a_link(app: Path) -> None:
    (app / "index.json").rename(app.parent / "elsewhere.json")
    (app / "index.json").symlink_to(app.parent / "elsewhere.json")


def index_is_a_fifo(app: Path) -> None:
    (app / "index.json").unlink()
    os.mkfifo(app / "index.json")


def index_is_a_socket(app: Path) -> None:
    (app / "index.json").unlink()
    here = os.getcwd()
    os.chdir(app)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("index.json")
    finally:
        os.chdir(here)


def index_is_a_directory(app: Path) -> None:
    (app / "index.json").unlink()
    (app / "index.json").mkdir()


def index_is_huge(app: Path) -> None:
    with (app / "index.json").open("r+b") as file:
        file.truncate(300 << 20)


DAMAGE = [
    bad_json, empty_file, old_schema, wrong_version, no_version, layout_is_a_link, blobs_is_a_link,
    sha256_is_a_link, blobs_is_a_file, index_is_a_link, index_is_a_fifo, index_is_a_socket, index_is_a_directory,
    index_is_huge,
]  # fmt: skip


@pytest.fixture(params=DAMAGE, ids=lambda damage: damage.__name__)
def invalid(request: pytest.FixtureRequest, store: Store, root: Path) -> images.Image:
    """A layout at `app` with one thing wrong, beside a sound one at `sound`."""
    made = images.image()
    for name in ("app", "sound"):
        images.lay_out(root / name, made, rows=[images.row(made, "v1")])
        foreign.age(root / name)
    request.param(root / "app")
    foreign.age(root / "app")
    return made


def test_i14_an_invalid_layout_is_not_served_and_said_once(
    invalid: images.Image, store: Store, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tree(root)
    with caplog.at_level(logging.WARNING, "zotctl.storage"):
        for _ in range(3):
            with pytest.raises(NameUnknown):
                store.repository("app")
            assert store.repositories() == ["sound"]
    assert tree(root) == before
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["app"]
    assert store.repository("sound").tags() == ["v1"]


@pytest.mark.timeout(30)
def test_i14_a_push_into_an_invalid_layout_is_refused_and_changes_nothing(
    invalid: images.Image, store: Store, root: Path
) -> None:
    before = tree(root / "app")
    outside = root / "outside"
    kept = tree(outside) if outside.exists() else {}
    with pytest.raises(ZotctlError):
        push_image(store, "app", "ours", seed="ours")
    with pytest.raises(ZotctlError):
        store.repository_for_push("app").mount_blob(store.repository("sound"), digest_of(invalid.blobs[0]))
    assert tree(root / "app") == before
    assert not outside.exists() or tree(outside) == kept, "written outside of the store"


@pytest.mark.timeout(30)
def test_i14_a_commit_into_an_invalid_layout_ends(invalid: images.Image, store: Store, root: Path) -> None:
    """Also when it became invalid after the repository was looked at."""
    before = tree(root / "app")
    index = root / "app" / "index.json"

    def push(tx: Any, draft: Any) -> None:
        draft.put(invalid.digest, len(invalid.manifest), OCI_MANIFEST, ["x"])

    with pytest.raises(LayoutInvalid):
        store.roots[0].committer.commit("app", push)
    assert tree(root / "app") == before, index


def test_i9_a_layout_that_is_put_right_is_served_again(invalid: images.Image, store: Store, root: Path) -> None:
    with pytest.raises(NameUnknown):
        store.repository("app")
    whole = root / "sound"
    for name in ("oci-layout", "index.json", "blobs"):
        broken, good = root / "app" / name, whole / name
        same = broken.is_file() and good.is_file() and broken.read_bytes() == good.read_bytes()
        if same and not broken.is_symlink():
            continue
        if broken.is_dir() and not broken.is_symlink():
            shutil.rmtree(broken)
        else:
            broken.unlink()
        (shutil.copytree if good.is_dir() else shutil.copy2)(good, broken)
    assert store.repository("app").manifest("v1").body == invalid.manifest
    assert "app" in store.repositories()


def test_what_has_no_oci_layout_is_no_repository(store: Store, root: Path) -> None:
    made = images.image()
    images.lay_out(root / "app", made)
    (root / "app" / "oci-layout").unlink()
    with pytest.raises(NameUnknown):
        store.repository("app")
    assert store.repositories() == []
    shutil.copy(images.lay_out(root / "b", made) / "oci-layout", root / "app")
    assert store.repositories() == ["app", "b"]
    assert store.repository("app").manifest(made.digest).body == made.manifest


@pytest.mark.parametrize("missing", ["oci-layout", "both"])
def test_i3_a_layout_whose_making_was_cut_short_is_made_whole_by_a_push(missing: str, store: Store, root: Path) -> None:
    """A crash between the steps of making a repository must not leave a name that takes no push."""
    push_blob(store.repository_for_push("app"), b"first")
    for name in ("index.json", "oci-layout") if missing == "both" else (missing,):
        (root / "app" / name).unlink()
    fresh = store_over(LocalDriver(str(root)))
    digest = push_blob(fresh.repository_for_push("app"), b"second")
    assert fresh.repository("app").blob(digest) == 6, "201 for the blob, so it is there"
    assert push_image(fresh, "app", "v1")
    assert fresh.repository("app").tags() == ["v1"]


@pytest.mark.timeout(30)
def test_i3_a_commit_makes_a_half_made_layout_whole(store: Store, root: Path) -> None:
    digest = push_image(store, "app", "v1")
    (root / "app" / "oci-layout").unlink()
    body = images.index([])
    manifest = check_manifest(body, "application/vnd.oci.image.index.v1+json")
    fresh = store_over(LocalDriver(str(root)))
    fresh.repository_for_push("app").put_manifest(manifest, body, ["empty"])
    assert fresh.repository("app").tags() == ["empty", "v1"]
    assert fresh.repository("app").blob(digest)


@pytest.mark.parametrize("name", ["cache.db", "cache.db/sub", "notes/sub"])
@pytest.mark.timeout(30)
def test_i14_a_name_that_a_file_has_is_refused(name: str, store: Store, root: Path) -> None:
    (root / name.partition("/")[0]).write_text("a file")
    before = tree(root)
    with pytest.raises(ZotctlError) as caught:
        push_blob(store.repository_for_push(name), b"x")
    assert caught.value.status < 500
    assert {k: v for k, v in tree(root).items() if ".zotctl" not in k and k != str(root)} == {
        k: v for k, v in before.items() if ".zotctl" not in k and k != str(root)
    }


@pytest.mark.parametrize("name", ["x/blobs", "x/index.json", "x/oci-layout", "x/blobs/y", "a/x/blobs/sha256"])
def test_i1_names_inside_a_layout_are_refused(name: str, store: Store, root: Path) -> None:
    with pytest.raises(NameInvalid):
        parse_name(name)
    images.lay_out(root / "x", images.image())
    images.lay_out(root / name.replace("index.json", "index.jso").replace("oci-layout", "oci-layou"), images.image())
    assert not {n for n in store.repositories() if "blobs" in n}


# -- links and mounts ---------------------------------------------------------------------------


def refuse_all_writes(store: Store, name: str, made: images.Image) -> None:
    """Every way to change a repository, through either way to get hold of it."""
    layer = digest_of(made.blobs[1])
    for repository in (store.repository_for_push(name), store.repository(name)):
        for change in (
            repository.start_upload,
            lambda r=repository: r.delete_manifest("v1"),
            lambda r=repository: r.delete_manifest(str(made.digest)),
            lambda r=repository: r.delete_blob(layer),
            lambda r=repository: r.mount_blob(store.repository("plain"), layer),
            lambda r=repository: r.put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["w"]),
        ):
            with pytest.raises(ReadOnly):
                change()


def test_i14_a_repository_that_is_a_link_is_read_only(store: Store, root: Path, tmp_path: Path) -> None:
    made = images.image()
    for path in (root / "plain", tmp_path / "else", tmp_path / "team" / "app"):
        images.lay_out(path, made, rows=[images.row(made, "v1")])
    (root / "app").symlink_to(tmp_path / "else")
    (root / "team").symlink_to(tmp_path / "team")
    before = tree(tmp_path / "else"), tree(tmp_path / "team")
    for name in ("app", "team/app"):
        assert store.repository(name).manifest("v1").body == made.manifest
        assert store.repository(name).blob(digest_of(made.blobs[1])) == len(made.blobs[1])
        refuse_all_writes(store, name, made)
    assert not store.repository_for_push("plain").read_only
    assert (tree(tmp_path / "else"), tree(tmp_path / "team")) == before
    assert "app" in store.repositories()


def test_i14_nothing_new_is_made_behind_a_link(store: Store, root: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (root / "team").symlink_to(tmp_path / "else")
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("team", "team/app", "team/a/b", "dangling", "dangling/app"):
        with pytest.raises(ReadOnly):
            push_blob(store.repository_for_push(name), b"x")
    assert list((tmp_path / "else").iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_repository_on_another_mount_is_read_only(store: Store, root: Path) -> None:
    need("root")
    made = images.image()
    images.lay_out(root / "plain", made, rows=[images.row(made, "v1")])
    (root / "app").mkdir()
    with mount_at(root / "app", "-t", "tmpfs", "none"):
        images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
        before = tree(root / "app")
        assert store.repository("app").manifest("v1").body == made.manifest
        refuse_all_writes(store, "app", made)
        with pytest.raises(ReadOnly):
            push_blob(store.repository_for_push("app/new"), b"x")
        assert tree(root / "app") == before


# -- what a foreign file may do to us -----------------------------------------------------------


def test_i2_a_foreign_blob_of_the_wrong_length_is_not_served(store: Store, root: Path) -> None:
    made = images.image()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    layer = digest_of(made.blobs[1])
    path = root / "app" / "blobs" / "sha256" / layer.encoded
    for wrong in (made.blobs[1][:-1], made.blobs[1] + b"x", b""):
        path.write_bytes(wrong)
        with pytest.raises(BlobUnknown):
            store.repository("app").blob(layer)
        with pytest.raises(BlobUnknown):
            store.repository("app").open_blob(layer)
    assert store.repository("app").blob(digest_of(made.blobs[0])) == len(made.blobs[0])


def test_i2_a_blob_that_shrinks_after_its_push_is_not_served(store: Store, root: Path) -> None:
    """No manifest speaks of it yet, but its bytes were hashed here, so its length is known."""
    digest = push_blob(store.repository_for_push("app"), b"x" * 100)
    path = root / "app" / "blobs" / "sha256" / digest.encoded
    path.write_bytes(b"x" * 99)
    with pytest.raises(BlobUnknown):
        store.repository("app").blob(digest)
    with pytest.raises(BlobUnknown):
        store.repository("app").open_blob(digest)


def test_i14_a_blob_that_is_no_file_is_not_served(store: Store, root: Path, tmp_path: Path) -> None:
    made = images.image()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    (tmp_path / "secret").write_bytes(made.blobs[1])
    layer = digest_of(made.blobs[1])
    path = root / "app" / "blobs" / "sha256" / layer.encoded

    def gone() -> None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    kinds: list[Callable[[], None]] = [
        lambda: path.symlink_to(tmp_path / "secret"), path.mkdir, lambda: os.mkfifo(path),
    ]  # fmt: skip
    for make in kinds:
        gone()
        make()
        with pytest.raises(BlobUnknown):
            store.repository("app").open_blob(layer)
        with pytest.raises(BlobUnknown):
            store.repository("app").blob(layer)
    push_blob(store.repository_for_push("app"), made.blobs[1])
    assert path.is_file() and store.repository("app").blob(layer) == len(made.blobs[1])
    assert (tmp_path / "secret").read_bytes() == made.blobs[1]


def test_i4_a_row_with_a_wrong_size_heals_by_a_push(store: Store, root: Path) -> None:
    made = images.image()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1", size=9)])
    with pytest.raises(ManifestUnknown):
        store.repository("app").manifest("v1")
    manifest = check_manifest(made.manifest, OCI_MANIFEST)
    store.repository_for_push("app").put_manifest(manifest, made.manifest, ["v1"])
    for reference in ("v1", made.digest):
        assert store.repository("app").manifest(reference).body == made.manifest


def test_i5_an_unlisted_child_is_kept_as_a_listed_one_is(store: Store, root: Path) -> None:
    """A client that sees it (GET 200) and deletes it is told why not, not that it is unknown."""
    foreign.skopeo_all(root / "app")
    child = images.image("0").digest
    repository = store.repository_for_push("app")
    with pytest.raises(Referenced):
        repository.delete_manifest(child)
    with pytest.raises(Referenced):
        repository.delete_blob(child)
    with pytest.raises(ManifestUnknown):
        repository.delete_manifest(str(digest_of(images.image("0").blobs[0])))


def test_i9_an_index_pushed_over_unlisted_children_lists_them(store: Store, root: Path) -> None:
    """zot and others find a manifest by its row alone."""
    foreign.skopeo_all(root / "app")
    children = [images.image(str(number)) for number in range(2)]
    body = images.index([(child.digest, len(child.manifest)) for child in children])
    manifest = check_manifest(body, OCI_INDEX)
    store.repository_for_push("app").put_manifest(manifest, body, ["two"])
    rows = json.loads((root / "app" / "index.json").read_bytes())["manifests"]
    assert [row["digest"] for row in rows[1:]] == [*(child.digest for child in children), manifest.digest]


def test_an_alias_is_deleted_and_overwritten_like_a_tag(store: Store, root: Path) -> None:
    expected = foreign.skopeo(root / "app")
    store.repository_for_push("app").delete_manifest("1.36")
    assert store.repository("app").tags() == []
    assert store.repository("app").manifest(expected.tags["1.36"]).digest == expected.tags["1.36"]
    foreign.skopeo(root / "b")
    ours = push_image(store, "b", "1.36", seed="ours")
    assert store.repository("b").manifest("1.36").digest == ours
    assert store.repository("b").tags() == ["1.36"]


# -- a tool that writes at the same time --------------------------------------------------------


class Between(WrappedDriver):
    """Runs something once, just before the next index.json is written, or just before it takes the name (`late`)."""

    def __init__(self, path: Path, late: bool) -> None:
        super().__init__(LocalDriver(str(path)))
        self._late = late
        self.then: Callable[[], None] | None = None

    def create(self, key: str) -> Writer:
        if not self._late and "/.index.json" in key:
            self._now()
        return self.inner.create(key)

    def rename(self, source: str, target: str) -> None:
        if self._late and target.endswith("/index.json"):
            self._now()
        self.inner.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        if self._late:
            self._now()
        self.inner.exchange(one, other)

    def _now(self) -> None:
        if self.then is not None:
            then, self.then = self.then, None
            then()


def test_i4_a_late_write_into_the_old_file_is_merged(root: Path) -> None:
    """A tool that had index.json open before our rename, and writes after it."""
    store = store_over(LocalDriver(str(root)))
    push_image(store, "app", "v1")
    made = images.image("theirs")
    images.lay_out(root / "b", made)
    with (root / "app" / "index.json").open("r+") as file:
        theirs = json.load(file)
        theirs["manifests"].append(images.row(made, "theirs"))
        push_image(store, "app", "ours", seed="ours")
        file.seek(0)
        json.dump(theirs, file)
    store.maintain()
    assert store.repository("app").tags() == ["ours", "theirs", "v1"]
    assert store_over(LocalDriver(str(root))).repository("app").tags() == ["ours", "theirs", "v1"]


@pytest.mark.parametrize("late", [False, True], ids=["before the check", "after it"])
def test_i4_a_write_before_the_rename_is_merged(root: Path, late: bool) -> None:
    between = Between(root, late)
    store = store_over(between)
    push_image(store, "app", "v1")
    made, path = images.image("theirs"), root / "app" / "index.json"

    def write() -> None:
        theirs = json.loads(path.read_text())
        theirs["manifests"].append(images.row(made, "theirs"))
        path.write_text(json.dumps(theirs))

    between.then = write
    conflicts: list[None] = []
    local_of(store.roots[0]).context.conflict = lambda: conflicts.append(None)
    push_image(store, "app", "ours", seed="ours")
    store.maintain()
    assert store.repository("app").tags() == ["ours", "theirs", "v1"]
    assert len(conflicts) == (0 if late else 1)


def test_i4_a_late_write_in_two_steps_is_merged(root: Path) -> None:
    """Truncate, then write: between the two there is nothing to merge, and it isn't the end."""
    store = store_over(LocalDriver(str(root)))
    push_image(store, "app", "v1")
    made = images.image("theirs")
    with (root / "app" / "index.json").open("r+") as file:
        theirs = json.load(file)
        theirs["manifests"].append(images.row(made, "theirs"))
        push_image(store, "app", "ours", seed="ours")
        file.truncate(0)
        store.maintain()
        file.seek(0)
        text = json.dumps(theirs)
        file.write(text[:40])
        file.flush()
        store.maintain()
        file.write(text[40:])
    store.maintain()
    assert store.repository("app").tags() == ["ours", "theirs", "v1"]


def test_i4_a_late_write_brings_nothing_back_that_was_deleted(root: Path) -> None:
    store = store_over(LocalDriver(str(root)))
    gone = push_image(store, "app", "v1", seed="gone")
    push_image(store, "app", "v2", "v3")
    made = images.image("theirs")
    with (root / "app" / "index.json").open("r+") as file:
        theirs = json.load(file)
        theirs["manifests"].append(images.row(made, "theirs"))
        store.repository_for_push("app").delete_manifest(gone)
        file.seek(0)
        json.dump(theirs, file, indent=1)
    store.maintain()
    assert store.repository("app").tags() == ["theirs", "v2", "v3"]
    with (root / "app" / "index.json").open("r+") as file:
        theirs = json.load(file)
        store.repository_for_push("app").delete_manifest("v2")
        file.seek(0)
        json.dump(theirs, file, indent=2)
    store.maintain()
    assert store.repository("app").tags() == ["theirs", "v3"]


def test_i11_a_late_write_into_a_removed_repository_is_let_go(root: Path) -> None:
    store = store_over(LocalDriver(str(root)))
    push_image(store, "app", "v1")
    with (root / "app" / "index.json").open("r+") as file:
        theirs = json.load(file)
        theirs["manifests"].append(images.row(images.image("theirs"), "theirs"))
        push_image(store, "app", "ours", seed="ours")
        file.seek(0)
        json.dump(theirs, file)
        file.flush()
        shutil.rmtree(root / "app")
    push_image(store, "b", "v1")
    store.maintain()
    assert store.repositories() == ["b"]


def test_names_of_no_repository_have_no_tags(store: Store, root: Path) -> None:
    for name in ("_trivy", ".hidden", "UPPER", "a..b"):
        images.lay_out(root / name, images.image())
    assert store.repositories() == []
