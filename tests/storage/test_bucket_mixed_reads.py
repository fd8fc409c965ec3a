"""A gateway that answers a read beside a write with the ETag of one state and the bytes of another."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, push_image
from zotctl.errors import Unavailable
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.objects.states import MOST_READS, read_state
from zotctl.storage.driver import Buffer


class Torn(MemoryObjects):
    """The first `torn` reads after each write have the bytes from before it."""

    def __init__(self, torn: int = 1) -> None:
        super().__init__()
        self.gets, self._torn = 0, torn
        self._before: dict[str, list[bytes]] = {}

    def put(self, key: str, body: Buffer, **options: Any) -> str:
        before = self.stored.get(key)
        etag = super().put(key, body, **options)
        self._before[key] = [before.body] * self._torn if before else []
        return etag

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        self.gets += 1
        got = super().get(key, unless=unless)
        if got is not None and self._before.get(key):
            return got[0], self._before[key].pop()
        return got


class Keyed(MemoryObjects):
    """Its ETags look like MD5, and are random, as with keys of KMS."""

    gets = 0

    def _store(self, key: str, body: bytes, etag: str, metadata: Any) -> str:
        return super()._store(key, body, f'"{secrets.token_hex(16)}"', metadata)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        self.gets += 1
        return super().get(key, unless=unless)


@pytest.mark.parametrize("torn", [1, 2, 4])
def test_no_tag_is_lost_when_two_servers_push_in_turns(torn: int) -> None:
    """Also where the gateway gives the same wrong answer several times."""
    objects = Torn(torn)
    servers = [bucket_store(objects), bucket_store(objects)]
    tags = [f"v{number}" for number in range(6)]
    for number, tag in enumerate(tags):
        push_image(servers[number % 2], "app", tag, seed=tag)
    assert bucket_store(objects).repository("app").tags() == tags


def test_etags_that_are_no_hashes_cost_one_more_read() -> None:
    objects = Keyed()
    objects.put("x", b"1")
    got = read_state(objects, "x")
    assert got is not None
    assert (got[1], objects.gets) == (b"1", 2)
    assert read_state(objects, "x", unless=got[0].etag) is None
    assert objects.gets == 3
    store = bucket_store(objects)
    push_image(store, "app", "v1")
    assert store.repository("app").tags() == ["v1"]


@pytest.mark.parametrize("etag", ['"d41d8cd98f00b204e9800998ecf8427e-2"', '"anything"'])
def test_an_etag_of_another_form_says_nothing(etag: str) -> None:
    objects = Torn()
    objects.put("x", b"1")
    objects.stored["x"] = objects.stored["x"]._replace(etag=etag)
    assert read_state(objects, "x") is not None
    assert objects.gets == 1


def test_a_store_that_never_answers_twice_alike_is_given_up() -> None:
    objects = Torn()
    objects.put("x", b"1")
    objects._before["x"] = [f"{number}".encode() for number in range(100)]
    with pytest.raises(Unavailable, match=r"^x: the object store"):
        read_state(objects, "x")
    assert objects.gets == MOST_READS


class TornMetadata(MemoryObjects):
    """The first read after each write has the metadata from before it, with the ETag and the bytes of now."""

    def __init__(self) -> None:
        super().__init__()
        self.gets = 0
        self._before: dict[str, Any] = {}

    def put(self, key: str, body: Buffer, **options: Any) -> str:
        before = self.stored.get(key)
        etag = super().put(key, body, **options)
        if before is not None:
            self._before[key] = before.metadata
        return etag

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        got = super().get(key, unless=unless)
        if got is not None and key in self._before:
            return got[0]._replace(metadata=self._before.pop(key)), got[1]
        return got


@pytest.mark.parametrize("pieces", [(b"a" * 1000, b"b" * 1000), (b"", b"\xff" * 1000)])
def test_i2_an_upload_is_not_gone_on_with_by_the_metadata_of_an_older_state(pieces: tuple[bytes, ...]) -> None:
    objects = TornMetadata()
    one, two = (bucket_store(objects).repository_for_push("app") for _ in range(2))
    upload_id = one.start_upload()
    for piece in pieces:
        with one.resume_upload(upload_id) as upload:
            upload.write([piece])
            upload.save()
    body = b"".join(pieces)
    with two.resume_upload(upload_id) as upload:
        assert upload.offset == len(body)
        upload.finish(digest_of(body))
    with two.open_blob(digest_of(body)) as reader:
        assert reader.read_at(0, 5000) == body


def test_an_upload_whose_metadata_never_fit_is_given_up() -> None:
    objects = MemoryObjects()
    one, two = (bucket_store(objects).repository_for_push("app") for _ in range(2))
    upload_id = one.start_upload()
    key = keys.session(upload_id)
    objects.stored[key] = objects.stored[key]._replace(metadata={"name": "app", "token": "another"})
    with pytest.raises(Unavailable, match="metadata"):
        two.resume_upload(upload_id)
