"""Damage has consequences: it answers 404, a push heals it everywhere, and `--repair` brings it back."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.jobs.docker_archives import saved
from tests.jobs.importing import gzipped, tar_bytes, tar_of
from tests.jobs.layouts import age, blob, cut, flip, lay_out, only, run_scrub, share, store_of, told
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import BlobUnknown, CannotLink, IoFailed, ManifestUnknown, PermissionRefused
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, Info, Reader, read
from zotctl.storage.local.driver import LocalDriver, LocalReader
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import WrappedDriver

IMAGE = images.image("one", layers=3)
LAYER = IMAGE.blobs[1]
DIGEST = digest_of(LAYER)


def pull(store: Store, name: str, tag: str) -> list[bytes]:
    """As a client does: the manifest, then what it names."""
    repository = store.repository(name)
    body = repository.manifest(tag).body
    found = json.loads(body)
    bodies = [body]
    for descriptor in (found["config"], *found["layers"]):
        with repository.open_blob(parse_digest(descriptor["digest"])) as reader:
            bodies.append(reader.read_at(0, reader.size))
    return bodies


def is_there(store: Store, name: str, digest: Digest = DIGEST) -> bool:
    try:
        store.repository(name).blob(digest)
        store.repository(name).open_blob(digest).close()
    except BlobUnknown:
        return False
    return True


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Three repositories that share a layer, and it is damaged."""
    for name in ("a", "b", "c"):
        lay_out(tmp_path, name, IMAGE, "v1")
    for name in ("b", "c"):
        share(blob(tmp_path, "a", LAYER), blob(tmp_path, name, LAYER))
    flip(blob(tmp_path, "a", LAYER))
    return tmp_path


WHOLE = [IMAGE.manifest, *IMAGE.blobs]


# -- marked, pushed again -----------------------------------------------------------------------


def test_i2_known_damage_answers_404_in_every_repository(shared: Path) -> None:
    store = store_of(shared)
    assert all(is_there(store, name) for name in "abc")
    run_scrub(store)
    assert not any(is_there(store, name) for name in "abc")
    assert is_there(store, "a", digest_of(IMAGE.blobs[0]))
    assert not is_there(store_of(shared), "a"), "another process knows it, too"


def test_one_push_heals_every_repository(shared: Path) -> None:
    store = store_of(shared)
    run_scrub(store)
    push_blob(store.repository_for_push("b"), LAYER)
    assert [pull(store, name, "v1") for name in "abc"] == [WHOLE] * 3
    inodes = {blob(shared, name, LAYER).stat().st_ino for name in "abc"}
    assert len(inodes) == 1, "and they share the good one"
    assert run_scrub(store).findings == []


def test_a_push_heals_the_others_even_if_no_scrub_has_found_it(shared: Path) -> None:
    """Peers' mistake 4."""
    store = store_of(shared)
    push_blob(store.repository_for_push("b"), LAYER)
    assert [pull(store, name, "v1") for name in "abc"] == [WHOLE] * 3


def test_a_damaged_manifest_is_healed_by_its_push_everywhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay_out(tmp_path, name, IMAGE, "v1")
    share(blob(tmp_path, "a", IMAGE.manifest), blob(tmp_path, "b", IMAGE.manifest))
    flip(blob(tmp_path, "a", IMAGE.manifest))
    store = store_of(tmp_path)
    finding = {f.repository: f for f in run_scrub(store).findings}
    assert finding["b"].tags == ("v1",)
    with pytest.raises(ManifestUnknown):
        store.repository("b").manifest("v1")
    store.repository_for_push("a").put_manifest(check_manifest(IMAGE.manifest, OCI_MANIFEST), IMAGE.manifest, ["v1"])
    assert [pull(store, name, "v1") for name in "ab"] == [WHOLE] * 2
    assert run_scrub(store).findings == []


