"""The trash: what lies there comes back, or does not; and what restores it. Each safeguard has a mutant."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests import images
from tests.faults import Call, FailOn, Faults, Meanwhile, NoSpaceAfter
from tests.jobs.collecting import DELAY, Place
from tests.stores import push_image, push_index
from zotctl.errors import BlobUnknown, IoFailed, ManifestBlobUnknown, NoSpace, NotFound, ReadOnlyStorage
from zotctl.jobs.report import Report
from zotctl.jobs.restore import list_trash, restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Repository, Store, keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.trash import Folder, Trash

IMAGE = images.image()
STRAY = digest_of(b"stray")


@pytest.fixture
def place() -> Place:
    return Place()


def trashed(place: Place, name: str = "a") -> None:
    """A stray blob, in the trash."""
    push_image(place.store, name, "v1")
    place.stray(name=name)
    place.wait(2)
    place.collect()


def trash_of(place: Place, store: Store | None = None) -> Trash:
    return local_of((store or place.store).roots[0]).trash


def move_to_trash(place: Place, run: str, digest: Digest = STRAY) -> None:
    with local_of(place.store.roots[0]).context.locks.hold("a") as held:
        trash_of(place).add(held, run, [digest])


def test_how_much_waits_in_the_trash_is_told_of_all_of_it(place: Place) -> None:
    """A run on some repositories does not look at that of others."""
    bodies = {"a": b"stray", "b": b"another stray"}
    for name, body in bodies.items():
        push_image(place.store, name, "v1")
        place.stray(body, name)
    place.wait(2)
    told = place.collect(repos=("a",))
    assert len(place.in_trash()) == 1 and not [key for key in told.summary if key.startswith("in_trash")]
    told = place.collect()
    assert told.summary["in_trash"] == 2 and told.summary["in_trash_bytes"] == sum(map(len, bodies.values()))


# -- who gets it back -----------------------------------------------------------------------------


def test_what_was_restored_is_trashed_again_in_the_same_run(place: Place) -> None:
    """A rename of two names of one inode would do nothing, and it would stay for ever."""
    push_image(place.store, "a", "v1")
    place.stray()
    move_to_trash(place, "20200101T000000-run")
    assert place.store.repository("a").blob(STRAY) == 5
    move_to_trash(place, "20200101T000000-run")
    assert not place.lies(STRAY)
    assert len(place.in_trash()) == 1


def test_what_made_room_for_a_new_index_stays_in_the_trash(place: Place) -> None:
    """On a full disk the run moves it there first, and comes to it again once the rows are dropped."""
    push_image(place.store, "a", "v1")
    push_image(place.store, "a", seed="untagged")
    place.stray()
    place.wait(2)
    full = FailOn(place.driver, "create", 1, NoSpace("full"), lambda key: key.startswith("a/.index.json"))
    assert place.collect(place.open(full)).summary["dropped"] == 1 and full.left <= 0
    assert place.store.repository("a").blob(STRAY) == 5


def test_what_is_unlinked_makes_room_for_a_new_index(place: Place) -> None:
    """Without a delay, a full disk has room once the blobs are gone that no row needed before either."""

    class Full(Faults):
        def before(self, call: Call) -> None:
            if call.method == "create" and call.key.startswith("a/.index.json") and place.lies(STRAY):
                raise NoSpace("full")

    push_image(place.store, "a", "v1")
    untagged = push_image(place.store, "a", seed="untagged")
    place.stray()
    place.wait(2)
    report = place.collect(place.open(Full(place.driver)), delay=0.0, rules=Rules(delay=0.0))
    assert report.exit_code == 0 and not place.lies(STRAY)
    assert untagged not in place.open().repository("a").index()


def test_every_run_is_looked_into(place: Place) -> None:
    push_image(place.store, "a", "v1")
    others = [place.stray(body) for body in (b"one", b"two")]
    place.stray()
    for run, digest in zip("abc", (*others, STRAY), strict=True):
        move_to_trash(place, f"20200101T000000-{run}", digest)
    assert [place.store.repository("a").blob(digest) for digest in (STRAY, *others)] == [5, 3, 3]


def test_a_run_that_is_new_is_found_by_who_has_listed_before(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    move_to_trash(place, "20200101T000000-a", place.stray(b"one"))
    for _ in range(2):
        place.wait(1)
        with pytest.raises(BlobUnknown):
            place.store.repository("a").blob(digest_of(b"nowhere"))
    with local_of(place.open().roots[0]).context.locks.hold("a") as held:
        local_of(place.open().roots[0]).trash.add(held, "20200101T000000-b", [STRAY])
    assert place.store.repository("a").blob(STRAY) == 5


class Coarse(Faults):
    """Time stamps of a coarse clock: one for all that happens while `at` stands still."""

    at = 1_800_000_000_000_000_000

    def stat(self, key: str) -> Info:
        found = super().stat(key)
        return found._replace(mtime_ns=self.at, ctime_ns=self.at) if key == keys.TRASH else found


def test_a_list_of_the_trash_within_one_tick_of_the_clock_is_not_remembered(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    move_to_trash(place, "20200101T000000-a", place.stray(b"one"))
    driver = Coarse(place.driver)
    driver.at = int(place.clock.at * 1e9)
    store = place.open(driver)
    with pytest.raises(BlobUnknown):
        store.repository("a").blob(digest_of(b"nowhere"))
    move_to_trash(place, "20200101T000000-b")
    assert store.repository("a").blob(STRAY) == 5


class Stale(Faults):
    """A client of a network that gives attributes from its memory."""

    known: Info | None = None

    def stat(self, key: str) -> Info:
        if key != keys.TRASH:
            return super().stat(key)
        self.known = self.known or super().stat(key)
        return self.known


def stale(place: Place) -> Store:
    """It knows the trash as it was before the stray was trashed, and believes that for long."""
    push_image(place.store, "a", "v1")
    for body in IMAGE.blobs:
        place.stray(body)
    place.stray()
    move_to_trash(place, "20200101T000000-a", place.stray(b"one"))
    store = place.open(Stale(place.driver))
    for _ in range(2):  # what was seen twice, as it is, is remembered
        place.wait(1)
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(digest_of(b"nowhere"))
    return store


def test_i5_a_manifest_finds_what_a_stale_list_does_not_have(place: Place) -> None:
    store, layer = stale(place), digest_of(images.image("x").blobs[1])
    other = images.image("other")
    wanted = [place.stray(body) for body in other.blobs]
    for digest in wanted:
        move_to_trash(place, "20200101T000000-b", digest)
    repository = store.repository_for_push("a")
    repository.put_manifest(check_manifest(other.manifest, OCI_MANIFEST), other.manifest, ["v2"])
    assert all(map(place.lies, [*wanted, layer]))


@pytest.mark.parametrize("asked", ["where it lies", "for it"])
def test_a_job_finds_what_a_stale_list_does_not_have(place: Place, asked: str) -> None:
    """Else it would tell of damage where there is none."""
    maintenance = stale(place).roots[0].maintenance
    move_to_trash(place, "20200101T000000-b")
    if asked == "for it":
        assert maintenance.look("a", STRAY).size > 0
    else:
        assert maintenance.is_trashed("a", STRAY)


def test_i7_a_deletion_finds_what_a_stale_list_does_not_have(place: Place) -> None:
    """Else a read would bring it back, though it was deleted on purpose."""
    store = stale(place)
    move_to_trash(place, "20200101T000000-b")
    place.stray()
    store.repository_for_push("a").delete_blob(STRAY)
    with pytest.raises(BlobUnknown):
        place.store.repository("a").blob(STRAY)


def test_i7_what_was_deleted_on_purpose_comes_back_by_no_read_and_no_purge(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.strays_of(IMAGE)
    place.stray()
    place.store.repository_for_push("a").delete_blob(STRAY)
    with pytest.raises(BlobUnknown):
        place.store.repository("a").blob(STRAY)
    folder = next(trash_of(place).folders())
    assert folder.deleted
    with local_of(place.store.roots[0]).context.locks.hold("a") as held:
        lying = dict(trash_of(place).contents(folder))
        assert trash_of(place).purge(held, folder, lying, {STRAY}) == [STRAY]
    assert not place.lies(STRAY)


def test_i7_of_what_was_trashed_before_nothing_is_left_by_a_deletion(place: Place) -> None:
    trashed(place)
    place.stray()
    place.store.repository_for_push("a").delete_blob(STRAY)
    with pytest.raises(BlobUnknown):
        place.store.repository("a").blob(STRAY)


def test_deleted_pushed_and_deleted_again_within_the_hour(place: Place) -> None:
    push_image(place.store, "a", "v1")
    for _ in range(2):
        place.stray()
        place.store.repository_for_push("a").delete_blob(STRAY)
        assert not place.lies(STRAY)


def test_each_hour_of_deletions_has_its_own_delay(place: Place) -> None:
    """The folder's time stamp is that of the last one: a busy registry would never free anything."""
    push_image(place.store, "a", "v1")
    for number in range(3):
        place.store.repository_for_push("a").delete_blob(place.stray(b"%d" % number))
        place.clock.at += 3601
    assert len(place.in_trash()) == 3
    place.store.repository_for_push("a").delete_blob(place.stray())
    assert place.collect().summary["purged"] == 3


