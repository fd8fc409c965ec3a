"""Deduplication of buckets (docs/design/bucket.md#the-tree): into the pool and back, and zot's empty objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import images
from tests.buckets import bucket  # noqa: F401 - a fixture
from tests.counting import Counted
from tests.jobs.bucketing import (  # noqa: F401 - fixtures
    InMemory,
    Killed,
    Place,
    dying,
    flipped,
    keys_of,
    opened,
    place,
    run_job,
)
from tests.stores import push_blob, push_image
from zotctl.config import RootConfig, S3Config
from zotctl.errors import BlobUnknown, IoFailed
from zotctl.jobs.bucket import dedupe as bucket_dedupe
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import gc, gc_settings
from zotctl.jobs.report import Report, Sink
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import Store, keys
from zotctl.storage.bucket.lease import JOB_LEASE_S
from zotctl.storage.bucket.protocol import bucket_of

X, Y = images.image("x", layers=2), images.image("y", layers=2)
LAYER = digest_of(X.blobs[-1])
CONTENT = [("a", X), ("b/c", X), ("b/c", Y)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old copies go after two seconds."""
    monkeypatch.setattr(bucket_dedupe, "POOL_SETTLED_S", 2.0)


def fill(place: Place) -> None:  # noqa: F811
    store = opened(place)
    push_image(store, "a", "v1", seed="x")
    push_image(store, "b/c", "v1", seed="x")
    push_image(store, "b/c", "v2", seed="y")


def run(store: Store, *, undo: bool = False, **options: object) -> Report:
    return run_job(store, "dedupe", lambda run: dedupe(run, DedupeOptions(undo=undo)), **options)


def require_whole(store: Store) -> None:
    """Everything can be read, by those who may."""
    for name, image in CONTENT:
        for body in image.blobs:
            with store.repository(name).open_blob(digest_of(body)) as reader:
                assert reader.read_at(0, reader.size) == body
            assert store.repository(name).blob(digest_of(body)) == len(body)
    for body in Y.blobs:
        with pytest.raises(BlobUnknown):
            store.repository("a").open_blob(digest_of(body))
    report = run_job(store, "verify", lambda run: verify(run, VerifyOptions(deep=True)))
    assert (report.exit_code, report.findings) == (0, [])


def copies(place: Place, prefix: str) -> list[str]:  # noqa: F811
    manifests = {X.digest.encoded, Y.digest.encoded}
    return [k for k in keys_of(place) if k.startswith(prefix) and "/sha256/" in k and k[-64:] not in manifests]


def test_there_and_back(place: Place) -> None:  # noqa: F811
    fill(place)
    report = run(opened(place, dedupe=True))
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    assert (report.summary["pooled"], report.summary["dropped"]) == (6, 9)
    assert len(copies(place, keys.SHARED)) == 6
    assert copies(place, "a/") == copies(place, "b/") == []
    for dedupes in (True, False):
        require_whole(opened(place, dedupe=dedupes))
    assert run(opened(place, dedupe=True)).summary["dropped"] == 0
    back = run(opened(place), undo=True)
    assert (back.exit_code, back.findings, back.summary["copied"]) == (0, [], 9)
    assert len(copies(place, "a/")) == 3
    assert len(copies(place, "b/")) == 6
    for key in [key for key in keys_of(place) if key.startswith((keys.SHARED, keys.HIDDEN))]:
        place.objects.delete(key)
    require_whole(opened(place))


def test_the_total_is_what_is_read_and_of_the_way_back_the_repositories() -> None:
    place = InMemory()  # noqa: F811
    fill(place)
    told: list[tuple[int, int | None, str]] = []

    class Told(Sink):
        def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
            told.append((done, total, unit))

    def shared(undo: bool) -> tuple[int, int | None, str]:
        work = DedupeOptions(undo=undo, measure=True)
        run_job(opened(place, dedupe=not undo), "dedupe", lambda run: dedupe(run, work), sink=Told())
        return [one for one in told if one[1] is not None][-1]

    blobs = sum(map(len, X.blobs)) + sum(map(len, Y.blobs))
    assert shared(undo=False) == (blobs, blobs, "bytes"), "and nothing that is not read"
    assert shared(undo=True) == (1, 2, "repositories")


def test_a_dry_run_changes_nothing(place: Place) -> None:  # noqa: F811
    fill(place)
    before = keys_of(place)
    report = run(opened(place, dedupe=True), dry_run=True)
    assert report.summary["saved_bytes"] == sum(map(len, X.blobs))
    # The list of repositories is a cache of what any walk finds.
    assert [key for key in keys_of(place) if key != keys.NAMES_MADE] == before