def test_a_damaged_pool_copy_is_dropped(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    push_image(store, "a", "v1", seed="x")
    layer = images.image("x").blobs[1]
    flip(blob(tmp_path, "a", layer))
    age(tmp_path)
    run_scrub(store)
    assert not (tmp_path / keys.pool(digest_of(layer))).exists()
    push_blob(store.repository_for_push("new"), layer)
    with store.repository("new").open_blob(digest_of(layer)) as reader:
        assert reader.read_at(0, reader.size) == layer


def test_a_stub_and_a_cut_file_are_healed_by_a_push(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    cut(blob(tmp_path, "a", LAYER), 0)
    cut(blob(tmp_path, "a", IMAGE.blobs[2]), 11)
    store = store_of(tmp_path)
    assert {f.action for f in run_scrub(store).findings} == {"marked"}
    for body in (LAYER, IMAGE.blobs[2]):
        push_blob(store.repository_for_push("a"), body)
    assert pull(store, "a", "v1") == WHOLE


def test_damage_is_first_seen_when_it_was_first_seen(shared: Path) -> None:
    store = store_of(shared)
    before = {f.repository: f.details["first_seen_at"] for f in run_scrub(store).findings}
    store = store_of(shared)
    store.clock.now = lambda: 4e9  # type: ignore[method-assign]
    again = run_scrub(store)
    assert {f.repository: f.details["first_seen_at"] for f in again.findings} == before
    assert {f.action for f in again.findings} == {"marked"}
    assert len(list((shared / keys.damaged_links(DIGEST)).iterdir())) == 1
    push_blob(store.repository_for_push("a"), LAYER)
    run_scrub(store)
    flip(blob(shared, "a", LAYER))
    assert {f.details["first_seen_at"] for f in run_scrub(store).findings} == {"2096-10-02T07:06:40Z"}


def test_bytes_that_are_right_after_all_lose_their_mark(shared: Path) -> None:
    """A cable, a cache: what reads well now is served."""
    store = store_of(shared)
    run_scrub(store)
    flip(blob(shared, "a", LAYER))
    report = run_scrub(store)
    assert report.findings == []
    assert report.summary["cleared"] == 1
    assert all(is_there(store, name) for name in "abc")


def test_damaged_content_is_kept_for_a_week_after_it_was_healed(shared: Path) -> None:
    store = store_of(shared)
    run_scrub(store)
    push_blob(store.repository_for_push("a"), LAYER)
    now = store.clock.now()
    for days, kept in ((6, True), (8, False)):
        store.clock.now = lambda days=days: now + days * 86400  # type: ignore[method-assign,misc]
        run_scrub(store)
        assert (shared / keys.damaged_links(DIGEST)).exists() is kept


def test_where_links_do_not_work_the_file_is_set_aside() -> None:
    driver = MemoryDriver(links=False)
    store = store_over(driver)
    push_image(store, "a", "v1", seed="x")
    layer = digest_of(images.image("x").blobs[1])
    _spoil(driver, keys.blob("a", layer))
    assert only(run_scrub(store)).action == "marked"
    assert not is_there(store, "a", layer)
    assert [e.name.startswith(layer.encoded) for e in driver.scan(keys.DAMAGED_MOVED)] == [True]
    push_blob(store.repository_for_push("a"), images.image("x").blobs[1])
    assert is_there(store, "a", layer)


def _spoil(driver: MemoryDriver, key: str) -> None:
    driver.names[key].data[3] ^= 1
    driver.names[key].mtime = 10**18


class _OfAnotherOwner(WrappedDriver):
    """The files of a repository belong to another user, and the kernel protects hard links."""

    readable = False

    def open(self, key: str) -> Reader:
        if key.startswith("a/blobs/") and not self.readable:
            raise PermissionRefused(f"{key}: Permission denied")
        return super().open(key)

    def link(self, source: str, target: str) -> None:
        if source.startswith("a/blobs/"):
            raise CannotLink(f"{source}: Operation not permitted")
        super().link(source, target)


def test_what_this_user_may_not_read_is_not_replaced() -> None:
    driver = MemoryDriver()
    for name in ("a", "b"):
        push_image(store_over(driver, dedupe=False), name, "v1", seed="x")
    before = {key: driver.names[key] for key in driver.names if key.startswith("a/blobs/")}
    report = run_scrub(store_over(_OfAnotherOwner(driver)), repair=True)
    assert {(finding.kind, finding.action) for finding in report.findings} == {("unreadable", "none")}
    assert {key: driver.names[key] for key in driver.names if key.startswith("a/blobs/")} == before


def test_what_had_to_be_set_aside_is_replaced_by_the_repair() -> None:
    inner = MemoryDriver()
    for name in ("a", "b"):
        push_image(store_over(inner, dedupe=False), name, "v1", seed="x")
    layer = digest_of(images.image("x").blobs[1])
    _spoil(inner, keys.blob("a", layer))
    driver = _OfAnotherOwner(inner)
    driver.readable = True
    assert only(run_scrub(store_over(driver), repair=True)).action == "repaired"
    assert is_there(store_over(inner), "a", layer)


# -- repair -------------------------------------------------------------------------------------


def test_repair_from_another_repository_heals_all(shared: Path) -> None:
    lay_out(shared, "z", IMAGE, "v1")
    store = store_of(shared)
    report = run_scrub(store, repair=True)
    assert {(f.repository, f.action) for f in report.findings} == {(name, "repaired") for name in "abc"}
    assert report.exit_code == 4
    assert [pull(store, name, "v1") for name in "abcz"] == [WHOLE] * 4
    assert run_scrub(store).findings == []


def test_repair_heals_in_a_layout_that_is_not_valid_and_tells_it_once(shared: Path) -> None:
    lay_out(shared, "z", IMAGE, "v1")
    (shared / "b" / "index.json").write_text("{")
    os.utime(shared / "b" / "index.json", (1, 1))
    report = run_scrub(store_of(shared), repair=True)
    assert report.errors == []
    assert {(f.repository, f.kind, f.action) for f in report.findings} == {
        (name, "digest_mismatch", "repaired") for name in "abc"
    } | {("b", "invalid_index", "none")}


def test_repair_from_another_root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    lay_out(other, "elsewhere/x", IMAGE, "v1")
    store = store_of(shared, other)
    report = run_scrub(store, repair=True)
    assert {f.action for f in report.findings} == {"repaired"}
    assert [pull(store, name, "v1") for name in "abc"] == [WHOLE] * 3
    assert blob(shared, "a", LAYER).stat().st_ino != blob(other, "elsewhere/x", LAYER).stat().st_ino


def test_repair_does_not_believe_a_copy(shared: Path) -> None:
    """Another damaged copy is no help, and is told of as well."""
    lay_out(shared, "z", IMAGE, "v1")
    flip(blob(shared, "z", LAYER), 3)
    store = store_of(shared)
    report = run_scrub(store, repair=True)
    assert {(f.repository, f.action) for f in report.findings} == {(name, "marked") for name in "abcz"}


@pytest.mark.parametrize("where", ["", "sub/dir"])
def test_repair_from_a_layout(shared: Path, tmp_path_factory: pytest.TempPathFactory, where: str) -> None:
    backup = tmp_path_factory.mktemp("backup")
    lay_out(backup, where, IMAGE, "v1")
    blob(shared, "b", IMAGE.manifest).unlink()
    store = store_of(shared)
    report = run_scrub(store, repair=True, repair_from=str(backup))
    assert {(f.repository, f.kind, f.action) for f in report.findings} == {
        (name, "digest_mismatch", "repaired") for name in "abc"
    } | {("b", "missing_manifest", "repaired")}
    assert [pull(store, name, "v1") for name in "abc"] == [WHOLE] * 3
    assert run_scrub(store).findings == []


@pytest.mark.parametrize("of", ["a tree", "docker save"])
def test_repair_from_an_archive(shared: Path, tmp_path_factory: pytest.TempPathFactory, of: str) -> None:
    """Layers of docker save are found by their content, whatever their names are."""
    backup = tmp_path_factory.mktemp("backup")
    path = backup / "b.tar.gz"
    if of == "a tree":
        lay_out(backup, "in/side", IMAGE, "v1")
        path.write_bytes(gzipped(tar_of(backup / "in", "in/")))
        blob(shared, "b", IMAGE.manifest).unlink()
    else:
        path.write_bytes(gzipped(tar_bytes(saved("jib", (IMAGE, ["a:1"])))))
    store = store_of(shared)
    report = run_scrub(store, repair=True, repair_from=str(path))
    assert {f.action for f in report.findings} == {"repaired"} and report.errors == []
    assert [pull(store, name, "v1") for name in "abc"] == [WHOLE] * 3
    assert run_scrub(store).findings == []


def test_repair_from_an_archive_that_is_cut(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("backup") / "b.tar"
    lay_out(path.parent, "in", IMAGE, "v1")
    path.write_bytes(tar_of(path.parent / "in")[:2000])
    report = run_scrub(store_of(shared), repair=True, repair_from=str(path))
    assert [error["reason"] for error in report.errors if "cut short" in error["reason"]]
    assert {f.action for f in report.findings} == {"marked"}


def test_repair_without_a_good_copy_marks(shared: Path) -> None:
    store = store_of(shared)
    assert {f.action for f in run_scrub(store, repair=True).findings} == {"marked"}


def test_repair_of_a_missing_blob_without_a_copy(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    blob(tmp_path, "a", LAYER).unlink()
    assert only(run_scrub(store_of(tmp_path), repair=True)).action == "none"


def test_a_source_that_is_none_is_refused(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    report = run_scrub(store_of(shared), repair=True, repair_from="/nowhere/at/all")
    assert report.exit_code == 10 and "--from /nowhere/at/all: no such file or directory" in report.errors[0]["reason"]
    file = tmp_path_factory.mktemp("file") / "file"
    for body in (b"", b"hello" * 200):
        file.write_bytes(body)
        report = run_scrub(store_of(shared), repair=True, repair_from=str(file))
        assert report.exit_code == 2 and "and no archive" in report.errors[0]["reason"]


def test_repair_gives_the_repositories_that_are_links_nothing(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Those are only read (docs/design/local.md#the-tree)."""
    outside = tmp_path_factory.mktemp("outside")
    lay_out(outside, "x", IMAGE, "v1")
    flip(blob(outside, "x", LAYER), 2)
    (shared / "linked").symlink_to(outside / "x")
    lay_out(shared, "z", IMAGE, "v1")
    actions = {f.repository: f.action for f in run_scrub(store_of(shared), repair=True).findings}
    assert actions == {"a": "repaired", "b": "repaired", "c": "repaired", "linked": "none"}


class Unreadable(LocalReader):
    def read_into(self, offset: int, buffer: memoryview) -> int:
        raise IoFailed("a bad sector")


class BadSector(LocalDriver):
    """Fails to read one inode."""

    bad_ino = 0

    def open(self, key: str) -> LocalReader:
        reader = super().open(key)
        if reader.info().ino == self.bad_ino:
            return Unreadable(os.dup(reader.fileno()), key, reader.size)
        return reader


def test_what_can_not_be_read_is_told_and_repaired_but_not_marked(shared: Path) -> None:
    driver = BadSector(str(shared))
    driver.bad_ino = blob(shared, "a", LAYER).stat().st_ino
    store = store_over(driver)
    report = run_scrub(store)
    assert {(f.repository, f.kind, f.action) for f in report.findings} == {(n, "unreadable", "none") for n in "abc"}
    assert report.exit_code == 5
    lay_out(shared, "z", IMAGE, "v1")
    assert {f.action for f in run_scrub(store, repair=True).findings} == {"repaired"}
    assert pull(store, "b", "v1") == WHOLE


# -- from a registry ----------------------------------------------------------------------------


class Registry(http.server.BaseHTTPRequestHandler):
    """Blobs and manifests by digest; asks for a token if it has one."""

    token = ""
    bodies: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    spoiled = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/token"):
            return self._send(200, json.dumps({"token": self.token}).encode())
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            realm = f"http://{self.headers['Host']}/token"
            return self._send(401, b"", ("WWW-Authenticate", f'Bearer realm="{realm}",service="s",scope="pull"'))
        body = self.bodies.get(self.path)
        if body is None:
            return self._send(404, b"{}")
        return self._send(200, bytes(len(body)) if self.spoiled else body)

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[tuple[str, type[Registry]]]:
    handler = type("Handler", (Registry,), {"bodies": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("token", ["", "secret"])
@pytest.mark.parametrize("repository", ["", "backup/of-a"])
def test_repair_from_a_registry(
    tmp_path: Path, registry: tuple[str, type[Registry]], token: str, repository: str
) -> None:
    url, handler = registry
    lay_out(tmp_path, "a", IMAGE, "v1")
    flip(blob(tmp_path, "a", LAYER))
    blob(tmp_path, "a", IMAGE.manifest).unlink()
    there = repository or "a"
    handler.token = token
    handler.bodies[f"/v2/{there}/blobs/{DIGEST}"] = LAYER
    handler.bodies[f"/v2/{there}/manifests/{IMAGE.digest}"] = IMAGE.manifest
    store = store_of(tmp_path)
    report = run_scrub(store, repair=True, repair_from=f"{url}/{repository}")
    assert {f.action for f in report.findings} == {"repaired"}, report.errors
    assert pull(store, "a", "v1") == WHOLE


def test_a_registry_that_sends_something_else_repairs_nothing(
    tmp_path: Path, registry: tuple[str, type[Registry]]
) -> None:
    url, handler = registry
    lay_out(tmp_path, "a", IMAGE, "v1")
    flip(blob(tmp_path, "a", LAYER))
    handler.bodies[f"/v2/a/blobs/{DIGEST}"] = LAYER
    handler.spoiled = True
    store = store_of(tmp_path)
    assert only(run_scrub(store, repair=True, repair_from=url)).action == "marked"
    assert list((tmp_path / keys.TMP).iterdir()) == []


def test_a_registry_that_is_away_is_an_error_too(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    flip(blob(tmp_path, "a", LAYER))
    report = run_scrub(store_of(tmp_path), repair=True, repair_from="http://127.0.0.1:9/x")
    assert only(report).action == "marked"
    assert report.errors
    assert report.exit_code == 4


# -- races: somebody acts between two steps -----------------------------------------------------


class Between(WrappedDriver):
    """Does something once, right after a call on a key."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self.after: dict[tuple[str, str], Callable[[], object]] = {}

    def _now(self, step: str, key: str) -> None:
        for (wanted, part), act in list(self.after.items()):
            if wanted == step and part in key:
                del self.after[wanted, part]
                act()

    def stat(self, key: str) -> Info:
        found = super().stat(key)
        self._now("stat", key)
        return found

    def link(self, source: str, target: str) -> None:
        self._now("before-link", source)
        super().link(source, target)

    def open(self, key: str):  # type: ignore[no-untyped-def]
        found = super().open(key)
        self._now("open", key)
        return found


@pytest.fixture
def world() -> tuple[Between, Store, MemoryDriver]:
    memory = MemoryDriver()
    driver = Between(memory)
    store = store_over(driver)
    push_image(store, "a", "v1", seed="x")
    push_image(store, "b", "v1", seed="x")
    return driver, store, memory


LAYER_X = images.image("x").blobs[1]
X = digest_of(LAYER_X)


@pytest.mark.parametrize("step", ["open", "before-link"])
def test_a_blob_healed_while_it_was_hashed_is_not_marked(world: tuple[Between, Store, MemoryDriver], step: str) -> None:
    driver, store, memory = world
    _spoil(memory, keys.blob("a", X))
    driver.after[step, X.encoded] = lambda: push_blob(store.repository_for_push("a"), LAYER_X)
    report = run_scrub(store, workers=1)
    assert is_there(store, "a", X)
    assert is_there(store, "b", X)
    assert {f.action for f in report.findings} <= {"none"}
    assert run_scrub(store, workers=1).findings == []


def test_a_blob_deleted_while_it_was_hashed_is_no_finding(world: tuple[Between, Store, MemoryDriver]) -> None:
    driver, store, memory = world
    stray = push_blob(store.repository_for_push("a"), b"stray")
    _spoil(memory, keys.blob("a", stray))
    driver.after["open", stray.encoded] = lambda: store.repository_for_push("a").delete_blob(stray)
    assert run_scrub(store, workers=1).findings == []


def test_an_image_deleted_while_its_repository_is_looked_at_is_not_missing(
    world: tuple[Between, Store, MemoryDriver],
) -> None:
    """Its manifest goes between the reading of index.json and the search for its blobs."""
    driver, store, _ = world
    manifest = store.repository("a").manifest("v1").digest

    def delete() -> None:
        repository = store.repository_for_push("a")
        repository.delete_manifest(manifest)
        for body in images.image("x").blobs:
            store.repository_for_push("a").delete_blob(digest_of(body))

    # The first look at the manifest is that of the hash, the second that of what it says.
    driver.after["open", f"a/blobs/sha256/{manifest.encoded}"] = delete
    assert run_scrub(store, workers=1).findings == []


def test_trashed_content_that_is_needed_is_no_finding(world: tuple[Between, Store, MemoryDriver]) -> None:
    """I6: whoever asks for it gets it back."""
    _, store, _ = world
    protocol = local_of(store.roots[0])
    with protocol.context.locks.hold("a") as held:
        protocol.trash.add(held, "run", [X])
    assert run_scrub(store, workers=1).findings == []
    assert is_there(store, "a", X)


def test_a_file_that_is_being_written_is_looked_at_again(world: tuple[Between, Store, MemoryDriver]) -> None:
    """zot writes manifests in place."""
    _, store, memory = world
    body = b"0123456789" * 10
    with memory.create(keys.blob("a", digest_of(body))) as writer:
        writer.write([body[:50]])
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            if not slept:
                writer.write([body[50:]])
            slept.append(seconds)

        store.clock.sleep = sleep  # type: ignore[method-assign]
        assert run_scrub(store, workers=1).findings == []
    assert 0 < slept[0] <= 2


def test_healing_passes_over_a_repository_whose_lock_is_held(shared: Path) -> None:
    """And leaves it to its own push, or the next scrub."""
    store = store_of(shared)
    run_scrub(store)
    held = store_of(shared)
    with local_of(held.roots[0]).context.locks.hold("c"):
        push_blob(store.repository_for_push("a"), LAYER)
        assert pull(store, "b", "v1") == WHOLE
        assert not is_there(store, "c")
    assert told(run_scrub(store, repair=True)) == {("c", DIGEST, "digest_mismatch")}
    assert pull(store, "c", "v1") == WHOLE


def test_healing_does_not_bring_back_what_was_deleted(shared: Path) -> None:
    """I7: link to tmp, then it is deleted, then the lock."""
    driver = Between(LocalDriver(str(shared)))
    store = store_over(driver)
    run_scrub(store)
    stray = blob(shared, "c", LAYER)
    driver.after["stat", "c/blobs/sha256/" + DIGEST.encoded] = stray.unlink
    push_blob(store.repository_for_push("a"), LAYER)
    assert not stray.exists()
    assert pull(store, "b", "v1") == WHOLE


def test_labels_and_content_come_along_in_a_copy(tmp_path: Path) -> None:
    driver = LocalDriver(str(tmp_path))
    (tmp_path / "one").write_bytes(b"x" * 3_000_000)
    try:
        os.setxattr(tmp_path / "one", "user.label", b"v")
    except OSError:
        pytest.skip("needs extended attributes")
    with driver.open("one") as reader, driver.create("two") as writer:
        writer.write([b"head"])
        assert writer.copy(reader) is False
        writer.write([b"tail"])
    assert read(driver, "two", 1 << 30) == b"head" + b"x" * 3_000_000 + b"tail"
    with driver.open("two") as reader:
        assert reader.labels() == {"user.label": b"v"}


def test_read_into_ends_at_the_end(tmp_path: Path) -> None:
    for driver in (LocalDriver(str(tmp_path)), MemoryDriver()):
        with driver.create("one") as writer:
            writer.write([b"0123456789"])
        buffer = memoryview(bytearray(4))
        with driver.open("one") as reader:
            reader.once()
            counts = [reader.read_into(at, buffer) for at in (0, 8, 10)]
        assert (counts, bytes(buffer[:2])) == ([4, 2, 0], b"89")