def test_a_blob_can_be_deleted_on_a_full_disk(place: Place) -> None:
    push_image(place.store, "a", "v1")
    place.stray()
    full = NoSpaceAfter(place.driver, 1 << 20)
    store, full.left = place.open(full), 0
    store.repository_for_push("a").delete_blob(STRAY)
    assert not place.lies(STRAY) and place.in_trash() == []
    assert not place.exists(keys.pool(STRAY)), "and its bytes are free"


@pytest.mark.parametrize("method", ["link"])
def test_a_root_that_became_read_only_has_no_such_blob(place: Place, method: str) -> None:
    trashed(place)
    driver = FailOn(place.driver, method, 1, ReadOnlyStorage("no"), lambda key: key.startswith(keys.TRASH))
    with pytest.raises(BlobUnknown):
        place.open(driver).repository("a").blob(STRAY)


@pytest.mark.parametrize("read", [Repository.blob, Repository.open_blob])
def test_i6_what_comes_back_between_the_look_at_its_place_and_that_into_the_trash_is_found(
    place: Place, read: Callable[[Repository, Digest], object]
) -> None:
    """As by a purge, which takes what is needed out of the trash."""
    trashed(place)
    (run,) = trash_of(place).runs()

    def back() -> None:
        place.driver.rename(keys.trashed(run, "a", STRAY), keys.blob("a", STRAY))

    meanwhile = Meanwhile(place.driver, "stat", back, lambda key: key == keys.TRASH)
    assert read(place.open(meanwhile).repository("a"), STRAY)
    assert meanwhile.done


