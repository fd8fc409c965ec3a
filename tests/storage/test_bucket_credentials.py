"""An identity that is missing is named before anything else goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.buckets import free_port
from zotctl.errors import PermissionRefused, StorageError, Unavailable
from zotctl.storage.bucket.objects.client import BucketSettings, Client


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