def test_copies_stay_while_somebody_may_read_them() -> None:
    place = InMemory()  # noqa: F811
    fill(place)
    store = opened(place, dedupe=True)
    began = place.clock.elapsed()
    run(store)
    assert place.clock.elapsed() - began >= 2.0
    place.clock.sleep(10)
    fill(place)  # by a server that doesn't deduplicate
    assert len(copies(place, "a/")) == 3
    began = place.clock.elapsed()
    run(store)
    assert place.clock.elapsed() == began, "the pool has had them for long enough"
    assert copies(place, "a/") == []


def test_old_copies_stay_while_a_url_of_them_holds() -> None:
    """A client that was sent there by a server that redirects."""
    place = InMemory()  # noqa: F811
    fill(place)
    store = opened(place, dedupe=True)
    store.roots[0].config = RootConfig(path="s3://x", s3=S3Config(redirect=True, redirect_lifetime=600.0))
    began = place.clock.elapsed()
    run(store)
    assert place.clock.elapsed() - began >= 600.0


def test_a_copy_stays_when_the_damaged_one_of_the_pool_could_not_be_replaced() -> None:
    """It has been there for long enough, and is as long as it should be."""
    place = InMemory()  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    fill(place)
    place.rewrite(keys.shared(LAYER), flipped)

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "copy" and args[1] == keys.shared(LAYER):
            raise IoFailed("no")

    run(opened(place, dedupe=True, objects=Counted(place.objects, before)))
    assert {key for key in keys_of(place) if LAYER.encoded in key and "blobs/" in key} == {
        keys.shared(LAYER), keys.blob("a", LAYER), keys.blob("b/c", LAYER)
    }  # fmt: skip


def test_a_manifest_that_is_not_understood_stays_in_its_repository() -> None:
    """Nor does a row name it."""
    place = InMemory()  # noqa: F811
    fill(place)
    strange = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.thing.v1+json", "blobs": []}).encode()
    listing = images.index([(digest_of(strange), len(strange))])
    for body in (strange, listing):
        place.objects.put(keys.blob("a", digest_of(body)), body)
    index = json.loads(place.memory.stored[keys.index("a")].body)
    index["manifests"] += [{"mediaType": OCI_INDEX, "digest": digest_of(listing), "size": len(listing)}]
    place.objects.put(keys.index("a"), json.dumps(index).encode())
    run(opened(place, dedupe=True))
    assert keys.blob("a", digest_of(strange)) in keys_of(place)
    assert keys.shared(digest_of(strange)) not in keys_of(place)


def test_damage_is_never_spread(place: Place) -> None:  # noqa: F811
    fill(place)
    place.rewrite(keys.blob("a", LAYER), flipped)
    report = run(opened(place, dedupe=True))
    found = [(f.repository, f.digest, f.kind, f.action) for f in report.findings]
    assert found == [("a", LAYER, "digest_mismatch", "marked")]
    require_whole(opened(place, dedupe=True))


def named(report: Report) -> list[tuple[str, str | None, str]]:
    return sorted((f.repository, f.digest, f.kind) for f in report.findings)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("options", [{}, {"dry_run": True}, {"undo": True}, {"undo": True, "dry_run": True}])
def test_known_damage_is_named_by_each_run(place: Place, pooled: bool, options: dict[str, bool]) -> None:  # noqa: F811
    """For each repository that reads it, wherever it lies."""
    fill(place)
    if pooled:
        run(opened(place, dedupe=True))
        place.rewrite(keys.shared(LAYER), flipped)
    else:
        for name in ("a", "b/c"):
            place.rewrite(keys.blob(name, LAYER), flipped)
    scrubbed = run_job(opened(place, dedupe=pooled), "scrub", lambda run: scrub(run, ScrubOptions()))
    wanted = [(name, LAYER, "digest_mismatch") for name in ("a", "b/c")]
    assert named(scrubbed) == wanted
    for _ in range(2):
        report = run(opened(place, dedupe=pooled), **options)  # type: ignore[arg-type]
        assert (named(report), report.summary["left_damaged"], report.exit_code) == (wanted, 2, 4)
        assert {f.tags for f in report.findings} == {("v1",)}


def test_a_damaged_copy_in_the_pool_is_told_for_each_repository(place: Place) -> None:  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    place.rewrite(keys.shared(LAYER), flipped)
    for _ in range(2):
        assert named(run(opened(place), undo=True)) == [(name, LAYER, "digest_mismatch") for name in ("a", "b/c")]


