"""import-layout --mirror: the target follows its source, in a directory and in a bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.counting import Counted
from tests.jobs.importing import actions
from tests.jobs.layouts import age, lay_out, store_of
from tests.jobs.mirroring import Target, Watched, change, dropped, image, rows_of
from tests.jobs.test_import_distribution import push as push_old
from tests.stores import drop_rows, history_of, push_image, push_index
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.imports import sources
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import read
from zotctl.storage.opening import directory


def collect(store: Store) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: gc(run, lambda _: GcOptions(0.0, trash=3600.0)))


def bring_back(store: Store, what: str) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: restore(run, what))


# -- what follows -------------------------------------------------------------------------------


def test_moved_tags_move_and_deleted_ones_go(target: Target, source: Path) -> None:
    assert target.mirror(source).exit_code == 0
    before = target.rows()
    assert before == rows_of(store_of(source))
    change(source)
    foretold = target.mirror(source, dry_run=True)
    assert (foretold.exit_code, target.rows()) == (0, before)
    report = target.mirror(source)
    assert (report.exit_code, report.errors, report.findings) == (0, [], [])
    assert target.rows() == rows_of(store_of(source))
    assert dropped(report) == dropped(foretold)
    assert ("a", "v2", image("2")) in dropped(report) and ("a", None, image("child")) in dropped(report)
    assert {tag for name, tag, _ in dropped(report) if name == "b/gone"} == {"v1", "v2", None}
    assert report.summary["dropped"] == len(dropped(report))
    assert report.summary["repositories_removed"] == foretold.summary["repositories_removed"] == 1
    assert all(str(source) in item["reason"] for item in actions(report, "drop"))


def test_a_tag_that_moved_leaves_nothing_behind(target: Target, source: Path) -> None:
    """Its old manifest has no row in the source, so it has none here."""
    target.mirror(source)
    store = store_of(source)
    push_image(store, "b/c", "v1", seed="new")
    drop_rows(store, "b/c", image("1"))
    assert dropped(target.mirror(source)) == {("b/c", None, image("1"))}
    assert target.rows()["b/c"] == {("v1", image("new"))}


def test_untagged_manifests_follow_too(target: Target, source: Path) -> None:
    target.mirror(source)
    push_image(target.store, "b/c", seed="own")
    drop_rows(target.open(), "a", image("untagged"))
    assert dropped(target.mirror(source)) == {("b/c", None, image("own"))}
    assert target.rows() == rows_of(store_of(source))


def test_a_repository_that_has_lost_all_its_rows_is_emptied(target: Target, source: Path) -> None:
    target.mirror(source)
    drop_rows(store_of(source), "b/c", image("1"))
    assert target.mirror(source).exit_code == 0
    assert "b/c" not in target.rows() and "b/gone" in target.rows()


def test_what_a_row_of_the_source_leads_to_stays(target: Target, tmp_path: Path) -> None:
    """The source's index lists a child without a row, as skopeo writes it; here the child has one."""
    made = images.image("child")
    body = images.index([(made.digest, len(made.manifest))])
    top = images.Image(body, [*made.blobs, made.manifest])
    listed = images.row(top, "v1", mediaType=OCI_INDEX)
    source = age(images.lay_out(tmp_path / "tree/a", top, [listed])).parent
    target.mirror(source)
    assert target.rows()["a"] == {("v1", str(top.digest)), (None, str(made.digest))}
    report = target.mirror(source)
    assert (dropped(report), report.exit_code) == (set(), 0)
    assert target.rows()["a"] == {("v1", str(top.digest)), (None, str(made.digest))}


def test_a_repository_of_which_a_collector_removes_the_rest_is_named_once(target: Target, source: Path) -> None:
    target.mirror(source)
    shutil.rmtree(source / "b/gone")
    assert dropped(target.mirror(source))
    again = target.mirror(source)
    assert (dropped(again), again.summary.get("repositories_removed", 0), again.exit_code) == (set(), 0, 0)


# -- how far it reaches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({}, {"own", "mirror", "mirror/own", "mirrored/own"}),
        ({"repo": "mirror", "all": True}, {"mirror/own"}),
    ],
    ids=["whole", "below"],
)
def test_only_what_lies_where_the_source_goes(
    target: Target, source: Path, options: dict[str, Any], gone: set[str]
) -> None:
    own = {"own", "mirror", "mirror/own", "mirrored/own"}
    for name in own:
        push_image(target.store, name, "v1", seed="own")
    report = target.mirror(source, **options)
    assert {item["repository"] for item in actions(report, "drop")} == gone
    prefix = f"{options['repo']}/" if options else ""
    assert target.rows().keys() == {f"{prefix}{name}" for name in rows_of(store_of(source))} | (own - gone)


