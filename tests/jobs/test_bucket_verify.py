"""verify on buckets, of any origin: the same findings as in a directory, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import images
from tests.buckets import bucket  # noqa: F401 - a fixture
from tests.clocks import Hand
from tests.counting import Counted
from tests.jobs.bucketing import (  # noqa: F401 - fixtures
    InMemory,
    Place,
    dedupe,
    files_below,
    flipped,
    keys_of,
    opened,
    place,
    run_job,
    shortened,
)
from tests.jobs.layouts import lay_out, store_of
from tests.stores import bucket_root, bucket_store, push_image
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import STALE_UPLOAD_S, VerifyOptions, verify
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.clock import DAY_S

IMAGE = images.image("x", layers=2)
LAYER = digest_of(IMAGE.blobs[-1])


def run(store: Store, *, deep: bool = False) -> Report:
    return run_job(store, "verify", lambda run: verify(run, VerifyOptions(deep=deep)), dry_run=True)


def synced(place: Place, directory: Path) -> None:  # noqa: F811
    """As `aws s3 sync` brings a tree of layouts."""
    for name in files_below(directory):
        place.objects.put(name, (directory / name).read_bytes())


@pytest.mark.parametrize("deep", [False, True])
def test_a_store_is_whole_and_nothing_is_written(place: Place, dedupe: bool, deep: bool) -> None:  # noqa: F811
    push_image(opened(place, dedupe=dedupe), "a", "v1", seed="x")
    push_image(opened(place, dedupe=dedupe), "a/b", "v1", seed="x")
    before = [(found.key, found.etag) for found in place.objects.list("")]
    counted = Counted(place.objects)
    reading = opened(place, dedupe=dedupe, objects=counted)
    bucket_of(reading.roots[0]).context.read_only = True
    report = run(reading, deep=deep)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    assert (report.summary["repositories"], report.summary["blobs"]) == (2, 8)
    assert not {"put", "delete", "copy", "execute"} & set(counted.taken())
    assert [(found.key, found.etag) for found in place.objects.list("")] == before


def test_damage_is_found(place: Place, dedupe: bool) -> None:  # noqa: F811
    push_image(opened(place, dedupe=dedupe), "a", "v1", seed="x")
    key = keys.shared(LAYER) if dedupe else keys.blob("a", LAYER)
    place.rewrite(key, flipped)
    assert run(opened(place, dedupe=dedupe)).exit_code == 0
    found = run(opened(place, dedupe=dedupe), deep=True).findings
    assert [(f.digest, f.kind, f.tags) for f in found] == [(LAYER, "digest_mismatch", ("v1",))]
    place.rewrite(key, shortened)
    assert [f.kind for f in run(opened(place, dedupe=dedupe)).findings] == ["size_mismatch"]
    place.objects.delete(key)
    assert [f.kind for f in run(opened(place, dedupe=dedupe)).findings] == ["missing_blob"]


def test_a_bucket_that_was_synced_has_the_findings_of_its_directory(place: Place, tmp_path: Path) -> None:  # noqa: F811
    lay_out(tmp_path, "one", IMAGE, "v1", "v2")
    lay_out(tmp_path, "two/three", images.image("y"), "v1")
    (tmp_path / "two/three/blobs/sha256" / images.image("y").digest.encoded).unlink()
    (tmp_path / "one/blobs/sha256" / LAYER.encoded).write_bytes(b"")
    (tmp_path / "bare").mkdir()
    for name in ("index.json", "oci-layout"):
        (tmp_path / "bare" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    (tmp_path / "bare" / "index.json").write_bytes(b"{")
    synced(place, tmp_path)
    (tmp_path / "bare" / "blobs").mkdir()  # no prefix says that a directory is there

    def told(report: Report) -> set[tuple[object, ...]]:
        found = (f for f in report.findings if f.kind != "mode")
        return {(f.repository, f.digest, f.kind, f.tags) for f in found}

    for deep in (False, True):
        assert told(run(opened(place), deep=deep)) == told(run(store_of(tmp_path, dedupe=False), deep=deep)) != set()


@pytest.mark.parametrize("days", [-2, 2])
def test_the_clock_of_the_object_store_counts(days: int) -> None:
    """And none of a host that is days off: an upload is under way, or its client is gone."""
    place = InMemory()  # noqa: F811
    opened(place).repository_for_push("a").start_upload()
    host = Hand(place.clock.at + days * DAY_S)
    assert run(bucket_store(place.objects, host)).findings == []
    place.clock.sleep(STALE_UPLOAD_S + 1)
    (finding,) = run(bucket_store(place.objects, host)).findings
    assert "no client continues" in finding.reason


# -- the list of repositories -------------------------------------------------------------------


def test_what_came_without_a_push_is_listed(place: Place, tmp_path: Path) -> None:  # noqa: F811
    for name in ("b", "a-b", "a/b", "a"):
        lay_out(tmp_path, name, IMAGE, "v1")
    synced(place, tmp_path)
    counted = Counted(place.objects)
    store = opened(place, objects=counted)
    assert store.repositories() == ["a", "a/b", "a-b", "b"]
    counted.taken()
    assert opened(place, objects=counted).repositories(2) == ["a", "a/b"]
    assert counted.taken() == ["head", "list"], "is the list made? and the list"
    lay_out(tmp_path / "more", "c", IMAGE, "v1")
    synced(place, tmp_path / "more")
    assert store.repositories(last="b") == []
    assert run(opened(place)).summary["repositories"] == 5, "a job walks"
    run_job(opened(place), "scrub", lambda run: scrub(run, ScrubOptions(workers=1)))
    assert store.repositories(last="b") == ["c"], "and the list has it from then on"


def test_a_list_that_can_not_be_kept_is_no_error() -> None:
    place = InMemory()  # noqa: F811
    push_image(opened(place), "a", "v1")
    place.objects.delete(keys.listed_name("a"))
    root = bucket_root(place.objects, place.clock)
    bucket_of(root).context.read_only = True
    before = keys_of(place)
    assert list(root.catalog.walk()) == list(root.catalog.everything()) == ["a"]
    assert keys_of(place) == before
