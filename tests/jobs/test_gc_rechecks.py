"""What a collector looks at again, and leaves alone: each of these safeguards has a mutant in `tests/mutants`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests import images
from tests.faults import Meanwhile, Recorder
from tests.jobs.collecting import DELAY, Place
from tests.stores import drop_rows, push_blob, push_image, push_index
from zotctl.errors import ManifestUnknown, NameUnknown, Referenced
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.local import gc as local_gc
from zotctl.jobs.local.gc import ActiveUploads, Chosen, purge
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.locks import lock_byte

IMAGE, OTHER = images.image(), images.image("other")


@pytest.fixture
def place() -> Place:
    return Place()


def is_lock(key: str) -> bool:
    return key == keys.LOCK


# -- between the plan and the deed ----------------------------------------------------------------


def test_what_a_push_has_referenced_since_the_plan_is_not_trashed(place: Place) -> None:
    place.strays_of(IMAGE)
    place.wait(2)
    driver = Meanwhile(place.driver, "lock", lambda: place.put(IMAGE, "v1"), is_lock)
    place.collect(place.open(driver))
    assert driver.done
    assert all(map(place.lies, IMAGE.blobs))


def test_it_is_looked_at_again_for_each_batch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gc, "TRASH_BATCH_BLOBS", 1)
    strays = place.strays_of(IMAGE)
    place.stray()
    place.wait(2)
    # By a foreign tool: nothing but the collector's own look keeps what it references.
    driver = Meanwhile(place.driver, "lock", lambda: place.tool_writes(IMAGE, "v1"), is_lock, n=2)
    place.collect(place.open(driver))
    assert driver.done
    assert sum(map(place.lies, strays)) >= len(strays) - 1


@pytest.mark.parametrize("what", ["unknown", "damaged", "missing"])
def test_i5_a_fault_that_appears_between_plan_and_deed_stops_it(place: Place, what: str) -> None:
    """A tool adds an image of which is not known what it needs: that may be what was about to go."""
    push_image(place.store, "a", "v1", seed="other")
    strays = place.strays_of(IMAGE)
    place.wait(2)

    def act() -> None:
        place.tool_writes(IMAGE, "v2", **({"mediaType": "application/vnd.thing.v1+json"} if what == "unknown" else {}))
        if what == "damaged":
            place.write(keys.blob("a", IMAGE.digest), IMAGE.manifest[:-1] + b"?")
        elif what == "missing":
            place.driver.unlink(keys.blob("a", IMAGE.digest))

    driver = Meanwhile(place.driver, "lock", act, is_lock)
    place.collect(place.open(driver))
    assert driver.done
    assert all(map(place.lies, strays))


def test_a_row_that_got_a_tag_since_the_plan_is_not_dropped(place: Place) -> None:
    digest = push_image(place.store, "a")
    push_image(place.store, "a", "v1", seed="other")
    place.wait(2)
    driver = Meanwhile(place.driver, "lock", lambda: place.put(IMAGE, "again"), is_lock)
    place.collect(place.open(driver))
    assert driver.done
    assert place.store.repository("a").manifest("again").digest == digest


def test_i5_no_row_goes_where_something_is_unknown(place: Place) -> None:
    """It may be what an index of an unknown kind lists."""
    digest = push_image(place.store, "a")
    place.tool_writes(OTHER, "v1", mediaType="application/vnd.thing.v1+json")
    place.wait(2)
    report = place.collect()
    assert (report.exit_code, report.summary["dropped"]) == (5, 0)
    assert place.store.repository("a").manifest(digest)


def test_i5_no_row_goes_where_something_has_become_unknown_since_the_plan(place: Place) -> None:
    digest = push_image(place.store, "a")
    push_image(place.store, "a", "v1", seed="other")
    place.wait(2)

    def act() -> None:
        place.tool_writes(images.image("thing"), "v2", mediaType="application/vnd.thing.v1+json")

    driver = Meanwhile(place.driver, "lock", act, is_lock)
    place.collect(place.open(driver))
    assert driver.done
    assert place.store.repository("a").manifest(digest)


def test_a_plan_has_what_only_the_dropped_rows_lead_to(place: Place) -> None:
    """Not what an index that stays lists, nor what a signature that stays is about."""
    gone, children = push_image(place.store, "a"), [push_image(place.store, "a", seed=seed) for seed in ("y", "z")]
    push_index(place.store, "a", "multi", children=children)
    about = push_image(place.store, "a", "image", seed="about")
    push_image(place.store, "a", "signature", seed="sig", subject=about)
    place.store.repository_for_push("a").delete_manifest("image")
    place.wait(2)
    report = place.collect()
    trashed = {item["digest"] for item in report.items if item["action"] == "trash"}
    assert trashed == {str(gone), *(str(digest_of(body)) for body in IMAGE.blobs)}


def test_no_index_that_a_power_cut_could_take_back_is_acted_on(place: Place) -> None:
    place.stray()
    place.wait(2)
    driver = Recorder(place.driver)
    place.collect(place.open(driver))
    moved = next(at for at, call in enumerate(driver.calls) if call.method == "rename" and "/blobs/" in call.key)
    assert "sync_dir a" in driver.lines()[:moved]


# -- what is nobody's business ----------------------------------------------------------------------


def test_only_what_has_the_name_of_a_blob_is_trashed(place: Place) -> None:
    """A directory with such a name, or a file with another, are not ours."""
    push_image(place.store, "a", "v1")
    directory, file = keys.blob("a", digest_of(b"a directory")), "a/blobs/sha256/README"
    place.driver.mkdir(directory)
    place.write(file, b"read me")
    place.wait(2)
    for _ in range(3):
        report = place.collect()
        assert (report.exit_code, report.summary["unreachable"]) == (0, 0)
        place.wait(2)
    assert place.exists(directory) and place.exists(file)


def test_repo_is_about_the_trash_too(place: Place) -> None:
    for name in "ab":
        push_image(place.store, name, "v1")
        place.stray(name=name)
    place.wait(2)
    place.collect()
    place.wait(2)
    assert place.collect(repos=("a",)).summary["purged"] == 1
    assert [key.split("/")[3] for key in place.in_trash()] == ["b"]


def test_one_repository_that_is_locked_keeps_no_other_from_being_purged(place: Place) -> None:
    for name in "ab":
        push_image(place.store, name, "v1")
        place.stray(name=name)
    place.wait(2)
    place.collect()
    place.wait(2)
    lock = place.driver.lock(keys.LOCK, lock_byte("a"))
    assert lock is not None
    report = place.collect()
    assert {error["error"] for error in report.errors} == {"Busy"}
    assert [key.split("/")[3] for key in place.in_trash()] == ["a"]


# -- the delay ------------------------------------------------------------------------------------


def test_what_was_trashed_lies_in_the_trash_for_the_delay(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    place.collect()
    place.wait(0.9)
    assert place.collect().summary["purged"] == 0
    assert len(place.in_trash()) == 1
    place.wait(0.2)
    assert place.collect().summary["purged"] == 1


def test_a_trash_may_keep_longer_than_the_delay_and_never_shorter(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    place.collect(trash=10 * DELAY)
    place.wait(5)
    assert place.collect(trash=10 * DELAY).summary["purged"] == 0
    assert place.collect(trash=DELAY / 10, delay=6 * DELAY).summary["purged"] == 0
    assert place.collect(trash=DELAY / 10).summary["purged"] == 1


def test_without_a_delay_but_with_a_trash_nothing_is_gone_at_once(place: Place) -> None:
    push_image(place.store, "a", "v1")
    stray = place.stray()
    place.wait(2)
    assert place.collect(delay=0.0, trash=DELAY, rules=Rules(delay=0.0)).summary["purged"] == 0
    assert place.store.repository("a").blob(stray) == 5


def test_a_root_that_is_only_rehearsed_keeps_all(place: Place) -> None:
    """zot's `retention.dryRun` for one root, not for the run."""
    digest, stray = push_image(place.store, "a"), place.stray()
    upload = place.store.repository_for_push("a").start_upload()
    place.wait(5)
    before = set(place.driver.names)
    report = place.collect(dry_run=True)
    assert (report.summary["unreachable"], report.summary["dropped"]) == (5, 1)
    assert {key for key in before - set(place.driver.names) if not key.startswith(keys.LEASES)} == set()
    assert place.lies(stray) and place.lies(digest) and place.exists(keys.upload("a", upload))


