"""Requests that fail are repeated, and only where that changes nothing (zotctl.storage.bucket.objects.retry)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from tests.conformance.objects_suite import ObjectsSuite, get, keys_of
from tests.doubles.objects import MemoryObjects
from tests.object_faults import AWAY, FAULTS, HALF, LOST, NEVER, SLOW, FaultyObjects, StillClock, one_in, scripted
from zotctl.errors import (
    Changed,
    DoneUnanswered,
    Expired,
    IoFailed,
    NoBucket,
    NotFound,
    OutcomeUnknown,
    PermissionRefused,
    RequestRefused,
    SlowDown,
    StorageError,
    Unavailable,
)
from zotctl.storage.bucket.objects import retry
from zotctl.storage.bucket.objects.retry import Retrying, etag_of_parts
from zotctl.storage.bucket.objects.seam import Object, Objects, PresignedDelete
from zotctl.storage.driver import Buffer

SEEDS = range(8)
PART = 5 << 20


class TestOneRequestInTenFails(ObjectsSuite):
    """The whole suite: no caller sees it."""

    many = 200

    @pytest.fixture(params=[1, 2, 3])
    def objects(self, request: pytest.FixtureRequest) -> Objects:
        self.ahead = 0.0
        memory = MemoryObjects(lambda: time.time() + self.ahead)
        return Retrying(FaultyObjects(memory, one_in(10, request.param)), StillClock())

    def later(self, seconds: float) -> None:
        self.ahead += seconds

    def test_a_presigned_delete_expires_by_the_servers_clock(self, objects: Objects) -> None:
        """With an answer that got lost, its end isn't known."""
        objects.put("one", b"x")
        presigned = objects.sign_deletes(["one"], 1)
        self.later(4)
        with pytest.raises((Expired, OutcomeUnknown)):
            objects.execute(presigned)
        assert keys_of(objects.list("")) == ["one"]

    def test_one_of_many_creates(self, objects: Objects) -> None:
        """Equal bodies of several writers can't be told apart: that is what generations are for."""

    def test_no_swap_is_lost(self, objects: Objects) -> None:
        """As above."""


def over(*faults: str) -> tuple[MemoryObjects, FaultyObjects, Retrying, StillClock]:
    memory, clock = MemoryObjects(), StillClock()
    faulty = FaultyObjects(memory, scripted(*faults))
    return memory, faulty, Retrying(faulty, clock), clock


CALLS: dict[str, Callable[[Objects], object]] = {
    "head": lambda objects: objects.head("file"),
    "get": lambda objects: objects.get("file"),
    "open": lambda objects: objects.open("file").read_at(0, 9),
    "list": lambda objects: list(objects.list("")),
    "names": lambda objects: list(objects.names("")),
    "put": lambda objects: objects.put("other", b"x"),
    "delete": lambda objects: objects.delete("file"),
    "copy": lambda objects: objects.copy("file", "copy"),
    "start": lambda objects: objects.start_parts("part"),
    "execute": lambda objects: objects.execute(objects.sign_deletes(["file"], 30)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_what_changes_nothing_is_repeated(call: str, fault: str) -> None:
    memory, faulty, objects, _ = over(fault, fault, fault)
    memory.put("file", b"x")
    # A delete that was done is told from one that can't be done once more.
    unsure = call == "execute" and fault in (LOST, NEVER)
    with pytest.raises(DoneUnanswered) if unsure else nullcontext():
        CALLS[call](objects)
    assert [made.fault for made in faulty.requests if made.fault] == [fault] * 3


SWAPS = [{"absent": True}, {"match": '"9dd4e461268c8034f5c8564e155c67a6"'}]


def swapping(memory: MemoryObjects, options: dict[str, str]) -> None:
    if "match" in options:
        memory.put("index.json", b"x")


@pytest.mark.parametrize("options", SWAPS)
@pytest.mark.parametrize("fault", [*FAULTS, HALF])
def test_a_conditional_write_is_made_whole_whatever_became_of_it(fault: str, options: dict[str, str]) -> None:
    for faults in ((fault,), (fault, "", fault), (fault, AWAY, "", fault, "", fault)):
        memory, _, objects, clock = over(*faults)
        swapping(memory, options)
        etag = objects.put("index.json", b"all of it", **options, metadata={"a": "b"})  # type: ignore[arg-type]
        assert objects.get("index.json", unless=etag) is None
        assert memory.stored["index.json"].body == b"all of it"
        assert clock.time > 1000


@pytest.mark.parametrize("options", SWAPS)
@pytest.mark.parametrize("fault", [LOST, NEVER, HALF])
@pytest.mark.parametrize("other", [b"another's", b"all of it, and more"])
def test_what_another_writer_has_put_since_is_left_alone(fault: str, options: dict[str, str], other: bytes) -> None:
    memory, _, objects, clock = over(fault)
    swapping(memory, options)
    clock.sleep = lambda _: memory.put("index.json", other)  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown):
        objects.put("index.json", b"all of it", **options)  # type: ignore[arg-type]
    assert memory.stored["index.json"].body == other


def test_an_equal_body_with_other_metadata_is_not_ours() -> None:
    memory, _, objects, clock = over(NEVER)
    clock.sleep = lambda _: memory.put("session", b"", metadata={"token": "its"})  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown):
        objects.put("session", b"", absent=True, metadata={"token": "ours"})
    assert memory.stored["session"].metadata == {"token": "its"}


