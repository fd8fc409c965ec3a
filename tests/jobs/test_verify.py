"""`zotctl verify`: each kind of finding, in stores, layouts, archives and registries; nothing is written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests import images
from tests.cli.running import REPOSITORY, zotctl
from tests.http.serving import serving
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX

IMAGE = images.image("verify")


def run(*words: str, cwd: Path) -> tuple[int, dict[str, Any]]:
    done = zotctl("verify", *words, "--json", cwd=cwd)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def kinds(document: dict[str, Any]) -> list[str]:
    return sorted(finding["kind"] for finding in document["findings"])


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.lstat() for path in [directory, *directory.rglob("*")]}
    return {name: (info.st_ino, info.st_size, info.st_mtime_ns) for name, info in found.items()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    images.lay_out(tmp_path / "store" / "app", IMAGE, [images.row(IMAGE, "v1")])
    return tmp_path / "store"


def blob(store: Path, body: bytes) -> Path:
    return store / "app" / "blobs" / "sha256" / digest_of(body).encoded


@pytest.mark.parametrize("words", [[], ["--deep"]])
def test_a_valid_store_is_clean_and_untouched(store: Path, tmp_path: Path, words: list[str]) -> None:
    before = snapshot(store)
    code, document = run("--root", str(store), *words, cwd=tmp_path)
    assert (code, document["findings"], document["errors"]) == (0, [], [])
    assert snapshot(store) == before


def test_rot_is_found_only_by_reading(store: Path, tmp_path: Path) -> None:
    path = blob(store, IMAGE.blobs[1])
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(body)
    assert run("--root", str(store), cwd=tmp_path)[0] == 0
    code, document = run("--root", str(store), "--deep", cwd=tmp_path)
    assert (code, kinds(document)) == (4, ["digest_mismatch"])
    assert document["findings"][0]["tags"] == ["v1"]


def test_a_missing_a_short_and_an_empty_blob(store: Path, tmp_path: Path) -> None:
    blob(store, IMAGE.blobs[0]).unlink()
    blob(store, IMAGE.blobs[1]).write_bytes(b"")
    blob(store, IMAGE.blobs[2]).write_bytes(IMAGE.blobs[2][:-1])
    code, document = run("--root", str(store), cwd=tmp_path)
    assert (code, kinds(document)) == (4, ["missing_blob", "size_mismatch", "stub"])


def test_one_cut_index_hides_no_other_repository(store: Path, tmp_path: Path) -> None:
    images.lay_out(store / "other", IMAGE, [images.row(IMAGE, "v1")])
    index = store / "app" / "index.json"
    index.write_bytes(index.read_bytes()[:-9])
    os.utime(index, (1, 1))
    blob(store, IMAGE.blobs[1]).unlink()
    (store / "other" / "blobs" / "sha256" / digest_of(IMAGE.blobs[0]).encoded).unlink()
    code, document = run("--root", str(store), cwd=tmp_path)
    assert code == 4
    assert {(f["repository"], f["kind"]) for f in document["findings"]} >= {
        ("app", "invalid_index"),
        ("other", "missing_blob"),
    }


def test_what_only_the_specifications_mind(store: Path, tmp_path: Path) -> None:
    rows = [
        images.row(IMAGE, "v1"),
        images.row(IMAGE, "v1"),
        images.row(IMAGE, "docker.io/library/app:1.0"),
        images.row(IMAGE, "not a tag"),
    ]
    images.lay_out(store / "app", IMAGE, rows)
    images.lay_out(store / "No_Name", IMAGE)
    (store / "app" / "index.json").chmod(0o666)
    code, document = run("--root", str(store), cwd=tmp_path)
    assert (code, kinds(document)) == (0, ["bad_name", "bad_ref_name", "bad_ref_name", "duplicate_tag", "mode"])


def test_a_row_that_is_no_descriptor(store: Path, tmp_path: Path) -> None:
    images.lay_out(store / "app", IMAGE, [images.row(IMAGE, "v1"), images.row(IMAGE, size=-4)])
    code, document = run("--root", str(store), cwd=tmp_path)
    assert code == 4
    assert any("descriptor.md" in finding["reason"] for finding in document["findings"])


def test_a_name_in_two_roots(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "second")
    code, document = run("--root", str(store), "--root", str(tmp_path / "second"), cwd=tmp_path)
    assert (code, kinds(document)) == (0, ["two_roots"])


def test_a_single_layout(store: Path, tmp_path: Path) -> None:
    before = snapshot(store)
    assert run(str(store / "app"), "--deep", cwd=tmp_path)[0] == 0
    assert snapshot(store) == before
    blob(store, IMAGE.manifest).unlink()
    code, document = run(str(store / "app"), cwd=tmp_path)
    assert (code, kinds(document)) == (4, ["missing_manifest"])


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive(store: Path, tmp_path: Path, packed: bool) -> None:
    archive = tmp_path / ("images.tar.gz" if packed else "images.tar")

    def pack() -> None:
        plain = tmp_path / "plain.tar"
        with tarfile.open(plain, "w") as tar:
            tar.add(store / "app", arcname=".")
        archive.write_bytes(gzip.compress(plain.read_bytes()) if packed else plain.read_bytes())

    pack()
    assert run(str(archive), cwd=tmp_path)[0] == 0
    path = blob(store, IMAGE.blobs[1])
    path.write_bytes(path.read_bytes()[::-1])
    pack()
    code, document = run(str(archive), cwd=tmp_path)
    assert (code, kinds(document)) == (4, ["digest_mismatch"])


@pytest.mark.parametrize(
    ("words", "code"),
    [(["/no/such"], 10), (["--root", "/no/such"], 10), (["ftp://127.0.0.1"], 2), ([".", "--root", "."], 2)],
)
def test_what_is_not_there(tmp_path: Path, words: list[str], code: int) -> None:
    assert run(*words, cwd=tmp_path)[0] == code


def test_the_probe_leaves_nothing(store: Path, tmp_path: Path) -> None:
    code, document = run("--root", str(store), "--probe", cwd=tmp_path)
    answers = {item["ability"]: item["answer"] for item in document["items"]}
    assert code == 0
    assert answers["rename"] is True
    assert answers["locks"] is True
    assert "any number" in answers["verdict"]
    assert {path.name for path in store.iterdir()} == {"app"}, "a look makes no root of it"
    serving_made = store / ".zotctl" / "tmp"
    serving_made.mkdir(parents=True)
    assert run("--root", str(store), "--probe", cwd=tmp_path)[0] == 0
    assert [*serving_made.iterdir(), *(store / ".zotctl").iterdir()] == [serving_made]


def test_the_probe_finds_the_locks_wherever_zotctl_comes_from(store: Path, tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from zotctl.cli import main; main()"
    command = [sys.executable, "-I", "-c", script, "verify", "--root", str(store), "--probe", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert {i["ability"]: i["answer"] for i in json.loads(done.stdout)["items"]}["locks"] is True


def test_a_configuration_and_its_mistakes(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[storage]\nroots = ["{store}"]\n')
    assert run("--config", str(config), cwd=tmp_path)[0] == 0
    shown = zotctl("verify", "--config", str(config), "--show-origin", cwd=tmp_path)
    assert f'storage.roots[0].path = "{store}"' in shown.stdout
    config.write_text("[http]\nprot = 5\n")
    assert zotctl("verify", "--config", str(config), cwd=tmp_path).returncode == 3


# -- over the wire ------------------------------------------------------------------------------


def test_a_registry_of_ours(tmp_path: Path) -> None:
    store = tmp_path / "home" / "root"
    images.lay_out(store / "app", IMAGE, [images.row(IMAGE, "v1")])
    with serving(tmp_path / "home") as server:
        code, document = run(server.url, "--deep", cwd=tmp_path)
        assert (code, document["findings"]) == (0, [])
        assert document["summary"]["tags"] == 1
        assert run(f"{server.url}/app:v1", cwd=tmp_path)[0] == 0
        assert run(f"{server.url}/nope", cwd=tmp_path)[0] == 10
        path = blob(store, IMAGE.blobs[1])
        path.write_bytes(path.read_bytes()[::-1])
        code, document = run(f"{server.url}/app", "--deep", cwd=tmp_path)
        assert (code, kinds(document)) == (4, ["wire"])
        assert document["findings"][0]["digest"] == digest_of(IMAGE.blobs[1])


def test_a_registry_with_a_build_cache_and_what_contradicts_itself(tmp_path: Path) -> None:
    store, (index, parts) = tmp_path / "home" / "root", images.build_cache()
    rows = [images.row(IMAGE, "v1", mediaType=OCI_INDEX), images.row(images.Image(index, []), "c", mediaType=OCI_INDEX)]
    images.lay_out(store / "app", IMAGE, rows)
    for body in (index, *parts):
        blob(store, body).write_bytes(body)
    with serving(tmp_path / "home") as server:
        code, document = run(server.url, "--deep", cwd=tmp_path)
    assert (code, document["summary"]["manifests"], document["summary"]["blobs"]) == (4, 2, 3 + 3)
    (finding,) = document["findings"]
    assert (finding["digest"], finding["tags"]) == (IMAGE.digest, ["v1"])
    assert "calls itself" in finding["reason"]


class Wrong(BaseHTTPRequestHandler):
    """A registry that keeps no word: wrong digests and lengths, no referrers, errors of its own."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        bodies = {"/v2/": b"{}", "/v2/app/tags/list": b'{"name": "app", "tags": ["v1"]}'}
        status, headers = 200, {}
        body = bodies.get(self.path.partition("?")[0], b"nonsense")
        if "/manifests/v1" in self.path:
            body, headers = IMAGE.manifest, {"Docker-Content-Digest": "sha256:" + "1" * 64}
            headers["Content-Type"] = "application/vnd.oci.image.manifest.v1+json"
        elif body == b"nonsense":
            status = 404
        if self.path.startswith("/v2/app/tags/list"):
            headers = {"Link": '</v2/app/tags/list>; rel="next"'}  # leads to itself
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (self.command == "HEAD")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def wrong() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Wrong)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_registry_that_keeps_no_word(wrong: str, tmp_path: Path) -> None:
    code, document = run(f"{wrong}/app", cwd=tmp_path)
    reasons = " ".join(finding["reason"] for finding in document["findings"])
    assert code == 4
    for part in ("Docker-Content-Digest of v1", "Content-Length", "a manifest needs it", "is no OCI error"):
        assert part in reasons
    assert run(wrong, cwd=tmp_path)[0] == 10, "no catalog: a name is needed"


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    done = zotctl("verify", "http://somebody:SECRET@127.0.0.1:1/app", cwd=tmp_path)
    assert done.returncode == 14
    assert "SECRET" not in done.stdout + done.stderr


def test_a_registry_that_is_away(tmp_path: Path) -> None:
    assert run("http://127.0.0.1:1/app", cwd=tmp_path)[0] == 14


def test_a_repository_that_is_being_made_is_no_finding(store: Path, tmp_path: Path) -> None:
    """It begins with `oci-layout` and comes to index.json before any blob; without that, blobs are not served."""
    (store / ".zotctl").mkdir()
    (store / ".zotctl" / "version").touch()
    made = store / "made"
    (made / "blobs" / "sha256").mkdir(parents=True)
    shutil.copy(store / "app" / "oci-layout", made)
    assert run("--root", str(store), cwd=tmp_path)[0] == 0
    (made / "blobs" / "sha256" / digest_of(b"content").encoded).write_bytes(b"content")
    code, document = run("--root", str(store), cwd=tmp_path)
    assert (code, kinds(document)) == (4, ["invalid_index"])