def test_without_links_what_was_trashed_comes_back_by_its_name(place: Place) -> None:
    place = Place(links=False)
    trashed(place)
    assert place.store.repository("a").blob(STRAY) == 5
    assert place.lies(STRAY)


# -- its clock ------------------------------------------------------------------------------------


def test_the_delay_is_measured_by_the_clock_of_the_storage(place: Place) -> None:
    """The host of a collector may be an hour ahead of it."""
    trashed(place)
    place.wait(0.5)
    store, hosts = place.open(), Place().clock
    hosts.at = place.clock.at + 3600
    for root in store.roots:
        local_of(root).context.clock = hosts
    store.clock = hosts
    assert place.collect(store).summary["purged"] == 0
    assert place.driver.scan(keys.TMP) == [], "and the file by which it is asked is gone"


def test_a_folder_is_as_old_as_the_last_thing_that_came_into_it(place: Place) -> None:
    """Not as the run: one run may take longer than the delay."""
    push_image(place.store, "a", "v1")
    strays = [place.stray(body) for body in (b"one", b"two")]
    move_to_trash(place, "20200101T000000-a", strays[0])
    place.wait(2)
    move_to_trash(place, "20200101T000000-a", strays[1])
    assert place.collect().summary["purged"] == 0
    place.wait(1.1)
    assert place.collect().summary["purged"] == 2


def test_a_clock_that_is_set_back_makes_nothing_old(place: Place) -> None:
    """Between the look at what lies there and the question what time it is: less time has gone by, not more."""
    push_image(place.store, "a", "v1")
    place.stray()

    def set_back_and_trash() -> None:
        place.wait(-1.5)
        move_to_trash(place, "20200101T000000-a")

    def is_probe(key: str) -> bool:
        return key.startswith(keys.tmp("now-"))

    # The first time a run asks, it is for the uploads.
    place.collect(place.open(Meanwhile(place.driver, "unlink", set_back_and_trash, is_probe, 2)))
    assert place.store.repository("a").blob(STRAY) == 5