@pytest.mark.parametrize("fault", [LOST, NEVER])
def test_an_outcome_is_waited_for_like_any_other_answer(fault: str) -> None:
    """A balancer without a server behind it resets each connection at once."""
    memory, clock = MemoryObjects(), StillClock()
    objects = Retrying(FaultyObjects(memory, lambda method, _: fault if method == "put" else AWAY), clock)
    with pytest.raises(Unavailable):
        objects.put("index.json", b"x", absent=True)
    assert clock.time > 1025


def test_a_list_goes_on_behind_the_last_row() -> None:
    memory = MemoryObjects()
    for number in range(50):
        memory.put(f"dir/{number:02}/x", b"")
    faulty = FaultyObjects(memory, one_in(5, 7))
    objects = Retrying(faulty, StillClock())
    assert keys_of(objects.list("dir/")) == [f"dir/{number:02}/x" for number in range(50)]
    assert list(objects.names("dir")) == [(f"{number:02}", True) for number in range(50)]
    assert any(made.fault for made in faulty.requests)


def test_a_piece_that_ended_early_is_read_again() -> None:
    memory = MemoryObjects()
    memory.put("file", bytes(range(250)) * 10)
    objects = Retrying(FaultyObjects(memory, one_in(3, 5)), StillClock())
    buffer = bytearray(100)
    for _ in range(20):
        with objects.open("file") as reader:
            assert reader.read_into(50, memoryview(buffer)) == 100
            assert buffer == bytes(range(50, 150))


# -- the end of patience --------------------------------------------------------------------------


def test_after_the_deadline_the_failure_goes_up() -> None:
    _, faulty, objects, clock = over(*[SLOW] * 1000)
    began = clock.time
    with pytest.raises(SlowDown):
        objects.head("file")
    assert 20 < clock.time - began <= 30
    assert 15 < len(faulty.requests) < 100


def test_after_a_long_outage_each_client_hears_at_once_and_one_success_ends_it() -> None:
    memory, faulty, objects, clock = over(*[AWAY] * 1000)
    with pytest.raises(Unavailable):
        objects.head("file")
    faulty.taken()
    for _ in range(3):
        clock.time += 5
        with pytest.raises(Unavailable):
            objects.head("file")
    assert [made.method for made in faulty.taken()] == ["get"] * 3, "is anything answered?"
    clock.time += 5
    memory.put("file", b"")
    faulty._choose = scripted("", AWAY, AWAY)
    objects.head("file")
    objects.head("file")
    assert [made.method for made in faulty.taken()] == ["get", "head", "head", "head", "head"]


class Hanging(MemoryObjects):
    """Each request takes as long as it may, and then there was no answer. `only`: to these methods."""

    def __init__(self, clock: StillClock, *only: str) -> None:
        super().__init__()
        self.hangs, self._still, self._only = True, clock, only
        self.asked = 0

    def _hang(self, method: str) -> None:
        self.asked += 1
        if self.hangs and (not self._only or method in self._only):
            self._still.time += 5
            raise Unavailable("no answer in time")

    def head(self, key: str) -> Object:
        self._hang("head")
        return super().head(key)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        self._hang("get")
        return super().get(key, unless=unless)

    def delete(self, key: str) -> None:
        self._hang("delete")
        super().delete(key)

    def put(self, key: str, body: Buffer, **options: Any) -> str:
        self._hang("put")
        return super().put(key, body, **options)


