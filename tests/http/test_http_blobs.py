"""Pulling and deleting blobs, with ranges and conditions."""

from __future__ import annotations

import email
import email.policy
import os

import httpx
import pytest

from tests.http.serving import digest, error_code, push_blob
from zotctl.http.conditions import parse_ranges

SMALL, LARGE = os.urandom(1000), os.urandom(300_000)


@pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_get_and_head_agree(client: httpx.Client, body: bytes) -> None:
    made = push_blob(client, "a/b", body)
    got, head = client.get(f"/v2/a/b/blobs/{made}"), client.head(f"/v2/a/b/blobs/{made}")
    assert got.status_code == head.status_code == 200
    assert got.content == body
    assert head.content == b""
    for name in ("content-length", "content-type", "docker-content-digest", "etag", "accept-ranges"):
        assert got.headers[name] == head.headers[name]
    assert got.headers["x-content-type-options"] == head.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-length"] == str(len(body))
    assert got.headers["docker-content-digest"] == made
    assert got.headers["etag"] == f'"{made}"'
    assert got.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=500-", 500, None),
        ("bytes=-10", -10, None),
        ("bytes=1-99999999", 1, None),
        ("BYTES = 5-9", 5, 10),
    ],
)
def test_one_range(client: httpx.Client, body: bytes, wanted: str, start: int, stop: int | None) -> None:
    made = push_blob(client, "a/b", body)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": wanted})
    assert got.status_code == 206
    assert got.content == body[start:stop]
    first = start if start >= 0 else len(body) + start
    assert got.headers["content-range"] == f"bytes {first}-{first + len(got.content) - 1}/{len(body)}"
    assert got.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    "wanted", ["lines=1-2", "bytes=1-2,5-4", "bytes=1-2,x", "bytes=x-", "bytes=-", "bytes", "bytes=-9999999"]
)
def test_a_range_that_is_ignored(client: httpx.Client, wanted: str) -> None:
    made = push_blob(client, "a/b", SMALL)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": wanted})
    assert (got.status_code, got.content) == (200, SMALL)


