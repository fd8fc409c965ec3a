"""What is remembered of pushes and pulls on a bucket."""

from __future__ import annotations

import pytest

from tests.jobs.test_gc_bucket import World
from tests.stores import push_image
from zotctl.errors import Unavailable
from zotctl.storage import keys
from zotctl.storage.bucket.history import CLOCK_SLACK_S, FLUSH_INTERVAL_S, MAX_HISTORY_OBJECTS, BucketHistory
from zotctl.storage.bucket.protocol import bucket_of


@pytest.fixture(autouse=True)
def only_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction leaves only what a timeline needs."""
    monkeypatch.setattr("zotctl.storage.bucket.history.REMEMBERED_EVENTS", 0)


@pytest.fixture
def world() -> World:
    return World(dedupe=False)


def history(world: World, fresh: bool = False) -> BucketHistory:
    return bucket_of((world.another() if fresh else world.store).roots[0]).history


def test_nothing_is_asked_for_on_the_way_of_a_request(world: World) -> None:
    push_image(world.store, "a", "v1")
    world.objects.taken()
    history(world).note("a", "push", "sha256:x", {"v1": None})
    history(world).note_pull("a", "sha256:x")
    assert world.objects.taken() == []


def test_it_is_written_about_once_a_minute_and_at_the_end(world: World) -> None:
    digest = push_image(world.store, "a", "v1")
    assert digest in history(world).timeline("a").here, "what is not written yet is known here"
    world.store.maintain()
    assert not world.keys_of(keys.HISTORY)
    world.clock.at += FLUSH_INTERVAL_S
    world.store.maintain()
    assert history(world, fresh=True).timeline("a").tagged.keys() == {"v1"}
    history(world).note_pull("a", digest)
    world.store.close()
    assert history(world, fresh=True).timeline("a").pulled.keys() == {digest}
    assert len(world.keys_of(keys.history("a"))) == 2


def test_a_pull_is_noted_once_a_day(world: World) -> None:
    for _ in range(5):
        history(world).note_pull("a", "sha256:x")
    history(world).flush()
    (key,) = world.keys_of(keys.history("a"))
    assert world.memory.stored[key].body.count(b"pull") == 1


def test_what_cannot_be_written_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> str:
        raise Unavailable("away")

    history(world).note("a", "push", "sha256:x")
    with monkeypatch.context() as patch:
        patch.setattr(world.memory, "put", away)
        history(world).flush()
    history(world).flush()
    assert history(world, fresh=True).timeline("a").here == {"sha256:x"}


def test_an_untagged_manifest_tells_itself_that_it_was_pushed_here(world: World) -> None:
    digest = push_image(world.store, "a")
    world.later()
    past = history(world, fresh=True).timeline("a")
    assert past.here == {digest}
    assert past.pushed[digest] == int(world.clock.at - 150)
    world.memory.put(keys.blob("a", digest), world.memory.stored[keys.blob("a", digest)].body)
    assert history(world, fresh=True).timeline("a").here == set(), "another tool has put it there"


def test_many_objects_become_one(world: World) -> None:
    one = history(world)
    for number in range(MAX_HISTORY_OBJECTS + 1):
        one.note("a", "push", f"sha256:{number}")
        one.flush()
    world.clock.at += 100
    one.compact("a", {"sha256:1", "sha256:2"}, set(), world.clock.at)
    assert len(world.keys_of(keys.history("a"))) == 1
    assert history(world, fresh=True).timeline("a").here == {"sha256:1", "sha256:2"}
    one.compact("a", set(), set(), world.clock.at)
    assert history(world, fresh=True).timeline("a").here == {"sha256:1", "sha256:2"}, "few are left as they are"


def test_what_is_written_while_it_is_made_one_is_kept(world: World) -> None:
    one = history(world)
    for number in range(MAX_HISTORY_OBJECTS + 1):
        one.note("a", "push", f"sha256:{number}")
        one.flush()
    one.compact("a", set(), set(), world.clock.at + CLOCK_SLACK_S / 2)
    assert "sha256:1" in history(world, fresh=True).timeline("a").here, "the list of what is alive may be older"


def test_nothing_is_deleted_before_what_takes_its_place_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> str:
        raise Unavailable("away")

    one = history(world)
    for number in range(MAX_HISTORY_OBJECTS + 1):
        one.note("a", "push", f"sha256:{number}")
        one.flush()
    with monkeypatch.context() as patch:
        patch.setattr(world.memory, "put", away)
        with pytest.raises(Unavailable):
            one.compact("a", {"sha256:1"}, set(), world.clock.at + 100)
    assert len(world.keys_of(keys.history("a"))) == MAX_HISTORY_OBJECTS + 1


def test_what_is_not_an_event_is_skipped(world: World) -> None:
    world.memory.put(f"{keys.history('a')}/x", b'rubbish\n[]\n{"a": "push"}\n{"t": 1, "a": "push", "d": "sha256:x"}\n')
    assert history(world).timeline("a").here == {"sha256:x"}


def test_what_is_not_written_yet_is_told_of_its_own_repository_only(world: World) -> None:
    for name in ("a", "b"):
        push_image(world.store, name, "v1")
    history(world).note_pull("a", "sha256:x")
    assert history(world).timeline("a").pulled.keys() == {"sha256:x"}
    assert not history(world).timeline("b").pulled
