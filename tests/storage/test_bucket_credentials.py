"""An identity that is missing is named before anything else goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.buckets import free_port
from zotctl.errors import ConfigError, PermissionRefused, StorageError, Unavailable
from zotctl.storage.bucket.objects import connection
from zotctl.storage.bucket.objects.client import BucketSettings, Client
from zotctl.storage.bucket.objects.signing import Credentials
from zotctl.storage.clock import Clock


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionRefused, match="AWS_ACCESS_KEY_ID"):
        Client(BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1")).head("x")


@pytest.fixture
def giver() -> Iterator[list[tuple[int, str]]]:
    """Who gives credentials for a token: the first item is what is answered. The second has the port."""
    said = [(500, "InternalError")]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = (
                f"<ErrorResponse><Error><Code>{said[0][1]}</Code><Message>no</Message></Error></ErrorResponse>".encode()
            )
            self.send_response(said[0][0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    said.append((server.server_port, ""))
    yield said
    server.shutdown()
    server.server_close()


def test_a_token_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was asked of the bucket, and the next attempt may find it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="no credentials for http://127") as told:
        Client(BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1")).put("x", b"y")
    assert type(told.value) is Unavailable


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ((500, "InternalError"), Unavailable),
        ((400, "Throttling"), Unavailable),
        ((403, "AccessDenied"), PermissionRefused),
        (None, Unavailable),
    ],
)
def test_who_gives_credentials_for_a_token_is_away_or_refuses(
    giver: list[tuple[int, str]], answer: tuple[int, str] | None, meaning: type[StorageError],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Nothing was asked of the bucket, so a write has certainly not been done."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    port = free_port() if answer is None else giver[1][0]
    giver[0] = answer or giver[0]
    (tmp_path / "token").write_text("token")
    said = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{port}", "AWS_MAX_ATTEMPTS": "1", "HOME": str(tmp_path),
    }  # fmt: skip
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    client = Client(BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1"))
    for call in (lambda: client.put("x", b"y"), lambda: client.head("x"), lambda: client.presign_get("x", 30)):
        with pytest.raises(StorageError, match="no credentials for http://127") as told:
            call()
        assert type(told.value) is meaning


def test_credentials_that_are_over_when_they_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where this machine's clock is an hour ahead. The next may be good."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    said = {"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "2020-01-01T00:00:00Z"}
    (tmp_path / "said").write_text(json.dumps(said))
    (tmp_path / "config").write_text(f"[profile short]\ncredential_process = cat {tmp_path}/said\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    client = Client(BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1", profile="short"))
    for call in (lambda: client.put("x", b"y"), lambda: client.head("x"), lambda: client.presign_get("x", 30)):
        with pytest.raises(Unavailable, match="still expired"):
            call()


# -- what is made before a fork --------------------------------------------------------------------


def prepared(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[BucketSettings, Path]:
    """A session made of a file of credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = folder / "credentials"
    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    settings = BucketSettings("bucket", "", "http://127.0.0.1:9", "us-east-1")
    connection.prepare(settings)
    return settings, file


def test_a_session_that_was_prepared_serves_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings, _ = prepared(monkeypatch, tmp_path)
    session, _ = connection._prepared[None]
    first, second = (connection._Chain(settings, Clock()) for _ in range(2))
    assert first.session is session is not second.session
    assert {chain.current() for chain in (first, second)} == {Credentials("old", "secret", None)}


def test_a_session_that_was_prepared_before_its_files_changed_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the file of keys botocore reads late what stands there as keys, but early which program gives them."""

    def state(key: str) -> None:
        given = json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret"})
        file.write_text(f"[default]\ncredential_process = echo '{given}'\n")

    settings, file = prepared(monkeypatch, tmp_path)
    state("old")
    connection.prepare(settings)
    state("renewed")
    assert connection._Chain(settings, Clock()).current() == Credentials("renewed", "secret", None)


def test_what_can_not_be_prepared_is_told_by_who_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings, _ = prepared(monkeypatch, tmp_path)
    settings = replace(settings, profile="missing")
    connection.prepare(settings)
    with pytest.raises(ConfigError, match="missing"):
        Client(settings)


def test_all_that_a_process_needs_is_loaded_before_it_is_forked() -> None:
    script = (
        "import sys; from zotctl.storage import preload; from zotctl.config import RootConfig, StorageConfig\n"
        "preload(StorageConfig(roots=[RootConfig(path='s3://bucket')])); before = set(sys.modules)\n"
        "from zotctl.storage.bucket.objects.client import BucketSettings, Client\n"
        "client = Client(BucketSettings('bucket', '', 'http://localhost:1', access_key='a', secret_key='b'))\n"
        "try: client.head('x')\n"
        "except Exception as error: print(type(error).__name__, sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "Unavailable []\n", done.stderr