@pytest.mark.parametrize("wanted", ["bytes=1000-", "bytes=1000-1001", "bytes=5-4", "bytes=-0", f"bytes={'9' * 40}-"])
def test_a_range_that_is_refused(client: httpx.Client, wanted: str) -> None:
    made = push_blob(client, "a/b", SMALL)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": wanted})
    assert got.status_code == 416
    assert got.headers["content-range"] == "bytes */1000"
    error_code(got)


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of each part, by the parser of another."""
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    made = []
    for part in message.iter_parts():
        assert part["Content-Type"] == "application/octet-stream"
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        made.append((part["Content-Range"], payload))
    return made


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("wanted", ["1-2,5-6", "5-6,1-2,-3", "0-499,600-899,500-502", "0-0,900-", "0-700,800-899,-50"])
def test_several_ranges(client: httpx.Client, body: bytes, wanted: str) -> None:
    """RFC 9110, section 15.3.7.2."""
    made = push_blob(client, "a/b", body)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": f"bytes={wanted}"})
    assert got.status_code == 206
    assert "content-range" not in got.headers
    assert got.headers["content-length"] == str(len(got.content))
    expected = parse_ranges(f"bytes={wanted}", len(body)) or []
    assert parts_of(got) == [(f"bytes {o}-{o + n - 1}/{len(body)}", body[o : o + n]) for o, n in expected]


def test_ranges_that_are_one(client: httpx.Client) -> None:
    made = push_blob(client, "a/b", SMALL)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": "bytes=0-99,50-199,199-299"})
    assert (got.status_code, got.content) == (206, SMALL[:300])
    assert got.headers["content-range"] == "bytes 0-299/1000"
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": "bytes=" + ",".join(["0-"] * 2000)})
    assert (got.status_code, got.content) == (206, SMALL)


def test_more_ranges_than_one_answer_has(client: httpx.Client) -> None:
    """400 is what containers/storage asks again for, with fewer."""
    made = push_blob(client, "a/b", SMALL)
    got = client.get(
        f"/v2/a/b/blobs/{made}", headers={"Range": "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(65))}
    )
    assert (got.status_code, error_code(got)) == (400, "UNSUPPORTED")


@pytest.mark.parametrize("wanted", ["0-", "0-5", "-5", "0-1,5-6"])
def test_a_range_of_nothing(client: httpx.Client, wanted: str) -> None:
    made = push_blob(client, "a/b", b"")
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"Range": f"bytes={wanted}"})
    assert (got.status_code, got.content) == (200, b"")


def test_head_knows_no_range(client: httpx.Client) -> None:
    made = push_blob(client, "a/b", SMALL)
    got = client.head(f"/v2/a/b/blobs/{made}", headers={"Range": "bytes=0-1"})
    assert (got.status_code, got.headers["content-length"]) == (200, "1000")


@pytest.mark.parametrize(("condition", "status"), [("{}", 206), ("W/{}", 200), ('"x"', 200), ("yesterday", 200)])
def test_if_range(client: httpx.Client, condition: str, status: int) -> None:
    made = push_blob(client, "a/b", SMALL)
    headers = {"Range": "bytes=0-1", "If-Range": condition.format(f'"{made}"')}
    assert client.get(f"/v2/a/b/blobs/{made}", headers=headers).status_code == status


@pytest.mark.parametrize("condition", ["{}", "W/{}", '"x", {}', "*", '"a","b",W/{}'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_modified(client: httpx.Client, method: str, condition: str) -> None:
    made = push_blob(client, "a/b", SMALL)
    headers = {"If-None-Match": condition.format(f'"{made}"')}
    got = client.request(method, f"/v2/a/b/blobs/{made}", headers=headers)
    assert (got.status_code, got.content) == (304, b"")
    assert got.headers["etag"] == f'"{made}"'
    assert "content-length" not in got.headers


def test_modified(client: httpx.Client) -> None:
    made = push_blob(client, "a/b", SMALL)
    got = client.get(f"/v2/a/b/blobs/{made}", headers={"If-None-Match": '"x"'})
    assert (got.status_code, got.content) == (200, SMALL)
    gone = digest(b"never pushed")
    assert client.get(f"/v2/a/b/blobs/{gone}", headers={"If-None-Match": "*"}).status_code == 404


def test_what_is_not_there(client: httpx.Client) -> None:
    push_blob(client, "a/b", SMALL)
    for name, code in (("a/b", "BLOB_UNKNOWN"), ("no/such", "NAME_UNKNOWN")):
        got = client.get(f"/v2/{name}/blobs/{digest(b'never pushed')}")
        assert got.status_code == 404
        assert error_code(got) in (code, "BLOB_UNKNOWN")


@pytest.mark.parametrize("bad", ["sha256:abc", "sha256", "md5:" + "a" * 32, "sha256:" + "A" * 64, "x%2Fy"])
def test_a_bad_digest(client: httpx.Client, bad: str) -> None:
    for method in ("GET", "DELETE"):
        got = client.request(method, f"/v2/a/b/blobs/{bad}")
        assert (got.status_code, error_code(got)) == (400, "DIGEST_INVALID")


def test_i7_a_blob_of_another_repository(client: httpx.Client) -> None:
    made = push_blob(client, "a/secret", b"secret content")
    push_blob(client, "a/public", b"public")
    assert client.head(f"/v2/a/public/blobs/{made}").status_code == 404
    assert client.get(f"/v2/a/public/blobs/{made}").status_code == 404


def test_an_encoded_colon(client: httpx.Client) -> None:
    made = push_blob(client, "a/b", SMALL)
    assert client.get(f"/v2/a/b/blobs/{made.replace(':', '%3A')}").content == SMALL


def test_delete(client: httpx.Client) -> None:
    made = push_blob(client, "a/gone", b"to be deleted")
    assert client.delete(f"/v2/a/gone/blobs/{made}").status_code == 202
    assert client.head(f"/v2/a/gone/blobs/{made}").status_code == 404
    assert client.delete(f"/v2/a/gone/blobs/{made}").status_code == 404
