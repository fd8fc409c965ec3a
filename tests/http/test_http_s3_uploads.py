"""Pushing blobs to a server whose root is a bucket: requests, replicas, memory (docs/design/bucket.md#uploads)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.buckets import Bucket
from tests.http.serving import Server, digest, serving
from zotctl.storage import keys

MIB = 1 << 20
LIMIT = 64


@pytest.fixture
def limited(tmp_path: Path, bucket: Bucket) -> Iterator[Server]:
    config = f"[storage.s3]\nupload_memory = '{LIMIT} MiB'\n"
    with serving(tmp_path / "home", config=config, bucket=bucket) as made:
        yield made


def pieces(body: bytes, size: int = 70_000) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def begin(client: httpx.Client) -> str:
    return str(client.post("/v2/up/blobs/uploads/").headers["location"])


def push(client: httpx.Client, body: bytes, way: str) -> None:
    if way == "post":
        answer = client.post("/v2/up/blobs/uploads/", params={"digest": digest(body)}, content=body)
    else:
        location = begin(client)
        if way == "patch":
            assert client.patch(location, content=pieces(body)).headers["range"] == f"0-{len(body) - 1}"
        content = b"" if way == "patch" else body
        answer = client.put(location, params={"digest": digest(body)}, content=content)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("way", "size", "most"),
    [("patch", 100_000, 7), ("patch", 20 * MIB, 10), ("put", 100_000, 6), ("put", 20 * MIB, 6), ("post", 100_000, 4)],
)
def test_requests_of_a_push(bucket: Bucket, limited: Server, way: str, size: int, most: int) -> None:
    with limited.client() as client:
        push(client, b"the first one makes the layout", "post")
        push(client, os.urandom(100), "post")
        bucket.requests()
        push(client, os.urandom(size), way)
        found = [request for request in bucket.requests() if not request.key.endswith(f"/{keys.VERSION}")]
        assert len(found) <= most, found


def test_two_servers_take_turns(tmp_path: Path, bucket: Bucket, limited: Server) -> None:
    """Behind a balancer each request may go to another one."""
    body = os.urandom(70 * MIB)
    with serving(tmp_path / "other", bucket=bucket) as other, limited.client() as one, other.client() as two:
        for size in (1000, 20 * MIB, len(body)):
            content, third = body[:size], size // 3
            path = begin(one).replace(limited.url, "")
            assert two.patch(path, content=content[:third]).status_code == 202
            assert one.get(path).headers["range"] == f"0-{third - 1}"
            assert one.patch(path, content=pieces(content[third : 2 * third])).status_code == 202
            headers = {"Content-Range": f"{third}-{size - 1}"}
            assert two.patch(path, content=content[third:], headers=headers).status_code == 416
            headers = {"Content-Range": f"{2 * third}-{size - 1}"}
            assert two.patch(path, content=content[2 * third :], headers=headers).status_code == 202
            assert one.put(path, params={"digest": digest(content)}).status_code == 201
            assert digest(two.get(f"/v2/up/blobs/{digest(content)}").content) == digest(content)
            assert two.get(path).status_code == 404


def test_a_client_that_vanishes_goes_on(limited: Server) -> None:
    body = os.urandom(40 * MIB)

    def broken() -> Iterator[bytes]:
        yield from pieces(body[: 30 * MIB])
        raise ConnectionError("gone")

    with limited.client() as client:
        location = begin(client)
        with pytest.raises(ConnectionError):
            client.patch(location, content=broken())
        for _ in range(100):
            if (answer := client.get(location)).headers.get("range", "0-0") != "0-0":
                break
        at = int(answer.headers["range"].split("-")[1]) + 1
        assert at > 20 * MIB
        headers = {"Content-Range": f"{at}-{len(body) - 1}"}
        assert client.patch(location, content=body[at:], headers=headers).status_code == 202
        assert client.put(location, params={"digest": digest(body)}).status_code == 201


@pytest.mark.timeout(300)
def test_i13_many_uploads_at_once(bucket: Bucket, limited: Server) -> None:
    """32 of them, with memory for three parts: all are served, within the limit and what the server needs itself."""
    bodies = [os.urandom(1000) * 36_000 + bytes([number]) for number in range(32)]

    def one(body: bytes) -> None:
        with httpx.Client(base_url=limited.url, timeout=200) as client:
            push(client, body, "put")

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, bodies))
    (worker,) = limited.workers()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert found is not None
    assert int(found[1]) >> 10 < LIMIT + 150
    leftovers = [found.key for found in bucket.client().list(f"{keys.UPLOADS}/")]
    assert leftovers == []
