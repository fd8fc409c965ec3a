"""`gc --explain`: what it says is what collections then do, and when."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests import images
from tests.jobs.collecting import DELAY, Place
from tests.stores import push_image, push_index
from zotctl.config import KeepTags, Policy, Retention
from zotctl.errors import ClockDoubtful, StorageError, ZotctlError
from zotctl.jobs import explain as explaining
from zotctl.jobs.ages import UPLOAD_SPARED_S
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of


@pytest.fixture
def place() -> Place:
    made = Place()
    push_image(made.store, "a", "v1")
    return made


def told(place: Place, what: str | Digest, **options: object) -> list[dict[str, object]]:
    chosen = GcOptions(**{"delay": DELAY, "rules": Rules(delay=DELAY)} | options)  # type: ignore[arg-type]
    run = Run("gc", place.store)
    return run.finish(lambda: explain(run, str(what), lambda _: chosen)).items


def seconds(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp()


def test_what_nothing_reaches_goes_after_the_delay_and_then_lies_in_the_trash(place: Place) -> None:
    began, stray = place.clock.at, place.stray()
    (item,) = told(place, stray, trash=5 * DELAY)
    assert (item["verdict"], item["why"]) == ("goes", "no manifest reaches it")
    assert seconds(item["trashed_after_at"]) - began == pytest.approx(DELAY, abs=2)
    assert seconds(item["purged_after_at"]) - began == pytest.approx(6 * DELAY, abs=2)


def test_what_is_dated_ahead_of_the_clock_may_stay_longer(place: Place) -> None:
    """A run notes it, but once the clock is there, its own date counts."""
    digest = push_image(place.store, "a", seed="untagged")
    place.clock.at -= 100
    (item,) = told(place, digest, rules=Rules(delay=DELAY, untagged=True))
    assert item["verdict"] == "goes" and "dated ahead of the clock" in str(item["why"])
    place.clock.at += 100
    (item,) = told(place, digest, rules=Rules(delay=DELAY, untagged=True))
    assert item["verdict"] == "goes" and "ahead" not in str(item["why"])


def test_an_upload_that_began_before_it_keeps_it(place: Place) -> None:
    place.store.repository_for_push("a").start_upload()
    place.wait(0.1)
    assert "is still moving" in str(told(place, place.stray())[0]["why"])


def test_an_upload_keeps_it_for_a_day_after_it_began_at_most(place: Place) -> None:
    repository, began = place.store.repository_for_push("a"), place.clock.at
    upload_id, stray = repository.start_upload(), place.stray()
    place.clock.at += UPLOAD_SPARED_S - DELAY / 2
    with repository.resume_upload(upload_id) as upload:
        upload.write([b"x"])
    (item,) = told(place, stray)
    assert seconds(item["trashed_after_at"]) - began == pytest.approx(UPLOAD_SPARED_S, abs=2)


def test_a_deleted_subject_lies_in_the_trash_though_a_referrer_names_it(place: Place) -> None:
    digest = push_image(place.store, "a", "v2", seed="subject")
    signature = push_image(place.store, "a", seed="signature", subject=digest)
    place.store.repository("a").delete_manifest(digest)
    (item,) = told(place, digest)
    assert (item["verdict"], item["digest"]) == ("in trash", digest)
    assert f"a client deleted it; {signature} still names it as its subject" in str(item["why"])
    assert item["former_tags"] and item["purged_after_at"]


def test_a_child_goes_after_the_tag_of_its_index(place: Place) -> None:
    child = push_image(place.store, "a", seed="child")
    push_index(place.store, "a", "multi", children=[child])
    policy = Policy(("**",), keep_tags=(KeepTags(patterns=("v1",)), KeepTags(pushed_within=5 * DELAY)))
    (item,) = told(place, child, rules=Rules(Retention(policies=(policy,)), DELAY))
    assert item["verdict"] == "goes", item
    assert seconds(item["removed_after_at"]) - place.clock.at == pytest.approx(6 * DELAY, abs=2)


def test_in_the_trash_it_is_told_for_the_repository_in_which_it_lay(place: Place) -> None:
    """Once for each, though one run has trashed them all."""
    push_image(place.store, "b", "v1")
    stray = place.stray()
    place.stray(name="b")
    place.wait(2)
    place.collect()
    items = told(place, stray, trash=5 * DELAY)
    assert [(item["verdict"], item["repository"]) for item in items] == [("in trash", "a"), ("in trash", "b")]


def test_what_lies_in_the_trash_twice_goes_with_the_last(place: Place) -> None:
    """Once trashed, brought back by a request, and trashed again."""
    stray = place.stray()
    place.wait(2)
    place.collect()
    place.wait(0.5)
    assert place.store.repository("a").blob(stray) == 5
    place.collect(trash=5 * DELAY)
    trashed = place.clock.at
    (item,) = told(place, stray, trash=5 * DELAY)
    assert len(place.in_trash()) == 2 and item["verdict"] == "in trash"
    assert seconds(item["purged_after_at"]) - trashed == pytest.approx(5 * DELAY, abs=2)


def test_a_subject_that_a_client_deleted_is_not_kept_by_its_signature(place: Place) -> None:
    subject = push_image(place.store, "a", "v2", seed="subject")
    signature = push_image(place.store, "a", seed="signature", subject=subject)
    place.store.repository("a").delete_manifest(subject, user="ann")
    (item,) = told(place, subject)
    assert item["verdict"] == "in trash" and str(item["why"]).startswith(
        f"a client deleted it; {signature} still names"
    )
    assert [tag["tag"] for tag in item["former_tags"]] == ["v2"]  # type: ignore[attr-defined]
    (named,) = told(place, "a:v2")
    assert (named["digest"], named["tag"]) == (subject, "v2")


def test_what_is_gone_says_since_when_and_by_whom(place: Place) -> None:
    gone = push_image(place.store, "a", "v2", seed="gone")
    place.store.repository("a").delete_manifest(gone, user="ann")
    for _ in range(3):
        place.wait(1.5)
        place.collect()
    (item,) = told(place, gone)
    assert (item["verdict"], item["by"]) == ("gone", "ann")
    assert seconds(item["unreachable_since_at"]) < seconds(item["purged_at"])


def test_nothing_goes_where_retention_is_rehearsed(place: Place) -> None:
    untagged = push_image(place.store, "a", seed="untagged")
    (item,) = told(place, untagged, dry_run=True)
    assert item["verdict"] == "kept" and "retention.dry_run" in str(item["why"])


def test_an_untagged_manifest_that_is_kept_says_by_which_rule(place: Place) -> None:
    untagged = push_image(place.store, "a", seed="untagged")
    (item,) = told(place, untagged, rules=Rules(untagged=False))
    assert item["verdict"] == "kept" and "gc_untagged is none" in str(item["why"])


def test_what_is_kept_by_a_row_that_goes_is_told_so(place: Place) -> None:
    """The chain begins at a row without a tag where none has one."""
    untagged, layer = push_image(place.store, "a", seed="untagged"), digest_of(images.image("untagged").blobs[1])
    place.wait(2)
    rules = Rules(Retention(policies=(Policy(("**",)),)), DELAY)
    (goes,) = told(place, layer, rules=rules)
    assert goes["verdict"] == "goes" and "deleteUntagged" in str(goes["why"])
    assert goes["chain"] == [str(untagged), str(layer)]


@pytest.mark.parametrize("what", ["gone", "gone:v1", "gone@DIGEST"])
def test_of_a_repository_that_is_gone_history_is_asked(place: Place, what: str) -> None:
    digest = push_image(place.store, "gone", "v1", seed="gone")
    place.store.close()
    for key in [key for key in place.driver.names if key.startswith("gone/") and not place.driver.stat(key).is_dir]:
        place.driver.unlink(key)
    place.store = place.open()
    (item,) = told(place, what.replace("DIGEST", str(digest)))
    assert (item["verdict"], item["digest"]) == ("gone", digest)
    assert told(place, f"gone@{digest_of(b'never seen')}") == []


def test_what_nothing_reaches_stays_where_retention_is_rehearsed(place: Place) -> None:
    (item,) = told(place, place.stray(), dry_run=True)
    assert item["verdict"] == "kept" and "retention.dry_run" in str(item["why"])


@pytest.mark.parametrize("error", [ClockDoubtful("it is the year 1970"), StorageError("it can't be read")])
def test_a_clock_in_doubt_is_told(place: Place, monkeypatch: pytest.MonkeyPatch, error: ZotctlError) -> None:
    """But what can't be looked at is told by the repositories."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(explaining, "require_clock", refuse)
    run = Run("gc", place.store)
    run.finish(lambda: explain(run, "a:v1", lambda _: GcOptions(compares_clock=True)))
    assert [said["reason"] for said in run.report.errors] == ([error.message] if error.message[-1] == "0" else [])


def test_a_row_that_stays_says_why(place: Place) -> None:
    """Where no policy is about its repository, or it has a name that is no tag."""
    untagged = push_image(place.store, "a", seed="untagged")
    rules = Rules(Retention(policies=(Policy(("other",)),)), DELAY)
    (item,) = told(place, untagged, rules=rules)
    assert item["verdict"] == "kept" and "no retention policy matches" in str(item["why"])
    place.tool_writes(images.image("named"), "no tag/at all")
    (item,) = told(place, images.image("named").digest)
    assert item["verdict"] == "kept" and "has a name, though not one that is a tag" in str(item["why"])
