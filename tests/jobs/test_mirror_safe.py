"""import-layout --mirror removes nothing that the source may still have: what is refused, what stays, and in which
order things are done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.faults import Crash
from tests.jobs.distribution import push as push_old
from tests.jobs.distribution import put_all
from tests.jobs.importing import actions, blob_file, kinds, local_store, run_import, tar_of
from tests.jobs.layouts import Leaving, lay_out, store_of
from tests.jobs.mirroring import Target, change, dropped, image, rows_of
from tests.stores import push_image, push_index, store_over
from zotctl.errors import UsageError
from zotctl.jobs.imports import job
from zotctl.jobs.imports.mirror import Mirror
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import REF_NAME
from zotctl.storage import Store, keys
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.driver import Driver, read
from zotctl.storage.local.driver import LocalDriver


@pytest.fixture
def changed(target: Target, source: Path) -> Path:
    """The source after a first run, with something to remove in `a`, `b/c` and as a whole."""
    assert target.mirror(source).exit_code == 0
    change(source)
    push_image(store_of(source), "b/c", "v2", seed="new")
    store_of(source).repository_for_push("b/c").delete_manifest("v1")
    return source


# -- all of the source first --------------------------------------------------------------------


def test_i4_nothing_goes_before_all_of_the_source_is_in(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever commit the run is killed before: and the next run ends it."""
    before = target.rows()
    for commits in range(20):
        left = [commits]
        store = target.open()
        protocol = store.roots[0].protocol
        commit_index = protocol.commit_index

        def dying(
            name: str, changes: Any, left: list[int] = left, commit: Callable[..., Any] = commit_index
        ) -> list[Any]:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return commit(name, changes)

        monkeypatch.setattr(protocol, "commit_index", dying)
        try:
            run_import(store, changed, mirror=True)
        except Crash:
            pass
        else:
            break
        found, wanted = target.rows(), rows_of(store_of(changed))
        is_in = all(found.get(name, set()) >= rows for name, rows in wanted.items())
        moved = {(name, row) for name, rows in before.items() for row in rows if row == ("v1", image("1"))}
        gone = {(name, row) for name, rows in before.items() for row in rows - found.get(name, set())} - moved
        assert is_in or not gone
    assert commits > 4
    assert target.rows() == rows_of(store_of(changed))