def test_a_store_that_hangs_is_waited_for_once_and_not_for_each_object() -> None:
    clock = StillClock()
    inner = Hanging(clock)
    objects, began = Retrying(inner, clock), clock.time
    for number in range(1000):
        with pytest.raises(Unavailable, match="no answer in time"):
            objects.head(f"{number}")
        with pytest.raises(Unavailable, match="no answer in time"):
            objects.put(f"{number}", b"")
    assert clock.time - began <= 40
    inner.hangs = False
    clock.time += 2
    with pytest.raises(NotFound):
        objects.head("file")
    assert objects.put("file", b"")


def test_a_store_that_takes_no_writes_is_waited_for_once_too() -> None:
    clock = StillClock()
    inner = Hanging(clock, "put", "delete")
    objects, began = Retrying(inner, clock), clock.time
    for number in range(1000):
        with pytest.raises(NotFound):
            objects.head(f"{number}")
        with pytest.raises(Unavailable):
            objects.delete(f"{number}")
    assert clock.time - began <= 40


def test_one_of_many_looks_whether_a_store_that_hangs_is_back() -> None:
    clock = StillClock()
    inner = Hanging(clock)
    objects = Retrying(inner, clock)
    for _ in range(2):
        with pytest.raises(Unavailable):
            objects.head("file")
    inner.asked, clock.time = 0, clock.time + 2

    def meanwhile(method: str) -> None:
        inner.asked += 1
        if inner.asked == 1:
            for _ in range(100):
                with pytest.raises(Unavailable):
                    objects.head("file")
        raise Unavailable("no answer in time")

    inner._hang = meanwhile  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        objects.head("file")
    assert inner.asked == 1


def test_one_object_that_can_not_be_had_does_not_delay_the_others() -> None:
    memory, clock = MemoryObjects(), StillClock()
    memory.put("other", b"")
    objects = Retrying(FaultyObjects(memory, lambda _, key: AWAY if key == "file" else ""), clock)
    for _ in range(3):
        with pytest.raises(Unavailable):
            objects.head("file")
    assert objects.head("other")


def test_an_outage_of_yesterday_is_none_of_today() -> None:
    memory, faulty, objects, clock = over(*[AWAY] * 1000)
    with pytest.raises(Unavailable):
        objects.head("file")
    clock.time += 3600
    memory.put("file", b"")
    faulty._choose = scripted(AWAY, AWAY)
    objects.head("file")


@pytest.mark.parametrize("kind", [NoBucket, IoFailed, PermissionRefused, RequestRefused, NotFound, StorageError])
def test_what_will_not_get_better_is_told_at_once(kind: type[StorageError]) -> None:
    class Refusing(MemoryObjects):
        calls = 0

        def head(self, key: str) -> Object:
            self.calls += 1
            raise kind("no")

    inner = Refusing()
    with pytest.raises(kind):
        Retrying(inner, StillClock()).head("file")
    assert inner.calls == 1


# -- parts and presigned_deletes ---------------------------------------------------------------------------


def uploaded(objects: Objects) -> tuple[str, list[str]]:
    upload = objects.start_parts("big")
    return upload, [objects.put_part("big", upload, 1, b"1" * PART), objects.put_part("big", upload, 2, b"2")]


def test_a_completion_without_an_answer_was_done() -> None:
    """MinIO says 404 to a repeated one, and so does the store in memory."""
    memory, faulty, objects, _ = over()
    upload, etags = uploaded(objects)
    faulty._choose = scripted(LOST)
    assert objects.complete_parts("big", upload, etags) == memory.head("big").etag == etag_of_parts(etags)


def test_a_completion_without_an_answer_was_not_done() -> None:
    memory, faulty, objects, _ = over()
    upload, etags = uploaded(objects)
    faulty._choose = scripted(NEVER, SLOW, NEVER)
    assert objects.complete_parts("big", upload, etags) == memory.head("big").etag


