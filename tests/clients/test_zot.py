"""zot's directory and configuration: zotctl takes over, and zot takes back.

Tests that need zot itself are skipped without it, in CI too; the others use a directory as zot leaves it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import images
from tests.buckets import free_port
from tests.cli.running import REPOSITORY, zotctl
from tests.clients.peers import ACCEPT, clean_environment, push_image, put_manifest
from tests.http.serving import START, first_line, until
from tests.storage.foreign import zot as lay_out_as_zot
from tests.tools import need_optional
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX

OLD = 1_500_000_000
ONE, OTHER, CHILD = (images.image(seed) for seed in ("one", "other", "child"))
SBOM = images.image("sbom", layers=1, subject=ONE.digest, artifactType="application/vnd.sbom")
INDEX = images.index([(CHILD.digest, len(CHILD.manifest)), (ONE.digest, len(ONE.manifest))])


def configuration(home: Path, root: Path, *, dedupe: bool = True) -> Path:
    """What people run zot with; extensions that are not about storage included."""
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {
            "rootDirectory": str(root), "dedupe": dedupe, "gc": True, "gcDelay": "1h", "gcInterval": "1h",
        },
        "http": {"address": "127.0.0.1", "port": str(free_port())},
        "log": {"level": "error"},
    }  # fmt: skip
    path = home / "config.json"
    path.write_text(json.dumps(document))
    return path


@contextmanager
def zot(config: Path, home: Path) -> Iterator[httpx.Client]:
    port = json.loads(config.read_text())["http"]["port"]
    with (home / "zot.log").open("ab") as log:
        process = subprocess.Popen(
            ["zot", "serve", str(config)], cwd=home, env=clean_environment(home), stdout=log, stderr=log
        )
    try:
        headers = {"Content-Type": "application/octet-stream"}  # zot wants it with a blob
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=headers) as client:
            until(lambda: process.poll() is not None or _answers(client), START)
            assert process.poll() is None, (home / "zot.log").read_text()[-3000:]
            yield client
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/").status_code in (200, 401)
    except httpx.TransportError:
        return False


@contextmanager
def ours(config: Path, *, create: bool = False) -> Iterator[httpx.Client]:
    """`zotctl serve config.json`, on another port than it says."""
    command = [sys.executable, "-m", "zotctl.cli", "serve", str(config), "--listen", "127.0.0.1:0", "--workers", "1"]
    environ = {name: value for name, value in os.environ.items() if "ZOTCTL" not in name}
    environ |= {"ZOTCTL_STORAGE_CREATE": "true"} if create else {}
    with (config.parent / "zotctl.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = first_line(process.stdout)
        found = re.search(r"http://[0-9.:]+", line)
        assert found, f"{line} {(config.parent / 'zotctl.log').read_text()[-3000:]}"
        with httpx.Client(base_url=found[0], timeout=60) as client:
            yield client
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "traceback" not in (config.parent / "zotctl.log").read_text()


def job(*words: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    done = zotctl(*words, "--json")
    assert done.returncode in codes, done.stdout + done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def jobs(config: Path) -> None:
    """Each that writes, and the check of it all."""
    for words in (("gc",), ("scrub",), ("dedupe",), ("gc",), ("verify", "--deep")):
        job(*words, "--config", str(config))


def push_everything(client: httpx.Client) -> None:
    push_image(client, "app", ONE, "v1", "latest")
    push_image(client, "app", SBOM)
    push_image(client, "app", CHILD)
    put_manifest(client, "app", INDEX, "multi", OCI_INDEX)
    push_image(client, "team/copy", ONE, "v1")
    push_image(client, "team/copy", OTHER, "other")


def assert_everything(client: httpx.Client) -> None:
    assert {"app", "team/copy"} <= set(client.get("/v2/_catalog").json()["repositories"])
    assert not [name for name in client.get("/v2/_catalog").json()["repositories"] if ".zotctl" in name]
    assert {"v1", "latest", "multi"} <= set(client.get("/v2/app/tags/list").json()["tags"])
    for name, made, reference in (
        ("app", ONE, "v1"), ("app", ONE, "latest"), ("app", CHILD, str(CHILD.digest)),
        ("app", SBOM, str(SBOM.digest)), ("team/copy", ONE, "v1"), ("team/copy", OTHER, "other"),
    ):  # fmt: skip
        assert_image(client, name, made, reference)
    answer = client.get("/v2/app/manifests/multi", headers=ACCEPT)
    assert (answer.status_code, answer.content) == (200, INDEX)
    (row,) = client.get(f"/v2/app/referrers/{ONE.digest}").json()["manifests"]
    assert (row["digest"], row["artifactType"]) == (str(SBOM.digest), "application/vnd.sbom")


def assert_image(client: httpx.Client, name: str, made: images.Image, reference: str) -> None:
    answer = client.get(f"/v2/{name}/manifests/{reference}", headers=ACCEPT)
    assert (answer.status_code, answer.content) == (200, made.manifest)
    for body in made.blobs:
        answer = client.get(f"/v2/{name}/blobs/{digest_of(body)}")
        assert (answer.status_code, answer.content) == (200, body)


def databases(root: Path) -> dict[str, tuple[bytes, int]]:
    found = [path for path in root.rglob("*.db") if ".zotctl" not in path.parts]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


# -- with zot itself ------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dedupe", [True, False], ids=["dedupe", "no-dedupe"])
def test_zot_then_zotctl_then_zot(tmp_path: Path, dedupe: bool) -> None:
    need_optional("zot")
    root = tmp_path / "store"
    config = configuration(tmp_path, root, dedupe=dedupe)
    with zot(config, tmp_path) as client:
        push_everything(client)
        assert_everything(client)
    before = databases(root)
    assert ("cache.db" in before) == dedupe
    with ours(config) as client:
        assert_everything(client)
        jobs(config)
        assert_everything(client)
        # A new image, one more name for what is there, and one that goes.
        push_image(client, "app", images.image("ours"), "ours")
        assert client.post(
            "/v2/new/blobs/uploads/", params={"mount": str(digest_of(ONE.blobs[1])), "from": "app"}
        ).status_code == 201  # fmt: skip
        push_image(client, "new", ONE, "v1")
        push_image(client, "app", images.image("gone"), "gone")
        assert client.delete(f"/v2/app/manifests/{images.image('gone').digest}").status_code == 202
    jobs(config)
    assert databases(root) == before
    with zot(config, tmp_path) as client:
        assert_everything(client)
        assert_image(client, "app", images.image("ours"), "ours")
        assert_image(client, "new", ONE, "v1")
        assert client.get("/v2/app/manifests/gone", headers=ACCEPT).status_code == 404
        push_image(client, "app", images.image("zot again"), "again")
    jobs(config)
    with ours(config) as client:
        assert_everything(client)
        assert_image(client, "app", images.image("zot again"), "again")


@pytest.mark.timeout(300)
def test_what_is_freed_in_one_repository_is_there_for_zot_in_the_other(tmp_path: Path) -> None:
    """zot's database may say that the copy in the first is the one."""
    need_optional("zot")
    root = tmp_path / "store"
    config = configuration(tmp_path, root)
    with zot(config, tmp_path) as client:
        push_everything(client)
    with ours(config) as client:
        for reference in ("multi", "v1", "latest"):
            assert client.delete(f"/v2/app/manifests/{reference}").status_code == 202
        for digest in (digest_of(INDEX), ONE.digest):
            assert client.delete(f"/v2/app/manifests/{digest}").status_code == 202
    job("gc", "--config", str(config), "--delay", "0s")
    assert not (root / "app" / "blobs" / "sha256" / digest_of(ONE.blobs[1]).encoded).exists()
    with zot(config, tmp_path) as client:
        assert_image(client, "team/copy", ONE, "v1")
        assert client.head(f"/v2/app/manifests/{ONE.digest}", headers=ACCEPT).status_code == 404
        push_image(client, "app", ONE, "back")
        assert_image(client, "app", ONE, "back")


