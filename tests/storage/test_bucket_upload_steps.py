"""Uploads into a bucket where time goes by, and where another process comes in between
(docs/design/bucket.md#uploads)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.storage.uploading import PART, World, finish, patch, random_bytes
from zotctl.errors import BlobUploadUnknown, Busy, Unavailable, UploadConflict
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.uploads.sessions import IDLE_S, STORE_WAIT_S
from zotctl.storage.bucket.uploads.upload import StoredUpload

MANY = 5 * PART + 77


@pytest.fixture(params=[False, True], ids=["layouts", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(dedupe=request.param)


def test_bytes_that_start_elsewhere_are_refused(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, b"12345")
    with world.one.uploads.resume("a", upload_id) as upload:
        for start in (0, 4, 6):
            with pytest.raises(UploadConflict):
                upload.expect(start=start)
        upload.expect(start=5)


def test_an_upload_whose_blob_was_collected_before_its_answer_is_to_be_sent_again(world: World) -> None:
    body, frozen = b"x", list[str]()
    upload_id = world.one.uploads.start("a", "sha256")

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "delete" and args[0] == keys.session(upload_id):
            frozen.append(method)
            world.time.at += world.one.context.window + 1
            world.memory.delete(world.place(digest_of(body)))
            world.memory.delete(keys.reservation(digest_of(body), "a"))

    world.objects.before = before
    with pytest.raises(Busy):
        finish(world.one, upload_id, digest_of(body), body)
    assert frozen


def test_a_session_is_renewed_within_half_a_window(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.write([b"x"])
        world.time.at += world.one.context.window / 2 + 1
        upload.write([b"x"])
        assert world.memory.stored[keys.session(upload_id)].modified == int(world.time.at)


def test_a_session_is_renewed_before_its_bytes_are_copied(world: World) -> None:
    """The copy takes its time, and nothing is written into the session meanwhile."""
    body, renewed = random_bytes(MANY), list[bool]()
    upload_id = world.one.uploads.start("a", "sha256")

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "copy":
            renewed.append(world.memory.stored[keys.session(upload_id)].modified == int(world.time.at))

    world.objects.before = before
    upload = world.one.uploads.resume("a", upload_id)
    upload.write([body])
    upload.save()
    world.time.at += world.one.context.window / 2 + 1
    upload.finish(digest_of(body))
    assert renewed == [True]
    world.check(body)


def test_two_states_of_a_session_have_two_etags(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    etags = set()
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.write([b"x"])
        for _ in range(3):
            world.time.at += world.one.context.window / 2 + 1
            upload._renew(again=True)
            etags.add(world.memory.stored[keys.session(upload_id)].etag)
    assert len(etags) == 3


def test_the_offset_is_that_of_the_session_whoever_took_the_bytes(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, b"12345")
    patch(world.two, upload_id, b"67890")
    assert world.one.uploads.offset("a", upload_id) == 10


def test_a_hash_is_good_for_the_state_that_it_is_of(world: World) -> None:
    """The tail was dropped from memory, and another process went on: the hash is of fewer bytes."""
    body, upload_id = random_bytes(MANY), world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body[: 3 * PART + 7])
    world.time.at += IDLE_S + 1
    world.one.maintain()
    patch(world.two, upload_id, body[3 * PART + 7 :])
    finish(world.one, upload_id, digest_of(body))
    world.check(body)


@pytest.mark.parametrize("directory", [keys.UPLOADS, keys.STAGED])
def test_what_is_no_upload_of_ours_is_not_purged(world: World, directory: str) -> None:
    world.memory.put(f"{directory}/readme", b"mine")
    world.time.at += 100
    assert list(world.one.uploads.purge(50)) == []
    assert f"{directory}/readme" in world.memory.stored


def test_an_upload_is_unknown_from_its_end_though_a_thread_has_still_to_discard_it(world: World) -> None:
    upload_id, waiting = world.one.uploads.start("a", "sha256"), list[Callable[[], None]]()
    world.one.context.threads = cast(Any, SimpleNamespace(submit=waiting.append))
    world.one.uploads.discard_soon(world.one.uploads.head("a", upload_id))
    for ask in (world.one.uploads.offset, world.one.uploads.resume):
        with pytest.raises(BlobUploadUnknown):
            ask("a", upload_id)
    assert world.memory.stored[keys.session(upload_id)], "it is there"
    waiting.pop()()
    assert not waiting and world.left() == [] and world.one.uploads._claims == {}


def test_a_session_says_in_its_metadata_what_it_is(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    numbers, words = {"offset": 7, "tail": 3, "part": 4}, ("name", "digest", "target", "multipart", "token")
    session = StoredUpload(upload_id, etag="e", **numbers, **{word: f"the {word}" for word in words})  # type: ignore[arg-type]
    for said in (session, *(replace(session, **{key: 0}) for key in numbers)):  # type: ignore[arg-type]
        assert StoredUpload.parse(Object(keys.session(upload_id), 3, "e", 0, 0, metadata=said.metadata())) == said


def test_a_session_is_begun_once(world: World) -> None:
    """Its first PUT comes through once more, late, when it has gone on or was purged and is another's."""
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, b"12345")
    there = world.memory.stored[keys.session(upload_id)]
    with pytest.raises(BlobUploadUnknown):
        world.one.uploads.store(StoredUpload(upload_id, "a"), b"token")
    assert world.memory.stored[keys.session(upload_id)] == there