def test_an_older_object_is_not_taken_for_ours() -> None:
    now = 1000.0
    memory, clock = MemoryObjects(lambda: now), StillClock()
    faulty = FaultyObjects(memory, scripted())
    objects = Retrying(faulty, clock)
    memory.put("big", b"damaged")
    now += 100
    upload, etags = uploaded(objects)
    faulty._choose = scripted(NEVER)
    memory.abort_parts("big", upload)
    with pytest.raises(NotFound):
        objects.complete_parts("big", upload, etags)
    assert get(memory, "big") == b"damaged"


@pytest.mark.parametrize("etags_tell", [True, False])
def test_what_another_has_completed_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch, etags_tell: bool) -> None:
    """Of the same upload, a moment ago: two servers that end one session."""
    memory, faulty, objects, _ = over()
    upload, etags = uploaded(objects)
    if not etags_tell:
        monkeypatch.setattr(retry, "etag_of_parts", lambda _: "")
        told = memory._object
        monkeypatch.setattr(memory, "_object", lambda key, stored: told(key, stored)._replace(etag=""))

    def choose(method: str, _: str) -> str:
        if method != "complete_parts" or upload not in memory.parts:
            return ""
        theirs = [etags[0], memory.put_part("big", upload, 2, b"other")]
        memory.complete_parts("big", upload, theirs)
        return NEVER

    faulty._choose = choose
    with pytest.raises(NotFound):
        objects.complete_parts("big", upload, etags)
    assert get(memory, "big") == b"1" * PART + b"other"


def test_a_completion_that_was_refused_at_once_is_not_looked_for() -> None:
    memory, _, objects, _ = over()
    upload, etags = uploaded(objects)
    memory.put("big", b"another")
    objects.abort_parts("big", upload)
    with pytest.raises(NotFound):
        objects.complete_parts("big", upload, etags)


def test_a_presigned_delete_that_was_perhaps_carried_out_is_not_told_as_expired() -> None:
    """The intent must stay until the first request can't arrive any more (docs/design/bucket.md#c7)."""
    now = 1000.0
    memory = MemoryObjects(lambda: now)
    memory.put("file", b"x")

    def choose(method: str, _: str) -> str:
        nonlocal now
        now += 20
        return NEVER if method == "execute" and now < 1030 else ""

    objects = Retrying(FaultyObjects(memory, choose), StillClock())
    presigned: PresignedDelete = objects.sign_deletes(["file"], 30)
    with pytest.raises(OutcomeUnknown):
        objects.execute(presigned)


def test_changed_is_told() -> None:
    _, _, objects, _ = over(SLOW)
    objects.put("file", b"x", absent=True)
    with pytest.raises(Changed):
        objects.put("file", b"x", absent=True)


@pytest.mark.parametrize("fault", [LOST, NEVER])
def test_an_index_that_is_gone_after_a_swap_without_an_answer_is_not_made_anew(fault: str) -> None:
    """What was to be replaced was removed since, before it was replaced or after that."""
    memory, faulty, objects, clock = over(fault)
    memory.put("index.json", b"x")
    clock.sleep = lambda _: memory.delete("index.json")  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown):
        objects.put("index.json", b"all of it", match='"9dd4e461268c8034f5c8564e155c67a6"')
    assert "index.json" not in memory.stored
    assert [made.method for made in faulty.requests].count("put") == 1


@pytest.mark.parametrize("options", SWAPS)
def test_a_first_attempt_that_comes_through_behind_a_look_is_ours(options: dict[str, str]) -> None:
    """The second one then finds another object than was wanted, and it is our own."""
    memory, clock = MemoryObjects(), StillClock()
    swapping(memory, options)
    real, count = memory.put, list[None]()

    def put(*args: Any, **conditions: Any) -> str:
        count.append(None)
        if len(count) == 1:
            raise OutcomeUnknown("no answer")
        if len(count) == 2:
            real(*args, **conditions)
        return real(*args, **conditions)

    memory.put = put  # type: ignore[method-assign]
    etag = Retrying(memory, clock).put("index.json", b"all of it", **options)  # type: ignore[arg-type]
    assert etag == memory.stored["index.json"].etag and memory.stored["index.json"].body == b"all of it"
