"""What a client is told when the storage fails: 503 or 507, never the server's paths, which are in the log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.serving import Server, digest, push_blob, serving

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as made:
        yield made


def unavailable(answer: httpx.Response, server: Server) -> str:
    """The message of a 503, which must not lead to a place on the server."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"]
    assert str(server.home) not in answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == "UNAVAILABLE"
    return str(error["message"])


@pytest.mark.parametrize("broken", [b'{"schemaVersion":2,"manifests":[', b"", b'{"schemaVersion":1}'])
def test_a_push_into_a_damaged_layout(server: Server, broken: bytes) -> None:
    with server.client() as client:
        push_blob(client, "app", b"{}")
        index = server.root / "app" / "index.json"
        index.write_bytes(broken)
        os.utime(index, (1, 1))
        answers = [
            client.post("/v2/app/blobs/uploads/"),
            client.post("/v2/app/blobs/uploads/", params={"digest": digest(b"x")}, content=b"x"),
            client.put("/v2/app/manifests/v1", content=b"{}", headers={"Content-Type": OCI_MANIFEST}),
        ]
        for answer in answers:
            message = unavailable(answer, server)
            assert "app" in message
            assert "index.json" in message
            assert "zotctl verify" in message
    assert index.read_bytes() == broken


def test_a_root_that_is_away(server: Server) -> None:
    server.root.rename(server.home / "elsewhere")
    with server.client() as client:
        for answer in (
            client.get("/v2/app/tags/list"),
            client.get("/v2/app/manifests/v1"),
            client.post("/v2/app/blobs/uploads/"),
        ):
            unavailable(answer, server)
    assert str(server.root) in server.log()
