"""Bytes in the place of others: all of them verified, or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.doubles.objects import SMALLEST_PART, MemoryObjects
from zotctl.errors import Changed, DigestInvalid, NotFound, StorageError, Unavailable
from zotctl.oci.digest import digest_of
from zotctl.storage.bucket.objects.multipart import replace_object
from zotctl.storage.bucket.objects.seam import Objects

KEY = "a/blobs/sha256/x"
SIZES = [0, 1, SMALLEST_PART - 1, SMALLEST_PART, SMALLEST_PART + 1, 2 * SMALLEST_PART, 2 * SMALLEST_PART + 7]


@pytest.fixture(params=["memory", "versitygw"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects()
    found: Bucket = request.getfixturevalue("bucket")
    return found.client()


def chunks(body: bytes) -> Iterator[bytes]:
    yield from (body[at : at + 1_000_001] for at in range(0, len(body), 1_000_001))


@pytest.mark.parametrize("size", SIZES)
def test_right_bytes_of_any_size(objects: Objects, size: int) -> None:
    body = bytes(size % 251 for _ in range(1)) * size
    objects.put(KEY, b"damaged")
    replace_object(objects, KEY, digest_of(body, "sha512"), chunks(body), SMALLEST_PART)
    found = objects.get(KEY)
    assert found is not None
    assert found[1] == body


@pytest.mark.parametrize("size", SIZES[1:])
def test_wrong_bytes_change_nothing(size: int) -> None:
    objects, body = MemoryObjects(), b"x" * size
    objects.put(KEY, b"as it was")
    with pytest.raises(DigestInvalid):
        replace_object(objects, KEY, digest_of(body + b"more"), chunks(body), SMALLEST_PART)
    assert objects.stored[KEY].body == b"as it was"
    assert objects.parts == {}


def test_a_source_that_breaks_off_changes_nothing() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * (SMALLEST_PART + 1)
        raise Unavailable("gone")

    objects = MemoryObjects()
    objects.put(KEY, b"as it was")
    with pytest.raises(Unavailable):
        replace_object(objects, KEY, digest_of(b""), broken(), SMALLEST_PART)
    assert objects.stored[KEY].body == b"as it was"
    assert objects.parts == {}


@pytest.mark.parametrize("there", ["right", "another's"])
def test_what_is_there_after_an_unsure_complete_is_read_before_it_is_believed(
    there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has ended the upload, or has replaced the object since by one of equal length."""
    objects, body = MemoryObjects(), b"x" * (SMALLEST_PART + 7)

    def complete(key: str, upload: str, etags: Sequence[str]) -> str:
        objects.put(key, body if there == "right" else b"y" * len(body))
        raise NotFound("no such upload")

    monkeypatch.setattr(objects, "complete_parts", complete)
    with nullcontext() if there == "right" else pytest.raises(StorageError, match="another process"):
        replace_object(objects, KEY, digest_of(body), chunks(body), SMALLEST_PART)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("other", [None, b"by a push"], ids=["deleted", "replaced"])
def test_only_the_object_that_was_meant_is_replaced(objects: Objects, size: int, other: bytes | None) -> None:
    body = b"x" * size

    def meanwhile() -> Iterator[bytes]:
        yield from chunks(body)
        objects.delete(KEY)
        if other is not None:
            objects.put(KEY, other)

    meant = objects.put(KEY, b"damaged")
    with pytest.raises((Changed, NotFound)):
        replace_object(objects, KEY, digest_of(body), meanwhile(), SMALLEST_PART, match=meant)
    assert [found.size for found in objects.list(KEY)] == ([] if other is None else [len(other)])
    replace_object(objects, KEY, digest_of(body), chunks(body), SMALLEST_PART, match=objects.put(KEY, b"damaged"))
    assert objects.head(KEY).size == size