def test_the_rows_of_a_repository_go_by_one_commit(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = target.open(), list[str]()
    protocol = store.roots[0].protocol
    commit = protocol.commit_index
    monkeypatch.setattr(protocol, "commit_index", lambda name, changes: (names.append(name), commit(name, changes))[1])
    assert len(dropped(run_import(store, changed, mirror=True))) > 6
    assert sorted(names) == ["a", "a", "b/c", "b/c", "b/gone", "d"]


def test_a_run_that_is_stopped_in_time_removes_nothing(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ticks = target.open(), iter(range(100_000))
    monkeypatch.setattr(store.clock, "elapsed", lambda: float(next(ticks)))
    report = run_import(store, changed, mirror=True, max_duration=3.0)
    assert (report.exit_code, dropped(report)) == (16, set())
    assert target.rows()["b/gone"]


# -- what could not be taken whole --------------------------------------------------------------


def test_i15_a_repository_that_did_not_come_in_whole_loses_nothing(target: Target, changed: Path) -> None:
    """And no repository goes, while what came in whole elsewhere is followed."""
    before = target.rows()
    blob_file(changed / "b/c", images.image("new").blobs[1]).write_bytes(b"damaged")
    report = target.mirror(changed)
    assert report.exit_code == 4
    assert {item["repository"] for item in actions(report, "drop")} == {"a"}
    assert [item["repository"] for item in actions(report, "keep")] == ["b/c", "b/gone"]
    assert "not all of" in actions(report, "keep")[0]["reason"]
    assert all(target.rows()[name] == before[name] for name in ("b/c", "b/gone"))
    assert report.summary["repositories_kept"] == 2


def test_what_a_row_calls_by_another_type_keeps_nothing(target: Target, changed: Path) -> None:
    """It is said, and came in all the same."""
    index = changed / "b/c" / "index.json"
    index.write_text(index.read_text().replace(OCI_MANIFEST, OCI_INDEX, 1))
    report = target.mirror(changed)
    assert (report.exit_code, kinds(report)) == (4, ["media_type_mismatch"])
    assert {item["repository"] for item in actions(report, "drop")} == {"a", "b/c", "b/gone"}
    assert target.mirror(changed).exit_code == 0


@pytest.mark.parametrize("what", ["link", "index", "name"])
def test_i15_no_repository_goes_after_an_error_of_the_walk(target: Target, changed: Path, what: str) -> None:
    if what == "link":
        (changed / "elsewhere").symlink_to(changed / "a")
    elif what == "index":
        (lay_out(changed, "broken", images.image("1")) / "index.json").write_text("{")
        os.utime(changed / "broken" / "index.json", (1, 1))
    else:
        lay_out(changed, "Bad Name", images.image("1"))
    report = target.mirror(changed)
    assert report.exit_code == 5 and ("a", "v2", image("2")) in dropped(report)
    assert [item["repository"] for item in actions(report, "keep")] == ["b/gone"]
    assert target.rows()["b/gone"]


def test_i15_a_tag_that_could_not_be_read_does_not_go(target: Target, tmp_path: Path) -> None:
    old = tmp_path / "old"
    push_old(old, "app", images.image("1"), "v1")
    push_old(old, "app", images.image("2"), "v2")
    target.mirror(old)
    (old / "docker/registry/v2/repositories/app/_manifests/tags/v2/current/link").write_text("")
    report = target.mirror(old)
    assert (report.exit_code, dropped(report)) == (5, set())
    assert ("v2", image("2")) in target.rows()["app"]


def test_i15_a_name_that_is_lost_on_the_way_costs_no_tag(target: Target, tmp_path: Path) -> None:
    """Two images have full names with one tag: here it was one of theirs."""
    one, two = images.image("1"), images.image("2")
    source = lay_out(tmp_path / "tree", "a", one, "v1").parent
    target.mirror(source)
    images.lay_out(source / "a", two, [images.row(one, "docker.io/x/a:v1"), images.row(two, "docker.io/y/a:v1")])
    report = target.mirror(source)
    assert report.exit_code == 5 and dropped(report) == set() and ("v1", str(one.digest)) in target.rows()["a"]


def registry_in(place: str, old: Path, from_place: list[Store]) -> str:
    """The storage of distribution, where a source of an import finds it."""
    if place == "directory":
        return str(old)
    from_place[:] = from_place or [Target("bucket").store]
    put_all(old, bucket_of(from_place[0].roots[0]).context.objects)
    return "s3://elsewhere"


# -- what happens meanwhile ---------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """When all of the source is in, and nothing went yet."""
    finish = Mirror.finish

    def later(self: Mirror) -> None:
        do()
        finish(self)

    monkeypatch.setattr(Mirror, "finish", later)


def test_i4_what_clients_push_meanwhile_stays(target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def push() -> None:
        store = target.another()
        push_image(store, "a", "v2", seed="pushed")  # a tag that was to go
        push_image(store, "a", "kept", seed="untagged")  # a manifest that was to go
        push_index(store, "a", "new", children=[image("child")])  # needs one that was to go
        push_image(store, "b/gone", "new", seed="new")
        store.close()

    meanwhile(monkeypatch, push)
    report = target.mirror(changed)
    assert report.exit_code == 0
    rows = target.rows()
    assert {("v2", image("pushed")), ("kept", image("untagged")), (None, image("child"))} <= rows["a"]
    assert rows["b/gone"] == {("new", image("new"))} and "repositories_removed" not in report.summary
    assert ("a", None, image("child")) not in dropped(report) and ("a", None, image("2")) in dropped(report)


def test_i5_nothing_goes_while_a_row_that_stays_can_not_be_read(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may need what was to go."""

    def damage() -> None:
        store = target.another()
        digest = push_image(store, "a", "damaged", seed="damaged")
        store.close()
        target.write(keys.blob("a", digest), b"damaged")

    meanwhile(monkeypatch, damage)
    report = target.mirror(changed)
    assert report.exit_code == 4 and kinds(report) == ["digest_mismatch"]
    assert "nothing is removed from a" in report.findings[0].reason
    assert {name for name, _, _ in dropped(report)} == {"b/c"}, "and no repository goes"
    assert ("v2", image("2")) in target.rows()["a"] and target.rows()["b/gone"]


def test_a_damaged_manifest_that_goes_keeps_nothing(target: Target, changed: Path) -> None:
    target.write(keys.blob("a", image("2")), b"damaged")
    report = target.mirror(changed)
    assert report.exit_code == 0 and target.rows() == rows_of(store_of(changed))


def test_a_repository_that_is_back_in_the_source_stays(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, lambda: lay_out(changed, "b/gone", images.image("gone"), "v1"))
    report = target.mirror(changed)
    (kept,) = actions(report, "keep")
    assert (report.exit_code, kept["repository"]) == (0, "b/gone") and "has it again" in kept["reason"]
    assert target.rows()["b/gone"]


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_a_repository_that_is_back_in_a_registry_stays(
    target: Target, tmp_path: Path, from_place: list[Store], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    old = tmp_path / "old"
    push_old(old, "app", images.image("1"), "v1")
    push_image(target.store, "back", "v1")
    source = registry_in(place, old, from_place)

    def push() -> None:
        push_old(old, "back", images.image("1"), "v1")
        registry_in(place, old, from_place)

    meanwhile(monkeypatch, push)
    assert [item["repository"] for item in actions(target.mirror(source), "keep")] == ["back"]
    assert target.rows().keys() == {"app", "back"}


def test_a_layout_without_its_mark_is_not_taken_for_gone(target: Target, changed: Path) -> None:
    (lay_out(changed, "b/gone", images.image("gone"), "v1") / "oci-layout").unlink()
    assert [item["repository"] for item in actions(target.mirror(changed), "keep")] == ["b/gone"]
    assert target.rows()["b/gone"]


# -- what is not mounted ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["source", "source/below/it"])
def test_an_empty_source_is_refused(target: Target, tmp_path: Path, place: str) -> None:
    push_image(target.store, "own", "v1")
    (tmp_path / "source").mkdir()
    report = target.mirror(tmp_path / place)
    assert report.exit_code == 10 and "is it mounted?" in report.errors[0]["reason"]
    assert f"{tmp_path}/source is empty" in report.errors[0]["reason"]
    assert target.rows().keys() == {"own"}


@pytest.mark.parametrize("what", ["other files", "registry"])
def test_a_source_without_layouts_is_refused(target: Target, tmp_path: Path, what: str) -> None:
    push_image(target.store, "own", "v1")
    base = tmp_path / "source" / ("docker/registry/v2" if what == "registry" else "")
    for folder in ("repositories", "blobs"):
        (base / folder).mkdir(parents=True)
    report = target.mirror(tmp_path / "source")
    assert report.exit_code == 10 and target.rows().keys() == {"own"}


@pytest.mark.parametrize("place", ["b/gone", "b", "other"])
def test_an_empty_directory_in_the_source_may_be_a_mount_point(target: Target, source: Path, place: str) -> None:
    """Of the file system that has the repositories below it, so that none goes, here or elsewhere."""
    push_image(store_of(source), "c", "v1")
    target.mirror(source)
    for name in ("c", "b" if place == "b" else "b/gone"):
        shutil.rmtree(source / name)
    (source / place).mkdir()
    report = target.mirror(source)
    if place == "other":
        assert report.exit_code == 0 and target.rows().keys() == {"a", "b/c"}
        return
    assert report.exit_code == 5 and dropped(report) == set()
    assert f"{source}/{place}, which is empty" in report.errors[0]["reason"]
    assert target.rows().keys() == {"a", "b/c", "b/gone", "c"}


def test_a_source_that_goes_away_empties_nothing(
    target: Target, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Leaving(str(changed), "nothing yet", empty=True)
    names = ["a", "b/c", "d"]

    def in_directory(*_: object, **__: object) -> tuple[Driver, list[str]]:
        return driver, names

    def leave() -> None:
        driver.gone = True

    monkeypatch.setattr(job, "in_directory", in_directory)
    meanwhile(monkeypatch, leave)
    report = target.mirror(changed)
    assert report.exit_code == 14 and "is away" in report.errors[0]["reason"] and dropped(report) == set()
    assert ("v2", image("2")) in target.rows()["a"] and target.rows()["b/gone"]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"tag": "v1"}, {"move": True}])
def test_options_that_contradict_it(target: Target, source: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        ImportOptions(mirror=True, **options).check()
    assert target.mirror(source, **options).exit_code == 2 and target.rows() == {}


@pytest.mark.parametrize("pipe", [False, True])
def test_an_archive_is_refused(target: Target, source: Path, tmp_path: Path, pipe: bool) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(source))
    report = target.mirror("-" if pipe else path)
    assert report.exit_code == 2 and "unpack it" in report.errors[0]["reason"] and target.rows() == {}


def test_a_source_in_the_store_is_refused(tmp_path: Path) -> None:
    store = local_store(tmp_path / "store")
    push_image(store, "team/a", "v1")
    push_image(store, "own", "v1")
    (tmp_path / "link").symlink_to(tmp_path / "store" / "team")
    for source in (tmp_path / "store" / "team", tmp_path / "link"):
        report = run_import(store, source, mirror=True)
        assert report.exit_code == 2 and "lies in the store" in report.errors[0]["reason"]
    assert store.repositories() == ["own", "team/a"]


def test_a_source_in_the_store_by_another_path_is_not_removed(tmp_path: Path) -> None:
    """As a bind mount shows it: here the store does not say where it lies."""
    push_image(local_store(tmp_path / "store"), "team/a", "v1")
    driver = LocalDriver(str(tmp_path / "store"))
    driver.label = "/elsewhere"
    store: Store = store_over(driver)
    report = run_import(store, tmp_path / "store" / "team", mirror=True)
    assert report.exit_code == 5 and "by another path" in report.errors[0]["reason"]
    assert rows_of(store).keys() == {"a", "team/a"}


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_a_registry_that_keeps_its_tags_elsewhere_is_refused(
    target: Target, tmp_path: Path, from_place: list[Store], place: str
) -> None:
    old, tags = tmp_path / "old", tmp_path / "tags"
    made = images.image("1")
    push_old(old, "app", made)
    tags.write_text(f"app:v1 {made.digest}\n")
    source = registry_in(place, old, from_place)
    assert target.mirror(source, tags=str(tags)).exit_code == 0
    report = target.mirror(source)
    assert report.exit_code == 2 and "--tags FILE" in report.errors[0]["reason"]
    assert target.rows() == {"app": {("v1", str(made.digest))}}


# -- what is not ours to remove -----------------------------------------------------------------


def test_a_repository_that_is_a_link_is_not_emptied(source: Path, tmp_path: Path) -> None:
    store = local_store(tmp_path / "store")
    push_image(local_store(tmp_path / "other"), "x", "v1")
    (tmp_path / "store" / "linked").symlink_to(tmp_path / "other" / "x")
    report = run_import(store, source, mirror=True)
    assert report.exit_code == 5 and report.errors[0]["repository"] == "linked"
    assert "only read from here" in report.errors[0]["reason"]
    assert local_store(tmp_path / "other").repository("x").tags() == ["v1"]


def test_a_repository_with_an_unclear_row_is_not_removed(target: Target, changed: Path) -> None:
    """Nobody knows what such a row needs."""
    store = target.open()
    driver: Any = store.roots[0].driver
    document = json.loads(read(driver, "b/gone/index.json", 1 << 20))
    document["manifests"].append({"digest": "sha3:1", "size": 1, "annotations": {REF_NAME: "v9"}})
    target.write("b/gone/index.json", json.dumps(document).encode())
    report = target.mirror(changed)
    assert (report.exit_code, kinds(report)) == (4, ["invalid_manifest"])
    assert {tag for tag, _ in target.rows()["b/gone"]} == {"v1", "v2", None}


def test_a_manifest_that_lost_its_tag_here_gets_it_back(target: Target, source: Path) -> None:
    target.mirror(source)
    target.open().repository_for_push("a").delete_manifest("v2")
    assert target.mirror(source).exit_code == 0
    assert target.rows() == rows_of(store_of(source))