@pytest.mark.parametrize("failing", ["abort_parts", "delete"])
def test_a_session_goes_after_what_it_has_stored(world: World, failing: str) -> None:
    """What is left is found by it."""
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, random_bytes(MANY))
    failed: list[str] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == failing and not failed:
            failed.append(str(args[0]))
            raise Unavailable("no")

    world.objects.before = before
    with pytest.raises(Unavailable), world.one.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    assert failed == [keys.staged(upload_id)] and keys.session(upload_id) in world.memory.stored
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    assert not world.memory.parts and keys.session(upload_id) not in world.memory.stored


class Saving:
    """An upload whose client is gone: a thread has begun to store its session. It goes on when `world`'s clock does."""

    def __init__(self, world: World, upload_id: str, *, fails: bool = False, ends: bool = True) -> None:
        self._begun, self._go, self._fails = threading.Event(), threading.Event(), fails
        self.upload = world.one.uploads.resume("a", upload_id)
        self.upload.write([b"arrived"])
        world.objects.before = self._before
        self._thread = threading.Thread(target=self._close)
        self._thread.start()
        assert self._begun.wait(10)
        world.objects.before = None
        self.sleeps = 0
        self._ends = ends
        world.time.on_sleep = self._slept

    def _before(self, method: str, _: object) -> None:
        self._begun.set()
        assert self._go.wait(10)
        if self._fails:
            raise Unavailable("away")

    def _close(self) -> None:
        with suppress(Unavailable):
            self.upload.close()

    def _slept(self) -> None:
        self.sleeps += 1
        if self._ends:
            self.end()

    def end(self) -> None:
        self._go.set()
        self._thread.join(10)


@pytest.mark.parametrize("fails", [False, True])
def test_who_comes_while_a_session_is_being_stored_waits_for_it(world: World, fails: bool) -> None:
    """A client that was cut off asks for the offset, is told what the session says, and goes on there."""
    upload_id = world.one.uploads.start("a", "sha256")
    saving = Saving(world, upload_id, fails=fails)
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.expect()
        assert upload.offset == (0 if fails else len(b"arrived")) and saving.sleeps == 1
    assert world.one.uploads._claims == {}


def test_an_upload_that_is_cancelled_while_it_is_being_stored_is_gone(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    Saving(world, upload_id)
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    assert world.left() == []
    with pytest.raises(BlobUploadUnknown):
        world.one.uploads.resume("a", upload_id)


def test_a_session_that_takes_long_to_be_stored_is_a_conflict(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    saving, began = Saving(world, upload_id, ends=False), world.time.at
    with pytest.raises(UploadConflict):
        world.one.uploads.resume("a", upload_id)
    assert STORE_WAIT_S <= world.time.at - began < 2 * STORE_WAIT_S
    saving.end()


def test_an_upload_that_is_being_written_is_a_conflict_at_once(world: World) -> None:
    upload_id = world.one.uploads.start("a", "sha256")
    began = world.time.at
    with world.one.uploads.resume("a", upload_id) as upload:
        upload.write([b"x"])
        with pytest.raises(UploadConflict):
            world.one.uploads.resume("a", upload_id)
    assert world.time.at == began


def test_a_request_without_bytes_is_told_what_others_have_left(world: World) -> None:
    """Of what this process remembers nothing is stored, so that no swap finds out that it is old."""
    upload_id = world.one.uploads.start("a", "sha256")
    assert patch(world.one, upload_id, b"12") == 2
    assert patch(world.two, upload_id, b"345") == 5
    assert patch(world.one, upload_id, b"") == 5
    with world.two.uploads.resume("a", upload_id) as upload:
        upload.cancel()
    with pytest.raises(BlobUploadUnknown):
        patch(world.one, upload_id, b"")