def test_i6_what_a_moving_upload_may_need_is_not_purged_either(place: Place) -> None:
    """It began before the move to the trash, and whatever the rest of its push takes, that lies there."""
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    slow = place.store.repository_for_push("a").start_upload()
    assert place.collect().summary["unreachable"] == 1
    for _ in range(4):
        place.wait(0.9)
        with place.store.repository_for_push("a").resume_upload(slow) as upload:
            upload.write([b"x"])
        assert place.collect().summary["purged"] == 0
    assert len(place.in_trash()) == 1
    place.wait(2)
    assert place.collect().summary["purged"] == 1


def test_the_oldest_of_two_uploads_counts(place: Place) -> None:
    """Whichever of them is met first."""
    push_image(place.store, "a", "v1")
    slow = place.store.repository_for_push("a").start_upload()
    place.wait(0.5)
    stray = place.stray()
    place.wait(0.4)
    others = [place.store.repository_for_push("a").start_upload() for _ in range(8)]
    for _ in range(3):
        for upload_id in (slow, *others):
            with place.store.repository_for_push("a").resume_upload(upload_id) as upload:
                upload.write([b"x"])
        place.wait(0.9)
        place.collect()
    assert place.lies(stray)


# -- the purge ------------------------------------------------------------------------------------


def trashed(place: Place) -> None:
    """The blobs of an image that no manifest references, in the trash for long."""
    push_image(place.store, "a", "v0", seed="other")
    place.strays_of(IMAGE)
    place.wait(2)
    assert place.collect().summary["unreachable"] == len(IMAGE.blobs)
    place.wait(2)


