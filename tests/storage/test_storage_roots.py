"""Several roots as one store, and what happens when one is missing, full of others' files, or not ours to write."""

from __future__ import annotations

import fcntl
import os
import pickle
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Meanwhile
from tests.storage.mounting import mount_at
from tests.stores import push_blob, push_image
from tests.tools import need
from zotctl.config import LayoutConfig, RootConfig, Route, StorageConfig
from zotctl.errors import (
    BlobUnknown,
    ConfigError,
    Denied,
    HeldElsewhere,
    NameUnknown,
    NoSuchStore,
    PermissionRefused,
    ReadOnly,
    Unavailable,
    ZotctlError,
)
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys, open_store, remember_roots
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver
from zotctl.storage.local import opening
from zotctl.storage.local.context import LocalContext
from zotctl.storage.locks import Locks

NOBODY, SOMEBODY = 65534, 12345


def opened(*roots: Path, routes: dict[str, Path] | None = None, **settings: Any) -> Store:
    """A store over roots that are made where they are missing."""
    config = StorageConfig(
        roots=tuple(RootConfig(path=str(root), create=True, min_free=0) for root in roots),
        routes=tuple(
            Route(prefix, RootConfig(path=str(root), create=True, min_free=0))
            for prefix, root in (routes or {}).items()
        ),
        **settings,
    )
    return open_store(config)


def names_in(root: Path) -> set[str]:
    return {str(path.parent.relative_to(root)) for path in root.rglob("oci-layout")}


