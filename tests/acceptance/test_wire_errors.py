"""What the errors of the wire say beside their code: a detail that is JSON, and the methods that a 405 leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.serving import serving

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home: Path = tmp_path_factory.mktemp("wire")
    with serving(home) as server, server.client() as made:
        yield made


def push_blob(client: httpx.Client, data: bytes, named: str) -> httpx.Response:
    return client.post("/v2/app/blobs/uploads/", params={"digest": named}, content=data,
                       headers={"Content-Type": "application/octet-stream"})  # fmt: skip


def test_wrong_digest_has_both_digests_as_fields(client: httpx.Client) -> None:
    answer = push_blob(client, b"one", digest(b"two"))
    assert answer.status_code == 400
    detail = answer.json()["errors"][0]["detail"]
    assert detail == {"expected": digest(b"two"), "found": digest(b"one")}


def test_blob_in_use_names_its_manifests_and_what_is_allowed(client: httpx.Client) -> None:
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    assert push_blob(client, config, digest(config)).status_code == 201
    manifest = (
        f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":'
        f'"application/vnd.oci.image.config.v1+json","digest":"{digest(config)}","size":{len(config)}}},"layers":[]}}'
    ).encode()
    pushed = client.put("/v2/app/manifests/1", content=manifest, headers={"Content-Type": OCI_MANIFEST})
    assert pushed.status_code == 201
    answer = client.delete(f"/v2/app/blobs/{digest(config)}")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.json()["errors"][0]["detail"] == [digest(manifest)]