def purge_only(place: Place, store: object = None) -> Run:
    run = Run("gc", store or place.store)  # type: ignore[arg-type]
    options = GcOptions(delay=DELAY)
    run.finish(lambda: purge(run, run.roots[0], Chosen(options, ActiveUploads(run.roots[0], DELAY, run.clock.now()))))
    return run


def test_what_a_tool_has_referenced_meanwhile_comes_back_instead(place: Place) -> None:
    trashed(place)
    place.tool_writes(IMAGE, "v1")
    purge_only(place)
    assert all(map(place.lies, IMAGE.blobs))
    assert place.in_trash() == []


def test_it_is_looked_up_for_each_batch_of_a_purge(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gc, "TRASH_BATCH_BLOBS", 1)
    trashed(place)
    driver = Meanwhile(place.driver, "lock", lambda: place.tool_writes(IMAGE, "v1"), is_lock, n=2)
    purge_only(place, place.open(driver))
    assert driver.done
    assert sum(map(place.lies, IMAGE.blobs)) == len(IMAGE.blobs) - 1


def _trash_as(place: Place, digest: Digest) -> None:
    """Another collector, which is still at work on the repository, in a run of its own that began long ago."""
    local = local_of(place.open().roots[0])
    (run,) = local.trash.runs(fresh=True)
    with local.context.locks.hold("a") as held:
        assert local.trash.add(held, run, [digest]) == [digest]


def test_i6_what_is_trashed_while_the_trash_is_listed_waits_for_its_own_time(place: Place) -> None:
    trashed(place)
    young = place.stray()
    folder = keys.parent(place.in_trash()[0])
    driver = Meanwhile(place.driver, "scan", lambda: _trash_as(place, young), lambda key: key == folder)
    purge_only(place, place.open(driver))
    assert driver.done
    assert any(key.endswith(young.encoded) for key in place.in_trash())


def test_i6_what_was_taken_back_and_trashed_again_waits_for_its_own_time(place: Place) -> None:
    trashed(place)
    first = digest_of(IMAGE.blobs[0])

    def again() -> None:
        place.open().repository("a").blob(first)
        _trash_as(place, first)

    driver = Meanwhile(place.driver, "lock", again, is_lock)
    purge_only(place, place.open(driver))
    assert driver.done
    assert [key.rpartition("/")[2] for key in place.in_trash()] == [first.encoded]
    place.wait(2)
    purge_only(place)
    assert not place.in_trash()