def test_what_is_written_while_a_run_goes_on_is_not_ahead_of_its_clock(place: Place) -> None:
    """Put right, it would count from when the run began, and go too early in the next."""
    push_image(place.store, "a", "v1")
    place.stray()
    ages = place.ages()
    place.wait(2)
    move_to_trash(place, "20200101T000000-a")
    (folder,) = trash_of(place).folders()
    info = place.driver.stat(folder.key)
    assert ages.written(folder.key, info) == info.mtime_ns / 1e9
    assert ages.changed(folder.key, info) == max(info.mtime_ns, info.ctime_ns) / 1e9
    assert place.driver.stat(folder.key) == info
    place.wait(0.5)
    assert place.collect().summary["purged"] == 0


# -- gc --restore ---------------------------------------------------------------------------------


def bring_back(place: Place, what: str, store: Store | None = None, **options: object) -> Report:
    run = Run("gc", store or place.store, **options)  # type: ignore[arg-type]
    return run.finish(lambda: restore(run, what))


@pytest.mark.parametrize("is_marked", [False, True])
def test_what_is_damaged_in_its_place_is_healed_from_the_trash(place: Place, is_marked: bool) -> None:
    """Its name is taken, and yet it has not come back."""
    trashed(place)
    key = keys.blob("a", STRAY)
    place.write(key, b"bytes" if is_marked else b"cut")
    if is_marked:
        with place.driver.open(key) as reader:
            assert local_of(place.store.roots[0]).damaged.mark(STRAY, key, HeldFile(reader))
    assert bring_back(place, f"a@{STRAY}").exit_code == 0
    assert place.read(key) == b"stray"
    assert place.open().repository("a").blob(STRAY) == 5


def test_what_can_not_come_back_keeps_nothing_else_in_the_trash(place: Place) -> None:
    """Damaged in its place and in the trash."""
    push_image(place.store, "a", "v1")
    bodies = [b"one stray", b"another stray"]
    for body in bodies:
        place.stray(body)
    place.wait(2)
    place.collect()
    first, second = sorted(map(digest_of, bodies))
    (folder,) = trash_of(place).folders()
    place.write(keys.trashed(folder.run, "a", first), b"rotten")
    place.write(keys.blob("a", first), b"cut")
    report = bring_back(place, folder.run)
    assert (report.exit_code, [error["repository"] for error in report.errors]) == (5, ["a"])
    assert place.open().repository("a").blob(second)


def test_a_manifest_comes_back_with_all_that_it_needs(place: Place) -> None:
    push_image(place.store, "a", "other", seed="other")
    children = [push_image(place.store, "a", seed=seed) for seed in "xy"]
    inner = push_index(place.store, "a", children=children)
    row = images.descriptor(place.store.repository("a").manifest(inner).body, OCI_INDEX)
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row]}).encode()
    outer = digest_of(body)
    place.store.repository_for_push("a").put_manifest(check_manifest(body, OCI_INDEX), body, ["v1"])
    place.store.repository_for_push("a").delete_manifest(outer)
    for _ in range(3):
        place.wait(1.2)
        place.collect(trash=10 * DELAY)
    left: list[Digest | bytes] = [*IMAGE.blobs, *images.image("y").blobs, *children, inner]
    assert not any(place.lies(one) for one in left)
    assert bring_back(place, f"a@{outer}").exit_code == 0
    assert all(place.lies(one) for one in left)
    assert place.store.repository("a").manifest(outer)


def test_what_comes_back_has_its_delay_again(place: Place) -> None:
    """Nothing is known of its row but that it was pushed and deleted long ago."""
    digest = push_image(place.store, "a")
    push_image(place.store, "a", "other", seed="other")
    place.store.repository_for_push("a").delete_manifest(digest)
    place.wait(0.9)
    assert bring_back(place, str(digest)).exit_code == 0
    place.wait(0.9)
    place.collect()
    assert place.store.repository("a").manifest(digest)


