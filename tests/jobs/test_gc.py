"""Collection: what goes, what stays, what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, NoSpaceAfter
from tests.stores import push_blob, push_image, push_index, store_over
from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.config.globs import matches
from zotctl.errors import BlobUnknown, HeldElsewhere, IoFailed, ManifestUnknown, NameUnknown, NotFound
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions, gc, gc_settings
from zotctl.jobs.report import Report
from zotctl.jobs.restore import list_trash, restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, read
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of

DELAY = 100.0


class Hand(Clock):
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def now_ns(self) -> int:
        self.at += 1e-6
        return int(self.at * 1e9)

    def elapsed(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def driver(clock: Hand) -> MemoryDriver:
    return MemoryDriver(clock=clock.now_ns)


@pytest.fixture
def store(driver: MemoryDriver, clock: Hand) -> Store:
    return store_over(driver, clock=clock)


def collect(store: Store, delay: float = DELAY, *, dry_run: bool = False, rules: Rules | None = None) -> Report:
    options = GcOptions(delay=delay, rules=rules or Rules(delay=delay))
    run = Run("gc", store, dry_run=dry_run)
    return run.finish(lambda: gc(run, lambda _: options))


def exists(driver: Driver, key: str) -> bool:
    try:
        driver.stat(key)
    except NotFound:
        return False
    return True


def test_what_nothing_reaches_goes_after_lying_in_the_trash(store: Store, driver: Driver, clock: Hand) -> None:
    push_image(store, "a", "v1")
    stray = push_blob(store.repository_for_push("a"), b"stray")
    clock.at += DELAY + 1
    first = collect(store)
    assert first.summary["unreachable"] == 1
    assert not exists(driver, keys.blob("a", stray))
    assert store.repository("a").blob(stray) == 5, "whoever asks gets it back"
    clock.at += DELAY + 1
    collect(store)
    clock.at += DELAY + 1
    last = collect(store)
    assert last.summary["purged"] >= 1
    with pytest.raises(BlobUnknown):
        store.repository("a").blob(stray)
    assert not exists(driver, keys.pool(stray))
    assert store.repository("a").manifest("v1").digest == images.image().digest


def test_fresh_blobs_are_left_alone(store: Store) -> None:
    push_blob(store.repository_for_push("a"), b"stray")
    assert collect(store).summary["unreachable"] == 0


def test_everything_reachable_stays(store: Store, driver: Driver, clock: Hand) -> None:
    children = [push_image(store, "a", seed=str(n)) for n in range(2)]
    push_index(store, "a", "multi", children=children)
    push_image(store, "a", "sbom", seed="sbom", subject=children[0])
    before = {e.name for e in driver.scan("a/blobs/sha256")}
    for _ in range(3):
        clock.at += DELAY + 1
        collect(store)
    assert {e.name for e in driver.scan("a/blobs/sha256")} == before


def test_deleted_content_is_freed(store: Store, driver: Driver, clock: Hand) -> None:
    digest = push_image(store, "a", "v1")
    push_image(store, "a", "v2", seed="other")
    store.repository_for_push("a").delete_manifest(digest)
    for _ in range(3):
        clock.at += DELAY + 1
        collect(store)
    left = {e.name for e in driver.scan("a/blobs/sha256")}
    other = images.image("other")
    assert left == {digest_of(body).encoded for body in (other.manifest, *other.blobs)}
    assert not driver.scan(keys.TRASH)


def test_delay_zero_purges_at_once(store: Store, driver: Driver, clock: Hand) -> None:
    stray = push_blob(store.repository_for_push("a"), b"stray")
    clock.at += 1
    collect(store, 0.0)
    assert not exists(driver, keys.blob("a", stray))
    assert not exists(driver, keys.pool(stray))
    with pytest.raises(Exception, match="no "):
        store.repository("a").blob(stray)


def test_an_untagged_manifest_goes_after_the_delay(store: Store, clock: Hand) -> None:
    digest = push_image(store, "a")
    push_image(store, "a", "v1", seed="tagged")
    clock.at += DELAY - 1
    collect(store)
    assert store.repository("a").manifest(digest)
    clock.at += 2
    collect(store)
    with pytest.raises(ManifestUnknown):
        store.repository("a").manifest(digest)


def test_i9_an_untagged_foreign_row_stays_unless_asked(tmp_path: Path) -> None:
    images.lay_out(tmp_path / "a", images.image(), [images.row(images.image())])
    store, clock = store_over(LocalDriver(str(tmp_path))), Clock()
    clock.now = lambda: Clock().now() + 10_000  # type: ignore[method-assign]
    for root in store.roots:
        local_of(root).context.clock = clock
    store.clock = clock
    collect(store)
    assert store.repository("a").manifest(images.image().digest)
    asked = Rules(delay=0.0, foreign=True)
    collect(store, rules=asked)
    collect(store, rules=asked)
    with pytest.raises((ManifestUnknown, NameUnknown)):
        store.repository("a").manifest(images.image().digest)


def test_a_foreign_row_goes_in_the_run_that_notes_it_when_the_delay_is_zero(tmp_path: Path) -> None:
    class Ticking(Hand):
        def now(self) -> float:
            self.at += 1.0
            return self.at

    images.lay_out(tmp_path / "a", images.image(), [images.row(images.image())])
    store = store_over(LocalDriver(str(tmp_path)), clock=Ticking())
    report = collect(store, 0.0, rules=Rules(delay=0.0, foreign=True))
    assert report.summary["purged"] == report.summary["unreachable"] > 0
    with pytest.raises((ManifestUnknown, NameUnknown)):
        store.repository("a").manifest(images.image().digest)


@pytest.mark.parametrize("what", ["missing manifest", "unknown type", "unreadable", "missing child"])
def test_i5_nothing_goes_where_something_is_unknown(store: Store, driver: Driver, clock: Hand, what: str) -> None:
    digest = push_image(store, "a", "v1")
    stray = push_blob(store.repository_for_push("a"), b"stray")
    if what == "missing child":
        child = push_image(store, "a", seed="child")
        push_index(store, "a", "multi", children=[child])
        driver.unlink(keys.blob("a", child))
    elif what == "unknown type":
        index = json.loads(read(driver, "a/index.json", 9999))
        index["manifests"][0]["mediaType"] = "application/x.thing"
        _rewrite(driver, "a/index.json", json.dumps(index).encode())
    else:
        driver.unlink(keys.blob("a", digest))
        if what == "unreadable":
            with driver.create(keys.blob("a", digest)) as writer:
                writer.write([b"rubbish"])
    fresh = store_over(driver, clock=clock)
    clock.at += 10 * DELAY
    report = collect(fresh)
    assert report.exit_code in (4, 5)
    assert report.findings and report.findings[0].repository == "a"
    assert exists(driver, keys.blob("a", stray))


def test_healed_content_is_collected_around_again(store: Store, driver: Driver, clock: Hand) -> None:
    digest = push_image(store, "a", "v1")
    stray = push_blob(store.repository_for_push("a"), b"stray")
    driver.unlink(keys.blob("a", digest))
    clock.at += 10 * DELAY
    fresh = store_over(driver, clock=clock)
    assert collect(fresh).exit_code != 0
    push_image(store, "a", "v1")
    clock.at += 10 * DELAY
    assert collect(fresh).exit_code == 0
    assert not exists(driver, keys.blob("a", stray))


def _rewrite(driver: Driver, key: str, body: bytes) -> None:
    driver.unlink(key)
    with driver.create(key) as writer:
        writer.write([body])


def test_dry_run_changes_nothing_and_names_all(store: Store, driver: Driver, clock: Hand) -> None:
    stray = push_blob(store.repository_for_push("a"), b"stray")
    clock.at += DELAY + 1
    report = collect(store, dry_run=True)
    assert [(i["digest"], i["size_bytes"]) for i in report.items] == [(str(stray), 5)]
    assert exists(driver, keys.blob("a", stray))


def test_i6_a_moving_upload_keeps_what_its_push_has_sent(store: Store, driver: Driver, clock: Hand) -> None:
    repository = store.repository_for_push("a")
    slow = repository.start_upload()
    early = push_blob(repository, b"early layer")
    for _ in range(5):
        clock.at += DELAY - 1
        with repository.resume_upload(slow) as upload:
            upload.write([b"x"])
        collect(store)
    assert exists(driver, keys.blob("a", early))


def test_dead_uploads_are_purged(store: Store, driver: Driver, clock: Hand) -> None:
    upload_id = store.repository_for_push("a").start_upload()
    clock.at += DELAY + 1
    collect(store)
    assert not exists(driver, keys.upload("a", upload_id))


def test_i6_a_reservation_holds_across_a_collection(store: Store, clock: Hand) -> None:
    """HEAD on an old blob, a collection, then the manifest that uses it (peers 15)."""
    made = images.image()
    repository = store.repository_for_push("a")
    for blob in made.blobs:
        push_blob(repository, blob)
    clock.at += 10 * DELAY
    for blob in made.blobs:
        assert repository.blob(digest_of(blob))
    collect(store)
    clock.at += DELAY - 1
    store.repository_for_push("a").put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"])
    for _ in range(3):
        clock.at += DELAY + 1
        collect(store)
    assert store.repository("a").blob(digest_of(made.blobs[0]))


def test_restore_brings_back_a_deleted_manifest(store: Store, clock: Hand) -> None:
    digest = push_image(store, "a", "v1")
    store.repository_for_push("a").delete_manifest(digest)
    clock.at += DELAY / 2
    run = Run("gc", store)
    run.finish(lambda: restore(run, f"a@{digest}"))
    assert store.repository("a").manifest(digest).body == images.image().manifest
    listed = Run("gc", store)
    listed.finish(lambda: list_trash(listed))


def test_restore_of_nothing_says_so(store: Store) -> None:
    run = Run("gc", store)
    assert run.finish(lambda: restore(run, "20200101T000000-x")).exit_code == 10


def test_explain(store: Store, clock: Hand) -> None:
    child = push_image(store, "a", seed="child")
    push_index(store, "a", "multi", children=[child])
    layer = digest_of(images.image("child").blobs[1])
    stray = push_blob(store.repository_for_push("a"), b"stray")
    results = {}
    for what in (str(layer), "a:multi", str(stray), "a"):
        run = Run("gc", store)
        run.finish(lambda run=run, what=what: explain(run, what, lambda _: GcOptions(DELAY)))  # type: ignore[misc]
        results[what] = run.report.items
    assert results[str(layer)][0]["verdict"] == "kept"
    assert "multi" in results[str(layer)][0]["why"]
    assert str(child) in results[str(layer)][0]["why"]
    assert results[str(stray)][0]["verdict"] == "goes"
    clock.at += DELAY + 1
    collect(store)
    run = Run("gc", store)
    run.finish(lambda: explain(run, str(stray), lambda _: GcOptions(DELAY)))
    assert run.report.items[0]["verdict"] == "in trash"


def test_a_second_collector_sees_the_first(store: Store) -> None:
    run = Run("gc", store)
    with run.leases():
        report = collect(store)
    assert report.exit_code == HeldElsewhere.exit_code


def test_an_empty_repository_is_removed(store: Store, driver: Driver, clock: Hand) -> None:
    digest = push_image(store, "a/b", "v1")
    push_image(store, "c", "v1")
    store.repository_for_push("a/b").delete_manifest(digest)
    for _ in range(4):
        clock.at += DELAY + 1
        collect(store)
    assert store.repositories() == ["c"]
    assert not exists(driver, "a")
    push_image(store, "a/b", "v1")
    assert store.repositories() == ["a/b", "c"]


def test_retention_keeps_the_most_recent_tags(store: Store, clock: Hand) -> None:
    for number in range(5):
        push_image(store, "a", f"v{number}", seed=str(number))
        clock.at += 10
    push_image(store, "a", "latest", seed="x")
    newest = KeepTags(patterns=("^v",), most_recently_pushed_count=2)
    policy = Policy(("**",), keep_tags=(newest, KeepTags(patterns=("latest",))))
    collect(store, rules=Rules(Retention(policies=(policy,)), DELAY))
    assert store.repository("a").tags() == ["latest", "v3", "v4"]


def test_retention_unknown_times_mean_keep(store: Store, driver: Driver, clock: Hand) -> None:
    push_image(store, "a", "v1")
    for entry in driver.scan(keys.HISTORY):
        driver.unlink(f"{keys.HISTORY}/{entry.name}")
    clock.at += 10 * DELAY
    policy = Policy(("**",), keep_tags=(KeepTags(pushed_within=1.0),), keep_untagged=Keep())
    collect(store, rules=Rules(Retention(policies=(policy,)), DELAY))
    assert store.repository("a").tags() == ["v1"]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("**", "a/b", True), ("*", "a/b", False), ("*", "a", True), ("tmp/**", "tmp", True),
        ("tmp/**", "tmp/a/b", True), ("tmp/**", "tmpx", False), ("a/*/c", "a/b/c", True),
        ("a/**/c", "a/c", True), ("{a,b}/x", "b/x", True), ("a?", "ab", True), ("[ab]", "b", True), ("a", "ab", False),
    ],
)  # fmt: skip
def test_globs_are_those_of_doublestar(pattern: str, name: str, expected: bool) -> None:
    assert matches(name, [pattern]) is expected


class Meanwhile(MemoryDriver):
    """Before `key` is opened for the first time, somebody else does something."""

    key, act = "", staticmethod(lambda: None)

    def open(self, key: str):  # type: ignore[no-untyped-def]
        if key == self.key:
            self.key = ""
            self.act()
        return super().open(key)


def test_a_manifest_that_is_deleted_while_it_is_marked_is_no_damage(clock: Hand) -> None:
    driver = Meanwhile(clock=clock.now_ns)
    server, collector = store_over(driver, clock=clock), store_over(driver, clock=clock)
    push_image(server, "a", "v1")
    gone = push_image(server, "a", "v2", seed="gone")
    driver.key, driver.act = keys.blob("a", gone), lambda: server.repository_for_push("a").delete_manifest(str(gone))
    clock.at += DELAY + 1
    report = collect(collector)
    assert driver.key == "", "it was opened"
    assert (report.findings, report.exit_code) == ([], 0)
    assert report.summary["unreachable"] > 0


def test_what_was_restored_is_not_listed_as_lying_in_the_trash(store: Store, clock: Hand) -> None:
    push_image(store, "a", "v1")
    strays = [push_blob(store.repository_for_push("a"), body) for body in (b"one", b"other")]
    clock.at += DELAY + 1
    collect(store)
    assert store.repository("a").blob(strays[0]) == 3
    run = Run("gc", store)
    report = run.finish(lambda: list_trash(run))
    assert [item["digests"] for item in report.items] == [[str(strays[1])]]
    assert report.summary == {"in_trash": 1, "in_trash_bytes": 5}
    assert store.repository("a").blob(strays[1]) == 5
    run = Run("gc", store)
    assert run.finish(lambda: list_trash(run)).items == []


def test_a_tag_that_the_policy_drops_is_in_the_history_before_it_goes(
    store: Store, driver: MemoryDriver, clock: Hand
) -> None:
    digest = push_image(store, "a", "v1")
    clock.at += 10 * DELAY
    keeping = Policy(repositories=("**",), keep_tags=(KeepTags(patterns=("v2",)),))
    rules = Rules(Retention(policies=(keeping,)), delay=DELAY)
    failing = store_over(FailOn(driver, "exchange", 1, IoFailed("no"), lambda key: ".index.json" in key), clock=clock)
    assert collect(failing, rules=rules).errors
    assert store.repository("a").tags() == ["v1"]
    pushed = store.roots[0].history.timeline("a").pushed
    assert pushed[digest] == pytest.approx(clock.at, abs=1), "its delay begins then"
    collect(store, rules=rules)
    assert store.repository("a").tags() == []
    assert store.repository("a").manifest(digest).digest == digest


def test_by_default_a_digest_that_is_pinned_stays(store: Store, clock: Hand) -> None:
    """A deployment names the digest of an image whose tag has moved on."""
    pinned = push_image(store, "a", "latest", seed="monday")
    push_image(store, "a", "latest", seed="tuesday")
    clock.at += 1000 * 86400
    run = Run("gc", store)
    run.finish(lambda: gc(run, gc_settings(trust_clock=True)))
    assert store.repository("a").manifest(pinned).digest == pinned


def test_what_was_dropped_is_404_though_its_bytes_lie_in_the_trash(store: Store, clock: Hand) -> None:
    """A blob is linked back for whoever was told that it exists; no manifest is promised to anybody."""
    digest = push_image(store, "a", seed="untagged")
    clock.at += DELAY + 1
    collect(store)
    with pytest.raises(ManifestUnknown):
        store.repository("a").manifest(digest)
    assert store.repository("a").blob(digest_of(images.image("untagged").blobs[0]))


def test_a_full_disk_leaves_no_note_of_the_holder_behind(driver: MemoryDriver, clock: Hand) -> None:
    faulty = NoSpaceAfter(driver, 1 << 20)
    store = store_over(faulty, clock=clock)
    push_image(store, "a", "v1")
    faulty.left = 10
    run = Run("gc", store)
    run.finish(lambda: gc(run, lambda _: GcOptions(delay=DELAY)))
    assert driver.scan(keys.TMP) == []
