"""Pushing blobs in every way the specification has, and some it hasn't."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.http.serving import digest, error_code, push_blob
from zotctl.storage.keys import parse_upload_id

LARGE = os.urandom(5_000_000)
SIZES = [0, 1, 1000, 65_536, 65_537, 1 << 20, 5_000_000]


def begin(client: httpx.Client, name: str = "up", **params: str) -> str:
    answer = client.post(f"/v2/{name}/blobs/uploads/", params=params)
    assert answer.status_code == 202
    assert answer.headers["location"].endswith(answer.headers["docker-upload-uuid"])
    return str(answer.headers["location"])


def pieces(body: bytes, size: int = 70_000) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def check(client: httpx.Client, answer: httpx.Response, body: bytes, algorithm: str = "sha256") -> None:
    assert answer.status_code == 201, answer.text
    assert answer.headers["docker-content-digest"] == digest(body, algorithm)
    assert client.get(answer.headers["location"]).content == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_single_post(client: httpx.Client, size: int, chunked: bool, algorithm: str) -> None:
    body = LARGE[:size]
    params = {"digest": digest(body, algorithm)}
    content = pieces(body) if chunked else body
    check(client, client.post("/v2/up/blobs/uploads/", params=params, content=content), body, algorithm)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("announced", [False, True])
def test_post_then_put(client: httpx.Client, size: int, algorithm: str, announced: bool) -> None:
    body = LARGE[:size]
    location = begin(client, **({"digest-algorithm": algorithm} if announced else {}))
    check(
        client,
        client.put(location, params={"digest": digest(body, algorithm)}, content=body),
        body,
        algorithm,
    )
    assert client.get(location).status_code == 404


@pytest.mark.parametrize("size", [1000, 5_000_000])
def test_chunks(client: httpx.Client, size: int) -> None:
    body, location, step = LARGE[:size], begin(client), size // 3 + 1
    for start in range(0, size, step):
        chunk = body[start : start + step]
        headers = {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
        answer = client.patch(location, content=chunk, headers=headers)
        assert answer.status_code == 202
        assert answer.headers["range"] == f"0-{start + len(chunk) - 1}"
        location = answer.headers["location"]
        status = client.get(location)
        assert (status.status_code, status.headers["range"]) == (204, answer.headers["range"])
    check(client, client.put(location, params={"digest": digest(body)}), body)


@pytest.mark.parametrize("size", [0, 1000, 4_000_000])
def test_a_stream_and_the_last_chunk_in_the_put(client: httpx.Client, size: int) -> None:
    body, location = LARGE[: size + 10], begin(client)
    assert client.patch(location, content=pieces(body[:size])).status_code == 202
    headers = {"Content-Range": f"{size}-{size + 9}"}
    answer = client.put(location, params={"digest": digest(body)}, content=body[size:], headers=headers)
    check(client, answer, body)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("start", [0, 5, 11])
def test_a_chunk_out_of_order(client: httpx.Client, method: str, start: int) -> None:
    location = begin(client)
    client.patch(location, content=b"0123456789")
    answer = client.request(
        method,
        location,
        params={"digest": digest(b"x")},
        content=b"abc",
        headers={"Content-Range": f"{start}-{start + 2}"},
    )
    assert (answer.status_code, error_code(answer)) == (416, "BLOB_UPLOAD_INVALID")
    assert answer.headers["range"] == "0-9"
    assert answer.headers["location"] == location
    check(client, client.put(location, params={"digest": digest(b"0123456789")}), b"0123456789")


@pytest.mark.parametrize("bad", ["0-", "bytes 0-2", "2-0", "x", "0-2/3", "0 - 2", f"0-{'9' * 30}"])
def test_a_malformed_content_range(client: httpx.Client, bad: str) -> None:
    location = begin(client)
    answer = client.patch(location, content=b"abc", headers={"Content-Range": bad})
    assert (answer.status_code, error_code(answer)) == (416, "BLOB_UPLOAD_INVALID")


@pytest.mark.parametrize("size", [3, 4_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_content_range_that_lies(client: httpx.Client, size: int, chunked: bool, error: int) -> None:
    location, body = begin(client), LARGE[:size]
    headers = {"Content-Range": f"0-{size - 1 + error}"}
    answer = client.patch(location, content=pieces(body) if chunked else body, headers=headers)
    assert (answer.status_code, error_code(answer)) == (400, "SIZE_INVALID")
    stored = client.get(location).headers["range"]
    assert int(stored.removeprefix("0-")) < size + error, "more is stored than was announced"
    if not chunked:  # seen by the head alone, before a byte is stored
        assert stored == "0-0"


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_wrong_digest(client: httpx.Client, size: int) -> None:
    location, body = begin(client), LARGE[:size]
    answer = client.put(location, params={"digest": digest(b"other")}, content=body)
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/up/blobs/{digest(b'other')}").status_code == 404
    answer = client.post("/v2/up/blobs/uploads/", params={"digest": digest(b"other")}, content=body)
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("params", [{}, {"digest": ""}, {"digest": "sha256:zz"}, {"digest": "md5:" + "a" * 32}])
def test_a_put_without_a_good_digest(client: httpx.Client, params: dict[str, str]) -> None:
    location = begin(client)
    answer = client.put(location, params=params, content=b"abc")
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")
    assert client.get(location).status_code == 204


def test_an_unknown_algorithm(client: httpx.Client) -> None:
    answer = client.post("/v2/up/blobs/uploads/", params={"digest-algorithm": "md5"})
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")


def test_a_body_without_a_digest(client: httpx.Client) -> None:
    answer = client.post("/v2/up/blobs/uploads/", content=b"abc")
    assert (answer.status_code, error_code(answer)) == (400, "BLOB_UPLOAD_INVALID")


@pytest.mark.parametrize("bad", ["nope", "%2e%2e%2fpasswd", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_an_unknown_upload(client: httpx.Client, method: str, bad: str) -> None:
    request = client.build_request(method, "/v2/up/blobs/uploads/x", params={"digest": digest(b"sent nowhere")})
    request.url = request.url.copy_with(
        raw_path=f"/v2/up/blobs/uploads/{bad}?digest={digest(b'sent nowhere')}".encode()
    )
    answer = client.send(request)
    assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_of_another_repository(client: httpx.Client) -> None:
    location, body = begin(client, "up"), os.urandom(10)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        elsewhere = location.replace("/v2/up/", "/v2/down/")
        answer = client.request(method, elsewhere, params={"digest": digest(body)}, content=body)
        assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.get(location).headers["range"] == "0-0"
    check(client, client.put(location, params={"digest": digest(body)}, content=body), body)


def test_cancel(client: httpx.Client) -> None:
    location = begin(client)
    client.patch(location, content=b"abc")
    assert client.delete(location).status_code == 204
    assert client.get(location).status_code == 404
    assert client.delete(location).status_code == 404


def test_mount(client: httpx.Client) -> None:
    made = push_blob(client, "mount/source", b"to be mounted")
    answer = client.post("/v2/mount/target/blobs/uploads/", params={"mount": made, "from": "mount/source"})
    check(client, answer, b"to be mounted")
    assert answer.headers["location"] == f"/v2/mount/target/blobs/{made}"
    assert client.head(f"/v2/mount/target/blobs/{made}").status_code == 200


@pytest.mark.parametrize("mount", ["sha256:abc", "md5:" + "a" * 32, "nonsense"])
def test_a_mount_of_no_digest_begins_an_upload(client: httpx.Client, mount: str) -> None:
    location = begin(client, "mount/target", mount=mount, **{"from": "mount/source"})
    check(client, client.put(location, params={"digest": digest(b"x")}, content=b"x"), b"x")


def test_what_could_not_be_mounted_is_hashed_as_its_digest_says(client: httpx.Client) -> None:
    asked = {"mount": digest(b"absent", "sha512"), "from": "mount/source"}
    upload_id = begin(client, "mount/target", **asked).rpartition("/")[2]
    assert parse_upload_id(upload_id).algorithm == "sha512"


def test_the_end_of_an_upload_that_is_sent_again(client: httpx.Client) -> None:
    """Its first answer was lost on the way."""
    body = os.urandom(1000)
    location = begin(client, "again")
    client.patch(location, content=body)
    check(client, client.put(location, params={"digest": digest(body)}), body)
    check(client, client.put(location, params={"digest": digest(body)}), body)
    check(client, client.put(location, params={"digest": digest(body)}, content=body[-10:]), body)
    answer = client.put(location, params={"digest": digest(b"not here")})
    assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    answer = client.patch(location, content=b"more")
    assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    elsewhere = client.put(location.replace("/again/", "/elsewhere/"), params={"digest": digest(body)})
    assert (elsewhere.status_code, error_code(elsewhere)) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("source", [None, "mount/nowhere", "mount/other", "NOT/a/name", "a//b"])
def test_a_mount_that_becomes_an_upload(client: httpx.Client, source: str | None) -> None:
    made = push_blob(client, "mount/source", b"only here")
    push_blob(client, "mount/other", b"something else")
    params = {"mount": made} | ({"from": source} if source else {})
    location = begin(client, "mount/target", **params)
    check(client, client.put(location, params={"digest": made}, content=b"only here"), b"only here")


def test_a_name_that_is_refused(client: httpx.Client) -> None:
    for name in ("UPPER", "a//b", "a/blobs/b", "a/index.json", "-a", "a" * 256, "a%2Fb"):
        answer = client.post(f"/v2/{name}/blobs/uploads/")
        assert (answer.status_code, error_code(answer)) == (400, "NAME_INVALID"), name


def test_a_post_without_the_slash(client: httpx.Client) -> None:
    assert client.post("/v2/up/blobs/uploads").status_code == 202
    assert client.post("/v2/up/more/uploads/").status_code == 404


def test_content_encoding_is_not_undone(client: httpx.Client) -> None:
    """The digest is of the bytes as they are sent, whatever a header says of them."""
    body = os.urandom(2000)
    answer = client.post(
        "/v2/up/blobs/uploads/",
        params={"digest": digest(body)},
        content=body,
        headers={"Content-Encoding": "gzip"},
    )
    check(client, answer, body)