def test_it_comes_back_where_the_repository_is_gone(place: Place) -> None:
    trashed(place)
    for key in sorted((key for key in place.driver.names if key == "a" or key.startswith("a/")), reverse=True):
        (place.driver.rmdir if place.driver.stat(key).is_dir else place.driver.unlink)(key)
    assert bring_back(place, f"a@{STRAY}").summary["restored"] == 1
    assert place.store.repository("a").blob(STRAY) == 5


def test_what_came_back_for_a_push_that_was_refused_lies_in_a_repository(place: Place) -> None:
    """Its own was gone: without a layout no collector would find it."""
    made = images.image("refused")
    push_image(place.store, "a", "v1")
    config = place.stray(made.blobs[0])
    place.wait(2)
    place.collect()
    for key in sorted((key for key in place.driver.names if key == "a" or key.startswith("a/")), reverse=True):
        (place.driver.rmdir if place.driver.stat(key).is_dir else place.driver.unlink)(key)
    with pytest.raises(ManifestBlobUnknown):
        place.put(made, "v1")
    assert place.lies(config) and place.exists(keys.layout("a"))
    place.wait(2)
    place.collect()
    assert not place.lies(config)


def both_trashed(place: Place) -> None:
    """In two repositories."""
    for name in "ab":
        push_image(place.store, name, "v1")
        place.stray(name=name)
    place.wait(2)
    place.collect()
    assert len(place.in_trash()) == 2


def test_only_what_was_named_comes_back(place: Place) -> None:
    both_trashed(place)
    assert bring_back(place, f"a@{STRAY}").summary["restored"] == 1
    assert (place.lies(STRAY, "a"), place.lies(STRAY, "b")) == (True, False)
    assert bring_back(place, str(STRAY), repos=("c", "b")).summary["restored"] == 1
    assert place.lies(STRAY, "b")


def test_repo_is_about_what_comes_back_too(place: Place) -> None:
    both_trashed(place)
    assert bring_back(place, str(STRAY), repos=("b",)).summary["restored"] == 1
    assert (place.lies(STRAY, "a"), place.lies(STRAY, "b")) == (False, True)


def test_of_what_lies_beside_it_nothing_comes_back(place: Place) -> None:
    push_image(place.store, "a", "v1")
    strays = [place.stray(body) for body in (b"stray", b"another")]
    place.wait(2)
    place.collect()
    assert bring_back(place, str(strays[0])).summary["restored"] == 1
    assert list(map(place.lies, strays)) == [True, False]


def test_a_run_has_its_whole_name(place: Place) -> None:
    trashed(place)
    (folder,) = trash_of(place).folders()
    assert bring_back(place, folder.run[:8]).exit_code == NotFound.exit_code
    assert not place.lies(STRAY)
    assert bring_back(place, folder.run).summary["restored"] == 1


def test_what_is_damaged_comes_back_as_a_blob(place: Place) -> None:
    """For a look, or a repair: nothing can be said of what it needs."""
    trashed(place)
    (key,) = place.in_trash()
    place.write(key, b"{rot}")
    assert bring_back(place, str(STRAY)).exit_code == 0
    assert place.lies(STRAY)


def test_a_subject_that_is_gone_keeps_no_referrer_back(place: Place) -> None:
    push_image(place.store, "a", "other", seed="other")
    referrer = push_image(place.store, "a", "v1", subject=digest_of(b"an image that is gone"))
    place.store.repository_for_push("a").delete_manifest(referrer)
    assert bring_back(place, str(referrer)).exit_code == 0
    assert place.store.repository("a").manifest(referrer)


def test_what_an_index_lists_beside_manifests_comes_back_with_it(place: Place) -> None:
    body, blobs = images.build_cache()
    push_image(place.store, "a", "other", seed="other")
    for blob in blobs:
        place.stray(blob)
    place.store.repository_for_push("a").put_manifest(check_manifest(body, OCI_INDEX), body, ["cache"])
    place.store.repository_for_push("a").delete_manifest(digest_of(body))
    place.wait(1.2)
    place.collect(trash=10 * DELAY)
    assert not any(map(place.lies, blobs))
    assert bring_back(place, str(digest_of(body))).exit_code == 0
    assert all(map(place.lies, blobs))
    place.store.repository_for_push("a").delete_manifest(digest_of(body))
    place.driver.unlink(keys.blob("a", digest_of(blobs[0])))
    for key in [key for key in place.in_trash() if key.endswith(digest_of(blobs[0]).encoded)]:
        place.driver.unlink(key)
    assert bring_back(place, str(digest_of(body))).exit_code == 5, "or not at all"


