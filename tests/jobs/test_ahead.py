"""Time stamps ahead of the clock: content that has one is young when it is first seen, and expires from then on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.clocks import Hand
from tests.jobs.layouts import run_scrub
from tests.jobs.retaining import KINDS, NAME, Place, keep, places
from tests.jobs.test_gc import DELAY, collect
from tests.stores import push_blob, store_over
from zotctl.config import KeepTags, Policy
from zotctl.errors import BlobUploadUnknown, NotFound
from zotctl.jobs.ages import Ages
from zotctl.jobs.bucket.eligibility import AHEAD_NAME, AHEAD_REMEMBERED_S, Ahead
from zotctl.jobs.retention import Rules
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of

YEAR = 365 * 86400.0


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from places(request.param)


def right(place: Place) -> None:
    """The clock, which was a year ahead, is put right."""
    place.store.close()
    place.clock.at -= YEAR
    place.store = place.another()


def there(place: Place, digest: Digest) -> bool:
    """Or in the trash."""
    if place.kind == "bucket":
        return keys.blob(NAME, digest) in place.memory.stored
    return any(key.endswith(digest.encoded) for key in place.driver.names)


def is_open(place: Place, upload: str) -> bool:
    try:
        place.another().repository_for_push(NAME).upload_offset(upload)
    except BlobUploadUnknown:
        return False
    return True


def test_a_blob_goes_after_the_delay(place: Place) -> None:
    place.push("v1", seed="image")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    right(place)
    place.collect()
    place.later(0.5)
    place.collect()
    assert place.store.repository(NAME).blob(stray) == 5, "it was seen half a delay ago"
    place.store = place.another()
    place.rounds(count=5)
    assert not there(place, stray)
    assert place.has(images.image("image").digest)


def test_a_reservation_that_is_dated_ahead_is_renewed(place: Place) -> None:
    """What is told to be there is there for the delay, whatever the date of the reservation before."""
    place.push("v1", seed="image")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    right(place)
    for _ in range(16):
        place.later(0.6)
        assert place.another().repository(NAME).blob(stray) == 5
        place.collect()
    assert place.another().repository(NAME).blob(stray) == 5


def test_with_a_delay_of_zero_it_goes_at_once(place: Place) -> None:
    place.push("v1", seed="image")
    untagged = place.push(seed="untagged")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    upload = place.store.repository_for_push(NAME).start_upload()
    right(place)
    place.collect(delay=0.0)
    assert not there(place, stray) and not there(place, untagged) and not is_open(place, upload)
    assert place.tags == ["v1"]


def test_an_untagged_manifest_goes_after_the_delay(place: Place) -> None:
    place.push("v1", seed="image")
    untagged = place.push(seed="untagged")
    right(place)
    place.later(0.1)
    place.collect()
    place.later(0.8)
    place.collect()
    assert place.has(untagged)
    place.rounds(count=6)
    assert not there(place, untagged)


def test_tags_expire_by_the_time_at_which_they_were_seen(place: Place) -> None:
    place.push("v1", seed="image")
    right(place)
    place.push("v2", "kept", seed="other")
    lately = KeepTags(patterns=("^v",), pushed_within=3 * DELAY)
    recent = Policy(("**",), keep_tags=(KeepTags(patterns=("kept",)), lately))
    place.collect(recent)
    place.later(2)
    place.collect(recent)
    assert place.tags == ["kept", "v1", "v2"]
    for _ in range(3):
        place.later(2)
        place.collect(recent)
    assert place.tags == ["kept"]


def test_the_latest_of_them_is_still_the_latest(place: Place) -> None:
    for number in (3, 2, 1):
        place.push(f"v{number}", seed=str(number))
    right(place)
    place.later()
    place.collect(keep(1))
    assert place.tags == ["v1"]


def test_an_upload_goes_after_the_delay(place: Place) -> None:
    place.push("v1", seed="image")
    upload = place.store.repository_for_push(NAME).start_upload()
    right(place)
    place.collect()
    assert is_open(place, upload)
    place.rounds(count=3)
    assert not is_open(place, upload)


@pytest.mark.parametrize("hours", [5, -5])
def test_the_clock_of_a_collector_s_host_does_not_count(hours: int) -> None:
    """In a directory: the file system's does, which has stamped the files."""
    place = Place("directory")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    upload = place.store.repository_for_push(NAME).start_upload()
    place.store.close()
    host = Hand(place.clock.at + hours * 3600)

    def collected() -> None:
        host.at += 0.8 * DELAY
        place.later(0.8)
        store = store_over(place.driver, clock=host)
        assert collect(store).errors == []
        store.close()

    collected()
    assert is_open(place, upload) and place.driver.stat(keys.blob(NAME, stray))
    collected()
    assert not is_open(place, upload) and there(place, stray)
    with pytest.raises(NotFound):
        place.driver.stat(keys.blob(NAME, stray))


def test_an_upload_that_began_ahead_keeps_no_blobs(place: Place) -> None:
    place.push("v1", seed="image")
    place.store.repository_for_push(NAME).start_upload()
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    right(place)
    place.rounds(count=6)
    assert not there(place, stray)


