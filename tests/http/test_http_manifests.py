"""Manifests: push, pull, tags as parameters, limits, deletes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.http.serving import digest, error_code, push_blob
from zotctl.oci.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

CONFIG = b"{}"
NAME = "images/app"


def manifest(seed: str = "", **extra: object) -> bytes:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(CONFIG), "size": 2}
    made = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], **extra}
    return json.dumps(made | {"annotations": {"seed": seed}}).encode()


def push(
    client: httpx.Client, reference: str, body: bytes, query: str = "", kind: str = OCI_MANIFEST
) -> httpx.Response:
    push_blob(client, NAME, CONFIG)
    return client.put(f"/v2/{NAME}/manifests/{reference}{query}", content=body, headers={"Content-Type": kind})


def test_push_and_pull(client: httpx.Client) -> None:
    body = manifest("push and pull")
    answer = push(client, "v1", body)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == digest(body)
    assert answer.headers["location"] == f"/v2/{NAME}/manifests/{digest(body)}"
    assert "oci-tag" not in answer.headers
    for reference in ("v1", digest(body), digest(body).replace(":", "%3A")):
        got = client.get(f"/v2/{NAME}/manifests/{reference}", headers={"Accept": "text/plain"})
        assert (got.status_code, got.content) == (200, body)
        assert got.headers["content-type"] == OCI_MANIFEST
        assert got.headers["docker-content-digest"] == digest(body)
        head = client.head(f"/v2/{NAME}/manifests/{reference}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(body))


def test_one_body_is_no_two_kinds(client: httpx.Client) -> None:
    """Neither by what it has, nor by what was said before."""
    both = json.loads(manifest("both")) | {"manifests": []}
    del both["mediaType"]
    for kind in (OCI_INDEX, OCI_MANIFEST):
        answer = push(client, "both", json.dumps(both).encode(), kind=kind)
        assert (answer.status_code, error_code(answer)) == (400, "MANIFEST_INVALID")
    bare = {"schemaVersion": 2, "manifests": []}
    answers = [push(client, "bare", json.dumps(bare).encode(), kind=kind) for kind in (OCI_INDEX, OCI_MANIFEST)]
    assert [answer.status_code for answer in answers] == [201, 400]


def test_other_layers_for_another_decoder(client: httpx.Client) -> None:
    body = manifest("case").replace(b'"layers"', b'"Layers"')
    answer = push(client, "case", body)
    assert (answer.status_code, error_code(answer)) == (400, "MANIFEST_INVALID")
    assert "differs from layers only in case" in answer.json()["errors"][0]["message"]
    answer = push(client, "twice", manifest("twice").replace(b'"layers"', b'"layers": [], "layers"'))
    assert "the same key twice" in answer.json()["errors"][0]["message"]


def test_a_child_that_is_called_something_else(client: httpx.Client) -> None:
    child = manifest("child")
    push(client, "child", child)
    listed = [{"mediaType": OCI_INDEX, "digest": digest(child), "size": len(child)}]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    answer = push(client, "wrong", json.dumps(index).encode(), kind=OCI_INDEX)
    assert (answer.status_code, error_code(answer)) == (400, "MANIFEST_INVALID")
    listed[0]["mediaType"] = OCI_MANIFEST
    assert push(client, "right", json.dumps(index).encode(), kind=OCI_INDEX).status_code == 201


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_modified(client: httpx.Client, method: str) -> None:
    body = manifest("conditions")
    push(client, "v1", body)
    for condition, status in (
        (f'"{digest(body)}"', 304),
        (f'"x", W/"{digest(body)}"', 304),
        ("*", 304),
        ('"x"', 200),
    ):
        got = client.request(method, f"/v2/{NAME}/manifests/v1", headers={"If-None-Match": condition})
        assert (got.status_code, got.headers["etag"]) == (status, f'"{digest(body)}"')


def test_tags_as_parameters(client: httpx.Client) -> None:
    body = manifest("parameters")
    answer = push(client, digest(body), body, "?tag=p1&tag=p2&tag=p1")
    assert answer.status_code == 201
    assert answer.headers.get_list("oci-tag") == ["p1", "p2"]
    for tag in ("p1", "p2"):
        assert client.get(f"/v2/{NAME}/manifests/{tag}").content == body


def test_the_most_tags(client: httpx.Client) -> None:
    body = manifest("many")
    assert push(client, digest(body), body, "?" + "&".join(f"tag=m{i}" for i in range(46))).status_code == 201
    answer = push(client, digest(body), body, "?" + "&".join(f"tag=n{i}" for i in range(47)))
    assert (answer.status_code, error_code(answer)) == (414, "MANIFEST_INVALID")
    assert client.get(f"/v2/{NAME}/manifests/n0").status_code == 404


def test_a_subject(client: httpx.Client) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": digest(b"not here"), "size": 8}
    answer = push(client, "with-subject", manifest("subject", subject=subject))
    assert answer.headers["oci-subject"] == digest(b"not here")


def test_a_digest_of_sha512(client: httpx.Client) -> None:
    body = manifest("sha512")
    answer = push(client, digest(body, "sha512"), body, "?tag=long")
    assert answer.headers["docker-content-digest"] == digest(body, "sha512")
    assert client.get(f"/v2/{NAME}/manifests/long").headers["docker-content-digest"] == digest(body, "sha512")


def test_a_warning(client: httpx.Client) -> None:
    body = json.dumps({k: v for k, v in json.loads(manifest("no type")).items() if k != "mediaType"}).encode()
    answer = push(client, "untyped", body)
    assert answer.status_code == 201
    assert answer.headers["warning"].startswith('299 - "')
    assert "warning" not in push(client, "typed", manifest("typed")).headers


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"not json", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[" * 100_000, OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest().replace(b"2,", b"1,", 1), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest(), OCI_INDEX, "MANIFEST_INVALID"),
        (manifest(), "text/html", "MANIFEST_INVALID"),
        (
            manifest().replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode()),
            DOCKER_MANIFEST,
            "MANIFEST_INVALID",
        ),
        (manifest().replace(b'"size": 2', b'"size": -2'), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest().replace(b'"size": 2', b'"size": 3'), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        (
            manifest().replace(digest(CONFIG).encode(), digest(b"x").encode()),
            OCI_MANIFEST,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ],
    ids=range(10),
)
def test_what_is_refused(client: httpx.Client, body: bytes, kind: str, code: str) -> None:
    answer = push(client, "bad", body, kind=kind)
    assert 400 <= answer.status_code < 500
    assert error_code(answer) == code
    assert client.get(f"/v2/{NAME}/manifests/bad").status_code == 404


@pytest.mark.parametrize("reference", [digest(b"x"), "sha256:baddigeststring"])
def test_another_digest(client: httpx.Client, reference: str) -> None:
    answer = push(client, reference, manifest("another"))
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", [".x", "-x", "a" * 129, "a%20b", "ä"])
def test_a_bad_tag(client: httpx.Client, tag: str) -> None:
    body = manifest("bad tag")
    for answer in (push(client, tag, body), push(client, digest(body), body, f"?tag={tag}")):
        assert (answer.status_code, error_code(answer)) == (400, "MANIFEST_INVALID")


def padded(size: int) -> bytes:
    body = manifest("padded")
    return body[:-1] + b" " * (size - len(body)) + b"}"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(4 << 20, 201), ((4 << 20) + 1, 413), (20 << 20, 413)])
def test_the_greatest_manifest(client: httpx.Client, chunked: bool, size: int, status: int) -> None:
    body = padded(size)

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 100_000):
            yield body[start : start + 100_000]

    push_blob(client, NAME, CONFIG)
    answer = client.put(
        f"/v2/{NAME}/manifests/large",
        content=pieces() if chunked else body,
        headers={"Content-Type": OCI_MANIFEST},
    )
    assert answer.status_code == status
    if status == 413:
        assert error_code(answer) == "MANIFEST_INVALID"
    assert client.get("/v2/").status_code == 200


def test_delete(client: httpx.Client) -> None:
    body = manifest("delete")
    push(client, digest(body), body, "?tag=d1&tag=d2")
    assert client.delete(f"/v2/{NAME}/manifests/d1").status_code == 202
    assert client.get(f"/v2/{NAME}/manifests/d1").status_code == 404
    assert client.get(f"/v2/{NAME}/manifests/d2").status_code == 200
    assert client.delete(f"/v2/{NAME}/manifests/{digest(body)}").status_code == 202
    for reference in ("d2", digest(body)):
        answer = client.get(f"/v2/{NAME}/manifests/{reference}")
        assert (answer.status_code, error_code(answer)) == (404, "MANIFEST_UNKNOWN")


def test_what_is_in_use_stays(client: httpx.Client) -> None:
    body = manifest("in use")
    push(client, "used", body)
    answer = client.delete(f"/v2/{NAME}/blobs/{digest(CONFIG)}")
    assert (answer.status_code, error_code(answer)) == (405, "DENIED")


def test_an_unknown_repository(client: httpx.Client) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, "/v2/no/such/manifests/latest")
        assert (answer.status_code, error_code(answer)) == (404, "NAME_UNKNOWN")