def test_a_rehearsal_brings_nothing_back(place: Place) -> None:
    trashed(place)
    assert bring_back(place, str(STRAY), dry_run=True).summary["restored"] == 1
    assert not place.lies(STRAY)


def _lacks_a_blob(place: Place) -> None:
    digest = digest_of(IMAGE.blobs[1])
    for key in [key for key in place.driver.names if key.endswith(digest.encoded)]:
        place.driver.unlink(key)


def _lacks_a_child(place: Place) -> None:
    for key in [key for key in place.driver.names if key.endswith(IMAGE.digest.encoded)]:
        place.driver.unlink(key)


@pytest.mark.parametrize("harm", [_lacks_a_blob, _lacks_a_child])
def test_i5_a_manifest_gets_no_row_when_something_of_it_is_gone(place: Place, harm: Callable[[Place], None]) -> None:
    """Which is told, and makes an exit code."""
    push_image(place.store, "a", "other", seed="other")
    child = push_image(place.store, "a")
    index = push_index(place.store, "a", "v1", children=[child])
    for digest in (index, child):
        place.store.repository_for_push("a").delete_manifest(digest)
    place.wait(0.5)
    place.collect()
    harm(place)
    report = bring_back(place, str(index))
    assert report.exit_code == 5 and report.errors[0]["repository"] == "a"
    rows = [row["digest"] for row in json.loads(place.read(keys.index("a")))["manifests"]]
    assert str(index) not in rows


def test_a_layer_that_need_not_be_here_is_not_required(place: Place) -> None:
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 9,
        "digest": str(digest_of(b"elsewhere")),
    }  # fmt: skip
    made = images.image(layers=0, layers_="")
    document = json.loads(made.manifest) | {"layers": [foreign]}
    body = json.dumps(document).encode()
    push_image(place.store, "a", "other", seed="other")
    place.strays_of(made)
    manifest = check_manifest(body, OCI_MANIFEST)
    place.store.repository_for_push("a").put_manifest(manifest, body, ["v1"])
    place.store.repository_for_push("a").delete_manifest(manifest.digest)
    assert bring_back(place, str(manifest.digest)).exit_code == 0
    assert place.store.repository("a").manifest(manifest.digest)


def test_a_large_layer_is_not_read_to_see_that_it_is_no_manifest(place: Place) -> None:
    push_image(place.store, "a", "v1")
    digest = place.stray(b"\x1f\x8b" + bytes(4 << 20))
    place.wait(2)
    place.collect()
    count: list[int] = []

    class Reads(Faults):
        def read(self, key: str, offset: int, data: bytes) -> bytes:
            count.append(len(data) if key == keys.blob("a", digest) else 0)
            return data

    assert bring_back(place, str(digest), place.open(Reads(place.driver))).exit_code == 0
    assert place.lies(digest) and sum(count) < 1 << 20


def test_a_restore_that_fails_says_where(place: Place) -> None:
    digest = push_image(place.store, "a", "v1")
    push_image(place.store, "a", "other", seed="other")
    place.store.repository_for_push("a").delete_manifest(digest)
    place.wait(0.5)
    driver: Driver = FailOn(place.driver, "exchange", 1, IoFailed("no"), lambda key: ".index.json" in key)
    report = bring_back(place, str(digest), place.open(driver))
    assert report.exit_code != 0 and report.errors


def test_a_blob_that_is_needed_by_nothing_is_refused_to_a_manifest_after_its_purge(place: Place) -> None:
    trashed(place)
    place.wait(2)
    place.collect()
    with pytest.raises(ManifestBlobUnknown):
        place.put(images.image("nothing of it is here"), "v2")


def test_folders_are_those_of_repositories(place: Place) -> None:
    trashed(place, "a/b")
    (folder,) = trash_of(place).folders()
    assert folder == Folder(folder.run, "a/b", "sha256")


def test_a_list_of_the_trash_is_about_what_was_named(place: Place) -> None:
    both_trashed(place)
    run = Run("gc", place.store, repos=("b",))
    report = run.finish(lambda: list_trash(run))
    assert [item["repository"] for item in report.items] == ["b"]