def test_a_damaged_copy_in_the_pool_is_replaced(place: Place) -> None:  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    fill(place)
    place.rewrite(keys.shared(LAYER), flipped)
    run(opened(place, dedupe=True))
    assert copies(place, "a/") == []
    require_whole(opened(place, dedupe=True))


def test_the_only_copy_is_not_dropped_for_a_damaged_one(place: Place) -> None:  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    place.rewrite(keys.shared(LAYER), flipped)
    report = run(opened(place), undo=True)
    assert report.exit_code == 4
    assert keys.blob("a", LAYER) not in keys_of(place)


# -- zot's empty objects ------------------------------------------------------------------------


@pytest.fixture
def zot(place: Place) -> Place:  # noqa: F811
    """A bucket that zot has deduplicated: the content of b/c is in a."""
    fill(place)
    for key in [key for key in keys_of(place) if key.startswith(keys.HIDDEN)]:
        place.objects.delete(key)
    for body in X.blobs:
        place.objects.put(keys.blob("b/c", digest_of(body)), b"")
    return place


def test_stubs_are_read(zot: Place) -> None:
    """From wherever the content is; it is listed once, for all processes."""
    for _ in range(2):
        counted = Counted(zot.objects)
        store = opened(zot, objects=counted)
        for body in X.blobs:
            with store.repository("b/c").open_blob(digest_of(body)) as reader:
                assert reader.read_at(0, reader.size) == body
            with pytest.raises(BlobUnknown):
                store.repository("b/c").blob(digest_of(body))
    assert keys.ORIGINS in keys_of(zot)
    assert [key for method, key in counted.requests if method == "names"] == [], "the second one walks no more"
    push_image(opened(zot), "b/c", "v1", seed="x")
    for body in X.blobs:
        assert opened(zot).repository("b/c").blob(digest_of(body)) == len(body)
    zot.objects.delete(keys.blob("a", LAYER))
    zot.objects.put(keys.blob("b/c", LAYER), b"")
    with pytest.raises(BlobUnknown):
        opened(zot).repository("b/c").open_blob(LAYER)
    with pytest.raises(BlobUnknown):
        opened(zot).repository("c").open_blob(LAYER)


def test_stubs_are_filled(zot: Place) -> None:
    report = run(opened(zot), undo=True)
    assert (report.exit_code, report.findings, report.summary["copied"]) == (0, [], 3)
    require_whole(opened(zot))


def test_a_stub_that_no_manifest_reaches_is_filled_too(zot: Place) -> None:
    """What a tag that was moved has left: zot would take the empty object for the blob, `verify` calls it damage."""
    unreached = digest_of(b"unreached")
    zot.objects.put(keys.blob("b/c", unreached), b"")
    zot.objects.put(keys.blob("a", unreached), b"unreached")
    report = run(opened(zot), undo=True)
    assert (report.exit_code, report.findings, report.summary["copied"]) == (0, [], 4)
    with zot.objects.open(keys.blob("b/c", unreached)) as reader:
        assert reader.read_at(0, reader.size) == b"unreached"


def test_stubs_go_into_the_pool(zot: Place) -> None:
    report = run(opened(zot, dedupe=True))
    assert (report.exit_code, report.findings, report.summary["dropped"]) == (0, [], 9)
    require_whole(opened(zot, dedupe=True))


def test_a_stub_is_reserved_before_it_is_filled() -> None:
    """Else a collector that has looked at the empty object takes what comes into its place."""
    place = InMemory()  # noqa: F811
    fill(place)
    place.objects.put(keys.blob("b/c", LAYER), b"")
    place.objects.delete(keys.reservation(LAYER, "b/c"))
    held: list[bool] = []

    def before(method: str, args: tuple[Any, ...]) -> None:
        if method == "copy" and args[1] == keys.blob("b/c", LAYER):
            held.append(keys.reservation(LAYER, "b/c") in place.memory.stored)

    assert run(opened(place, objects=Counted(place.objects, before)), undo=True).exit_code == 0
    assert held == [True]


@pytest.mark.parametrize("undo", [False, True])
def test_a_stub_without_content_is_found(zot: Place, undo: bool) -> None:
    zot.objects.delete(keys.blob("a", LAYER))
    report = run(opened(zot, dedupe=not undo), undo=undo)
    assert report.exit_code == 4
    assert [(f.repository, f.digest, f.kind) for f in report.findings] == [("b/c", LAYER, "stub")]