@pytest.mark.timeout(300)
def test_beside_a_running_zot_nothing_is_written(tmp_path: Path) -> None:
    need_optional("zot")
    root = tmp_path / "store"
    config = configuration(tmp_path, root)
    layout = images.lay_out(tmp_path / "layout", ONE, [images.row(ONE, "v1")])
    with zot(config, tmp_path) as client:
        push_everything(client)
        for words in commands(layout):
            assert_refused(zotctl(*words, "--config", str(config)))
        assert not (root / ".zotctl").exists()
        assert_everything(client)


# -- without it -----------------------------------------------------------------------------------


def commands(layout: Path) -> list[tuple[str, ...]]:
    return [("gc",), ("gc", "--dry-run"), ("scrub",), ("dedupe",), ("import-layout", str(layout), "--repo", "new"),
            ("serve", "--listen", "127.0.0.1:0")]  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 11, (done.args, done.stdout, done.stderr)
    assert "zot is running" in done.stderr + done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two repositories as zot leaves them, its databases, and what a run of it that was killed leaves."""
    root = tmp_path / "store"
    for name in ("app", "team/deep"):
        (root / name).mkdir(parents=True)
        lay_out_as_zot(root / name)
    for name in ("cache.db", "meta.db"):
        (root / name).write_bytes(b"\xed\xda\x0c\xed" * 1024)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (OLD, OLD))
    return root


def test_a_directory_of_zot_with_its_configuration(store: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, store)
    one, two = images.image("one"), images.image("two")
    before = databases(store)
    blobs = {path: path.stat().st_ino for path in store.glob("app/blobs/sha256/*")}
    index = (store / "app" / "index.json").read_bytes()
    with ours(config) as client:
        assert client.get("/v2/_catalog").json()["repositories"] == ["app", "team/deep"]
        for name in ("app", "team/deep"):
            assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["latest", "v1"]
            for made, reference in ((one, "v1"), (one, "latest"), (two, str(two.digest))):
                assert_image(client, name, made, reference)
        jobs(config)
        # Untagged rows go as with zot, but only a delay after they were first seen.
        assert_image(client, "app", two, str(two.digest))
        assert (store / "app" / "index.json").read_bytes() == index
        assert {path.name for path in store.glob("app/blobs/sha256/*")} == {path.name for path in blobs}
        # Equal content is one inode now, of which zot's files were one.
        assert all(path.stat().st_nlink == 3 for path in blobs)
        assert not (store / "app" / ".uploads").exists(), "dead uploads of zot go"
        job("gc", "--config", str(config), "--delay", "0s")
        assert client.get(f"/v2/app/manifests/{two.digest}", headers=ACCEPT).status_code == 404
        assert_image(client, "app", one, "v1")
    left = {digest_of(body).encoded for body in (one.manifest, *one.blobs)}
    assert {path.name for path in store.glob("app/blobs/sha256/*")} == left
    assert {path.name for path in store.glob("team/deep/blobs/sha256/*")} == left
    assert databases(store) == before
    job("verify", "--deep", "--config", str(config))


def test_what_zot_needs_is_as_it_was(store: Path, tmp_path: Path) -> None:
    """Modes and owners stay, ours all lies in one hidden directory, and `rm -r` of that is the way back."""
    config = configuration(tmp_path, store)
    with ours(config) as client:
        push_image(client, "app", images.image("ours"), "ours")
        jobs(config)
    assert {path.name for path in store.iterdir()} == {"app", "team", "cache.db", "meta.db", ".zotctl"}
    for path in (store / "app" / "index.json", *store.glob("app/blobs/sha256/*")):
        assert path.stat().st_uid == store.stat().st_uid
    assert (store / "app" / "index.json").stat().st_mode & 0o777 == 0o600
    document = json.loads((store / "app" / "index.json").read_bytes())
    assert document["schemaVersion"] == 2
    assert all({"mediaType", "digest", "size"} <= set(row) for row in document["manifests"])


@pytest.mark.parametrize("database", ["cache.db", "meta.db"])
def test_a_held_database_means_that_zot_is_running(store: Path, tmp_path: Path, database: str) -> None:
    config = configuration(tmp_path, store)
    layout = images.lay_out(tmp_path / "layout", ONE, [images.row(ONE, "v1")])
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with (store / database).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as bbolt does
        for words in commands(layout):
            done = zotctl(*words, "--config", str(config))
            assert_refused(done)
            assert database in done.stderr + done.stdout
        assert_refused(zotctl("gc", "--root", str(store)))
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
        # Looking is harmless.
        assert zotctl("verify", "--root", str(store)).returncode == 0
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    assert zotctl("gc", "--config", str(config)).returncode == 0
