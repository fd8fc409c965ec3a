"""What pushes leave behind, and whose it still is. Each safeguard has a mutant."""

from __future__ import annotations

from typing import Any

import pytest

from tests import images
from tests.faults import Meanwhile
from tests.jobs.collecting import DELAY, Place
from tests.stores import push_blob, push_image
from zotctl.errors import Busy
from zotctl.jobs.ages import UPLOAD_SPARED_S
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.local import gc as local_gc
from zotctl.jobs.local.gc import ActiveUploads
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.local.protocol import local_of
from zotctl.storage.locks import lock_byte

STRAY = digest_of(b"stray")
AT_ONCE: dict[str, Any] = {"delay": 0.0, "rules": Rules(delay=0.0)}


@pytest.fixture
def place() -> Place:
    place = Place()
    push_image(place.store, "a", "v1")
    return place


# -- uploads --------------------------------------------------------------------------------------


def test_an_upload_that_a_request_is_writing_is_not_swept(place: Place) -> None:
    """However slow its client is: the request has the lock."""
    repository = place.store.repository_for_push("a")
    upload = repository.resume_upload(repository.start_upload())
    upload.write([b"slow"])
    place.wait(5)
    assert place.collect(place.open()).summary["uploads"] == 0
    upload.finish(digest_of(b"slow"))
    assert place.lies(digest_of(b"slow"))


def test_an_upload_is_as_old_as_its_last_byte(place: Place) -> None:
    repository = place.store.repository_for_push("a")
    upload_id = repository.start_upload()
    place.wait(3)
    with repository.resume_upload(upload_id) as upload:
        upload.write([b"more"])
    place.wait(0.5)
    assert place.collect().summary["uploads"] == 0
    place.wait(0.6)
    assert place.collect().summary["uploads"] == 1


def test_an_upload_that_has_just_begun_is_somebodys_even_without_a_delay(place: Place) -> None:
    upload_id = place.store.repository_for_push("a").start_upload()
    assert place.collect(**AT_ONCE).summary["uploads"] == 0
    place.clock.at += 2
    assert place.collect(**AT_ONCE).summary["uploads"] == 1
    assert not place.exists(keys.upload("a", upload_id))


def test_an_upload_holds_back_its_own_repository_only(place: Place) -> None:
    push_image(place.store, "b", "v1")
    place.stray(name="b")
    place.wait(1.5)
    slow = place.store.repository_for_push("a").start_upload()
    moving = ActiveUploads(place.store.roots[0], DELAY, place.clock.now())
    assert moving.since("a") == pytest.approx(place.clock.now(), abs=2)
    assert moving.since("b") == float("inf")
    place.store.repository_for_push("a").resume_upload(slow).cancel()


def test_an_upload_that_lasts_longer_than_a_day_holds_nothing_back(place: Place) -> None:
    """Else somebody who sends a byte now and then keeps everything for ever."""
    repository = place.store.repository_for_push("a")
    upload_id = repository.start_upload()
    place.clock.at += UPLOAD_SPARED_S + 1
    with repository.resume_upload(upload_id) as upload:
        upload.write([b"x"])
    assert ActiveUploads(place.store.roots[0], DELAY, place.clock.now()).since("a") == float("inf")


# -- temporary files ------------------------------------------------------------------------------


def test_a_link_into_tmp_is_as_old_as_the_link(place: Place) -> None:
    """What is linked there may be years old: a push, or a repair, is about to rename it."""
    place.wait(5)
    place.driver.link(keys.blob("a", digest_of(images.image().blobs[1])), keys.tmp("used"))
    place.collect()
    assert place.exists(keys.tmp("used"))
    place.wait(5)
    place.collect()
    assert not place.exists(keys.tmp("used"))


def test_a_temporary_file_has_a_minute_even_without_a_delay(place: Place) -> None:
    place.write(keys.tmp("used"), b"x")
    place.write(f"a/{keys.INDEX_TEMP_PREFIX}used", b"x")
    place.clock.at += 50
    place.collect(**AT_ONCE)
    assert place.exists(keys.tmp("used")) and place.exists(f"a/{keys.INDEX_TEMP_PREFIX}used")
    place.clock.at += 20
    place.collect(**AT_ONCE)
    assert not place.exists(keys.tmp("used")) and not place.exists(f"a/{keys.INDEX_TEMP_PREFIX}used")


def test_what_a_dead_process_was_about_to_rename_is_removed_under_the_lock(place: Place) -> None:
    """It may be frozen, not dead: then it holds the lock."""
    place.write(f"a/{keys.INDEX_TEMP_PREFIX}used", b"x")
    place.wait(2)
    lock = place.driver.lock(keys.LOCK, lock_byte("a"))
    assert lock is not None
    with pytest.raises(Busy):
        local_gc.remove_index_temps(place.store.roots[0], "a", DELAY, place.ages())
    assert place.exists(f"a/{keys.INDEX_TEMP_PREFIX}used")
    lock.release()
    place.collect()
    assert not place.exists(f"a/{keys.INDEX_TEMP_PREFIX}used")


