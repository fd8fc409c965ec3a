"""`gc --restore` of tags, on both kinds of store: to what they led to, while that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import images
from tests.jobs.retaining import KINDS, NAME, Place, keep
from tests.jobs.test_gc import DELAY
from tests.stores import history_of, push_image
from zotctl.config import KeepTags, Policy, Retention
from zotctl.errors import ReadOnly, UsageError
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.local.trash import LocalTrash
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.store.close()


def bring_back(place: Place, what: str, *policies: Policy, dry_run: bool = False) -> Report:
    place.store.close()
    place.store = place.another()
    rules = Rules(Retention(policies=policies) if policies else None, DELAY)
    run = Run("gc", place.store, dry_run=dry_run)
    return run.finish(lambda: restore(run, what, lambda _: GcOptions(DELAY, rules=rules)))


def leads_to(place: Place, tag: str) -> Any:
    return place.store.repository(NAME).manifest(tag).digest


def test_a_tag_that_was_moved_leads_back(place: Place) -> None:
    old, new = place.push("v1", seed="1"), place.push("v1", seed="2")
    report = bring_back(place, f"{NAME}:v1")
    assert (report.exit_code, report.items[0]["digest"], report.items[0]["before"]) == (0, old, new)
    assert leads_to(place, "v1") == old
    bring_back(place, f"{NAME}:v1")
    assert leads_to(place, "v1") == new, "and again"


def test_a_tag_that_a_client_removed_comes_back(place: Place) -> None:
    digest = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest("v1")
    assert bring_back(place, f"{NAME}:v1").exit_code == 0
    assert leads_to(place, "v1") == digest and place.has(digest)


def test_a_chosen_digest_is_taken(place: Place) -> None:
    first = place.push("v1", seed="1")
    place.push("v1", seed="2")
    place.push("v1", seed="3")
    assert bring_back(place, f"{NAME}:v1@{first}").exit_code == 0
    assert leads_to(place, "v1") == first


def test_i5_what_is_gone_for_good_is_no_tag(place: Place) -> None:
    place.push("kept", seed="kept")
    gone = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest(gone)
    place.rounds()
    report = bring_back(place, f"{NAME}:v1")
    assert report.exit_code == 10 and "it was removed at" in report.errors[0]["reason"]
    assert place.tags == ["kept"]


def test_i5_a_tag_whose_layer_is_gone_does_not_come_back(place: Place) -> None:
    place.push("v1", seed="1")
    place.push("v1", seed="2")
    layer = f"{NAME}/blobs/sha256/" + images.digest_of(images.image("1").blobs[1]).encoded
    place.store.close()
    if place.kind == "bucket":
        place.memory.delete(layer)
    else:
        place.driver.unlink(layer)
    new = place.store.repository(NAME).manifest("v1").digest
    assert bring_back(place, f"{NAME}:v1").exit_code == 10
    assert leads_to(place, "v1") == new


def test_a_rehearsal_moves_no_tag(place: Place) -> None:
    place.push("v1", seed="1")
    new = place.push("v1", seed="2")
    assert bring_back(place, f"{NAME}:v1", dry_run=True).items[0]["action"] == "restore"
    assert leads_to(place, "v1") == new


def test_what_nobody_knows_is_refused_with_the_way_out(place: Place) -> None:
    place.push("v1", seed="1")
    report = bring_back(place, f"{NAME}:v1")
    assert report.exit_code == 10 and "@DIGEST" in report.errors[0]["reason"]


def test_what_the_next_run_takes_again_is_told(place: Place) -> None:
    policy = Policy(("**",), delete_untagged=False, keep_tags=(KeepTags(patterns=("kept",)),))
    place.push("kept", seed="kept")
    digest = place.push("v1", seed="1")
    place.later()
    place.collect(policy)
    assert place.tags == ["kept"]
    report = bring_back(place, f"{NAME}:v1", policy)
    assert leads_to(place, "v1") == digest
    (note,) = [item for item in report.items if item["action"] == "note"]
    assert note["tag"] == "v1" and "no keepTags entry" in note["reason"] and note["removed_after_at"]
    place.later()
    place.collect(policy)
    assert place.tags == ["kept"], "as it was told"


def test_a_repository_gets_the_tags_back_that_a_policy_took(place: Place) -> None:
    """And not those that a client removed."""
    old, new = place.push("v1", seed="1"), place.push("v2", seed="2")
    place.push("mine", seed="3")
    place.store.repository(NAME).delete_manifest("mine")
    place.later()
    place.collect(keep(1, delete_untagged=False))
    assert place.tags == ["v2"]
    assert bring_back(place, NAME).exit_code == 0
    assert place.tags == ["v1", "v2"] and (leads_to(place, "v1"), leads_to(place, "v2")) == (old, new)


def test_a_tag_that_came_back_with_its_manifest_is_not_given_twice() -> None:
    """A policy took both: the manifest is in the trash, the tag in the history."""
    place = Place("directory")
    old = place.push("v1", seed="1")
    place.push("v2", seed="2")
    while place.store.repository(NAME).tags() != ["v2"] or not list(LocalTrash(place.store.roots[0]).contents()):
        place.later(1.1)
        place.collect(keep(1))
    report = bring_back(place, NAME)
    assert (report.exit_code, report.errors) == (0, []) and leads_to(place, "v1") == old
    assert {item["action"] for item in report.items} == {"restore"} and all("tag" not in item for item in report.items)
    events = [event for event in history_of(place.store, NAME) if event.get("by") == "gc --restore"]
    assert len(events) == 1


def test_a_deleted_repository_comes_back_with_its_tags() -> None:
    place = Place("directory")
    digest, other = place.push("v1", "v2", seed="1"), place.push("v3", seed="2")
    for each in (digest, other):
        place.store.repository(NAME).delete_manifest(each)
    report = bring_back(place, NAME)
    assert (report.exit_code, report.errors) == (0, [])
    assert place.tags == ["v1", "v2", "v3"] and place.has(digest) and place.has(other)
    assert [event["by"] for event in history_of(place.store, NAME) if "by" in event] == ["gc --restore"] * 2


def test_a_tag_that_another_manifest_has_by_now_stays_there() -> None:
    place = Place("directory")
    digest = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest(digest)
    new = place.push("v1", seed="2")
    assert bring_back(place, f"{NAME}@{digest}").exit_code == 0
    assert leads_to(place, "v1") == new and place.has(digest)


def test_what_is_purged_meanwhile_was_not_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("directory")
    place.push("kept", seed="kept")
    digest = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest(digest)
    listed = list(LocalTrash(place.store.roots[0]).contents())
    place.rounds(count=2)
    monkeypatch.setattr(LocalTrash, "contents", lambda self: iter(listed))
    report = bring_back(place, f"{NAME}@{digest}")
    assert (report.exit_code, report.items, report.summary) == (5, [], {})
    assert "deleted for good meanwhile" in report.errors[0]["reason"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_told_of_a_tag_that_can_not_come_back(place: Place, dry_run: bool) -> None:
    place.push("kept", seed="kept")
    gone = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest(gone)
    place.rounds()
    report = bring_back(place, f"{NAME}:v1", dry_run=dry_run)
    assert (report.exit_code, report.items, report.summary) == (10, [], {})


def test_a_tag_comes_back_with_a_manifest_that_a_client_deleted() -> None:
    """From the trash of its own repository."""
    place = Place("directory")
    digest = place.push("v1", seed="1")
    place.push("kept", seed="kept")
    push_image(place.store, "other", "v1", seed="1")
    for name in ("other", NAME):
        place.store.repository(name).delete_manifest(digest)
    assert bring_back(place, f"{NAME}:v1").exit_code == 0
    assert leads_to(place, "v1") == digest and place.has(digest)
    assert not place.store.repository("other").tags()


def test_a_repository_that_is_not_meant_or_only_read_gets_no_tag_back(place: Place) -> None:
    place.push("v1", seed="1")
    place.push("v1", seed="2")
    run = Run("gc", place.store, repos=["other"])
    with pytest.raises(UsageError, match="--repo does not cover it"):
        restore(run, f"{NAME}:v1", lambda _: GcOptions(DELAY))
    place.store.close()
    place.store = place.another()
    place.store.roots[0].read_only = True
    with pytest.raises(ReadOnly, match="only read from here"):
        restore(Run("gc", place.store), f"{NAME}:v1", lambda _: GcOptions(DELAY))