@pytest.mark.parametrize("repo", [None, "b"])
def test_one_layout_decides_about_no_other_repository(target: Target, tmp_path: Path, repo: str | None) -> None:
    made, name = images.image("1"), repo or "one"
    for other in (name, f"{name}/below", "other"):
        push_image(target.store, other, "v1", "own", seed="own")
    report = target.mirror(lay_out(tmp_path, "one", made, "v1"), repo=repo)
    assert dropped(report) == {(name, "own", image("own")), (name, None, image("own"))}
    assert target.rows()[name] == {("v1", str(made.digest))} and len(target.rows()) == 3


def test_a_tree_with_one_layout_is_followed_by_its_path(target: Target, tmp_path: Path) -> None:
    """However few are left in it: by the names in its rows the image would go elsewhere."""
    made = images.image("1")
    source = lay_out(tmp_path / "tree", "a", made, "docker.io/library/busybox:1.36").parent
    push_image(target.store, "b", "v1")
    target.mirror(source)
    assert target.rows() == {"a": {("1.36", str(made.digest))}}


def test_one_layout_without_images_names_no_repository(target: Target, tmp_path: Path) -> None:
    source = lay_out(tmp_path, "one", images.image("1"), "v1")
    (source / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    push_image(target.store, "one", "v1")
    report = target.mirror(source)
    assert report.exit_code == 2 and "--repo" in report.errors[0]["reason"] and target.rows().keys() == {"one"}
    assert target.mirror(source, repo="one").exit_code == 0
    assert target.rows() == {}


def test_a_bucket_is_followed(target: Target, source: Path, from_place: list[Store]) -> None:
    beside = Target("bucket")
    for wanted in (source, None):
        if wanted is None:
            change(source)
        beside.mirror(source)
        from_place.append(beside.open())
        report = target.mirror("s3://elsewhere/root")
        assert (report.exit_code, report.errors, report.findings) == (0, [], [])
        assert target.rows() == rows_of(store_of(source))


def test_the_storage_of_distribution_is_followed(target: Target, tmp_path: Path) -> None:
    old = tmp_path / "old"
    push_old(old, "app", images.image("1"), "v1")
    push_old(old, "app", images.image("2"), "v2")
    push_image(target.store, "own", "v1")
    target.mirror(old)
    (old / "docker/registry/v2/repositories/app/_manifests/tags/v2/current/link").unlink()
    assert dropped(target.mirror(old)) == {("app", "v2", image("2"))}
    assert target.rows() == {"app": {("v1", image("1")), (None, image("2"))}}


# -- what the target has lost -------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["layer", "child", "manifest"])
def test_what_the_target_lacks_comes_anew(target: Target, source: Path, lost: str) -> None:
    """Though its index.json is that of the source: a backup that lost something must not stay so for ever."""
    assert target.mirror(source).exit_code == 0
    made = images.image("1")
    body = {"layer": made.blobs[1], "child": images.image("child").manifest, "manifest": made.manifest}[lost]
    key = keys.blob("a", digest_of(body))
    target.remove(key)
    assert target.mirror(source).exit_code == 0
    assert read(target.open().roots[0].driver, key, 1 << 20) == body
    assert target.rows() == rows_of(store_of(source))


def test_a_manifest_that_is_damaged_in_the_target_comes_anew(target: Target, source: Path) -> None:
    """It is read, so that its damage is known."""
    target.mirror(source)
    body = images.image("1").manifest
    key = keys.blob("a", digest_of(body))
    target.write(key, body[:-1] + b" ")
    target.mirror(source, dry_run=True)
    assert target.open().roots[0].maintenance.damaged() == set(), "a rehearsal marks nothing"
    assert target.mirror(source).exit_code == 0
    assert read(target.open().roots[0].driver, key, 1 << 20) == body


def test_what_the_target_knows_to_be_damaged_comes_anew(target: Target, source: Path) -> None:
    target.mirror(source)
    layer = images.image("1").blobs[1]
    key = keys.blob("a", digest_of(layer))
    target.write(key, bytes(len(layer)))
    assert target.mirror(source).exit_code == 0, "nobody knows"
    checked = Run("scrub", target.open())
    assert checked.finish(lambda: scrub(checked, ScrubOptions(workers=1))).exit_code == 4
    assert target.mirror(source).exit_code == 0
    assert read(target.open().roots[0].driver, key, 1 << 20) == layer


# -- what it costs ------------------------------------------------------------------------------


def test_of_unchanged_repositories_only_manifests_are_opened_and_nothing_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target("directory")
    target.mirror(source)
    kept = target.driver
    here, there = Watched(kept), Watched(directory(str(source)))
    monkeypatch.setattr(sources, "directory", lambda path, **_: there)
    target.another = lambda wrapped=None: Target.another(target, here)  # type: ignore[method-assign]
    report = target.mirror(source)
    rows = sum(map(len, rows_of(store_of(source)).values()))
    assert (report.exit_code, report.items, report.summary["unchanged"]) == (0, [], rows)
    opened = {call.key.rpartition("/")[2] for call in there.calls if call.method == "open"}
    assert opened <= {"index.json", "oci-layout"}
    read_here = {call.key for call in here.calls if call.method == "open" and "/blobs/" in call.key}
    listed = {f"{name}/blobs/sha256/{digest[7:]}" for name, some in target.rows().items() for _, digest in some}
    assert read_here == listed
    assert not [call for call in there.calls if ".zotctl/history" in call.key]
    writes = ("create", "append", "link", "rename", "exchange", "unlink", "mkdir", "sync_file", "sync_dir")
    assert not [call for call in here.calls if call.method in writes and not call.key.startswith(".zotctl")]


def test_what_is_unclear_is_told_by_each_run(target: Target, source: Path) -> None:
    """Though all of it that is understood is there already."""
    index = source / "b/c/index.json"
    document = json.loads(index.read_bytes())
    index.write_text(json.dumps(document | {"manifests": [*document["manifests"], {"mediaType": OCI_MANIFEST}]}))
    first, second = target.mirror(source), target.mirror(source)
    assert [finding.kind for finding in second.findings] == [finding.kind for finding in first.findings] != []
    assert second.exit_code == first.exit_code != 0


def test_an_unchanged_repository_of_a_bucket_costs_its_manifests_and_a_list(source: Path) -> None:
    target = Target("bucket")
    target.mirror(source)
    counted = Counted(target.objects)
    target.another = lambda wrapped=None: Target.another(target, counted)  # type: ignore[method-assign]
    assert target.mirror(source).exit_code == 0
    asked = [(method, key) for method, key in counted.requests if not key.startswith(".zotctl")]
    rows = rows_of(store_of(source))
    manifests = {f"{name}/blobs/sha256/{digest[7:]}" for name, some in rows.items() for _, digest in some}
    assert sorted(key for method, key in asked if method == "open") == sorted(manifests)
    assert len([one for one in asked if "blobs" in one[1] and one[0] != "open"]) <= 2 * len(rows) + 1
    assert len([key for _, key in asked if key.endswith("index.json")]) <= 2 * len(rows)
    assert not [key for method, key in asked if method in ("put", "delete", "copy")]


# -- the way back -------------------------------------------------------------------------------


def test_history_and_audit_file_tell_what_went(target: Target, source: Path, audit: Path) -> None:
    target.mirror(source)
    change(source)
    target.mirror(source, dry_run=True)
    assert audit.read_text() == ""
    target.mirror(source)
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    told = {(line["action"], line["repository"], line["tag"], line["digest_before"]) for line in lines}
    assert {("untag", "a", "v2", image("2")), ("delete", "a", None, image("2"))} <= told
    assert ("move", "a", "v1", image("1")) in told
    reasons = {line["reason"] for line in lines if line["action"] == "untag" and line["repository"] == "a"}
    assert reasons == {f"import-layout --mirror: {source}/a has it no more"}
    target.store.close()
    events = [event for event in history_of(target.store, "a") if event["a"] in ("untag", "drop")]
    assert all(event["by"].startswith("import-layout --mirror") for event in events)
    assert {"untag", "drop"} == {event["a"] for event in events}


def test_a_tag_that_went_comes_back(target: Target, source: Path) -> None:
    target.mirror(source)
    before = target.rows()
    change(source)
    target.mirror(source)
    assert bring_back(target.open(), "a:v2").exit_code == 0
    assert ("v2", image("2")) in target.rows()["a"]
    assert bring_back(target.open(), "b/gone").exit_code == 0
    assert target.rows()["b/gone"] == before["b/gone"] - {(None, image("gone"))}


def test_what_a_collection_took_since_comes_back_from_the_trash(source: Path) -> None:
    target = Target("directory")
    target.mirror(source)
    change(source)
    target.mirror(source)
    assert collect(target.open()).exit_code == 0
    assert "b/gone" not in target.store.repositories() and actions(collect(target.open()), "purge") == []
    assert bring_back(target.open(), "b/gone").exit_code == 0
    assert target.rows()["b/gone"] == {("v1", image("gone")), ("v2", image("gone"))}


def test_a_dry_run_drops_no_child_of_what_stays(target: Target, source: Path) -> None:
    """An index in the source has no rows of its children; the import gives them some."""
    store = store_of(source)
    child = push_image(store, "b/many", seed="child")
    push_index(store, "b/many", "v1", children=[child])
    drop_rows(store, "b/many", child)
    target.mirror(source)
    push_image(store, "b/many", "v2", seed="new")
    assert dropped(target.mirror(source, dry_run=True)) == set()