def collect(place: Place) -> Report:  # noqa: F811
    for _ in range(3):
        place.clock.sleep(20_000)
        settings = gc_settings(delay=10.0, untagged="all")
        report = run_job(opened(place), "gc", lambda run: gc(run, settings))  # noqa: B023
    return report


@pytest.mark.parametrize("undo", [False, True])
def test_content_that_a_stub_needs_is_not_collected(undo: bool) -> None:
    """zot keeps it in a repository that may not need it itself any more."""
    place = InMemory()  # noqa: F811
    fill(place)
    for body in X.blobs:
        place.objects.put(keys.blob("b/c", digest_of(body)), b"")
    opened(place).repository("a").delete_manifest(X.digest)
    report = collect(place)
    assert report.exit_code == 5
    assert "dedupe --undo" in report.errors[0]["reason"]
    assert len(copies(place, "a/")) == 3
    assert run(opened(place, dedupe=not undo), undo=undo).exit_code == 0
    assert collect(place).exit_code == 0
    assert copies(place, "a/") == []
    assert opened(place).repository("b/c").blob(LAYER) == len(X.blobs[-1])


def test_stubs_that_zot_has_made_since_the_last_run_are_seen() -> None:
    """It may have had the bucket again for a while."""
    place = InMemory()  # noqa: F811
    fill(place)
    opened(place).repository("b/c").delete_manifest(Y.digest)
    collect(place)
    assert len(copies(place, "b/c/")) == 3, "something was to go, so stubs were looked for"
    for body in X.blobs:
        place.objects.put(keys.blob("b/c", digest_of(body)), b"")
    opened(place).repository("a").delete_manifest(X.digest)
    assert collect(place).exit_code == 5
    assert len(copies(place, "a/")) == 3


def test_a_stub_is_not_read_where_its_content_is_damaged() -> None:
    place = InMemory()  # noqa: F811
    fill(place)
    place.objects.put(keys.blob("b/c", LAYER), b"")
    repository = opened(place).repository("b/c")
    with repository.open_blob(LAYER) as reader:
        assert reader.read_at(0, reader.size) == X.blobs[-1]
    bucket_of(opened(place).roots[0]).damaged.mark(LAYER, place.objects.head(keys.blob("a", LAYER)))
    other = opened(place)
    bucket_of(other.roots[0]).damaged.refresh(now=True)
    with pytest.raises(BlobUnknown):
        other.repository("b/c").open_blob(LAYER)


def test_a_stub_is_no_copy_for_which_the_pool_could_go() -> None:
    place = InMemory()  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    for name in ("a", "b/c"):
        place.objects.put(keys.blob(name, LAYER), b"")
    collect(place)
    require_whole(opened(place))


def test_what_a_push_has_sent_before_its_manifest_comes_back_too() -> None:
    """It may use it, reached or not; the pool is the collector's from then on."""
    place = InMemory()  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    sent = push_blob(opened(place, dedupe=True).repository_for_push("a"), b"sent")
    assert run(opened(place), undo=True).exit_code == 0
    assert {keys.blob("a", sent), keys.blob("a", LAYER)} <= set(keys_of(place))


def test_after_undo_the_pool_is_collected() -> None:
    place = InMemory()  # noqa: F811
    fill(place)
    run(opened(place, dedupe=True))
    run(opened(place), undo=True)
    collect(place)
    assert copies(place, keys.SHARED) == []
    require_whole(opened(place))


# -- killed -------------------------------------------------------------------------------------


def _deaths(undo: bool) -> Iterator[InMemory]:
    """A bucket for each request in front of which the job is killed."""
    for after in range(0, 1000):
        place = InMemory()  # noqa: F811
        fill(place)
        if undo:
            run(opened(place, dedupe=True))
        try:
            run(opened(place, dedupe=not undo, objects=dying(place.objects, after)), undo=undo)
        except Killed:
            yield place
        else:
            return


@pytest.mark.parametrize("undo", [False, True])
def test_a_run_that_was_killed_is_run_again(undo: bool) -> None:
    deaths = 0
    for left in _deaths(undo):
        deaths += 1
        if deaths % 3 == 0:
            require_whole(opened(left, dedupe=not undo))
        left.clock.sleep(JOB_LEASE_S)
        assert run(opened(left, dedupe=not undo), undo=undo).exit_code == 0
        require_whole(opened(left, dedupe=not undo))
        assert len(copies(left, "a/")) == (3 if undo else 0)
    assert deaths > 30