def test_a_file_of_another_program_that_a_frozen_commit_took_out_meanwhile_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit held the lock, swapped, and died before it had taken the rows over."""
    key = keys.Swap("00112233aabbccdd", 1_000_000_000, 2_000_000_000).key("a")
    place.write(key, b"{}")
    place.driver.touch(key, 1_000_000_000)
    place.wait(2)
    locks = local_of(place.store.roots[0]).context.locks
    hold = locks.hold

    def after_a_swap(*words: Any) -> Any:
        place.driver.unlink(key)
        place.write(key, images.index([(STRAY, 5)]))
        return hold(*words)

    monkeypatch.setattr(locks, "hold", after_a_swap)
    local_gc.remove_index_temps(place.store.roots[0], "a", DELAY, place.ages())
    assert place.exists(key)


def test_only_our_own_temporary_files_go_from_a_repository(place: Place) -> None:
    for name in ("a/index.json.tmp", "a/.index.json.swp", "a/notes"):
        place.write(name, b"of somebody else")
    place.wait(50)
    place.collect()
    assert all(map(place.exists, ("a/index.json.tmp", "a/.index.json.swp", "a/notes")))


def test_the_uploads_of_a_zot_beside_us_go_when_they_are_old(place: Place) -> None:
    place.driver.mkdir("a/.uploads")
    place.write("a/.uploads/old", b"x")
    place.wait(2)
    place.write("a/.uploads/new", b"x")
    place.collect()
    assert (place.exists("a/.uploads/old"), place.exists("a/.uploads/new")) == (False, True)


def test_a_directory_among_them_is_nobodys_and_stays_with_them(place: Place) -> None:
    place.driver.mkdir("a/.uploads")
    place.driver.mkdir("a/.uploads/somebodys")
    place.wait(2)
    assert place.collect().exit_code == 0
    assert place.exists("a/.uploads/somebodys")


# -- the pool -------------------------------------------------------------------------------------


def test_a_copy_in_the_pool_that_a_repository_uses_stays_there(place: Place) -> None:
    place.stray()
    place.collect()
    assert place.exists(keys.pool(STRAY))
    place.driver.unlink(keys.blob("a", STRAY))
    assert place.collect().summary["pool_entries"] == 1
    assert not place.exists(keys.pool(STRAY))


def test_a_copy_that_a_push_has_just_linked_loses_only_its_name_in_the_pool(place: Place) -> None:
    """Between the look at the link count and the deed."""
    place.stray()
    place.driver.unlink(keys.blob("a", STRAY))
    driver = Meanwhile(
        place.driver, "unlink", lambda: push_blob(place.store.repository_for_push("b"), b"stray"),
        lambda key: key == keys.pool(STRAY),
    )  # fmt: skip
    place.collect(place.open(driver))
    assert driver.done
    assert place.store.repository("b").blob(STRAY) == 5


@pytest.mark.parametrize("released_at", [1, 2])
def test_a_pool_entry_is_looked_at_again_before_it_goes(place: Place, released_at: int) -> None:
    """A push has linked it since the list was made: it is used, and stays."""
    place.stray()
    place.driver.unlink(keys.blob("a", STRAY))
    driver = Meanwhile(
        place.driver, "stat", lambda: push_blob(place.store.repository_for_push("b"), b"stray"),
        lambda key: key == keys.pool(STRAY), released_at,
    )  # fmt: skip
    run = Run("gc", place.open(driver))
    local_gc.sweep(run, run.roots[0], DELAY, place.ages())
    assert driver.done
    assert place.exists(keys.pool(STRAY))


def test_without_links_there_is_no_pool_to_sweep() -> None:
    place = Place(links=False)
    push_image(place.store, "a", "v1")
    local_of(place.store.roots[0]).context.make_dirs(keys.parent(keys.pool(STRAY)))
    place.write(keys.pool(STRAY), b"stray")
    assert place.collect().summary["pool_entries"] == 0
    assert GcOptions(delay=1.0).kept == 1.0


def test_an_empty_repository_goes_beside_those_below_it(place: Place) -> None:
    """Their directories are no files of others."""
    digest = push_image(place.store, "a/b", "v1")
    place.store.repository("a").delete_manifest(digest)
    place.collect(**AT_ONCE)
    place.collect(**AT_ONCE)
    assert place.open().repositories() == ["a/b"]


def test_a_repository_that_was_just_removed_has_no_history_to_compact(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_gc, "COMPACT_ABOVE_BYTES", 0)
    place.store.repository("a").delete_manifest(images.image().digest)
    reports = [place.collect(**AT_ONCE) for _ in range(2)]
    assert [report.exit_code for report in reports] == [0, 0] and place.open().repositories() == []