def _breaks(place: Place) -> None:
    place.write(keys.index("a"), b'{"schemaVersion": 2, "manifests": [')
    place.wait(0.1)


def _unknown(place: Place) -> None:
    place.tool_writes(IMAGE, "v1", mediaType="application/vnd.thing.v1+json")


def _loses(place: Place) -> None:
    place.driver.unlink(keys.blob("a", OTHER.digest))


def _has_no_marker(place: Place) -> None:
    place.tool_writes(IMAGE, "v1")
    place.driver.unlink(keys.layout("a"))


@pytest.mark.parametrize("harm", [_breaks, _unknown, _loses, _has_no_marker])
def test_i5_nothing_is_purged_while_it_is_not_known_what_is_needed(place: Place, harm: Callable[[Place], None]) -> None:
    trashed(place)
    harm(place)
    purge_only(place, place.open())
    assert len(place.in_trash()) == len(IMAGE.blobs)


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_copy_of_what_is_needed_and_damaged_is_not_purged(place: Place, is_marked: bool) -> None:
    """It may be the only good one. When its place has been healed, it goes."""
    trashed(place)
    place.tool_writes(IMAGE, "v1")
    layer, whole = digest_of(IMAGE.blobs[1]), IMAGE.blobs[1]
    place.write(keys.blob("a", layer), b"x" * len(whole) if is_marked else b"x")
    local = local_of(place.store.roots[0])
    if is_marked:
        with place.driver.open(keys.blob("a", layer)) as reader:
            assert local.damaged.mark(layer, keys.blob("a", layer), HeldFile(reader))
    purge_only(place, place.open())
    assert [place.read(key) for key in place.in_trash()] == [whole]
    place.stray(whole)
    place.wait(2)
    purge_only(place, place.open())
    assert place.in_trash() == [] and place.read(keys.blob("a", layer)) == whole


def test_a_purge_frees_the_bytes_and_the_folders_at_once(place: Place) -> None:
    """Not only at the end of the run, which may be cut short."""
    trashed(place)
    run = purge_only(place)
    assert run.report.summary["purged_bytes"] == sum(map(len, IMAGE.blobs))
    assert not any(place.exists(keys.pool(digest_of(body))) for body in IMAGE.blobs)
    assert place.driver.scan(keys.TRASH) == []


