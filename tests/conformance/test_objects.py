"""The suite of object stores on each of them, and what one of them holds alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.buckets import ENDPOINT, Bucket, bucket  # noqa: F401 - a fixture
from tests.conformance.objects_suite import BODY, ObjectsSuite
from tests.doubles.objects import MemoryObjects
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import Objects


class ServerClock:
    """Goes on when a test says so."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class TestMemory(ObjectsSuite):
    @pytest.fixture
    def objects(self) -> Objects:
        self.clock = ServerClock()
        return MemoryObjects(self.clock)

    def later(self, seconds: float) -> None:
        self.clock.ahead += seconds


class TestRetryingMemory(TestMemory):
    @pytest.fixture
    def objects(self) -> Objects:
        self.clock = ServerClock()
        return Retrying(MemoryObjects(self.clock))


class OnServer(ObjectsSuite):
    strict = not ENDPOINT

    def test_a_url_that_anybody_may_read(self, objects: Objects, bucket: Bucket) -> None:  # noqa: F811
        objects.put("dir/a b+é", BODY)
        url = objects.presign_get("dir/a b+é", 60)
        with httpx.Client(timeout=60) as visitor:
            assert visitor.get(url).content == BODY
            assert visitor.get(url, headers={"Range": "bytes=5-9"}).content == BODY[5:10]
            assert visitor.get(url.replace("dir", "dri")).status_code == 403
            assert visitor.get(objects.presign_get("none", 60)).status_code == 404
            short = objects.presign_get("dir/a b+é", 1)
            self.later(3)
            assert visitor.get(short).status_code == 403

    def test_a_presigned_delete_is_for_so_many_keys_as_one_request_takes(self, objects: Objects) -> None:
        for count in (0, 1001):
            with pytest.raises(ValueError, match=str(count)):
                objects.sign_deletes(["x"] * count, 30)

    def test_the_label_is_the_address(self, objects: Objects, bucket: Bucket) -> None:  # noqa: F811
        assert objects.label == f"s3://{bucket.settings.bucket}/{bucket.settings.prefix}"


class TestClient(OnServer):
    @pytest.fixture
    def objects(self, bucket: Bucket) -> Iterator[Objects]:  # noqa: F811
        client = bucket.client()
        yield client
        client.close()


class TestClientOfAWholeBucket(OnServer):
    """Without a prefix."""

    many = 120

    @pytest.fixture
    def objects(self, bucket: Bucket) -> Iterator[Objects]:  # noqa: F811
        if ENDPOINT:
            pytest.skip("the bucket may have other things in it")
        client = bucket.client(prefix="")
        yield client
        client.close()

    def test_the_label_is_the_address(self, objects: Objects, bucket: Bucket) -> None:  # noqa: F811
        assert objects.label == f"s3://{bucket.settings.bucket}"


class TestRetryingClient(OnServer):
    many = 1_100

    @pytest.fixture
    def objects(self, bucket: Bucket) -> Iterator[Objects]:  # noqa: F811
        client = bucket.client()
        yield Retrying(client)
        client.close()
