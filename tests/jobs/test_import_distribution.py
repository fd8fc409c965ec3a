"""import-layout takes over the storage of distribution (registry 2 and 3, Harbor)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.running import zotctl
from tests.doubles.objects import MemoryObjects
from tests.images import Image, image
from tests.jobs.importing import local_store, run_import
from tests.stores import bucket_store, probed
from tests.tools import need, program
from zotctl.config import RootConfig, StorageConfig
from zotctl.errors import ConfigError, UsageError
from zotctl.jobs.imports import sources
from zotctl.jobs.imports.distribution import DistributionTree, read_tags
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store, open_store
from zotctl.storage.opening import directory

BASE = "docker/registry/v2"
ZERO = "sha256:" + "0" * 64


def write_link(directory: Path, digest: Digest) -> None:
    directory.mkdir(parents=True)
    (directory / "link").write_text(str(digest))


def hold(old: Path, body: bytes) -> Digest:
    digest = digest_of(body)
    file = old / BASE / "blobs" / "sha256" / digest.encoded[:2] / digest.encoded / "data"
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_bytes(body)
    return digest


def push(old: Path, name: str, made: Image, tag: str | None = None) -> None:
    """Write what a push writes."""
    repository = old / BASE / "repositories" / name
    for body in made.blobs:
        write_link(repository / "_layers/sha256" / hold(old, body).encoded, digest_of(body))
    hold(old, made.manifest)
    write_link(repository / "_manifests/revisions/sha256" / made.digest.encoded, made.digest)
    if tag is not None:
        write_link(repository / "_manifests/tags" / tag / "index/sha256" / made.digest.encoded, made.digest)
        write_link(repository / "_manifests/tags" / tag / "current", made.digest)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return local_store(tmp_path / "new")


def tags(store: Store, name: str) -> dict[str | None, str | None]:
    return {row.tag: row.digest for row in store.repository(name).root.protocol.indexes.read(name).index.rows()}


def test_every_repository_comes_with_tags_and_untagged_manifests(old: Path, store: Store) -> None:
    one, other = image("one"), image("other")
    push(old, "app", one, "1.0")
    push(old, "team/app", one, "1.0")
    push(old, "team/app", other)
    (old / BASE / "repositories/app/_manifests/tags/deleted").mkdir()
    (old / BASE / "repositories/empty/below").mkdir(parents=True)
    report = run_import(store, old)
    assert report.exit_code == 0, report.document()
    assert DistributionTree(directory(str(old)), lambda *_: None).names() == ["app", "team/app"]
    assert tags(store, "app") == {"1.0": one.digest}
    assert tags(store, "team/app") == {"1.0": one.digest, None: other.digest}
    assert run_import(store, old).summary["unchanged"] == 3


def test_push_times_are_those_of_the_links(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    os.utime(old / BASE / "repositories/app/_manifests/tags/1.0/current/link", (1_600_000_000, 1_600_000_000))
    run_import(store, old)
    assert store.roots[0].history.timeline("app").tagged == {"1.0": 1_600_000_000}


def test_hard_links_are_made_where_asked_for(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    assert run_import(store, old, link=True).summary["linked_bytes"] > 0


def test_what_another_repository_has_is_not_read(old: Path, store: Store) -> None:
    """The content of all repositories lies in one place; a link says who may read it."""
    made = image()
    push(old, "secret", made, "1.0")
    push(old, "app", made, "1.0")
    shutil.rmtree(old / BASE / "repositories/app/_layers/sha256" / digest_of(made.blobs[1]).encoded)
    report = run_import(store, old)
    assert report.exit_code == 4
    assert [(f.repository, f.kind, f.tags) for f in report.findings] == [("app", "missing_blob", ("1.0",))]
    assert tags(store, "secret") == {"1.0": made.digest}


def test_damaged_content_is_left_out_and_named(old: Path, store: Store) -> None:
    made = image()
    push(old, "app", made, "1.0")
    digest = digest_of(made.blobs[1]).encoded
    (old / BASE / "blobs/sha256" / digest[:2] / digest / "data").write_bytes(b"x" * len(made.blobs[1]))
    report = run_import(store, old)
    assert report.exit_code == 4
    assert [finding.kind for finding in report.findings] == ["digest_mismatch"]


def test_an_empty_link_of_a_tag_is_named_and_the_rest_comes(old: Path, store: Store) -> None:
    """A power cut leaves it."""
    push(old, "app", image(), "1.0")
    push(old, "app", image("other"), "2.0")
    (old / BASE / "repositories/app/_manifests/tags/1.0/current/link").write_text("")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "the tag '1.0' of app names no digest" in report.errors[0]["reason"]
    assert "2.0" in tags(store, "app")


def test_a_tag_that_leads_through_a_symbolic_link_is_named(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    push(old, "app", image("other"), "2.0")
    link = old / BASE / "repositories/app/_manifests/tags/1.0/current/link"
    link.rename(old / "link")
    link.symlink_to(old / "link")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "the tag '1.0' of app is left out" in report.errors[0]["reason"]
    assert "2.0" in tags(store, "app")


def test_a_repository_that_a_layout_above_would_hide_is_named(old: Path, store: Store) -> None:
    for name in ("blobs", "team/blobs"):
        push(old, name, image(name), "1.0")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert [(finding.repository, finding.kind) for finding in report.findings] == [("team/blobs", "bad_name")]
    assert "1.0" in tags(store, "blobs")


def test_a_link_out_of_the_tree_is_not_followed(old: Path, store: Store, tmp_path: Path) -> None:
    push(tmp_path / "outside", "app", image(), "1.0")
    push(old, "app", image(), "1.0")
    (old / BASE / "repositories/linked").symlink_to(tmp_path / "outside" / BASE / "repositories/app")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "linked is a symbolic link" in report.errors[0]["reason"]


def test_tags_come_from_a_file(old: Path, store: Store, tmp_path: Path) -> None:
    """Harbor has them in its database."""
    made = image()
    push(old, "library/app", made)
    file = tmp_path / "tags"
    file.write_text(f"# from Harbor\nlibrary/app:1.0 {made.digest} 2020-09-13T12:26:40Z\ngone:1 {made.digest}\n")
    report = run_import(store, old, tags=str(file))
    assert report.exit_code == 5
    assert "gone has tags in the file of --tags" in report.errors[0]["reason"]
    assert tags(store, "library/app") == {"1.0": made.digest}
    assert store.roots[0].history.timeline("library/app").tagged == {"1.0": 1_600_000_000}


@pytest.mark.parametrize(
    "line",
    ["app:1.0", f"app {ZERO}", "app:1.0 sha256:12", f"app:1.0 {ZERO} now", f"app:1 {ZERO.replace('0', '1')}"],
)
def test_a_bad_line_of_tags_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "tags").write_text(f"app:1 {ZERO}\napp:1 {ZERO}\n{line}\n")
    with pytest.raises(UsageError, match="line 3: "):
        read_tags(str(tmp_path / "tags"))


@pytest.mark.parametrize("command", [["serve", "--root"], ["verify", "--root"], ["gc", "--root"], ["verify"]])
def test_other_commands_say_what_it_is(old: Path, command: list[str]) -> None:
    push(old, "app", image(), "1.0")
    done = zotctl(*command, str(old))
    assert done.returncode in (3, 10)
    assert f"zotctl import-layout {old} --root DIR" in done.stderr
    assert not (old / ".zotctl").exists()


def test_in_a_bucket_it_is_named_with_the_way_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    probed(objects)
    objects.put(f"{BASE}/repositories/app/_manifests/tags/1.0/current/link", ZERO.encode())
    monkeypatch.setattr(sources, "open_store", lambda *_: bucket_store(objects))
    report = run_import(store, "s3://bucket/registry")
    assert report.exit_code == 10 and "rclone copy" in report.errors[0]["reason"]


def test_it_is_not_opened_as_a_store(old: Path) -> None:
    push(old, "app", image(), "1.0")
    with pytest.raises(ConfigError, match="zotctl import-layout"):
        open_store(StorageConfig(roots=(RootConfig(path=str(old)),)))


def test_the_tree_of_the_real_program(old: Path, store: Store, tmp_path: Path) -> None:
    need("docker-registry", "skopeo")
    made = image()
    source = local_store(tmp_path / "source")
    push(tmp_path / "shape", "app", made, "1.0")
    run_import(source, tmp_path / "shape")
    layout = tmp_path / "source" / "app"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {old}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    server = subprocess.Popen([program("docker-registry"), "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        address = f"docker://127.0.0.1:{port}/team/app:1.0"
        options = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        subprocess.run([program("skopeo"), *options, f"oci:{layout}:1.0", address], check=True, timeout=60)
    finally:
        server.terminate()
        server.wait(20)
    report = run_import(store, old)
    assert report.exit_code == 0, report.document()
    assert tags(store, "team/app") == {"1.0": made.digest}