def test_bytes_that_another_repository_has_are_not_counted_as_freed(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray(name="b")
    place.stray(name="c")
    push_image(place.store, "b", "v1")
    push_image(place.store, "c", "v1")
    place.wait(2)
    report = place.collect(delay=0.0, rules=Rules(delay=0.0), repos=("b",))
    assert (report.summary["purged"], report.summary["purged_bytes"]) == (1, 0)
    report = place.collect(delay=0.0, rules=Rules(delay=0.0), repos=("c",))
    assert (report.summary["purged"], report.summary["purged_bytes"]) == (1, 5)


# -- empty repositories ---------------------------------------------------------------------------


def emptied(place: Place) -> None:
    digest = push_image(place.store, "a", "v1")
    place.store.repository_for_push("a").delete_manifest(digest)
    place.wait(2)
    place.collect()


def test_an_empty_repository_is_one_for_the_delay(place: Place) -> None:
    place.stray()
    place.driver.unlink(keys.blob("a", digest_of(b"stray")))
    place.collect()
    assert place.exists(keys.index("a"))
    place.wait(2)
    place.collect()
    assert not place.exists("a")


def test_an_empty_repository_with_something_else_in_it_stays_as_it_is(place: Place) -> None:
    emptied(place)
    place.stray()
    place.write("a/README.md", b"mine")
    place.driver.unlink(keys.blob("a", digest_of(b"stray")))
    place.wait(2)
    place.collect()
    assert place.exists("a/README.md") and place.exists(keys.index("a")) and place.exists(keys.layout("a"))


def test_a_repository_is_removed_in_an_order_in_which_a_push_stops_it(place: Place) -> None:
    """A blob that comes in between keeps its directory from going, and then all stays."""
    place.stray()
    place.driver.unlink(keys.blob("a", digest_of(b"stray")))
    place.wait(2)
    came = keys.blob("a", digest_of(b"came"))
    driver = Meanwhile(place.driver, "rmdir", lambda: place.write(came, b"came"), lambda key: key.startswith("a/"))
    place.collect(place.open(driver))
    assert driver.done
    assert place.exists(keys.index("a")) and place.exists(keys.layout("a")) and place.exists(came)


def test_a_repository_is_removed_under_its_lock_and_only_without_rows(place: Place) -> None:
    place.stray()
    place.driver.unlink(keys.blob("a", digest_of(b"stray")))
    place.wait(2)
    held: list[bool] = []
    look = Meanwhile(
        place.driver,
        "unlink",
        lambda: held.append(place.driver.lock(keys.LOCK, lock_byte("a")) is None),
        lambda key: key == keys.layout("a"),
    )
    place.collect(place.open(look))
    assert held == [True]


def test_a_repository_with_rows_is_never_removed(place: Place) -> None:
    """Not even when its blobs lie elsewhere, as some tools have it."""
    push_image(place.store, "a", "v1")
    place.write(keys.index("a"), json.dumps({"schemaVersion": 2, "manifests": [{"digest": "x:y"}]}).encode())
    for key in [key for key in place.driver.names if key.startswith("a/blobs/sha256/")]:
        place.driver.unlink(key)
    place.wait(5)
    local_gc.remove_empty(place.store.roots[0], "a", DELAY, place.ages())
    assert place.exists(keys.index("a")) and place.exists(keys.layout("a"))


def test_the_tag_of_a_repository_that_is_gone_is_gone(place: Place) -> None:
    emptied(place)
    place.wait(2)
    place.collect()
    with pytest.raises((ManifestUnknown, NameUnknown)):
        place.store.repository("a").manifest("v1")


# -- a rehearsal, rows, and the history -------------------------------------------------------------


def test_a_rehearsal_purges_nothing(place: Place) -> None:
    push_image(place.store, "a", "v1")
    stray = place.stray()
    place.wait(2)
    place.collect()
    place.wait(2)
    run = Run("gc", place.store, dry_run=True)
    run.finish(lambda: gc(run, lambda _: GcOptions(DELAY, rules=Rules(delay=DELAY))))
    assert [key.rpartition("/")[2] for key in place.in_trash()] == [stray.encoded]


def test_a_rehearsal_notes_nothing(place: Place) -> None:
    """Else the delay of what other tools wrote would run from a question."""
    push_image(place.store, "a", "v1")
    place.strays_of(OTHER)
    place.tool_writes(OTHER, "none", annotations={})
    rules = Rules(delay=DELAY, foreign=True)
    run = Run("gc", place.store, dry_run=True)
    run.finish(lambda: gc(run, lambda _: GcOptions(DELAY, rules=rules)))
    assert place.open().roots[0].history.timeline("a").noted == {}


def test_a_refusal_of_the_commit_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    push_image(place.store, "a")
    push_image(place.store, "a", "v1", seed="other")
    place.wait(2)
    protocol = place.store.roots[0].protocol
    monkeypatch.setattr(protocol, "commit_index", lambda name, changes: [Referenced("not now")])
    assert [error["reason"] for error in place.collect().errors] == ["not now"]


def test_without_a_delay_nothing_that_has_just_been_trashed_waits_for_an_upload(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    place.store.repository_for_push("a").start_upload()
    place.collect()
    report = place.collect(delay=0.0, rules=Rules(delay=0.0))
    assert report.summary["purged"] == 1


def test_what_another_repository_has_too_is_not_counted_as_freed_by_a_purge(place: Place) -> None:
    for name in ("a", "b"):
        push_image(place.store, name, "v1")
        place.stray(name=name)
    place.store.repository_for_push("b").delete_blob(digest_of(b"stray"))
    push_blob(place.store.repository_for_push("b"), b"stray")
    place.wait(2)
    place.collect(repos=("a",))
    place.wait(2)
    report = place.collect(repos=("a",))
    assert (report.summary["purged"], report.summary["purged_bytes"]) == (1, 0)


def test_what_lies_in_the_trash_of_a_repository_that_is_gone_goes(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    place.collect()
    for key in sorted((key for key in place.driver.names if key == "a" or key.startswith("a/")), reverse=True):
        (place.driver.rmdir if place.driver.stat(key).is_dir else place.driver.unlink)(key)
    place.wait(2)
    assert place.collect(place.open()).summary["purged"] == 1
    assert place.in_trash() == []


def test_no_index_that_a_power_cut_could_take_back_is_purged_by(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    place.wait(2)
    place.collect()
    place.wait(2)
    driver = Recorder(place.driver)
    place.collect(place.open(driver))
    gone = next(at for at, call in enumerate(driver.calls) if call.method == "unlink" and keys.TRASH in call.key)
    assert "sync_dir a" in driver.lines()[:gone]


class TestHistory:
    """What a collection forgets, and when."""

    @pytest.fixture
    def place(self, monkeypatch: pytest.MonkeyPatch) -> Place:
        monkeypatch.setattr(local_gc, "COMPACT_ABOVE_BYTES", 0)
        monkeypatch.setattr("zotctl.storage.local.history.REMEMBERED_EVENTS", 0)
        made = Place()
        for tags in (("v1",), ()):
            push_image(made.store, "a", *tags)
            made.wait(0.1)
        child = push_image(made.store, "a", seed="child")
        push_index(made.store, "a", "multi", children=[child])
        drop_rows(made.store, "a", child)  # as tools leave it, which list no child
        for number in range(300):
            made.store.roots[0].history.note("a", "push", digest_of(b"%d" % number), {"gone": None})
        return made

    @staticmethod
    def size(place: Place) -> int:
        return place.driver.stat(keys.history("a")).size

    def test_it_keeps_what_is_there_with_its_tags(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        before, past = self.size(place), place.open().roots[0].history.timeline("a")
        monkeypatch.setattr(local_gc, "COMPACT_ABOVE_BYTES", before - 1)
        place.collect()
        after = place.open().roots[0].history.timeline("a")
        assert images.image("child").digest in after.here
        assert self.size(place) < before / 2
        assert after.tagged == {tag: past.tagged[tag] for tag in ("v1", "multi")}

    def test_it_looks_at_what_is_there_under_the_lock_and_keeps_nobody_waiting(self, place: Place) -> None:
        """After it has read the history: each event of that is of a commit that is done."""
        driver = Recorder(place.driver)
        place.collect(place.open(driver))
        lines, key = driver.lines(), keys.history("a")
        moved = next(at for at, line in enumerate(lines) if line.endswith(f"-> {key}"))
        read = max(at for at, line in enumerate(lines[:moved]) if line.startswith(f"open {key}"))
        since = lines[read:moved]
        taken = next(at for at, line in enumerate(since) if line.startswith(f"lock {keys.LOCK}"))
        released = since.index(f"release {keys.LOCK}")
        assert any(keys.index("a") in line for line in since[taken:released]), since
        assert not [line for line in since[taken:released] if key in line], since

    def test_i6_nothing_is_forgotten_while_rows_of_another_tool_are_owed(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = self.size(place)
        monkeypatch.setattr(
            local_of(place.store.roots[0]).indexes, "unmerged", lambda name: ["a/.index.json.zotctl-left"]
        )
        monkeypatch.setattr(local_of(place.store.roots[0]), "take_over", lambda name: None)
        place.collect()
        assert self.size(place) == before

    def test_i5_nor_where_something_is_unknown(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Since the plan."""
        before = self.size(place)

        def act(*_: object) -> None:
            place.tool_writes(images.image("thing"), "v2", mediaType="application/vnd.thing.v1+json")

        monkeypatch.setattr(local_gc, "remove_index_temps", act)
        place.collect()
        assert self.size(place) == before

    def test_a_short_one_is_left_alone(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.size(place)
        monkeypatch.setattr(local_gc, "COMPACT_ABOVE_BYTES", before)
        place.collect()
        assert self.size(place) == before