def snapshot(root: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        found[str(path)] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_uid)
    return found


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can reach (pytest's own are for one user only)."""
    path = Path(tempfile.mkdtemp(prefix="zotctl-roots-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def as_user(uid: int, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises in a child process of that user."""
    need("root")
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            result: Any = work()
        except BaseException as error:
            result = error
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(pickle.dumps(result))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        result = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if isinstance(result, BaseException):
        raise result
    return result


# -- which root ---------------------------------------------------------------------------------


def test_of_a_name_in_two_roots_the_first_is_served_and_listed_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store = opened(a, b)
    one, two = images.image("one"), images.image("two")
    images.lay_out(b / "app", two, rows=[images.row(two, "v1")])
    assert store.repository("app").manifest("v1").digest == two.digest
    images.lay_out(a / "app", one, rows=[images.row(one, "v1")])
    images.lay_out(b / "only-b", two)
    assert store.repository("app").manifest("v1").digest == one.digest
    assert store.repositories() == ["app", "only-b"]
    push_image(store, "app", "v2")
    push_image(store, "only-b", "v2")
    assert b'"v2"' in (a / "app/index.json").read_bytes()
    assert b'"v2"' not in (b / "app/index.json").read_bytes()
    assert b'"v2"' in (b / "only-b/index.json").read_bytes()
    shutil.rmtree(a / "app")
    assert store.repository("app").manifest("v1").digest == two.digest


def test_an_invalid_layout_in_the_first_root_does_not_hide_a_sound_one(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store = opened(a, b)
    made = images.image()
    images.lay_out(a / "app", made)
    (a / "app/oci-layout").write_text("{}")
    os.utime(a / "app/index.json", (1, 1))
    images.lay_out(b / "app", made, rows=[images.row(made, "v1")])
    assert store.repository("app").tags() == ["v1"]
    assert store.repositories() == ["app"]
    push_image(store, "app", "v2")
    assert b'"v2"' in (b / "app/index.json").read_bytes()


def test_a_new_name_goes_by_the_longest_route_else_to_the_first_root(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("first", "second", "team", "below", "deep")}
    routes = {"team": places["team"], "team/app/": places["below"], "team/app/x": places["deep"]}
    store = opened(places["first"], places["second"], routes=routes)
    expected = {
        "other": "first", "teams": "first", "team-b": "first", "team": "team", "team/y": "team", "team/app": "team",
        "team/apple": "team", "team/app/y": "below", "team/app/x": "deep", "team/app/x/z": "deep",
        "team/app/xy": "below",
    }  # fmt: skip
    for name in expected:
        push_blob(store.repository_for_push(name), name.encode())
    for place, path in places.items():
        assert names_in(path) == {name for name, wanted in expected.items() if wanted == place}
    assert store.repositories() == sorted(expected, key=lambda name: name.split("/"))
    for name in expected:
        assert store.repository(name).blob(digest_of(name.encode())) == len(name)


def test_a_route_does_not_move_what_is_elsewhere_already(tmp_path: Path) -> None:
    push_blob(opened(tmp_path / "a").repository_for_push("team/app"), b"x")
    store = opened(tmp_path / "a", routes={"team": tmp_path / "b"})
    push_blob(store.repository_for_push("team/app"), b"y")
    assert (names_in(tmp_path / "a"), names_in(tmp_path / "b")) == ({"team/app"}, set())
    assert store.repository("team/app").blob(digest_of(b"y")) == 1


def test_i7_nothing_is_shared_between_roots_and_a_mount_is_not_done(tmp_path: Path) -> None:
    store = opened(tmp_path / "a", routes={"team": tmp_path / "b"})
    digest = push_blob(store.repository_for_push("app"), b"x" * 5000)
    assert not store.repository_for_push("team/app").mount_blob(store.repository("app"), digest)
    assert names_in(tmp_path / "b") == set(), "a mount that is not done makes nothing"
    push_blob(store.repository_for_push("team/app"), b"x" * 5000)
    store.repository_for_push("app").delete_blob(digest)
    assert store.repository("team/app").blob(digest) == 5000
    with pytest.raises(BlobUnknown):
        store.repository("app").blob(digest)


# -- a root that goes away ----------------------------------------------------------------------


def test_a_root_that_vanishes_is_503_for_its_repositories_only_and_comes_back(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store = opened(a, routes={"team": b})
    push_image(store, "app", "v1")
    push_image(store, "team/app", "v1")
    b.rename(tmp_path / "away")
    for _ in range(2):
        push_image(store, "app", "v2", seed="new")
        assert store.repository("app").tags() == ["v1", "v2"]
        for ask in (store.repository, store.repository_for_push):
            with pytest.raises(Unavailable):
                ask("team/app")
        with pytest.raises(Unavailable):
            store.repository_for_push("team/new")
    assert not b.exists(), "an absent root is not made in passing"
    store.maintain()
    assert not b.exists()
    (tmp_path / "away").rename(b)
    assert store.repository("team/app").tags() == ["v1"]
    assert store.repositories() == ["app", "team/app"]
    push_image(store, "team/app", "v2", seed="new")
    assert store.repository("team/app").tags() == ["v1", "v2"]


def test_a_route_says_where_a_name_lives_while_another_root_is_away(tmp_path: Path) -> None:
    a, b, team = tmp_path / "a", tmp_path / "b", tmp_path / "team"
    store = opened(a, b, routes={"team": team})
    push_image(store, "app", "v1")
    images.lay_out(b / "team/in-b", made := images.image("b"), rows=[images.row(made, "v1")])
    a.rename(tmp_path / "away")
    with pytest.raises(NameUnknown):
        store.repository("team/app")
    push_image(store, "team/app", "v1")
    push_image(store, "team/in-b", "v2")
    assert (names_in(team), names_in(b)) == ({"team/app"}, {"team/in-b"})
    assert store.repository("team/app").tags() == ["v1"]
    for name in ("app", "new"):
        for ask in (store.repository, store.repository_for_push):
            with pytest.raises(Unavailable, match="is away"):
                ask(name)
    (tmp_path / "away").rename(a)
    assert store.repositories() == ["app", "team/app", "team/in-b"]


def test_a_name_that_is_in_a_root_and_can_not_be_read_is_not_begun_anew_by_its_route(open_dir: Path) -> None:
    """The root is there, so it isn't away: it has the name, and a second one would be hidden by it."""
    a, team = open_dir / "a", open_dir / "team"
    with umask(0o022):
        for root in (a, team):
            opened(root).close()
        images.lay_out(a / "team/app", images.image())
    (a / "team").chmod(0o700)

    def work() -> None:
        store = open_store(StorageConfig(
            roots=(RootConfig(path=str(a)),), routes=(Route("team", RootConfig(path=str(team))),), read_only=True,
        ))  # fmt: skip
        with pytest.raises(PermissionRefused):
            store.repository_for_push("team/app")

    as_user(NOBODY, work)


def test_a_root_that_comes_back_with_a_routed_name_of_its_own_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, team = tmp_path / "a", tmp_path / "team"
    push_image(opened(a), "team/app", "old")
    store = opened(a, routes={"team": team})
    a.rename(tmp_path / "away")
    push_image(store, "team/app", "new")
    (tmp_path / "away").rename(a)
    assert store.repositories() == ["team/app"]
    assert store.repository("team/app").tags() == ["old"]
    assert "team/app: it is in more than one root; the first of them is served" in caplog.text


def test_an_empty_directory_in_place_of_a_root_is_not_taken_for_it(tmp_path: Path) -> None:
    """The mount point of a share that was unmounted."""
    a = tmp_path / "a"
    store = opened(a)
    push_image(store, "app", "v1")
    a.rename(tmp_path / "away")
    a.mkdir()
    for ask in (store.repository, store.repository_for_push):
        for name in ("app", "new"):
            with pytest.raises(Unavailable):
                ask(name)
    store.maintain()
    assert list(a.iterdir()) == []
    a.rmdir()
    (tmp_path / "away").rename(a)
    push_image(store, "app", "v2")
    assert store.repository("app").tags() == ["v1", "v2"]


def test_i4_what_a_handle_from_before_does_when_the_root_is_away(tmp_path: Path) -> None:
    store = opened(tmp_path / "a")
    push_image(store, "app", "v1")
    repository = store.repository_for_push("app")
    upload_id = repository.start_upload()
    (tmp_path / "a").rename(tmp_path / "away")
    for work in (
        lambda: push_blob(repository, b"x"),
        lambda: repository.delete_manifest("v1"),
        lambda: repository.resume_upload(upload_id),
    ):
        with pytest.raises(ZotctlError):
            work()
    assert not (tmp_path / "a").exists()
    (tmp_path / "away").rename(tmp_path / "a")
    assert store.repository("app").tags() == ["v1"]
    with repository.resume_upload(upload_id) as upload:
        upload.write([b"x"])
        upload.finish(digest_of(b"x"))
    assert store.repository("app").blob(digest_of(b"x")) == 1


def test_a_root_that_is_mounted_anew_can_be_written_again(tmp_path: Path) -> None:
    """It then has another device number."""
    need("root")
    root = tmp_path / "root"
    root.mkdir()
    with mount_at(root, "-t", "tmpfs", "none"):
        store = opened(root)
        push_image(store, "app", "v1")
        shutil.copytree(root, tmp_path / "copy")
    with pytest.raises(Unavailable):
        store.repository("app")
    (tmp_path / "other").mkdir()
    with mount_at(tmp_path / "other", "-t", "tmpfs", "none"), mount_at(root, "-t", "tmpfs", "none"):
        shutil.copytree(tmp_path / "copy", root, dirs_exist_ok=True)
        assert store.repository("app").tags() == ["v1"]
        push_image(store, "app", "v2", seed="new")
        assert store.repository("app").tags() == ["v1", "v2"]


@pytest.mark.parametrize("asked", [False, True])
def test_a_read_only_root_without_our_marker_that_is_mounted_anew_is_there_again(tmp_path: Path, asked: bool) -> None:
    need("root")
    root, copy, made = tmp_path / "root", tmp_path / "copy", images.image()
    root.mkdir()
    images.lay_out(copy / "app", made, rows=[images.row(made, "v1")])
    with mount_at(root, "-t", "tmpfs", "none"):
        shutil.copytree(copy, root, dirs_exist_ok=True)
        store = opened(root, read_only=True)
        if asked:
            assert store.repository("app").tags() == ["v1"]
    with pytest.raises(Unavailable, match="another directory"):
        store.repository("app")
    (tmp_path / "other").mkdir()
    with mount_at(tmp_path / "other", "-t", "tmpfs", "none"), mount_at(root, "-t", "tmpfs", "none"):
        with pytest.raises(Unavailable, match="another directory"):
            store.repository("new")
        shutil.copytree(copy, root, dirs_exist_ok=True)
        assert store.roots[0].state() is None
        with pytest.raises(NameUnknown):
            store.repository("new")
        assert store.repository("app").tags() == ["v1"]


def test_what_lies_below_the_mount_point_of_a_read_only_root_is_not_taken_for_it(tmp_path: Path) -> None:
    root, made = tmp_path / "root", images.image()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    store = opened(root, read_only=True)
    assert store.repository("app").tags() == ["v1"]
    root.rename(tmp_path / "away")
    (root / "left" / "over").mkdir(parents=True)
    for name in ("app", "new"):
        with pytest.raises(Unavailable, match="another directory"):
            store.repository(name)
    images.lay_out(root / "app", made, rows=[images.row(made, "v2")])
    assert (store.roots[0].state(), store.repository("app").tags()) == (None, ["v2"])


# -- what is refused at the start ---------------------------------------------------------------


def refused(config: StorageConfig, *words: str) -> None:
    with pytest.raises((ConfigError, NoSuchStore)) as caught:
        open_store(config)
    for word in words:
        assert word in caught.value.message


def test_an_empty_root_that_was_never_used_is_refused_unless_it_may_be_made(tmp_path: Path) -> None:
    root = tmp_path / "a"
    config = StorageConfig(roots=(RootConfig(path=str(root)),))
    refused(config, str(root), "create")
    assert not root.exists()
    root.mkdir()
    refused(config, str(root), "create", "mounted")
    assert list(root.iterdir()) == []
    open_store(StorageConfig(roots=(RootConfig(path=str(root), create=True),))).close()
    open_store(config).close()
    shutil.rmtree(root / ".zotctl")
    images.lay_out(root / "app", images.image())
    assert open_store(config).repositories() == ["app"], "a tree that is not empty is no mount point"


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("a", "dangling", "a/b"):
        for create in (True, False):
            refused(StorageConfig(roots=(RootConfig(path=str(tmp_path / name), create=create),)), name)
    with pytest.raises(NoSuchStore, match="a is a file, not a directory"):
        open_store(StorageConfig(roots=(RootConfig(path=str(tmp_path / "a")),)))


@pytest.mark.parametrize(
    "one, other", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "link"), ("a", "link/b"), ("a", "a/../a")]
)
@pytest.mark.parametrize("route", [False, True])
def test_nested_roots_and_one_root_twice_are_refused(tmp_path: Path, one: str, other: str, route: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    roots = [RootConfig(path=str(tmp_path / name), create=True) for name in (one, other)]
    if route:
        refused(StorageConfig(roots=(roots[0],), routes=(Route("x", roots[1]),)), "nested")
    else:
        refused(StorageConfig(roots=tuple(roots)), "nested")
    assert not (tmp_path / "a" / ".zotctl").exists()


def test_one_directory_under_two_mount_points_is_refused(tmp_path: Path) -> None:
    need("root")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with mount_at(tmp_path / "b", "--bind", str(tmp_path / "a")):
        refused(StorageConfig(roots=tuple(RootConfig(path=str(tmp_path / name), create=True) for name in "ab")), "same")


def test_names_that_only_begin_alike_are_not_nested(tmp_path: Path) -> None:
    opened(tmp_path / "a", tmp_path / "ab").close()


@pytest.mark.parametrize("name", ["cache.db", "meta.db"])
def test_i10_beside_a_running_zot_nothing_is_written(tmp_path: Path, name: str) -> None:
    root = tmp_path / "a"
    images.lay_out(root / "app", images.image())
    (root / name).write_bytes(b"bolt")
    before = snapshot(root)
    with (root / name).open("rb") as database:
        fcntl.flock(database, fcntl.LOCK_EX)  # as bbolt does
        with pytest.raises(HeldElsewhere) as caught:
            opened(root)
        assert caught.value.exit_code == 11
        assert snapshot(root) == before
        assert opened(root, read_only=True).repositories() == ["app"], "reading beside it is fine"
        assert snapshot(root) == before
    assert opened(root).repositories() == ["app"]
    with (root / name).open("rb") as database:
        fcntl.flock(database, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- read-only ----------------------------------------------------------------------------------


def check_read_only(store: Store, root: Path, made: images.Image) -> None:
    before = snapshot(root)
    repository = store.repository("app")
    assert (repository.tags(), repository.read_only) == (["v1"], True)
    assert repository.manifest("v1").body == made.manifest
    for blob in made.blobs:
        with repository.open_blob(digest_of(blob)) as reader:
            assert reader.read_at(0, reader.size) == blob
    for missing in (digest_of(b"nobody"),):
        with pytest.raises(BlobUnknown):
            repository.blob(missing)
    for name in ("app", "new"):
        with pytest.raises(ReadOnly):
            store.repository_for_push(name).start_upload()
    changes: list[Callable[[], None]] = [
        lambda: repository.delete_manifest("v1"),
        lambda: repository.delete_blob(digest_of(made.blobs[0])),
    ]
    for change in changes:
        with pytest.raises(ReadOnly):
            change()
    with pytest.raises(NameUnknown):
        store.repository("new")
    assert store.repositories() == ["app"]
    store.maintain()
    store.close()
    assert snapshot(root) == before


@pytest.mark.parametrize("used", [False, True])
def test_a_read_only_store_writes_nothing(tmp_path: Path, used: bool) -> None:
    root, made = tmp_path / "a", images.image()
    if used:
        opened(root).close()
    images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    check_read_only(opened(root, read_only=True), root, made)


@pytest.mark.parametrize("used", [False, True])
def test_a_root_on_a_read_only_mount_is_served_read_only(tmp_path: Path, used: bool) -> None:
    need("root")
    source, root, made = tmp_path / "source", tmp_path / "root", images.image()
    root.mkdir()
    if used:
        opened(source).close()
    images.lay_out(source / "app", made, rows=[images.row(made, "v1")])
    with mount_at(root, "--bind", "-o", "ro", str(source)):
        check_read_only(opened(root), root, made)


@pytest.mark.parametrize("used", [False, True])
def test_a_root_that_this_user_may_not_write_is_served_read_only(open_dir: Path, used: bool) -> None:
    root, made = open_dir / "root", images.image()
    with umask(0o022):
        if used:
            opened(root).close()
        images.lay_out(root / "app", made, rows=[images.row(made, "v1")])
    as_user(NOBODY, lambda: check_read_only(opened(root), root, made))


def test_one_directory_that_may_not_be_read_costs_the_others_nothing(open_dir: Path) -> None:
    root, made = open_dir / "root", images.image()
    with umask(0o022):
        opened(root).close()
        for name in ("app", "closed", "hidden/app", "shut"):
            images.lay_out(root / name, made, rows=[images.row(made, "v1")])
    (root / "closed").chmod(0o700)
    (root / "hidden").chmod(0o700)
    (root / "shut" / "index.json").chmod(0o600)

    def work() -> tuple[list[str], list[str]]:
        store = opened(root)
        for name in ("closed", "hidden/app", "shut"):
            with pytest.raises(ZotctlError) as caught:
                store.repository(name)
            assert caught.value.exit_code == 12, "permission, not 'unknown'"
        return store.repositories(), store.repository("app").tags()

    names, tags = as_user(NOBODY, work)
    assert "app" in names and tags == ["v1"]


# -- one layout ---------------------------------------------------------------------------------


def test_one_layout_is_served_under_its_name_and_nothing_is_written(tmp_path: Path) -> None:
    made = images.image("one")
    children = [images.image(str(number)) for number in range(2)]
    for child in children:
        images.lay_out(tmp_path / "dir" / "lay", child)
    body = images.index([(child.digest, len(child.manifest)) for child in children])
    digest = digest_of(body)
    (tmp_path / "dir/lay/blobs/sha256" / digest.encoded).write_bytes(body)
    rows = [images.row(made, "v1"), images.descriptor(body, "application/vnd.oci.image.index.v1+json")]
    images.lay_out(tmp_path / "dir" / "lay", made, rows=rows)
    before = snapshot(tmp_path / "dir")
    layout = LayoutConfig(path=str(tmp_path / "dir" / "lay"), name="some/name")
    store = open_store(StorageConfig(single_layout=layout, roots=(RootConfig(path=str(tmp_path / "never")),)))
    assert store.repositories() == ["some/name"]
    assert (store.repositories(0), store.repositories(5, "some/name"), store.repositories(5, "some")) == (
        [], [], ["some/name"],
    )  # fmt: skip
    repository = store.repository("some/name")
    assert repository.read_only and repository.tags() == ["v1"]
    assert repository.manifest("v1").body == made.manifest
    assert repository.manifest(children[1].digest).body == children[1].manifest
    with repository.open_blob(digest_of(made.blobs[1])) as reader:
        assert reader.read_at(0, reader.size) == made.blobs[1]
    with pytest.raises(BlobUnknown):
        repository.blob(digest_of(b"nobody"))
    for name in ("other", "some", "some/name/x", "lay", "some/names"):
        with pytest.raises(NameUnknown):
            store.repository(name)
        with pytest.raises(NameUnknown):
            store.repository_for_push(name)
    with pytest.raises(ReadOnly):
        store.repository_for_push("some/name").start_upload()
    store.maintain()
    store.close()
    assert snapshot(tmp_path / "dir") == before
    assert not (tmp_path / "never").exists()


def test_one_layout_that_vanishes_is_503_and_comes_back(tmp_path: Path) -> None:
    made = images.image()
    images.lay_out(tmp_path / "lay", made, rows=[images.row(made, "v1")])
    store = open_store(StorageConfig(single_layout=LayoutConfig(path=str(tmp_path / "lay"), name="n")))
    assert store.repository("n").tags() == ["v1"]
    (tmp_path / "lay").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        store.repository("n")
    shutil.copytree(tmp_path / "away", tmp_path / "lay")
    assert (store.roots[0].state(), store.repository("n").tags()) == (None, ["v1"])


# -- users and modes ----------------------------------------------------------------------------


def test_another_user_who_could_write_is_refused_and_told_the_way_out(open_dir: Path) -> None:
    need("root")
    root = open_dir / "root"
    with umask(0):
        opened(root).close()
        images.lay_out(root / "app", images.image())
    before = snapshot(root)
    with pytest.raises(PermissionRefused) as caught:
        as_user(NOBODY, lambda: opened(root).close())
    assert caught.value.exit_code == 12 and "sudo -u" in caught.value.message
    assert snapshot(root) == before


@pytest.mark.parametrize("create", [False, True])
def test_a_root_that_may_not_be_looked_into_is_a_clear_error(open_dir: Path, create: bool) -> None:
    need("root")
    root = open_dir / "root"
    opened(root).close()
    root.chmod(0o700)
    with pytest.raises(PermissionRefused):
        as_user(NOBODY, lambda: open_store(StorageConfig(roots=(RootConfig(path=str(root), create=create),))).close())


def owners(root: Path) -> set[int]:
    return {path.lstat().st_uid for path in root.rglob("*")} | {path.lstat().st_gid for path in root.rglob("*")}


@pytest.mark.parametrize("mask, file, directory", [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o027, 0o640, 0o750)])
def test_the_umask_is_respected(tmp_path: Path, mask: int, file: int, directory: int) -> None:
    with umask(mask):
        store = opened(tmp_path / "root")
        push_image(store, "a/b", "v1")
        push_image(store, "a/b", "v2", seed="new")
        store.repository_for_push("a/b").start_upload()
    for path in (tmp_path / "root").rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (directory if path.is_dir() else file), path


def test_index_json_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with umask(0o022):
        store = opened(root)
        push_image(store, "app", "v1")
    index = root / "app" / "index.json"
    index.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(index, SOMEBODY, NOBODY)
    with umask(0o077):
        push_image(opened(root), "app", "v2", seed="new")
    info = index.stat()
    assert stat.S_IMODE(info.st_mode) == 0o664
    assert os.geteuid() != 0 or (info.st_uid, info.st_gid) == (SOMEBODY, NOBODY)
    assert store.repository("app").tags() == ["v1", "v2"]


def test_what_root_makes_belongs_to_the_owner_of_the_store(tmp_path: Path) -> None:
    need("root")
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, SOMEBODY, SOMEBODY)
    store = opened(root)
    push_image(store, "a/b", "v1")
    push_image(store, "a/b", "v2", seed="new")
    push_blob(store.repository_for_push("c"), b"x", "sha512")
    upload_id = store.repository_for_push("c").start_upload()
    with store.repository_for_push("c").resume_upload(upload_id) as upload:
        upload.write([b"half"])
    store.repository_for_push("a/b").delete_manifest("v1")
    store.repository_for_push("c").delete_blob(digest_of(b"x", "sha512"))
    store.maintain()
    assert owners(root) == {SOMEBODY}
    os.chown(root, NOBODY, NOBODY)
    push_image(opened(root), "d", "v1")
    assert owners(root) == {SOMEBODY}, "of .zotctl, once that is there"


def test_a_store_of_one_user_is_written_by_root_and_read_by_that_user(open_dir: Path) -> None:
    """Seen in the wild: a job of root's cron under umask 077, and `serve` can't read the repository."""
    need("root")
    root = open_dir / "root"
    root.mkdir()
    os.chown(root, SOMEBODY, SOMEBODY)
    with umask(0o077):
        push_image(opened(root), "app", "v1")
        as_user(SOMEBODY, lambda: push_image(opened(root), "app", "v2", seed="2"))
        push_image(opened(root), "app", "v3", seed="3")

    def work() -> list[str]:
        store = opened(root)
        push_image(store, "app", "v4", seed="4")
        return store.repository("app").tags()

    assert as_user(SOMEBODY, work) == ["v1", "v2", "v3", "v4"]


@pytest.mark.parametrize("said", ['{"format": 2}', '{"layout": "x"}', "[1]", "rubbish", "[" * 5000])
def test_a_store_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path, said: str) -> None:
    opened(tmp_path / "a").close()
    (tmp_path / "a/.zotctl/version").write_text(said)
    (tmp_path / "a/.zotctl/trash").rmdir()
    for read_only in (False, True):
        with pytest.raises(ConfigError, match=f"does not know .*says {re.escape(said[:80])}.*update zotctl"):
            opened(tmp_path / "a", read_only=read_only)
    assert not (tmp_path / "a/.zotctl/trash").exists()
    (tmp_path / "a/.zotctl/version").write_text("")  # a full disk leaves it so
    opened(tmp_path / "a").close()


def test_a_missing_root_says_what_helps_with_zots_file_too(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        with pytest.raises(NoSuchStore, match="ZOTCTL_STORAGE_CREATE=true"):
            open_store(StorageConfig(roots=(RootConfig(path=str(tmp_path / name)),)))


def test_routes_alone_take_only_what_they_lead_to(tmp_path: Path) -> None:
    store = opened(routes={"a": tmp_path / "a"})
    push_image(store, "a/b", "v1")
    with pytest.raises(Denied, match="no route leads c anywhere"):
        store.repository_for_push("c")
    assert store.repositories() == ["a/b"]


def test_a_store_below_a_root_is_only_read_from_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Servers of that store take its locks and keep its reservations: a collector with other ones would not see
    them."""
    inner = opened(tmp_path / "srv" / "images")
    push_image(inner, "team/app", "v1")
    store = opened(tmp_path / "srv")
    push_image(store, "mine", "v1")
    for name in ("images/team/app", "images/new"):
        with pytest.raises(ReadOnly):
            store.repository_for_push(name).start_upload()
    push_blob(inner.repository("team/app"), b"unreachable")
    run = Run("gc", store)
    run.finish(lambda: gc(run, lambda root: GcOptions(delay=0.0)))
    assert (run.report.exit_code, run.report.summary["repositories"]) == (0, 1)
    assert inner.repository("team/app").blob(digest_of(b"unreachable")) == 11
    assert store.repository("images/team/app").tags() == ["v1"]
    assert caplog.text.count(f"{tmp_path}/srv/images is a store of its own, so it is only read from here") == 1
    shutil.rmtree(tmp_path / "srv/images/.zotctl")
    push_image(opened(tmp_path / "srv"), "images/team/app", "v2")


def test_a_part_of_a_store_is_no_root_of_its_own(tmp_path: Path) -> None:
    push_image(opened(tmp_path / "a"), "team/app", "v1")
    with pytest.raises(ConfigError, match=f"lies in the store {tmp_path}/a: name that one"):
        opened(tmp_path / "a" / "team")
    assert not (tmp_path / "a/team/.zotctl").exists()
    assert opened(tmp_path / "a" / "team", read_only=True).repositories() == ["app"]


def test_a_list_of_repositories_is_503_while_a_root_is_away_and_names_it(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store = opened(a, b)
    push_image(store, "app", "v1")
    images.lay_out(b / "other", images.image())
    assert store.repositories() == ["app", "other"]
    b.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match=f"{b} is away"):
        store.repositories()
    b.mkdir()  # the mount point without its share
    with pytest.raises(Unavailable, match=f"{b} is away"):
        store.repositories(n=1)
    b.rmdir()
    (tmp_path / "away").rename(b)
    assert store.repositories() == ["app", "other"]


@pytest.mark.parametrize("left", [None, "empty", "something"])
def test_a_root_that_was_there_is_not_made_anew(
    tmp_path: Path, left: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that is forked later: a worker that replaces one that died, the jobs, a reload."""
    monkeypatch.setattr(opening, "_there", set())
    config = StorageConfig(roots=(RootConfig(path=str(tmp_path / "a"), create=True),))
    remember_roots(config)
    open_store(config).close()  # the first time, it is made
    remember_roots(config)
    (tmp_path / "a").rename(tmp_path / "away")
    if left:
        (tmp_path / "a").mkdir()
    if left == "something":
        (tmp_path / "a/readme").touch()
    with pytest.raises(Unavailable, match="it was there when the server began; is it mounted"):
        open_store(config)
    assert not (tmp_path / "a").exists() or not (tmp_path / "a/.zotctl").exists()
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "a")
    open_store(config).close()


def test_of_two_that_make_a_root_neither_replaces_the_mark_of_the_other() -> None:
    """A client of NFS may die while it replaces it, and where it is missing servers answer 503."""
    driver, made = MemoryDriver(local=False), list[int]()
    driver.mkdir(keys.HIDDEN)
    driver.mkdir(keys.TMP)

    def mark(driver: Driver) -> None:
        opening._mark(LocalContext(driver, Clock(), Locks(driver, Clock())))
        made.append(driver.stat(keys.VERSION).ino)

    mark(Meanwhile(driver, "create", lambda: mark(driver)))
    assert len(made) == 2 and made[0] == made[1]
    assert not driver.scan(keys.TMP)