def test_what_is_trashed_by_a_clock_ahead_is_purged() -> None:
    place = Place("directory")
    place.push("v1", seed="image")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    place.later()
    place.collect()
    folder = next(iter(local_of(place.store.roots[0]).trash.folders()))
    inode = place.driver.names[folder.key]
    inode.mtime = inode.ctime = int((place.clock.at + YEAR) * 1e9)
    place.rounds(count=1)
    assert there(place, stray), "it counts from now"
    place.rounds(count=1)
    assert not there(place, stray)


def test_the_trash_is_empty_at_once_with_a_delay_of_zero() -> None:
    place = Place("directory")
    place.push("v1", seed="image")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    place.later()
    place.collect()
    for key in [key for key in place.driver.names if key.startswith(keys.TRASH)]:
        inode = place.driver.names[key]
        inode.mtime = inode.ctime = int((place.clock.at + YEAR) * 1e9)
    place.collect(delay=0.0)
    assert not there(place, stray)


def test_what_dead_processes_left_goes() -> None:
    place = Place("directory")
    place.push("v1", seed="image")
    for key in (keys.tmp("left"), keys.index_temp(NAME, "left")):
        place.driver.create(key).close()
        inode = place.driver.names[key]
        inode.mtime = inode.ctime = int((place.clock.at + YEAR) * 1e9)
    place.rounds(count=1)
    assert keys.tmp("left") in place.driver.names and keys.index_temp(NAME, "left") in place.driver.names
    place.rounds(count=1)
    assert keys.tmp("left") not in place.driver.names and keys.index_temp(NAME, "left") not in place.driver.names


def test_a_damaged_copy_that_nobody_needs_goes() -> None:
    place = Place("directory")
    place.push("v1", seed="image")
    root = place.store.roots[0]
    digest = push_blob(place.store.repository_for_push(NAME), b"stray")
    directory = keys.damaged_links(digest)
    local_of(root).context.make_dirs(directory)
    place.driver.create(f"{directory}/x").close()
    place.driver.names[f"{directory}/x"].ctime = int((place.clock.at + YEAR) * 1e9)
    run_scrub(place.store)
    assert f"{directory}/x" in place.driver.names
    place.clock.at += 8 * 86400
    run_scrub(place.store)
    assert f"{directory}/x" not in place.driver.names


def test_a_dry_run_puts_nothing_right() -> None:
    place = Place("directory")
    place.push("v1", seed="image")
    stray = push_blob(place.store.repository_for_push(NAME), b"stray")
    right(place)
    before = place.driver.stat(keys.blob(NAME, stray))
    place.collect(dry_run=True)
    assert place.driver.stat(keys.blob(NAME, stray)) == before


def test_a_restored_backup_counts_from_the_restore(tmp_path: Path) -> None:
    """The kernel knows when a file came to be what it is: its stamp is left alone."""
    store = store_over(LocalDriver(str(tmp_path)))
    digest = push_blob(store.repository_for_push("a"), b"stray")
    path = tmp_path / keys.blob("a", digest)
    os.utime(path, (time.time() + YEAR, time.time() + YEAR))
    info = store.roots[0].driver.stat(keys.blob("a", digest))
    ages = Ages(store.roots[0].driver, time.time(), store.clock)
    assert ages.written(keys.blob("a", digest), info) == info.ctime_ns / 1e9
    assert path.stat().st_mtime > time.time() + YEAR / 2
    assert collect(store, 0.0, rules=Rules(delay=0.0)).summary["purged"] == 1


def test_intents_dated_ahead_go_after_a_while() -> None:
    place = Place("bucket")
    digest = place.push("v1", seed="image")
    root = place.store.roots[0]
    bucket_of(root).intents.announce([keys.blob(NAME, digest)])
    right(place)
    intents = bucket_of(place.store.roots[0]).intents
    collect(place.store, 0.0)
    assert intents.look().announced == {keys.blob(NAME, digest)}, "a run without delay leaves it"
    place.collect()
    place.clock.at += 3 * INTENT_LIFETIME_S
    place.collect()
    assert not [key for key in place.memory.stored if key.startswith(keys.INTENTS)]


@pytest.mark.parametrize(("age", "young"), [(-YEAR, False), (-30.0, True), (0.0, True), (59.0, True), (60.0, False)])
def test_what_is_dated_ahead_is_not_young(age: float, young: bool) -> None:
    assert Object("k", 1, "e", 1e9, age).is_younger(60.0) is young


def test_first_seen_is_forgotten_in_the_end() -> None:
    place = Place("bucket")
    place.push("v1", seed="image")
    context = bucket_of(place.store.roots[0]).context
    one, other = (Object(key, 1, "e", place.clock.at + YEAR, -YEAR) for key in ("one", "other"))
    for at, found in ((0.0, one), (AHEAD_REMEMBERED_S / 2, other), (AHEAD_REMEMBERED_S / 2, one)):
        ahead = Ahead(context, place.clock.at + at, no_delay=False)
        assert ahead.modified(found) == place.clock.at + (at if found is other else 0)
        ahead.save()
    ahead = Ahead(context, place.clock.at + 2 * AHEAD_REMEMBERED_S, no_delay=False)
    assert ahead.modified(other) == place.clock.at + AHEAD_REMEMBERED_S / 2, "in which it is met each time"
    ahead.save()
    assert b"one" not in place.memory.stored[keys.first_seen(AHEAD_NAME)].body
