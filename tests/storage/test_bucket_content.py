"""Content is read on where its object was replaced or removed, after the answer to the first request broke off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.objects import MemoryObjectReader, MemoryObjects
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import Changed, NotFound, StorageError
from zotctl.http.errors import render
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.content import REOPENINGS
from zotctl.storage.bucket.objects.wrappers import WrappedObjects
from zotctl.storage.driver import Reader

BODY = b"0123456789"
DIGEST = digest_of(BODY)
OWN, POOLED = keys.blob("a", DIGEST), keys.shared(DIGEST)


class OneAnswerEach(WrappedObjects):
    """Each piece takes a request of its own, with the condition that the object is still the one that was opened."""

    def __init__(self, inner: MemoryObjects) -> None:
        super().__init__(inner)
        self.memory = inner
        self.before: Callable[[], object] = lambda: None
        """What happens before each piece."""

    def open(self, key: str) -> Reader:
        reader, opened, world = self.memory.open(key), self.memory.stored[key], self

        class Conditional(MemoryObjectReader):
            def read_at(self, offset: int, count: int) -> bytes:
                world.before()
                if (now := world.memory.stored.get(key)) is not opened:
                    raise Changed("it is another one") if now else NotFound("no such object")
                return super().read_at(offset, count)

        return Conditional(self.memory.head(key), reader.read_at(0, reader.size))


@pytest.fixture
def objects() -> OneAnswerEach:
    return OneAnswerEach(MemoryObjects(Hand().now))


@pytest.fixture
def reader(objects: OneAnswerEach) -> Iterator[Reader]:
    store = bucket_store(objects, Hand(), dedupe=True)
    push_blob(store.repository_for_push("a"), BODY)
    for key in (OWN, POOLED):
        objects.memory.put(key, BODY)
    with store.repository("a").open_blob(DIGEST) as found:
        assert found.read_at(0, 4) == BODY[:4]
        yield found


def test_in_the_same_content_that_was_pushed_again(objects: OneAnswerEach, reader: Reader) -> None:
    for key in (OWN, POOLED):
        objects.memory.put(key, BODY)
    buffer = bytearray(6)
    assert reader.read_into(4, memoryview(buffer)) == 6 and buffer == BODY[4:]


def test_where_dedupe_has_left_it(objects: OneAnswerEach, reader: Reader) -> None:
    objects.memory.delete(OWN)
    assert reader.read_at(4, 100) == BODY[4:]
    objects.memory.put(OWN, BODY)
    objects.memory.delete(POOLED)
    assert reader.read_at(4, 100) == BODY[4:]


def test_not_where_it_is_gone(objects: OneAnswerEach, reader: Reader) -> None:
    for key in (OWN, POOLED):
        objects.memory.delete(key)
    with pytest.raises(NotFound):
        reader.read_at(4, 100)


def test_not_in_what_is_shorter(objects: OneAnswerEach, reader: Reader) -> None:
    for key in (OWN, POOLED):
        objects.memory.put(key, BODY[:5])
    for _ in range(2):
        with pytest.raises(StorageError, match="5 bytes are where 10 were"):
            reader.read_at(4, 100)


def test_not_for_ever(objects: OneAnswerEach, reader: Reader) -> None:
    """And what a client is told then is no conflict of its own."""
    pieces = []

    def replace() -> None:
        pieces.append(1)
        for key in (OWN, POOLED):
            objects.memory.put(key, BODY)

    objects.before = replace
    with pytest.raises(Changed) as told:
        reader.read_at(4, 100)
    assert len(pieces) == REOPENINGS + 1
    assert render(told.value).status == 503


def test_in_a_manifest(objects: OneAnswerEach) -> None:
    store = bucket_store(objects, Hand())
    push_image(store, "a", "v1")
    made, left = images.image("x", layers=2), [1]

    def replace() -> None:
        if left:
            left.pop()
            objects.memory.put(keys.blob("a", made.digest), made.manifest)

    objects.before = replace
    another = bucket_store(objects, Hand())
    assert another.repository("a").manifest("v1").body == made.manifest
    assert not left
